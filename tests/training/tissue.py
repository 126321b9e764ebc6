"""Slices of three tissues in two channels, made by hand; as a program, one of two ranks that train on them."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.classes import IGNORED, Classes
from greenseg.data import cache, native
from greenseg.data.cache import Slices
from greenseg.energy import EnergyMeter
from greenseg.machine.cores import ranks
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.training.run import train

CLASSES = Classes(("csf", "grey_matter", "white 2%"), ((1,), (2,), (3, 4)))
_BRIGHT = np.array([[0, 0.3, 0.6, 0.6], [0, 0.1, 0.1, 0.8]], np.float32)  # class 3 shows in the second channel only


def tissue(settings: Settings, folder: Path, absent: int = 0, classes: Classes = CLASSES) -> Slices:
    """Slices for the subjects of a data set, two of which are for validation; the same for the same settings.

    Args:
        settings: settings whose data set gives the subjects.
        folder: where to write the files.
        absent: number of a class that no validation subject has.
        classes: the three classes, or a single one, which is then the third.
    """
    plain = cache.prepare(settings)
    slices, size, _ = plain.index["shape"]
    random = np.random.default_rng(0)
    masks = np.zeros((slices, size, size), np.uint8)
    for mask in masks:
        for number in (1, 2, 3):
            top, left = random.integers(0, size - 12, 2)
            mask[top : top + 12, left : left + 12] = number
    subjects = [dict(subject) for subject in plain.index["subjects"]]
    for place, subject in enumerate(subjects):
        subject |= {"split": "validation" if place >= len(subjects) - 2 else "train", "empty": []}
        if subject["split"] == "validation" and absent:
            own = masks[subject["first"] : subject["first"] + subject["slices"]]
            own[own == absent] = 0
    images = np.moveaxis(_BRIGHT[:, masks], 0, 1) + random.normal(0, 0.05, (slices, 2, size, size))
    if len(classes) == 1:
        masks //= 3
    masks[:, -3:] = IGNORED
    images[:, :, -3:] = random.random((slices, 2, 3, size))  # what counts here would be a nuisance
    folder.mkdir(parents=True, exist_ok=True)
    images.astype(np.float32).tofile(folder / "images.f32")
    masks.tofile(folder / "masks.u8")
    write_native(folder, masks, subjects, settings.spacing)
    index = plain.index | {"subjects": subjects, "channels": 2, "ignored": int((masks == IGNORED).sum())}
    return replace(plain, folder=folder, index=index, classes=classes)


def write_native(folder: Path, masks: np.ndarray, subjects: list[dict[str, Any]], spacing: float) -> None:
    """Write masks as those of files with the pixels of the grid, and add their entries to the subjects of an index."""
    content = b""
    for subject in subjects:
        first, files = subject["first"], []
        for volume in subject["volumes"]:
            files.append(sitk.GetImageFromArray(masks[first : (first := first + volume["slices"])]))
            files[-1].SetSpacing((spacing, spacing, volume["distance"] or 1))
        subject["native"], packed = native.packed(files, len(content))
        content += packed.tobytes()
    (folder / native.NATIVE).write_bytes(content)


def on(slices: Slices) -> Callable[[Settings], Slices]:
    """What stands for `cache.prepare` in a run on these slices."""
    return lambda settings: slices


def train_on(slices: Slices, settings: Settings, folder: Path, rank: int = 0) -> RunDirectory:
    run = RunDirectory(folder)
    if rank:
        run.wait_for_start(None, 60)
    else:
        run.create(settings)
    with pytest.MonkeyPatch.context() as patch, nullcontext() if rank else run.claim():
        patch.setattr(cache, "prepare", on(slices))
        train(run, settings, EnergyMeter(), rank)
    return run


if __name__ == "__main__":
    values: dict[str, Any] = json.loads(sys.argv[1])
    settings, (rank, _) = Settings.of(values), ranks(Settings.of(values))
    train_on(tissue(settings, Path(sys.argv[2]) / f"slices{rank}"), settings, Path(sys.argv[2]) / "run", rank)
