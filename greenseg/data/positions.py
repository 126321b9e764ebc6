"""Checks that the positions of slices form an evenly spaced volume."""

import math
from collections.abc import Callable, Sequence
from statistics import median_low

import numpy as np

from greenseg.data.listing import some

Positions = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SAME = 1e-4
"""Positions that differ by less are the same, in mm; even the smallest pixels are larger."""

TURNED = 1e-3
"""Largest difference between the direction cosines of the slices of a volume."""

_UNEVEN = 0.05  # largest relative difference of a distance from the usual one


_LEANING = 0.1  # degrees; largest deviation of the line through the slices from a right angle: rounding


def drift_problem(places: Positions, normal: Positions, names: Sequence[str]) -> str | None:
    """Why slices at these positions are sheared, as from a tilted gantry; or None.

    The largest offset of a slice from the line through the first one is the largest difference of a distance from the
    usual one.

    Args:
        places: position of the first pixel of each slice, in mm, [slice, 3], in any order.
        normal: direction across the slices, of any length.
        names: names of their files.
    """
    normal = normal / np.linalg.norm(normal)
    order = np.argsort(places @ normal, kind="stable")
    offset = places[order] - places[order[0]]
    along = offset @ normal
    beside = np.linalg.norm(offset - np.outer(along, normal), axis=1)
    allowed = _UNEVEN * along[-1] / max(len(along) - 1, 1) + math.tan(math.radians(_LEANING)) * along
    far = int((beside - allowed).argmax())
    if beside[far] <= allowed[far] or along[-1] <= SAME:
        return None
    angle = math.degrees(math.atan2(along[far], beside[far]))
    first, other = (names[int(order[n])] for n in (0, far))
    return (
        f"its slices are sheared, as from a tilted gantry: {first} and {other} are {beside[far]:.3g} mm apart along "
        f"their plane, and the line between them meets it at {angle:.4g}°, not at 90°; resample it to a rectangular "
        f"grid"
    )


def spacing_problem(
    at: Positions, names: Sequence[str], difference: Callable[[int, int], str] = lambda one, other: ""
) -> str | None:
    """A missing or duplicate slice, or uneven distances in a volume, as a message; or None.

    Args:
        at: positions along the slice axis, in mm, in any order.
        names: names of their files.
        difference: takes the indices of two slices at the same position and returns their difference; empty if unknown.
    """
    order = np.argsort(at, kind="stable")
    gaps = np.diff(at[order])
    if not (gaps > SAME).any():
        return (
            f"all {len(at)} slices are at the same position; a volume needs one per position" if len(at) > 1 else None
        )
    usual = median_low(gaps[gaps > SAME].tolist())
    pairs = [(int(order[n]), int(order[n + 1]), float(gap)) for n, gap in enumerate(gaps)]
    if twice := [(one, other) for one, other, gap in pairs if gap < _UNEVEN * usual]:
        one, other = twice[0]
        by = f" ({differs})" if (differs := difference(one, other)) else ""
        more = f", and so are {len(twice) - 1} more" if len(twice) > 1 else ""
        return (
            f"{names[one]} and {names[other]} are at the same position{by}{more}; a volume "
            f"needs one slice per position: keep one of them, or use a folder for each"
        )
    wide = [(one, other, gap) for one, other, gap in pairs if abs(gap / usual - 1) > _UNEVEN]
    if not wide:
        return None
    shown = some(
        [
            f"{gap:.4g} mm between {names[one]} (at {at[one]:.4g} mm) and {names[other]} (at {at[other]:.4g} mm)"
            for one, other, gap in wide
        ]
    )
    steps = [gap / usual for *_, gap in wide]
    if all(step > 1.5 and abs(step / round(step) - 1) < _UNEVEN for step in steps):
        lost = sum(round(step) - 1 for step in steps)
        fault = f"{lost} slice{'s are' if lost > 1 else ' is'} missing"
        return f"{fault}: {shown}, {usual:.4g} mm otherwise; copy it again, or keep the part before or after the gap"
    return f"slices are not evenly spaced: {shown}, {usual:.4g} mm otherwise; copy it again, or resample it"
