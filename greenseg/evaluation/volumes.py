"""The volumes of a subject: masks read from their files, and compared class by class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from greenseg.classes import IGNORED, Classes
from greenseg.data.grid import ByteArray
from greenseg.data.stacks import Part, volumes
from greenseg.data.volume import class_numbers, labels_in, read_masks
from greenseg.errors import UserError
from greenseg.evaluation.pairs import Pair
from greenseg.metrics.agreement import Agreement

_EQUAL = 1e-2  # largest relative difference between the pixel sizes of the slices of one volume


@dataclass(frozen=True)
class MaskVolume:
    """The masks of a volume: one file with several slices, or several files with one slice each.

    Attributes:
        pairs: its files, in the order of the slices.
        prediction: number of the class of each pixel, 0 for background, uint8 [slices, height, width].
        reference: likewise, or `IGNORED`.
        spacing: of slices, rows and columns, in mm; None for 2D images, whose distance is unknown.
        note: note for the user; may be empty.
    """

    pairs: tuple[Pair, ...]
    prediction: ByteArray
    reference: ByteArray
    spacing: tuple[float, float, float] | None
    note: str = ""

    def agreements(self, classes: int, tolerance: float) -> tuple[Agreement, ...]:
        """The agreement of the masks for each class.

        Args:
            classes: number of classes.
            tolerance: of surface Dice, in mm.
        """
        annotated = self.reference != IGNORED
        mask = None if annotated.all() else annotated
        return tuple(
            Agreement.of(self.prediction == number, self.reference == number, self.spacing, tolerance, mask)
            for number in range(1, classes + 1)
        )


def labels_of(pair: Pair) -> tuple[set[int], set[int]]:
    """The labels above 0 of the prediction and of the reference, without the ignored ones.

    Raises:
        UserError: see `greenseg.data.volume.read_masks`.
    """
    reference, *prediction = read_masks(*pair.files)
    of_prediction = {label for mask in prediction for label in labels_in(mask)}
    return of_prediction - {*pair.ignored}, {*labels_in(reference)} - {*pair.ignored}


def read_volumes(pairs: Sequence[Pair], classes: Classes) -> list[MaskVolume]:
    """The volumes of a subject, in the grid of the reference files.

    Files with one slice each form a volume as in training, see `greenseg.data.stacks`.

    Raises:
        UserError: a file is unreadable, a prediction has another grid than its reference, or slices do not form a
            volume; lists all problems.
    """
    problems: list[str] = []
    parts: list[Part] = []
    masks: list[tuple[ByteArray, ByteArray]] = []
    pixels: list[tuple[float, float]] = []
    for pair in pairs:
        try:
            reference, *prediction = read_masks(*pair.files)
        except UserError as error:
            problems += error.problems
            continue
        truth = class_numbers(reference, classes, pair.ignored)
        # An ignored label in the prediction becomes `IGNORED`, too: no class has this number.
        predicted = class_numbers(prediction[0], classes, pair.ignored) if prediction else np.zeros_like(truth)
        masks.append((predicted, truth))
        across, down, _ = reference.GetSpacing()
        pixels.append((down, across))
        parts.append(replace(Part.of(pair.reference, reference), constant=None))  # a mask may be empty
    if problems:
        raise UserError(problems)
    found = []
    for volume in volumes(parts):
        members = [masks[number] for number in volume.parts]
        first = volume.parts[0]
        if problem := _misfit([truth for _, truth in members], [pixels[number] for number in volume.parts]):
            problems.append(f"{pairs[first].reference.parent}: {pairs[first].name}: {problem}")
            continue
        predicted, truth = (np.concatenate(arrays) for arrays in zip(*members, strict=True))
        spacing = None if volume.distance is None else (volume.distance, *pixels[first])
        found.append(MaskVolume(tuple(pairs[n] for n in volume.parts), predicted, truth, spacing, volume.note))
    if problems:
        raise UserError(problems)
    return found


def _misfit(masks: Sequence[ByteArray], pixels: Sequence[tuple[float, float]]) -> str | None:
    """Why slices in several files are not a volume, or None."""
    shapes = {mask.shape[1:] for mask in masks}
    if len(shapes) > 1:
        shown = ", ".join(sorted(f"{width}×{height}" for height, width in shapes))
        return f"the slices of one volume have different sizes: {shown}"
    if not np.allclose(pixels, pixels[0], rtol=_EQUAL, atol=0):
        return "the slices of one volume have different pixel sizes"
    return None
