"""What the header of an image, in any format, may say: one grey volume on a grid of right angles."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

_MOST_PIXELS = 1 << 31  # of a volume; a header that promises more is damaged
_PLAUSIBLE_MM = (1e-4, 1e4)  # spacings; what lies outside is no medical image
_ROUNDING = 0.1  # degrees between axes that are called a right angle
_UNIT = 1e-2  # by how much a direction may be longer or shorter than 1

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def problem_of_content(sizes: Sequence[int], components: int, is_complex: bool) -> str | None:
    """Why the pixels are not one grey volume, or None.

    Args:
        sizes: pixels along every axis.
        components: values a pixel.
        is_complex: whether these are complex numbers.
    """
    if not 0 < math.prod(sizes) <= _MOST_PIXELS or min(sizes) < 1:
        return f"its header gives impossible sizes {list(sizes)}"
    if components > 1:
        what = " (a colour image)" if components in (3, 4) else ""
        return f"{components} values a pixel{what}; a grey image is needed"
    if is_complex:
        return "complex values; their magnitude is needed"
    if len(sizes) < 2:
        return "one axis only; an image has two or three"
    if (volumes := math.prod(sizes[3:])) > 1:
        return f"{len(sizes)} dimensions, {volumes} volumes; one volume a file is needed"
    return None


def is_right(directions: Matrix) -> bool:
    """Whether the columns are of length 1 and at right angles, but for rounding."""
    product = directions.T @ directions
    return bool(np.abs(product - np.eye(len(product))).max() <= math.radians(_ROUNDING))


def problem_of_grid(spacing: Sequence[float], directions: Matrix) -> str | None:
    """Why the pixels lie on no grid that one can cut slices from, or None. Rounding is accepted.

    Args:
        spacing: of every axis, in mm.
        directions: of the axes; a column each, of length 1.
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
                f"grid of right angles, or take the shear out of the header where it is a mistake"
            )
    if (wrong_lengths := lengths[np.abs(lengths - 1) > _UNIT]).size:
        return f"its header gives a direction of length {wrong_lengths[0]:.4g}, not 1"
    return None
