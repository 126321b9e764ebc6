"""Distances between the surfaces of prediction and truth, in mm."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from greenseg.data.cache import Slices

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def hausdorff_95(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """The larger of the two 95th percentiles of the distance from one surface to the other (as in MONAI and BraTS).

    The surface of a mask is the set of pixels that an erosion with a 6-neighbourhood (in one slice, a 4-neighbourhood)
    removes. Outside the array is background. Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x.

    Args:
        prediction: bool [slices, height, width].
        truth: likewise.
        spacing: of slices, rows and columns, in mm.

    Returns:
        Distance in mm. If one of the two is empty, the diagonal of the array, the largest possible distance; NaN if
        both are empty.
    """
    both = prediction | truth
    if not both.any():
        return math.nan
    if not (prediction.any() and truth.any()):
        return math.hypot(*(size * mm for size, mm in zip(both.shape, spacing, strict=True)))
    # The box around both contains both surfaces, so distances outside it are not needed.
    box = ndimage.find_objects(both.astype(np.uint8))[0]
    if len(both) == 1:  # each pixel of a single slice would be surface
        box, spacing = (0, *box[1:]), spacing[1:]
    one, other = (mask[box] ^ ndimage.binary_erosion(mask[box]) for mask in (prediction, truth))
    return max(_percentile_95(one, other, spacing), _percentile_95(other, one, spacing))


def _percentile_95(start: Mask, end: Mask, spacing: Sequence[float]) -> float:
    return float(np.percentile(ndimage.distance_transform_edt(~end, sampling=spacing)[start], 95))


def hausdorff_of_subjects(slices: Slices, predictions: Mask) -> dict[str, float | None]:
    """HD95 of every validation subject, in mm; the mean over its volumes if it has several.

    Args:
        slices: slices of the data set.
        predictions: bool [validation slices, height, width], in the order of the subjects.

    Returns:
        Subject → mm, or None if undefined: no foreground and no prediction, or 2D images, whose distance is unknown.
    """
    pixel = float(slices.index["preprocessing"]["spacing"])
    scores: dict[str, float | None] = {}
    start = 0
    for subject in slices.subjects("validation"):
        of_volumes = []
        first = subject["first"]
        for volume in subject["volumes"]:
            count, distance = volume["slices"], volume["distance"]
            truth = slices.masks[first : first + count] > 0
            if distance is not None:
                of_volumes.append(hausdorff_95(predictions[start : start + count], truth, (distance, pixel, pixel)))
            first, start = first + count, start + count
        scores[subject["name"]] = mean_of_defined(of_volumes)
    return scores


def mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are numbers; None if there are none."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(defined)) if defined else None


def record_of(slices: Slices, predictions: Mask, epoch: int) -> dict[str, Any]:
    """Entries for a run's record: `epoch` of the predictions, mean `hd95` over subjects, and their `volume_hd95`."""
    of_subjects = hausdorff_of_subjects(slices, predictions)
    return {"epoch": epoch, "hd95": mean_of_defined(list(of_subjects.values())), "volume_hd95": of_subjects}
