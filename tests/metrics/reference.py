"""Dice and HD95 of two masks, by numpy and scipy alone, as slowly as their definitions say."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

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


def _surface(mask: Mask) -> np.ndarray:
    """Places with a direct neighbour outside the mask."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inside)
