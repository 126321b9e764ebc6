"""The CSV layout: a file with one line per image, which names all files."""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from greenseg.classes import Classes
from greenseg.data.listing import Entry, Listing, Split, stem_of, subject_of
from greenseg.errors import did_you_mean

CT, CLASSES = "ct_channels", "classes"
"""Columns that are the same in every line: numbers of the channels in Hounsfield units, from 1; and the classes."""

_COLUMNS = ("image", "mask", "subject", "split", "ignore")
SPLITS: dict[str, Split] = {split: split for split in get_args(Split)} | {"val": "validation"}
"""Word for a split → the split."""


def channel_column(number: int) -> str:
    """The column with the images of a channel, counted from 1."""
    return "image" if number == 1 else f"image_{number}"


def read_csv(file: Path, problems: list[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The columns of a CSV file, in lower case, and its lines with their numbers; adds a problem if unreadable."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            rows = [(reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{file}: not readable as CSV: {error}")
        return [], []
    return [name.strip().lower() for name in rows[0][1]] if rows else [], rows[1:]


def no_split(word: str) -> str:
    """The message for a word that is no split."""
    return f"split '{word}' is not valid{did_you_mean(word.lower(), list(SPLITS))}; valid: {', '.join(get_args(Split))}"


def list_csv(file: Path, found: Listing) -> None:
    """List the lines of a CSV file, with the wanted channels, by default all."""
    columns, rows = read_csv(file, found.problems)
    if found.problems:
        return
    channels = _channels(file, columns, found)
    if found.problems:
        return
    if not rows:
        found.problems.append(f"{file}: no line below the column names")
    longer = [(number, len(cells)) for number, cells in rows if any(cell.strip() for cell in cells[len(columns) :])]
    if longer:
        found.problems += [
            f"{file}:{number}: {count} cells, but {len(columns)} columns; put a cell with commas in quotes"
            for number, count in longer
        ]
        return
    lines = [
        (f"{file}:{number}", defaultdict(str, zip(columns, map(str.strip, cells), strict=False)))
        for number, cells in rows
        if any(cell.strip() for cell in cells)
    ]
    ct = _ct_channels(lines, channels, found)
    _set_classes(lines, found)
    for where, row in lines:
        if entry := _entry(file.parent, where, row, channels, ct, found):
            found.entries.append(entry)


def _channels(file: Path, columns: Sequence[str], found: Listing) -> list[str]:
    """The wanted columns of images, in order; checks the names of all columns."""
    for needed in ("image", "mask"):
        if needed not in columns:
            found.problems.append(f"{file}:1: no column '{needed}'; columns: {', '.join(_COLUMNS)}")
    if found.problems and len(columns) == 1 and (other := re.search(r"[;\t|]", columns[0])):
        found.problems[:] = [f"{file}:1: columns are separated by {other[0]!r}; use commas"]
        return []
    numbers = sorted({int(name[6:]) for name in columns if re.fullmatch(r"image_([2-9]|[1-9]\d{1,3})", name)})
    images = [channel_column(number) for number in (1, *numbers)]
    known = {*_COLUMNS, *images, CT, CLASSES}
    for name in columns:
        hint = did_you_mean(name, [c for c in (*_COLUMNS, CT, CLASSES) if c not in columns])
        if further := re.fullmatch(r"(?:image|channel)s?[-_ ]?(\d+)", name):
            hint = f" (did you mean 'image_{further[1]}'?)"
        if name not in known and hint:
            found.problems.append(f"{file}:1: unknown column '{name}'{hint}")
    found.problems += [
        f"{file}:1: {columns.count(name)} columns '{name}'; keep one"
        for name in (*_COLUMNS, *images[1:], CT, CLASSES)
        if columns.count(name) > 1
    ]
    if numbers and numbers[-1] != len(images):
        lost = next(number for number in range(2, numbers[-1]) if number not in numbers)
        found.problems.append(
            f"{file}:1: column '{images[-1]}', but no '{channel_column(lost)}'; number them from 2 up"
        )
    found.problems += [
        f"{file}: channels: no column '{name}'{did_you_mean(name, images)}; columns of images: {', '.join(images)}"
        for name in found.wanted
        if name not in images
    ]
    found.channels = found.wanted or tuple(images)
    return list(found.channels)


def _constant(lines: Sequence[tuple[str, Mapping[str, str]]], column: str) -> tuple[str, str | None]:
    """The value of a column, and the place of a line with another value or None."""
    value = lines[0][1].get(column, "") if lines else ""
    return value, next((where for where, row in lines if row.get(column, "") != value), None)


def _ct_channels(
    lines: Sequence[tuple[str, Mapping[str, str]]], channels: Sequence[str], found: Listing
) -> tuple[int, ...]:
    """Indices of the channels in Hounsfield units."""
    value, other = _constant(lines, CT)
    if other or not re.fullmatch(r"([1-9]\d{0,3}\s*)*", value):
        found.problems.append(
            f"{other or lines[0][0]}: {CT} must have the numbers of the CT channels, from 1, the same in every line"
        )
        return ()
    columns = {channel_column(int(number)) for number in value.split()}
    if lacking := sorted(name for name in columns if lines and name not in lines[0][1]):
        found.problems.append(f"{lines[0][0]}: {CT} {value}: there is no column '{lacking[0]}'")
    return tuple(place for place, name in enumerate(channels) if name in columns)


def _set_classes(lines: Sequence[tuple[str, Mapping[str, str]]], found: Listing) -> None:
    value, other = _constant(lines, CLASSES)
    example = 'it must name several classes, in quotes, the same in every line, such as "csf=1,grey_matter=2"'
    try:
        classes = Classes.of(value)
        if other or (classes and len(classes) < 2):
            raise ValueError(example)
        found.classes = classes
    except ValueError as error:
        found.class_problems.append(f"{other or lines[0][0]}: {CLASSES}: {error}; or set --labels")


def _entry(
    folder: Path, where: str, row: Mapping[str, str], channels: Sequence[str], ct: tuple[int, ...], found: Listing
) -> Entry | None:
    """The entry for a line; None if it has a problem."""
    if row["split"] and row["split"].lower() not in SPLITS:
        found.problems.append(f"{where}: {no_split(row['split'])}, or empty")
        return None
    if not re.fullmatch(r"([1-9]\d*\s*)*", row["ignore"]):
        found.problems.append(f"{where}: ignore '{row['ignore']}' is not valid; valid: labels above 0, such as 2 3")
        return None
    split = SPLITS.get(row["split"].lower())
    image, *more = (folder / row[name] for name in channels)
    mask = folder / row["mask"] if row["mask"] else None
    gone = [f"{where}: {path}: no such file" for path in (image, mask, *more) if path and not path.exists()]
    if unnamed := [name for name in channels if not row[name]]:
        gone = [f"{where}: names no {name}" for name in unnamed]
    elif mask is None and split != "test":
        gone.append(f"{where}: image without mask")
    elif mask is not None and mask.resolve() in [path.resolve() for path in (image, *more)]:
        gone.append(f"{where}: {mask}: is the image itself, not its mask")
    found.problems += gone
    if gone:
        return None
    stem = stem_of(image) or image.stem
    ignored = tuple(map(int, row["ignore"].split()))
    return Entry(image, mask, row["subject"] or subject_of(stem), split, where, ignored, tuple(more), ct)
