"""The figures of a run: its predictions against the masks of all volumes, each in its own pixels.

They can be compared between runs with different grids, and what a grid cuts off counts as missed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from greenseg.classes import IGNORED, Classes
from greenseg.data import native
from greenseg.data.cache import Slices
from greenseg.data.grid import BoolArray, ByteArray
from greenseg.metrics.overlap import scores_of_counts
from greenseg.metrics.surface import hausdorff_95, mean_of_defined

_ALIKE = 1e-2  # largest relative difference between the pixel sizes of the slices of one volume


@dataclass(frozen=True)
class NativeVolume:
    """A volume, or a file of it, in the pixels of its files.

    Attributes:
        prediction: predicted class numbers, uint8 [slices, rows, columns]; 0 is background.
        reference: the true ones, likewise, or `IGNORED`.
        spacing: of slices, rows and columns, in mm. The first is None if unknown: then there is no HD95.
        counts: whether its pixels count for Dice and IoU; if not, it only has an HD95.
    """

    prediction: ByteArray
    reference: ByteArray
    spacing: tuple[float | None, float, float]
    counts: bool = True


@dataclass(frozen=True)
class NativeSubject:
    """A subject with its volumes, which may be made one by one to save memory."""

    name: str
    volumes: Iterable[NativeVolume]


def scores_of(subjects: Iterable[NativeSubject], classes: Classes) -> dict[str, Any]:
    """Dice, IoU and HD95 of subjects, as fields of `greenseg.runs.record.Quality`, without `epoch`.

    Dice and IoU pool true positives, false positives and false negatives of all volumes of a subject, in mm², before
    the division; see `VolumeOverlap` for the means, and for what is left out. HD95 is the mean over the volumes of a
    subject, then over subjects, then over classes; see `hausdorff_95`. Pixels that are `IGNORED` count nowhere.

    Args:
        subjects: the subjects; each volume is used once.
        classes: the classes. A single class has no entry in `classes`.
    """
    names, counts = list[str](), list[np.ndarray[Any, np.dtype[np.float64]]]()
    distances: list[list[float | None]] = [[] for _ in classes.names]
    for subject in subjects:
        of_subject, found, unit = np.zeros((len(classes), 3)), [list[float]() for _ in classes.names], 0.0
        for volume in subject.volumes:
            distance, down, across = volume.spacing
            # In pixels of the first file: volumes with the same pixels have whole numbers, as on a grid.
            unit = unit or down * across
            predictions = np.where(volume.reference == IGNORED, 0, volume.prediction)
            for row, number in enumerate(range(1, len(classes) + 1)):
                predicted, truth = predictions == number, volume.reference == number
                if volume.counts:
                    of_subject[row] += np.multiply(_counts(predicted, truth), down * across / unit)
                if distance is not None:
                    found[row].append(hausdorff_95(predicted, truth, (distance, down, across)))
        names.append(subject.name)
        counts.append(of_subject)
        for of_class, values in zip(distances, found, strict=True):
            of_class.append(mean_of_defined(values))
    return _fields(names, torch.from_numpy(np.stack(counts)), distances, classes)


def _counts(predicted: BoolArray, truth: BoolArray) -> tuple[int, int, int]:
    """Numbers of pixels: true positives, false positives, false negatives."""
    both, all_predicted, all_true = (int(np.count_nonzero(m)) for m in (predicted & truth, predicted, truth))
    return both, all_predicted - both, all_true - both


def _fields(
    names: Sequence[str], counts: torch.Tensor, distances: Sequence[Sequence[float | None]], classes: Classes
) -> dict[str, Any]:
    """The fields, from [subjects, classes, 3] counts and the HD95 of each class and subject."""
    scores = scores_of_counts(counts)

    def by_subject(values: Iterable[float | None]) -> dict[str, float | None]:
        return {name: _finite(value) for name, value in zip(names, values, strict=True)}

    somewhere = (counts[:, :, 0] + counts[:, :, 2]).sum(0) > 0
    hd95 = [
        list(values) if here or len(classes) == 1 else [None] * len(names)
        for values, here in zip(distances, somewhere.tolist(), strict=True)
    ]
    means = [mean_of_defined(values) for values in hd95]
    fields = {
        "dice": _finite(float(scores["dice"])),
        "iou": _finite(float(scores["iou"])),
        "hd95": mean_of_defined(means),
        "volume_dice": by_subject(scores["volume_dice"].tolist()),
        "volume_iou": by_subject(scores["volume_iou"].tolist()),
        "volume_hd95": by_subject(mean_of_defined(values) for values in zip(*hd95, strict=True)),
    }
    if len(classes) == 1:
        return fields
    of_classes = zip(
        classes.names, scores["class_dice"].tolist(), scores["class_iou"].tolist(), scores["dice_of"].tolist(), means,
        hd95, strict=True,
    )  # fmt: skip
    return fields | {
        "classes": {
            name: {
                "dice": _finite(dice),
                "iou": _finite(iou),
                "volume_dice": by_subject(each),
                "hd95": mean,
                "volume_hd95": by_subject(apart),
            }
            for name, dice, iou, each, mean, apart in of_classes
        }
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


Back = Callable[[Any, tuple[int, int], tuple[float, float], float], ByteArray]
"""Brings predictions on the grid back: they, rows and columns, their distances, the grid's spacing → class numbers."""


