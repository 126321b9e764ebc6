"""Images whose values go below 0 keep their contrast; those of an MR scanner stay what they were."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data import cache
from greenseg.data.grid import normalise
from greenseg.data.intensity import floor_of, lifted
from greenseg.settings import Settings

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def head() -> Array:
    """A background of 0 around tissue of 100 to 1000."""
    values = np.zeros((6, 40, 40), np.float32)
    values[:, 8:32, 8:32] = np.random.default_rng(0).uniform(100, 1000, (6, 24, 24))
    return values


def lift(values: Array) -> Array:
    (image,) = lifted([sitk.GetImageFromArray(values)])
    return sitk.GetArrayFromImage(image)  # type: ignore[no-any-return]


def test_what_a_scanner_writes_stays_the_same() -> None:
    image = sitk.GetImageFromArray(head())
    assert lifted([image])[0] is image
    ringing = head() + np.random.default_rng(1).uniform(-20, 0, head().shape).astype(np.float32)
    image = sitk.GetImageFromArray(ringing)
    assert lifted([image])[0] is image, "slightly below 0: still background"


@pytest.mark.parametrize("scale", [(1.0, -2000.0), (1 / 300, -0.8), (1 / 300, -1.7), (2e-4, -1.0), (1.0, -150.0)])
def test_an_offset_below_0_changes_nothing(scale: tuple[float, float]) -> None:
    """An MR image minus 2000, a z-score of all its pixels, values from -1 to 1: the slices are those of the image."""
    factor, offset = scale
    np.testing.assert_allclose(
        normalise(lift(head() * np.float32(factor) + np.float32(offset))), normalise(head()), atol=2e-4
    )


def test_a_z_score_of_the_tissue_alone_keeps_its_background() -> None:
    values = head()
    tissue = values > 0
    values[tissue] = (values[tissue] - values[tissue].mean()) / values[tissue].std()
    made = normalise(lift(values))
    assert (made[~tissue] == 0).all()
    assert np.corrcoef(made[tissue], head()[tissue])[0, 1] > 0.999
    assert (made[tissue] > 0).mean() > 0.98


def test_subjects_are_lifted_as_a_whole() -> None:
    """Files of one subject share one scale: the floor is that of all of them."""
    dark, bright = head() - 2000, head() - 1500
    made = [sitk.GetArrayFromImage(image) for image in lifted([sitk.GetImageFromArray(v) for v in (dark, bright)])]
    np.testing.assert_allclose(made[1] - made[0], 500, atol=1e-3)


def test_a_few_outliers_decide_nothing() -> None:
    values = head()
    values[0, 0, :3] = -9999
    assert floor_of(values) == 0
    values = head() - 2000
    values[0, 0, :3] = 50
    assert floor_of(values) == -2000


def test_no_slices_of_zeros_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    mask = np.zeros((6, 40, 40), np.uint8)
    mask[2:4, 10:20, 10:20] = 1
    made = []
    for offset in (0, -2000):
        root = tmp_path / f"data{offset}"
        for kind, array in (("images", head() + offset), ("masks", mask)):
            (root / kind).mkdir(parents=True)
            for number in range(2):
                image = sitk.GetImageFromArray(array)
                image.SetSpacing((2, 2, 4))
                sitk.WriteImage(image, str(root / kind / f"s{number}.nii.gz"))
        made.append(cache.prepare(Settings.of({"data": str(root), "image_size": 96, "spacing": 1.5})).images)
    assert made[0].max() == 1
    np.testing.assert_allclose(made[0], made[1], atol=1e-5)
    assert made[1][0, 0, 0, 0] == 0, "what lies outside of the image is background"
