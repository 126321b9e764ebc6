"""The figures of a run, in the pixels of the files: against definitions, and against those on the grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.classes import BINARY, IGNORED, Classes
from greenseg.data import cache
from greenseg.data.grid import mask_to_grid
from greenseg.metrics.overlap import VolumeOverlap
from greenseg.metrics.surface import hausdorff_95
from greenseg.metrics.volumes import NativeSubject, NativeVolume, scores_of
from greenseg.settings import Settings
from tests.data.datasets import write, write_csv
from tests.metrics.reference import dice_of, hd95_of, record_of

THREE = Classes(("one", "two", "three"), ((1,), (2,), (3,)))
Array = np.ndarray[Any, Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slices"


def disc(rows: int, columns: int, pixel: float, at: tuple[float, float] = (0, 0), radius: float = 20) -> Array:
    """A disc of a radius in mm, off the centre by mm: uint8 [rows, columns]."""
    y, x = ((np.arange(n) - (n - 1) / 2) * pixel for n in (rows, columns))
    return np.asarray(np.hypot((y - at[0])[:, None], x - at[1]) <= radius, np.uint8)


def data_set(root: Path, masks: Sequence[tuple[str, Array, tuple[float, float, float]]], **columns: str) -> Path:
    """A CSV of files: subject, mask [slices, rows, columns], and spacing of columns, rows and slices, in mm."""
    rows = []
    for number, (subject, mask, spacing) in enumerate(masks):
        image = np.asarray(np.random.default_rng(number).uniform(1, 9, mask.shape), np.float32)
        rows.append(
            {
                "image": write(root / f"i{number}.nii.gz", image, spacing),
                "mask": write(root / f"m{number}.nii.gz", mask, spacing), "subject": subject,
                "split": "validation" if subject.startswith("v") else "train", **columns,
            }
        )  # fmt: skip
    return write_csv(root / "cases.csv", rows)


def prepare(data: Path, **values: Any) -> cache.Slices:
    return cache.prepare(Settings.of({"data": str(data), "image_size": 64, "spacing": 2.0} | values))


def rows_of(slices: cache.Slices) -> list[int]:
    """The rows of the validation slices."""
    return [row for s in slices.subjects("validation") for row in range(s["first"], s["first"] + s["slices"])]


def on_grid(slices: cache.Slices, predictions: Array) -> dict[str, torch.Tensor]:
    """What an epoch says of these predictions."""
    subjects = slices.subjects("validation")
    metric = VolumeOverlap([s["name"] for s in subjects], len(slices.classes), slices.has_ignored)
    subject = np.repeat(np.arange(len(subjects)), [s["slices"] for s in subjects])
    arrays = predictions[:, None], slices.masks[rows_of(slices)][:, None], subject
    metric.update(*map(torch.from_numpy, arrays))
    return metric.compute()


# ── scores of given masks


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_every_class_has_the_scores_of_its_own_masks(seed: int, hidden: bool) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = (rng.integers(0, 4, (9, 8, 8)).astype(np.uint8) for _ in range(2))
    truth[truth == 2] = 0  # nobody has class 2
    for masks in (truth, prediction):
        masks[5:][masks[5:] == 3] = 0  # nor "b" class 3
    if hidden:
        truth[:, 2:4] = IGNORED
    parts = {"a": (slice(5), 3.0), "b": (slice(5, 9), 1.0)}
    found = scores_of(
        [NativeSubject(n, [NativeVolume(prediction[r], truth[r], (mm, 2, 2))]) for n, (r, mm) in parts.items()], THREE
    )
    each: dict[tuple[str, int], tuple[float, float]] = {}
    for name, (rows, mm) in parts.items():
        for number in (1, 3):
            mine, true = (prediction[rows] == number) & (truth[rows] != IGNORED), truth[rows] == number
            if mine.any() or true.any():
                each[name, number] = dice_of(mine, true), hd95_of(mine, true, (mm, 2, 2))
    nowhere = {"a": None, "b": None}
    assert found["classes"]["two"] == {
        "dice": None, "iou": None, "volume_dice": nowhere, "hd95": None, "volume_hd95": nowhere
    }  # fmt: skip
    for number, name in ((1, "one"), (3, "three")):
        for place, score in enumerate(("dice", "hd95")):
            of = {subject: values[place] for (subject, n), values in each.items() if n == number}
            of_class = found["classes"][name]
            assert of_class[f"volume_{score}"] == pytest.approx({"a": None, "b": None} | of)
            assert of_class[score] == pytest.approx(np.mean(list(of.values())))
    for score in ("dice", "iou", "hd95"):
        assert found[score] == pytest.approx(np.mean([found["classes"][name][score] for name in ("one", "three")]))
    assert found["volume_dice"]["b"] == found["classes"]["one"]["volume_dice"]["b"]


def test_volumes_of_a_subject_are_pooled_by_their_area_and_their_distances_are_means() -> None:
    rng = np.random.default_rng(0)
    fine, coarse, flat = (rng.integers(0, 2, (2, 3, 8, 8)).astype(np.uint8) for _ in range(3))
    volumes = [
        NativeVolume(fine[0], fine[1], (4.0, 0.5, 0.5)), NativeVolume(coarse[0], coarse[1], (1.0, 2.0, 1.0)),
        NativeVolume(flat[0], flat[1], (None, 1.0, 1.0)),
    ]  # fmt: skip
    found = scores_of([NativeSubject("s", volumes), NativeSubject("nothing", [])], BINARY)
    areas = [(fine, 0.25), (coarse, 2.0), (flat, 1.0)]
    both = sum(mm2 * (masks[0] & masks[1]).sum() for masks, mm2 in areas)
    all_pixels = sum(mm2 * masks.sum() for masks, mm2 in areas)
    assert found["volume_dice"] == {"s": pytest.approx(2 * both / all_pixels), "nothing": None}
    assert found["dice"] == pytest.approx(2 * both / all_pixels)
    assert found["volume_iou"]["s"] == pytest.approx(both / (all_pixels - both))
    apart = [hausdorff_95(m[0] > 0, m[1] > 0, mm) for m, mm in ((fine, (4, 0.5, 0.5)), (coarse, (1, 2, 1)))]
    assert found["hd95"] == pytest.approx(np.mean(apart)), "2D images do not say how far apart they are"
    assert "classes" not in found


# ── brought back from the grid


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("hidden", [False, True])
def test_where_pixels_coincide_the_figures_are_exactly_those_of_the_epoch(
    classes: int, hidden: bool, home: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, classes + 1, (4, 40, 50)).astype(np.uint8) for _ in range(4)]
    for mask in masks:
        mask[:, :3] = 9 if hidden else 0
    names = ("t0", "v0", "v1", "v1")  # the last subject has two files
    files = [(name, mask, (2.0, 2.0, 3.0)) for name, mask in zip(names, masks, strict=True)]
    data = data_set(tmp_path, files, **({"ignore": "9"} if hidden else {}))
    labels = "one=1,two=2,three=3" if classes > 1 else "1"
    slices = prepare(data, labels=labels)
    assert slices.has_ignored == hidden
    predictions = rng.integers(0, classes + 1, (12, 64, 64)).astype(np.uint8)
    predictions[:, :12] = predictions[:, 52:] = predictions[:, :, :7] = predictions[:, :, 57:] = 0  # outside the files
    found, epoch = record_of(slices, predictions, 7), on_grid(slices, predictions)
    assert found["epoch"] == 7
    for score in ("dice", "iou"):
        assert found[score] == float(epoch[score])
        assert list(found[f"volume_{score}"].values()) == epoch[f"volume_{score}"].tolist()
    if classes > 1:
        assert [scores["dice"] for scores in found["classes"].values()] == epoch["class_dice"].tolist()
    truth, start, apart = slices.masks[rows_of(slices)], 0, []
    for files_of in (1, 2):
        each = []
        for _ in range(files_of):
            rows = slice(start, start := start + 4)
            mine, true = ((m[rows] == 1) & (truth[rows] != IGNORED) for m in (predictions, truth))
            each.append(hausdorff_95(mine, true, (3, 2, 2)))
        apart.append(np.mean(each))
    scores = found["classes"]["one"] if classes > 1 else found
    assert list(scores["volume_hd95"].values()) == pytest.approx(apart)


def test_grids_of_every_size_agree_in_what_they_say_of_the_same_prediction(home: Path, tmp_path: Path) -> None:
    """The Dice on the training grid of 4 mm was another one than that of 1 mm, of the same prediction."""
    mask = np.stack([disc(100, 90, 1.0, radius=r) for r in (12, 20, 16)])
    guess = np.stack([disc(100, 90, 1.0, (4, 2), r) for r in (12, 20, 16)])
    data = data_set(tmp_path, [(name, mask, (1.0, 1.0, 3.0)) for name in ("t", "v")])
    expected = dice_of(guess > 0, mask > 0)
    image = sitk.GetImageFromArray(guess)
    image.SetSpacing((1, 1, 3))
    for size, spacing, most in ((96, 1.0, 0), (64, 2.0, 0.01), (96, 1.4, 0.01), (32, 4.0, 0.02), (192, 0.5, 0)):
        slices = prepare(data, image_size=size, spacing=spacing)
        found = record_of(slices, mask_to_grid(image, size, spacing), 0)
        assert found["dice"] == pytest.approx(expected, abs=most + 1e-12), (size, spacing)
        assert found["hd95"] == pytest.approx(hausdorff_95(guess > 0, mask > 0, (3, 1, 1)), abs=spacing)


def test_brain_that_the_grid_cuts_off_is_missed(home: Path, tmp_path: Path) -> None:
    """A perfect prediction had a Dice of 1, although half of the brain lay outside its square."""
    mask = np.stack([disc(100, 100, 1.0, (0, 40), 15)] * 3)
    data = data_set(tmp_path, [(name, mask, (1.0, 1.0, 3.0)) for name in ("t", "v")])
    slices = prepare(data, image_size=64, spacing=1.0)
    predictions = slices.masks[rows_of(slices)]
    assert float(on_grid(slices, predictions)["dice"]) == 1
    kept = mask[:, :, 18:82].sum()
    assert record_of(slices, predictions, 0)["dice"] == pytest.approx(2 * kept / (kept + mask.sum()))


def test_slices_of_one_volume_that_differ_have_their_own_dice_and_the_distance_of_the_grid(
    home: Path, tmp_path: Path
) -> None:
    rows = []
    for z, columns in enumerate((60, 48, 60)):
        mask = disc(60, columns, 2.0)[None]
        for subject, split in (("t", "train"), ("v", "validation")):
            folder = tmp_path / subject
            image = write(folder / f"i_{z}.nii", mask * 5.0 + np.arange(columns), (2, 2, 3))
            reference = write(folder / f"m_{z}.nii", mask, (2, 2, 3))
            rows.append({"image": image, "mask": reference, "subject": subject, "split": split})
    slices = prepare(write_csv(tmp_path / "cases.csv", rows))
    (validated,) = slices.subjects("validation")
    assert [volume["slices"] for volume in validated["volumes"]] == [3], "one volume"
    predictions = np.roll(slices.masks[rows_of(slices)], 2, 1)
    found = record_of(slices, predictions, 0)
    truth = slices.masks[rows_of(slices)] > 0
    assert found["dice"] == pytest.approx(dice_of(predictions > 0, truth))
    assert found["hd95"] == pytest.approx(hausdorff_95(predictions > 0, truth, (3, 2, 2)))
