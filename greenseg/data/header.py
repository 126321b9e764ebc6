"""Valid headers of images, in any format: one grey volume on a rectangular grid."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

_MOST_PIXELS = 1 << 31  # of a volume; a larger number means a damaged header
_PLAUSIBLE_MM = (1e-4, 1e4)  # spacings of medical images
_ROUNDING = 0.1  # degrees; largest deviation from a right angle
_UNIT = 1e-2  # largest deviation of a direction's length from 1

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def problem_of_content(sizes: Sequence[int], components: int, is_complex: bool) -> str | None:
    """Why the pixels are not one grey volume, or None.

    Args:
        sizes: number of pixels along every axis.
        components: number of values per pixel.
        is_complex: whether they are complex numbers.
    """
    if not 0 < math.prod(sizes) <= _MOST_PIXELS or min(sizes) < 1:
        return f"its header gives impossible sizes {list(sizes)}"
    if problem := problem_of_components(components):
        return problem
    if is_complex:
        return "complex values; write their magnitude"
    if len(sizes) < 2:
        return "only one axis; an image has two or three"
    if (volumes := math.prod(sizes[3:])) > 1:
        return f"{len(sizes)} dimensions, {volumes} volumes; write one volume per file"
    return None


def problem_of_components(components: int) -> str | None:
    """Why pixels with several values are not grey, or None."""
    if components < 2:
        return None
    what = " (a colour image)" if components in (3, 4) else ""
    return f"{components} values per pixel{what}; convert it to a grey image, or write one file per channel"


def is_right(directions: Matrix) -> bool:
    """Whether the columns have length 1 and are at right angles, within rounding."""
    product = directions.T @ directions
    return bool(np.abs(product - np.eye(len(product))).max() <= math.radians(_ROUNDING))


def problem_of_grid(spacing: Sequence[float], directions: Matrix) -> str | None:
    """Why the pixels do not form a rectangular grid, or None. Rounding errors are accepted.

    Args:
        spacing: spacing along every axis, in mm.
        directions: directions of the axes, one column per axis, of length 1.
    """
    if wrong := [s for s in spacing if not _PLAUSIBLE_MM[0] <= s <= _PLAUSIBLE_MM[1]]:
        return f"its header gives a spacing of {wrong[0]:g} mm"
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(lengths).all() or lengths.min() == 0:
        return "its header gives directions that do not span a volume"
    for i, j in combinations(range(len(lengths)), 2):
        cosine = float(directions[:, i] @ directions[:, j] / lengths[i] / lengths[j])
        angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
        if abs(angle - 90) > _ROUNDING:
            return (
                f"its header is sheared: axes {i + 1} and {j + 1} meet at {angle:.4g}°, not at 90°; resample it to a "
                f"rectangular grid, or correct the header if the shear is a mistake"
            )
    if (wrong_lengths := lengths[np.abs(lengths - 1) > _UNIT]).size:
        return f"its header gives a direction of length {wrong_lengths[0]:.4g}, not 1"
    return None
