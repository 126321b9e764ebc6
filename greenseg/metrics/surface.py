"""Distances between the surfaces of prediction and truth, in mm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Distances = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_ROUNDING = 1 + 1e-6  # NIfTI has spacings as float32: 20 pixels of 0.1 mm are 2.00000003 mm


@dataclass(frozen=True, slots=True)
class SurfaceScores:
    """The distances between two surfaces, as single numbers.

    Attributes:
        hd95: see `hausdorff_95`, in mm.
        assd: average symmetric surface distance, in mm.
        surface_dice: share of both surfaces within the tolerance of the other, from 0 to 1.
    """

    hd95: float
    assd: float
    surface_dice: float


def surface_scores(prediction: Mask, truth: Mask, spacing: Sequence[float], tolerance: float) -> SurfaceScores:
    """All metrics of surfaces, from one distance map per mask.

    S and T are the sets of surface pixels of prediction and truth (see `hausdorff_95`), and d the distance in mm from
    a pixel to the nearest pixel of the other surface:

    - ASSD = (Σ d over S + Σ d over T) / (|S| + |T|) (Heimann et al. 2009, doi:10.1109/TMI.2009.2013851).
    - Surface Dice = (number of S with d ≤ tolerance + number of T with d ≤ tolerance) / (|S| + |T|) (Nikolov et al.,
      arXiv:1809.04430). Nikolov et al. weight each element of the surface by its area; here, each surface pixel counts
      once, as in MONAI.

    Args:
        prediction: bool [slices, height, width].
        truth: likewise.
        spacing: of slices, rows and columns, in mm.
        tolerance: in mm.

    Returns:
        If one of the two masks is empty, both distances are the diagonal of the array, and surface Dice is 0. If both
        are empty, all are NaN.
    """
    farthest = _without_surface(prediction, truth, spacing)
    if farthest is not None:
        return SurfaceScores(farthest, farthest, math.nan if math.isnan(farthest) else 0.0)
    forth, back = _distances(prediction, truth, spacing)
    both = np.concatenate([forth, back])
    return SurfaceScores(_hd95(forth, back), float(both.mean()), float((both <= tolerance * _ROUNDING).mean()))


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
    farthest = _without_surface(prediction, truth, spacing)
    return _hd95(*_distances(prediction, truth, spacing)) if farthest is None else farthest


def _without_surface(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float | None:
    """The distance if a mask is empty: the diagonal of the array, or NaN if both are; None if neither is."""
    empty = (not prediction.any(), not truth.any())
    if all(empty):
        return math.nan
    return math.hypot(*(size * mm for size, mm in zip(truth.shape, spacing, strict=True))) if any(empty) else None


def _distances(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> tuple[Distances, Distances]:
    """From each surface pixel of the prediction to the surface of the truth, in mm, and the other way round."""
    # The box around both contains both surfaces, so distances outside it are not needed.
    box = ndimage.find_objects((prediction | truth).astype(np.uint8))[0]
    if len(truth) == 1:  # each pixel of a single slice would be surface
        box, spacing = (0, *box[1:]), spacing[1:]
    one, other = (mask[box] ^ ndimage.binary_erosion(mask[box]) for mask in (prediction, truth))
    return _to_nearest(one, other, spacing), _to_nearest(other, one, spacing)


def _to_nearest(start: Mask, end: Mask, spacing: Sequence[float]) -> Distances:
    distances: Distances = ndimage.distance_transform_edt(~end, sampling=spacing)[start]
    return distances


def _hd95(forth: Distances, back: Distances) -> float:
    return max(float(np.percentile(distances, 95)) for distances in (forth, back))


def mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are numbers; None if there are none."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(defined)) if defined else None
