"""Grouping and order of slice files, by their folders and the numbers in their names."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from greenseg.data.listing import natural

_NUMBER = re.compile(r"\d+")


def stacked(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files that form a volume, by their indices, in the order of their slice numbers.

    A group has the files of one folder whose names differ only in the slice number, and in other numbers that change
    whenever it does, such as the time or the position of the slice.
    """
    alike: dict[tuple[Path, str], list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        alike[path.parent, _NUMBER.sub("#", path.name)].append(place)
    stacks: list[list[int]] = []
    for places in alike.values():
        names = [paths[place].name for place in places]
        columns = list(zip(*(_NUMBER.findall(name) for name in names), strict=True))
        of_slice = slice_numbers(names)
        telling = [column for column in columns if not _follows(column, of_slice)]
        volumes: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number in sorted(range(len(names)), key=lambda n: (of_slice[n], natural(names[n]))):
            volumes[tuple(column[number] for column in telling)].append(places[number])
        stacks += volumes.values()
    return sorted(stacks, key=min)


def slice_numbers(names: Sequence[str]) -> list[int]:
    """The slice number in each name: the number after the word "slice", or the last one that varies; 0 if none does.

    Args:
        names: names that differ only in numbers.
    """
    columns = list(zip(*(_NUMBER.findall(name) for name in names), strict=True))
    varying = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    named = re.search(r"slice[_-]?(?=\d)", names[0], re.IGNORECASE)
    place = len(_NUMBER.findall(names[0][: named.start()])) if named else -1
    if place not in varying and varying:
        place = varying[-1]
    return [int(number) for number in columns[place]] if varying else [0] * len(names)


def _follows(column: Sequence[str], of_slice: Sequence[int]) -> bool:
    """Whether a number does not identify a volume: it is unique per file or per slice number."""
    values = len(set(column))
    return values == len(column) or values == len(set(of_slice)) == len(set(zip(column, of_slice, strict=True)))
