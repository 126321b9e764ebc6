"""Pictures of the worst volumes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.classes import IGNORED
from greenseg.data.montage import Picture
from greenseg.data.volume import read_behind
from greenseg.evaluation.evaluate import Evaluation, VolumeResult
from greenseg.evaluation.summary import ClassSummary
from greenseg.evaluation.volumes import MaskVolume, read_volumes


def worst_pictures(result: Evaluation, classes: Sequence[ClassSummary]) -> Iterator[Picture]:
    """For each class, a picture of each of its worst volumes: the slice where most pixels of the class differ.

    Raises:
        UserError: an image is unreadable, or has another grid than its mask.
    """
    for number, of_class in enumerate(classes, 1):
        for volume in of_class.worst:
            yield _picture(volume, number, result)


def _picture(volume: VolumeResult, number: int, result: Evaluation) -> Picture:
    # Read again, since all masks may not fit into memory.
    (masks,) = read_volumes(volume.pairs, result.classes)
    reference = masks.reference == number
    prediction = (masks.prediction == number) & (masks.reference != IGNORED)
    place = int((prediction != reference).sum((1, 2)).argmax())
    name = f"{result.classes.names[number - 1]} of {volume.name}"
    return Picture(name, _behind(masks, place), reference[place], prediction[place])


def _behind(masks: MaskVolume, place: int) -> np.ndarray[Any, Any]:
    """The slice of the image at this place of a volume, [y, x]; zeros without an image."""
    part, row = (place, 0) if len(masks.pairs) > 1 else (0, place)  # several files have one slice each
    pair = masks.pairs[part]
    if pair.image is None:
        return np.zeros(masks.reference.shape[1:])
    values: np.ndarray[Any, Any] = sitk.GetArrayFromImage(read_behind(pair.reference, pair.image)[:, :, row])
    return values
