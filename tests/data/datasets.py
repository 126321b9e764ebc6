"""Small data sets with several classes and channels, in real files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.data import cache
from greenseg.settings import Settings

Array = np.ndarray[Any, Any]

TISSUES = ("eCSF", "grey matter", "white matter", "ventricles", "cerebellum", "deep grey matter", "brainstem")


def settings_for(data: Path, **changes: Any) -> Settings:
    return Settings.of({"data": str(data), "image_size": 32, "spacing": 2.0} | changes)


def prepare(data: Path, **changes: Any) -> cache.Slices:
    return cache.prepare(settings_for(data, **changes))


def labelled(labels: Sequence[int] = (1, 2, 3), kind: Any = np.uint8) -> Array:
    """A mask [4, 24, 24]: a column of 4×12 pixels for each label, side by side, in the two inner slices."""
    mask = np.zeros((4, 24, 24), kind)
    for place, label in enumerate(labels):
        mask[1:3, 6:18, place * 3 : place * 3 + 3] = label
    return mask


def grey(seed: int, kind: Any = np.float32) -> Array:
    return np.random.default_rng(seed).integers(1, 1000, (4, 24, 24)).astype(kind)


SPACING = (2, 2, 4)
"""Of columns, rows and slices, in mm."""


def write(path: Path, array: Array, spacing: tuple[float, ...] = SPACING, is_vector: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def write_bids(
    root: Path, masks: Mapping[str, Array], suffixes: Sequence[str] = ("T2w",), table: str | None = None
) -> Path:
    """A BIDS data set like FeTA: a reconstruction and a segmentation for each subject, and a dseg.tsv at its root."""
    for number, (name, mask) in enumerate(masks.items()):
        folder = root / f"sub-{name}" / "anat"
        for channel, suffix in enumerate(suffixes):
            write(folder / f"sub-{name}_rec-mial_{suffix}.nii.gz", grey(10 * number + channel))
        write(folder / f"sub-{name}_rec-mial_dseg.nii.gz", mask)
    if table is None:
        table = "index\tname\tabbreviation\n0\tbackground\tBG\n"
        table += "".join(f"{label}\t{name}\tx\n" for label, name in enumerate(TISSUES, 1))
    if table:
        (root / "dseg.tsv").write_text(table)
    return root


def write_nnunet(
    root: Path, masks: Mapping[str, Array], labels: Any, channels: Mapping[str, str] | None = None, **images: Array
) -> Path:
    """An nnU-Net data set; `images` has those that are not noise, by case and channel such as `a_0001`."""
    channels = channels or {"0": "T2"}
    for number, (case, mask) in enumerate(masks.items()):
        for channel in range(len(channels)):
            name = f"{case}_{channel:04}"
            write(root / "imagesTr" / f"{name}.nii.gz", images.get(name, grey(10 * number + channel)))
        write(root / "labelsTr" / f"{case}.nii.gz", mask)
    (root / "dataset.json").write_text(json.dumps({"channel_names": channels, "labels": labels}))
    return root


def write_csv(file: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file
