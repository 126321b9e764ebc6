"""Data sets with several classes and channels, from their files to a network that has learnt."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_train import only_run, record
from tests.conftest import Command
from tests.data.datasets import TISSUES, Array, write, write_csv

CASES = [f"case{number}" for number in range(6)]
IGNORED = 9


def mask_of(labels: Sequence[int], seed: int) -> Array:
    """A mask [8, 32, 32]: in each slice, a square of 10×10 pixels for each of two labels."""
    random = np.random.default_rng(seed)
    mask = np.zeros((8, 32, 32), np.uint8)
    for number, slice_ in enumerate(mask):
        for half in (0, 16):
            top, left = random.integers(1, 21), half + random.integers(1, 5)
            slice_[top : top + 10, left : left + 10] = labels[(2 * number + half // 16 + seed) % len(labels)]
    return mask


def image_of(mask: Array, bright: Sequence[float], seed: int) -> Array:
    """An image in which each label has its brightness, with some noise; what is not annotated is noise alone."""
    random = np.random.default_rng(1000 + seed)
    known = np.where(mask == IGNORED, 0, mask)
    noise = np.where(mask == IGNORED, random.random(mask.shape), random.normal(0, 0.02, mask.shape))
    values: Array = np.maximum(np.asarray([0.1, *bright])[known] + noise, 0).astype(np.float32) * 500
    return values


def bids(root: Path) -> Path:
    """Seven tissues, as in FeTA."""
    lines = [f"{label}\t{name}" for label, name in enumerate(("background", *TISSUES))]
    root.mkdir()
    (root / "dseg.tsv").write_text("\n".join(["index\tname", *lines]) + "\n")
    for seed, case in enumerate(CASES):
        mask = mask_of(range(1, 8), seed)
        stem = root / f"sub-{case}" / "anat" / f"sub-{case}"
        write(Path(f"{stem}_T2w.nii.gz"), image_of(mask, np.linspace(0.25, 1, 7).tolist(), seed))
        write(Path(f"{stem}_dseg.nii.gz"), mask)
    return root


def nnunet(root: Path) -> Path:
    """Three classes that only both channels tell apart, and a label that is not annotated."""
    labels = {"background": 0, "edema": 1, "core": 2, "rim": 3, "ignore": IGNORED}
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T2", "1": "FLAIR"}, "labels": labels}))
    for seed, case in enumerate(CASES):
        mask = mask_of((1, 2, 3, IGNORED), seed)
        for channel, bright in enumerate(((0.4, 0.4, 0.9), (0.4, 0.9, 0.4))):
            picture = image_of(mask, [*bright, *[0.0] * 6], 10 * seed + channel)
            write(root / "imagesTr" / f"{case}_{channel:04}.nii.gz", picture)
        write(root / "labelsTr" / f"{case}.nii.gz", mask)
    return root


def table(root: Path) -> Path:
    """Two channels in the columns of a CSV; the setting `labels` names the classes."""
    rows = []
    for seed, case in enumerate(CASES):
        mask = mask_of((1, 2, 3), seed)
        row = {"mask": write(root / f"{case}_mask.nii.gz", mask), "subject": case}
        for column, bright in (("image", (0.4, 0.4, 0.9)), ("image_2", (0.4, 0.9, 0.4))):
            row[column] = write(root / f"{case}_{column}.nii.gz", image_of(mask, bright, seed))
        rows.append(row)
    return write_csv(root / "cases.csv", rows)


@pytest.mark.parametrize(
    ("make", "options", "classes", "channels"),
    [
        (bids, [], {name: str(label) for label, name in enumerate(TISSUES, 1)}, 1),
        (nnunet, [], {"edema": "1", "core": "2", "rim": "3"}, 2),
        (table, ["--labels", "one=1,rest=2+3"], {"one": "1", "rest": "2+3"}, 2),
    ],
)
def test_a_network_learns_the_classes_of_each_layout(
    make: Callable[[Path], Path],
    options: list[str],
    classes: dict[str, str],
    channels: int,
    greenseg: Command,
    tmp_path: Path,
) -> None:
    done = greenseg(
        "train", "--data", make(tmp_path / "data"), *options, "--model", "mobilenetv3-tiny-unet", "--image-size", "32",
        "--spacing", "2", "--augment", "none", "--lr", "0.01", "--batch-size", "8", "--epochs", "40", "--accelerator",
        "cpu", "--validation-share", "0.3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = record(only_run(tmp_path / "runs"))
    assert (run["data"]["classes"], run["data"]["channels"]) == (classes, channels)
    of_classes = {name: scores["dice"] for name, scores in run["metrics"]["classes"].items()}
    assert list(of_classes) == list(classes)
    assert run["metrics"]["dice"] > 0.7, of_classes
    assert min(of_classes.values()) > 0.4, of_classes
