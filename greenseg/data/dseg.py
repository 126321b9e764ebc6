"""Tables of labels in BIDS (`dseg.tsv`): the names of the classes of segmentations.

https://bids-specification.readthedocs.io/en/stable/derivatives/imaging.html#common-image-derived-labels
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from greenseg.classes import Classes
from greenseg.data.listing import Listing
from greenseg.data.named import named, remedy

_TABLE = "dseg.tsv"
_EXAMPLE = "csf", [1]


def name_classes(masks: Iterable[tuple[Path, Path]], found: Listing) -> None:
    """Set the classes that the tables of these masks name.

    Args:
        masks: each mask, with the root of its data set (or of its derivatives).
        found: the listing; problems of the tables are added to its `class_problems`.
    """
    tables_in: dict[Path, list[Path]] = {}
    table_of = {mask: _table_of(mask, root, tables_in) for mask, root in masks}
    read: dict[Path, Classes | None] = {}
    for table in dict.fromkeys(table for table in table_of.values() if table):
        try:
            read[table] = named(_classes(table))
        except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
            found.class_problems.append(f"{table}: {error}; {remedy(*_EXAMPLE)}")
    first = next(iter(read), None)
    if other := next((table for table in read if first and read[table] != read[first]), None):
        found.class_problems.append(f"{other}: names other classes than {first}; {remedy(*_EXAMPLE)}")
    elif first and read[first]:
        found.classes = read[first]
        if other := next((mask for mask, table in table_of.items() if not table), None):
            found.class_problems.append(
                f"{other}: no {_TABLE} names its classes, but {first} those of other masks; {remedy(*_EXAMPLE)}"
            )


def _table_of(mask: Path, root: Path, tables_in: dict[Path, list[Path]]) -> Path | None:
    """The nearest table that applies to a mask: in its folder or above it, with no entity that the mask lacks.

    `tables_in` keeps the tables of each folder, since a folder may have thousands of masks.
    """
    *entities, suffix = mask.name.partition(".")[0].split("_")
    if suffix != "dseg":
        return None
    for folder in (mask.parent, *mask.parent.parents):
        if folder not in tables_in:
            tables_in[folder] = sorted(folder.glob(f"*{_TABLE}"))
        fitting = [
            table
            for table in tables_in[folder]
            if re.fullmatch(rf"(.*_)?{re.escape(_TABLE)}", table.name)
            and set(table.name.split("_")[:-1]) <= {*entities}
        ]
        if fitting:
            return max(fitting, key=lambda table: table.name.count("_"))
        if folder == root:
            break
    return None


def _classes(table: Path) -> list[tuple[str, list[int]]]:
    """Name and label of each line, without the background.

    Raises:
        ValueError: a column is missing, or a line has no label or no name.
    """
    with table.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, delimiter="\t")
        columns = [str(name).strip() for name in reader.fieldnames or ()]
        if lacking := [name for name in ("index", "name") if name not in columns]:
            raise ValueError(f"line 1: no column '{lacking[0]}', or columns are not separated by tabs")
        reader.fieldnames = columns
        classes = []
        for row in reader:
            index, name = (str(row[column] or "").strip() for column in ("index", "name"))
            if not re.fullmatch(r"\d{1,9}", index) or not name:
                raise ValueError(f"line {reader.line_num}: needs a label in column 'index' and a name in column 'name'")
            if int(index) > 0:  # 0 is background
                classes.append((name, [int(index)]))
    return classes
