"""Volumes of a subject: their files, order, distances and problems."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Self

import numpy as np
import SimpleITK as sitk

from greenseg.data.numbering import slice_numbers, stacked
from greenseg.data.placement import slice_distance
from greenseg.data.positions import SAME, TURNED, Positions, drift_problem, spacing_problem
from greenseg.errors import UserError

_ALIKE = 5e-2  # largest relative difference between the distances in the headers of one volume
_AS_SAID = 1e-2  # largest relative difference between the distance by position and by header


@dataclass(frozen=True)
class Part:
    """One file of a subject, and its position.

    Attributes:
        path: path of the image.
        slices: number of its slices.
        distance: distance of its slices, in mm; None for a 2D image, which has none.
        origin: centre of its first pixel, in mm.
        normal: direction of the slice axis.
        constant: the value of all its pixels; None if they differ.
    """

    path: Path
    slices: int
    distance: float | None
    origin: tuple[float, ...]
    normal: tuple[float, ...]
    constant: float | None

    @classmethod
    def of(cls, path: Path, image: sitk.Image) -> Self:
        """The part for an image that was read from a file."""
        values = sitk.GetArrayViewFromImage(image)
        lowest, highest = float(values.min()), float(values.max())
        return cls(
            path,
            image.GetSize()[2],
            slice_distance(image),
            image.GetOrigin(),
            image.GetDirection()[2::3],
            lowest if lowest == highest else None,
        )


@dataclass(frozen=True)
class Volume:
    """A volume of a subject: one file with several slices, or several files with one slice each.

    Attributes:
        parts: indices of its files among the subject's files, in the order of the slices.
        slices: number of slices.
        distance: distance of its slices, in mm; None if unknown.
        note: note for the user; may be empty.
    """

    parts: tuple[int, ...]
    slices: int
    distance: float | None
    note: str = ""


def volumes(parts: Sequence[Part]) -> list[Volume]:
    """The volumes of a subject's files.

    Files with one slice each form a volume if they lie in one folder and their names differ only in the slice number.
    The positions in the headers decide their order, or if there are none, the numbers.

    Raises:
        UserError: slices of a volume are missing, duplicate, rotated or not evenly spaced, or all pixels of a volume
            are equal; lists all problems.
    """
    found, problems = [], list[str]()
    for stack in _stacks(parts):
        members = [parts[number] for number in stack]
        volume = Volume(tuple(stack), sum(member.slices for member in members), members[0].distance)
        if len(stack) > 1 and volume.distance is not None:
            at = np.array([member.origin for member in members]) @ np.array(members[0].normal)
            known = np.ptp(at) >= SAME  # else the headers have no positions
            volume, problem = _by_position(volume, members, at) if known else _by_number(volume, members)
            problems += [f"{members[0].path.parent}: {problem}"] if problem else []
        found.append(volume)
    for volume in found:
        values = {parts[number].constant for number in volume.parts}
        if (volume.slices > 1 or len(found) == 1) and len(values) == 1 and (value := values.pop()) is not None:
            where = parts[volume.parts[0]].path
            rest = f" in it and in the {volume.slices - 1} other slices" if len(volume.parts) > 1 else ""
            problems.append(f"{where}: every pixel{rest} is {value:g}; there is nothing to learn from it")
    if problems:
        raise UserError(problems)
    return found


def _stacks(parts: Sequence[Part]) -> list[list[int]]:
    """Groups of files, by their indices, in the order of the numbers in their names."""
    stacks = [[number] for number, part in enumerate(parts) if part.slices > 1]
    flat = [number for number, part in enumerate(parts) if part.slices == 1 and part.distance is None]
    for numbers in _by_distance(parts):
        stacks += [[numbers[place] for place in stack] for stack in stacked([parts[n].path for n in numbers])]
    return sorted([*stacks, *([flat] if flat else [])], key=min)


def _by_distance(parts: Sequence[Part]) -> list[list[int]]:
    """Files with a single slice, by their indices, grouped by the distance in their headers."""
    distances = {n: part.distance for n, part in enumerate(parts) if part.slices == 1 and part.distance is not None}
    groups: list[list[int]] = []
    least = -math.inf
    for number, distance in sorted(distances.items(), key=lambda item: item[1]):
        if distance > least * (1 + _ALIKE):
            groups.append([])
            least = distance
        groups[-1].append(number)
    return [sorted(group) for group in groups]


def _by_number(volume: Volume, members: Sequence[Part]) -> tuple[Volume, str | None]:
    """A volume in the order of the numbers in its files' names, and the problem with them, if any."""
    names = [member.path.name for member in members]
    steps = [after - before for before, after in pairwise(slice_numbers(names))]  # may be as long as in a UID
    least, widest = steps.index(min(steps)), steps.index(max(steps))
    if steps[least] == 0:
        return volume, f"{names[least]} and {names[least + 1]} have the same number, and their headers no positions"
    if steps[widest] == median_low(steps):
        return volume, None
    note = (
        f"{members[0].path.parent}: no slice between {names[widest]} and {names[widest + 1]}, and the headers have no "
        f"positions: HD95 treats them as neighbours"
    )
    return replace(volume, note=note), None


def _by_position(volume: Volume, members: Sequence[Part], at: Positions) -> tuple[Volume, str | None]:
    """A volume in the order of its slices' positions, in mm, and the problem with them, if any."""
    names = [member.path.name for member in members]
    normal, distance = members[0].normal, members[0].distance
    if turned := [m.path.name for m in members if np.abs(np.subtract(m.normal, normal)).max() > TURNED]:
        return volume, f"{turned[0]} is rotated against {names[0]}; the slices of a volume must be parallel"
    if problem := drift_problem(np.array([member.origin for member in members]), np.array(normal), names):
        return volume, problem
    order = np.argsort(at, kind="stable")
    if (np.diff(at) < 0).all():
        order = order[::-1]  # keep the order of their names
    mean = float(np.ptp(at)) / (len(at) - 1)
    differ = len({member.distance for member in members}) > 1
    if distance is None or differ or abs(mean / distance - 1) > _AS_SAID:
        distance = mean
    return replace(volume, parts=tuple(volume.parts[n] for n in order), distance=distance), spacing_problem(at, names)
