"""Whether slices that lie where they say make an evenly spaced volume."""

import math
from collections.abc import Callable, Sequence
from statistics import median_low

import numpy as np

from greenseg.data.listing import some

Positions = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SAME = 1e-4
"""Positions that differ by less are the same, in mm; the smallest pixels are larger."""

TURNED = 1e-3
"""By how much the direction cosines of the slices of a volume may differ."""

_UNEVEN = 0.05  # by what share a distance may differ from the usual one


_LEANING = 0.1  # degrees by which the line through the slices may lean from a right angle to them: rounding


def drift_problem(places: Positions, normal: Positions, names: Sequence[str]) -> str | None:
    """Why slices that lie at these places are no volume of right angles, as under a tilted gantry; or None.

    Each slice may lie as far beside the line through the first one as a distance may differ from the usual one.

    Args:
        places: of the first pixel of each slice, in mm, [slice, 3], in any order.
        normal: direction across the slices, of any length.
        names: of their files.
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
        f"its slices are sheared, as under a tilted gantry: {first} and {other} lie {beside[far]:.3g} mm apart along "
        f"their plane, and the line from one to the other meets it at {angle:.4g}°, not at 90°; resample it to a grid "
        f"of right angles"
    )


def spacing_problem(
    at: Positions, names: Sequence[str], difference: Callable[[int, int], str] = lambda one, other: ""
) -> str | None:
    """What is wrong with the positions of the slices of a volume: one is missing, or there twice; or None.

    Args:
        at: along the axis of the slices, in mm, in any order.
        names: of their files.
        difference: how two of them, by number, differ where they lie at the same place; empty = not known.
    """
    order = np.argsort(at, kind="stable")
    gaps = np.diff(at[order])
    if not (gaps > SAME).any():
        return f"all {len(at)} slices lie at the same place; a volume needs one a place" if len(at) > 1 else None
    usual = median_low(gaps[gaps > SAME].tolist())
    pairs = [(int(order[n]), int(order[n + 1]), float(gap)) for n, gap in enumerate(gaps)]
    if twice := [(one, other) for one, other, gap in pairs if gap < _UNEVEN * usual]:
        one, other = twice[0]
        by = f" ({differs})" if (differs := difference(one, other)) else ""
        more = f", and {len(twice) - 1} more do so" if len(twice) > 1 else ""
        return (
            f"{names[one]} and {names[other]} lie at the same place{by}{more}; a volume "
            f"needs one slice a place: keep one of both, or a folder for each"
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
        return f"{fault}: {shown}, {usual:.4g} mm else; copy it again, or keep the part before or after the gap"
    return f"slices are not evenly spaced: {shown}, {usual:.4g} mm else; copy it again, or resample it to one distance"
