"""The phantom with tissues and channels."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data import splits
from greenseg.data.phantom import CONTRASTS, TISSUES, draw, write_phantom
from greenseg.errors import UserError
from greenseg.settings import Settings


def values(image: sitk.Image) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(image))


def test_tissues_and_channels_have_the_nnunet_layout_and_the_same_bytes_for_a_seed(tmp_path: Path) -> None:
    written = write_phantom(tmp_path / "a", 2, seed=3, tissues=True, channels=["FMRI", "DWI"])
    assert [path.name for path in written] == [f"case000{case}_000{c}.nii.gz" for case in (0, 1) for c in (0, 1)]
    write_phantom(tmp_path / "b", 2, seed=3, tissues=True, channels=["FMRI", "DWI"])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)

    description = json.loads((tmp_path / "a" / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "FMRI", "1": "DWI"}
    assert list(description["labels"]) == ["background", *TISSUES]
    first, second, mask = (
        sitk.ReadImage(str(tmp_path / "a" / name))
        for name in ("imagesTr/case0000_0000.nii.gz", "imagesTr/case0000_0001.nii.gz", "labelsTr/case0000.nii.gz")
    )
    assert first.GetSize() == second.GetSize() == mask.GetSize()
    assert first.GetDirection() == second.GetDirection() == mask.GetDirection()
    assert set(np.unique(values(mask))) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("options", [{}, {"tissues": True}])
def test_test_volumes_come_on_top(options: dict[str, bool], tmp_path: Path) -> None:
    write_phantom(tmp_path / "a", 2, seed=3, **options)  # type: ignore[arg-type]
    write_phantom(tmp_path / "b", 2, seed=3, test=2, **options)  # type: ignore[arg-type]
    files = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*.*"))]
    more = {path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.*")} - set(files)
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert {str(path.parent) for path in more} == (
        {"imagesTs", "labelsTs"} if options else {"test_data/images", "test_data/masks"}
    )
    assert len(more) == 4
    settings = Settings.of({"data": str(tmp_path / "b")})
    assert len(splits.test_cases_of(settings, tmp_path / "b")) == 2
    assert len(splits.cases_of(settings, tmp_path / "b")) == 2


def test_neither_tissues_nor_further_channels_change_the_volume() -> None:
    alone = draw([CONTRASTS["FMRI"]], 1, 0)
    both = draw([CONTRASTS["FMRI"], CONTRASTS["T2W"]], 1, 0)
    assert np.array_equal(values(alone.images[0]), values(both.images[0]))
    assert np.array_equal(values(alone.mask), values(both.tissues) > 0)


def test_an_unknown_contrast_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"T1W.*valid: DWI, FMRI, T2W"):
        write_phantom(tmp_path / "x", 2, seed=0, channels=["T1W"])
    assert not (tmp_path / "x").exists()
