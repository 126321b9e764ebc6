"""From files to batches: reading, resampling, normalising, caching, dealing out."""

import filecmp
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.data import cache as slice_cache
from greenseg.data.grid import normalise, to_grid
from greenseg.data.loader import NOBODY, SliceDataset, TrainingBatches, ValidationBatches, loader
from greenseg.data.phantom import write_phantom
from greenseg.data.volume import read, read_case
from greenseg.errors import UserError
from greenseg.settings import Settings
from tests import warm


def small(data: Path, **changes: object) -> Settings:
    return Settings.of({"data": str(data), "image_size": 32, "spacing": 8.0} | changes)


def image(array: np.ndarray, spacing: tuple[float, ...]) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing)
    return made


# ── the phantom


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_phantom(tmp_path / name, 3, seed=seed)
    files = [str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.nii.gz")]
    assert len(files) == 6
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[0] == []


def test_the_phantom_has_what_makes_real_data_hard(phantom: Path) -> None:
    pairs = [
        read_case([p], Path(str(p).replace("images", "masks").replace(".nii", "_mask.nii")))
        for p in phantom.rglob("images/*")
    ]
    assert len({scan.GetSize()[0] for (scan,), _ in pairs}) == 3, "mixed sizes"
    assert len({scan.GetDirection() for (scan,), _ in pairs}) == len(pairs), "any direction"
    brain = [sitk.GetArrayFromImage(mask).any((1, 2)) for _, mask in pairs]
    assert any(not slices.all() for slices in brain), "slices without brain"
    assert all(slices.any() for slices in brain)


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        write_phantom(tmp_path, 3, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


# ── volumes


@pytest.mark.parametrize(
    ("shape", "spacing", "slices"),  # array order: z, y, x; spacing order: x, y, z
    [
        ((5, 8, 8), (1.0, 1.0, 4.0), 5),
        ((8, 8, 5), (4.0, 1.0, 1.0), 5),
        ((8, 5, 8), (1.0, 4.0, 1.0), 5),
        ((6, 8, 8), (2.0, 2.0, 2.0), 6),
        ((1, 8, 8), (1.0, 1.0, 1.0), 1),
        ((8, 1, 8), (1.0, 1.0, 1.0), 1),
    ],
)
def test_the_slice_axis_comes_last(
    shape: tuple[int, ...], spacing: tuple[float, ...], slices: int, tmp_path: Path
) -> None:
    sitk.WriteImage(image(np.zeros(shape, np.float32), spacing), str(tmp_path / "v.nii.gz"))
    assert read(tmp_path / "v.nii.gz").GetSize() == (8, 8, slices)


def test_a_2d_image_is_one_slice(tmp_path: Path) -> None:
    sitk.WriteImage(image(np.ones((8, 6), np.uint8), (1.0, 1.0)), str(tmp_path / "v.nrrd"))
    assert read(tmp_path / "v.nrrd").GetSize() == (6, 8, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((2, 2, 3, 4), np.float32), "4 dimensions"), (np.zeros((3, 4, 5, 3), np.float32), "values per pixel")],
)
def test_what_is_not_grey_slices_is_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    made = sitk.GetImageFromArray(array, isVector="values" in message)
    sitk.WriteImage(made, str(tmp_path / "v.nii.gz"))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "v.nii.gz")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    array = np.zeros((2, 4, 4), np.float32)
    sitk.WriteImage(image(array.astype(np.uint8), (1, 1, 1)), str(tmp_path / "m.nrrd"))
    array[0, 0, 0] = np.nan
    sitk.WriteImage(image(array, (1, 1, 1)), str(tmp_path / "i.nrrd"))
    with pytest.raises(UserError, match="not finite"):
        read_case([tmp_path / "i.nrrd"], tmp_path / "m.nrrd")


@pytest.mark.parametrize(("pixels", "spacing"), [(128, 2.0), (256, 1.0), (100, 2.56), (64, 4.0)])
def test_a_disc_keeps_its_place_and_size_on_any_grid(pixels: int, spacing: float) -> None:
    mm = (np.arange(pixels) - (pixels - 1) / 2) * spacing
    disc = ((mm[None, :] - 20) ** 2 + (mm[:, None] + 30) ** 2 < 40**2).astype(np.float32)
    grid = to_grid(image(disc[None], (spacing, spacing, 3.0)), 128, 2.0)[0] >= 0.5
    assert grid.sum() * 4 == pytest.approx(np.pi * 40**2, rel=0.03)
    y, x = np.argwhere(grid).mean(0) * 2 - 127
    assert (x, y) == pytest.approx((20, -30), abs=0.5)


def test_intensities_have_one_scale_whatever_the_scanner() -> None:
    tissue = np.random.default_rng(0).uniform(10, 100, (4, 16, 16)).astype(np.float32)
    tissue[:, :4] = 0
    scaled = normalise(tissue)
    np.testing.assert_allclose(normalise(tissue * 37.5), scaled, rtol=1e-5)
    assert scaled.dtype == np.float32
    assert (scaled[:, :4] == 0).all()
    assert scaled.max() == 1
    assert not normalise(np.zeros((2, 4, 4), np.float32)).any()


