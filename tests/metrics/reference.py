"""Metrics of two masks, by numpy and scipy alone, as slowly as their definitions say, and by SimpleITK."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree

from greenseg.data.cache import Slices
from greenseg.inference.subject import classes_back
from greenseg.metrics import volumes

Mask = np.ndarray


def dice_of(prediction: Mask, truth: Mask) -> float:
    """2 |P ∩ T| / (|P| + |T|), of sets of places."""
    one, other = ({tuple(place) for place in np.argwhere(mask)} for mask in (prediction, truth))
    return 2 * len(one & other) / (len(one) + len(other))


def hd95_of(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """The larger of the 95th percentiles of the distances from each point of a surface to the nearest of the other."""
    if not (prediction.any() and truth.any()):
        return float(np.linalg.norm(np.array(truth.shape) * spacing))
    one, other = (_surface(mask) * np.array(spacing) for mask in (prediction, truth))
    return float(max(np.percentile(cKDTree(b).query(a)[0], 95) for a, b in ((one, other), (other, one))))


def surfaces_of(prediction: Mask, truth: Mask, spacing: Sequence[float], tolerance: float) -> tuple[float, float]:
    """Average symmetric surface distance and surface Dice, by the distance between each two points."""
    one, other = (_surface(mask) * np.array(spacing) for mask in (prediction, truth))
    apart = np.linalg.norm(one[:, None] - other[None], axis=-1)
    nearest = [*apart.min(1), *apart.min(0)]
    return sum(nearest) / len(nearest), sum(distance <= tolerance for distance in nearest) / len(nearest)


def surfaces_by_itk(prediction: Mask, truth: Mask, spacing: Sequence[float], tolerance: float) -> tuple[float, float]:
    """The same by contours and distance maps of SimpleITK."""
    contours = []
    for mask in (prediction, truth):
        image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
        image.SetSpacing([float(mm) for mm in spacing[::-1]])
        contours.append(sitk.BinaryContour(image, False, 0.0, 1.0))
    nearest: list[float] = []
    for start, end in (contours, contours[::-1]):
        away = sitk.Abs(sitk.SignedMaurerDistanceMap(end, squaredDistance=False, useImageSpacing=True))
        nearest += sitk.GetArrayFromImage(away)[sitk.GetArrayFromImage(start) > 0].tolist()
    return float(np.mean(nearest)), float(np.mean(np.array(nearest) <= tolerance))


def _surface(mask: Mask) -> np.ndarray:
    """Places with a direct neighbour outside the mask."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inside)


def record_of(slices: Slices, predictions: Mask, epoch: int) -> dict[str, Any]:
    """The figures of a run whose network is sure of these class numbers: uint8 [validation slices, size, size]."""
    classes = len(slices.classes)
    numbers = [classes] if classes == 1 else range(classes + 1)
    sure = np.stack([predictions == number for number in numbers], 1).astype(np.float32)
    ends = np.cumsum([subject["slices"] for subject in slices.subjects("validation")])[:-1]
    return volumes.record_of(slices, np.split(sure, ends), epoch, classes_back)
