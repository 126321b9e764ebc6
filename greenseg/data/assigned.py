"""A CSV file that assigns the subjects of a data set to splits: the setting `split_from`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from greenseg.data.listing import Split, some
from greenseg.data.table import SPLITS, no_split, read_csv
from greenseg.errors import UserError, did_you_mean

_COLUMNS = ("subject", "split")


@dataclass
class Assigned:
    """The lines of such a file.

    Attributes:
        file: the file.
        split_of: subject → its split.
        line_of: subject → the first line that names it.
        problems: problems with the file itself.
    """

    file: Path
    split_of: dict[str, Split] = field(default_factory=dict)
    line_of: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the columns `subject` and `split`; others are ignored, so that the split.csv of a run will do."""
        found = cls(file)
        if not file.is_file():
            what = "is not a file" if file.exists() else "no such file"
            found.problems.append(f"{file}: {what}; --split-from needs a CSV file with the columns subject and split")
            return found
        columns, rows = read_csv(file, found.problems)
        if found.problems:
            return found
        for name in _COLUMNS:
            if columns.count(name) != 1:
                wrong = (
                    f"{columns.count(name)} columns '{name}'; keep one" if name in columns else f"no column '{name}'"
                )
                there = did_you_mean(name, [c for c in columns if c not in _COLUMNS])
                found.problems.append(f"{file}:1: {wrong}{there}; it needs the columns {' and '.join(_COLUMNS)}")
        if found.problems:
            return found
        places = [columns.index(name) for name in _COLUMNS]
        for number, cells in rows:
            if any(cell.strip() for cell in cells):
                subject, word = (cells[place].strip() if place < len(cells) else "" for place in places)
                found._add(number, subject, word)
        if not found.problems:
            found.problems += [
                f"{file}: no subject for {words}; name at least one"
                for split, words in (("train", "training"), ("validation", "validation"))
                if split not in found.split_of.values()
            ]
        return found

    def _add(self, number: int, subject: str, word: str) -> None:
        where = f"{self.file}:{number}"
        split = SPLITS.get(word.lower())
        if not subject:
            self.problems.append(f"{where}: names no subject")
        elif split is None:
            self.problems.append(f"{where}: {no_split(word)}")
            self.line_of.setdefault(subject, number)  # named, even so
        elif (earlier := self.split_of.get(subject, split)) != split:
            self.problems.append(
                f"{where}: subject '{subject}' is in two splits, {split} here and {earlier} in line "
                f"{self.line_of[subject]}; keep each subject in one split"
            )
        else:
            self.split_of[subject] = split
            self.line_of.setdefault(subject, number)

    def of(self, subjects: Collection[str], without_mask: Collection[str], root: Path) -> Mapping[str, Split]:
        """The split of each subject of a data set.

        Args:
            subjects: names of the subjects with masks.
            without_mask: names of those that can only be predicted; the file may name them `test`.
            root: the data set.

        Raises:
            UserError: problems of the file, unknown subjects, and subjects that it does not name; lists all.
        """
        problems = list(self.problems)
        lines = sorted(self.line_of.items(), key=lambda item: item[1])
        for subject, number in lines:
            if subject in subjects or (subject in without_mask and self.split_of.get(subject) == "test"):
                continue
            if subject in without_mask:
                problems.append(f"{self.file}:{number}: subject '{subject}' of {root} has no mask; it can only be test")
            else:
                hint = did_you_mean(subject, list(subjects)) or f"; its subjects are {some(sorted(subjects))}"
                problems.append(f"{self.file}:{number}: no subject '{subject}' in {root}{hint}")
        if lines and (missing := sorted(set(subjects) - self.line_of.keys())):
            problems.append(f"{self.file}: no line for {some(missing)} of {root}; name every subject")
        if problems:
            raise UserError(problems)
        return {subject: self.split_of[subject] for subject in subjects}