# ── the cache


def test_files_are_read_once_and_a_change_is_noticed(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    subprocess.run(["cp", "-r", phantom, data], check=True)
    read_files: list[int] = []

    def prepare(**changes: object) -> slice_cache.Slices:
        read_files.clear()
        return slice_cache.prepare(
            small(data, **({"spacing": 7.5} | changes)), progress=lambda done, total: read_files.append(total)
        )

    first = prepare()
    assert read_files == [5] * 5
    assert first.images.dtype == np.float32
    assert first.masks.dtype == np.uint8
    number = sum(s["slices"] for s in first.index["subjects"])
    assert (first.images.shape, first.masks.shape) == ((number, 1, 32, 32), (number, 32, 32))
    assert [subject["split"] for subject in first.index["subjects"]].count("validation") == 1
    assert prepare().folder == first.folder
    assert not read_files, "the second time nothing is read"
    prepare(spacing=4.25)
    assert read_files, "another grid, other slices"
    path = next((data / "training_data" / "images").iterdir())
    path.write_bytes(path.read_bytes())
    assert prepare().folder == first.folder, "the same content, written again"
    assert not read_files
    sitk.WriteImage(sitk.ReadImage(str(path)) * 2 + 1, str(path))
    prepare()
    assert read_files, "another content"


def test_several_processes_prepare_the_same_data_at_once(phantom: Path, cache: Path) -> None:
    code = "import sys, json; from greenseg.settings import Settings; from greenseg.data import cache\n"
    code += "print(cache.prepare(Settings.of(json.loads(sys.argv[1]))).images.sum())"
    wanted = json.dumps({"data": str(phantom), "image_size": 64, "spacing": 4.5})
    racing = [warm.Popen([sys.executable, "-c", code, wanted], stdout=-1, text=True) for _ in range(3)]
    sums = {process.communicate(timeout=600)[0] for process in racing}
    assert [process.returncode for process in racing] == [0, 0, 0]
    assert len(sums) == 1
    assert not list((cache / "slices").glob(".*")), "no unfinished folder is left"


# ── batches


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_training_batches_cover_every_slice_on_equally_busy_ranks(
    length: int, size: int, ranks: int, epoch: int
) -> None:
    dealt = []
    for rank in range(ranks):
        batches = TrainingBatches(length, size, seed=3, rank=rank, ranks=ranks)
        batches.set_epoch(epoch)
        got = list(batches)
        assert got == list(batches), "the same epoch has the same order"
        assert len(got) == len(batches)
        assert all(len(batch) > 1 for batch in got[:-1] if size > 1)
        dealt.append([i for batch in got for i in batch])
    assert len({len(mine) for mine in dealt}) == 1
    assert batches.slices == sum(map(len, dealt))
    missing = set(range(length)) - {i for mine in dealt for i in mine}
    assert len(missing) <= ranks, "only a last batch of a single slice is left out"


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_validation_batches_hold_every_slice_exactly_once(length: int, size: int, ranks: int) -> None:
    dealt = [list(ValidationBatches(length, size, rank, ranks)) for rank in range(ranks)]
    assert len({tuple(map(len, batches)) for batches in dealt}) == 1, "collectives need equal batches on all ranks"
    everything = [i for batches in dealt for batch in batches for i in batch if i != NOBODY]
    assert sorted(everything) == list(range(length))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_the_same_whatever_the_number_of_workers(workers: int, phantom: Path) -> None:
    slices = slice_cache.prepare(small(phantom))
    data = SliceDataset(slices, "train")
    batches = list(loader(data, TrainingBatches(len(data), 8, seed=0), workers, pin_memory=False))
    assert batches[0]["image"].shape == batches[0]["mask"].shape == (8, 1, 32, 32)
    order = [i for batch in TrainingBatches(len(data), 8, seed=0) for i in batch]
    subjects = np.concatenate([batch["subject"].numpy() for batch in batches])
    assert subjects.tolist() == [int(data[[i]]["subject"]) for i in order]
    names = {str(subject["name"]) for subject in slices.subjects("train")}
    assert names.isdisjoint(str(subject["name"]) for subject in slices.subjects("validation"))


# ── real data


def test_real_slices_of_a_subject_stay_together(e2mip: Path) -> None:
    slices = slice_cache.prepare(Settings.of({"data": str(e2mip)}))
    train, validation = (SliceDataset(slices, split) for split in ("train", "validation"))
    assert (len(train), len(train.subjects)) == (221, 7)
    assert (len(validation), len(validation.subjects)) == (66, 2)
    assert slices.images.shape == (287, 1, 128, 128)
    assert slices.masks.mean() > 0.01


def test_brain_that_the_grid_cuts_off_is_known(phantom: Path) -> None:
    tight = slice_cache.prepare(small(phantom, spacing=1.0))
    wide = slice_cache.prepare(small(phantom, spacing=8.0))
    assert any(subject["cut_off"] > 0.2 for subject in tight.index["subjects"])
    assert all(subject["cut_off"] == 0 for subject in wide.index["subjects"])