def record_of(slices: Slices, predictions: Iterable[Any], epoch: int, back: Back) -> dict[str, Any]:
    """Fields of `Quality` for the predictions of an epoch, in the pixels of the files of the validation subjects.

    Files of one volume whose slices differ in size or in pixel size cannot be stacked. Such a volume has the HD95 of
    its slices on the training grid; its Dice and IoU are those of its files.

    Args:
        slices: slices of the data set.
        predictions: those of each validation subject on the grid, in the form that `back` takes: [slices, …].
        epoch: epoch of the predictions.
        back: brings them back to the pixels of a file.
    """
    return {"epoch": epoch} | scores_of(
        (
            NativeSubject(subject["name"], _volumes(slices, subject, of_subject, back))
            for subject, of_subject in zip(slices.subjects("validation"), predictions, strict=True)
        ),
        slices.classes,
    )


def _volumes(slices: Slices, subject: dict[str, Any], predictions: Any, back: Back) -> Iterator[NativeVolume]:
    """The volumes of a subject, from its predictions on the grid."""
    grid, start = float(slices.index["preprocessing"]["spacing"]), 0
    for volume, files in native.by_volume(subject):
        distance, rows = volume["distance"], slice(start, start := start + volume["slices"])
        shapes = [(file["rows"], file["columns"]) for file in files]
        stacked = distance is not None and stackable(shapes, [file["pixel"] for file in files])
        predicted = iter(_brought_back(slices, predictions[rows], files, grid, back))
        if stacked:
            pairs = list(predicted)
            prediction, reference = (np.concatenate(masks) for masks in zip(*pairs, strict=True))
            yield NativeVolume(prediction, reference, (distance, *files[0]["pixel"]))
            continue
        for (prediction, reference), file in zip(predicted, files, strict=True):
            yield NativeVolume(prediction, reference, (None, *file["pixel"]))
        if distance is not None:
            first = subject["first"]
            reference = slices.masks[first + rows.start : first + rows.stop]
            size = (reference.shape[1], reference.shape[2])
            yield NativeVolume(
                back(predictions[rows], size, (grid, grid), grid), reference, (distance, grid, grid), counts=False
            )


def stackable(shapes: Sequence[tuple[int, int]], pixels: Sequence[Sequence[float]]) -> bool:
    """Whether files with these rows and columns, and distances of rows and columns, form one array."""
    return len(set(shapes)) == 1 and np.allclose(pixels, pixels[0], rtol=_ALIKE, atol=0)


def _brought_back(
    slices: Slices, predictions: Any, files: Sequence[dict[str, Any]], spacing: float, back: Back
) -> Iterator[tuple[ByteArray, ByteArray]]:
    """Prediction and reference of each file of a volume, in its own pixels."""
    start = 0
    for file in files:
        reference = native.read(slices.native, file)
        on_grid = predictions[start : start + file["slices"]]
        start += file["slices"]
        shape, (down, across) = (file["rows"], file["columns"]), file["pixel"]
        yield back(on_grid, shape, (down, across), spacing), reference
