"""The rules that divide subjects into training, validation and test: by name, by hash, by fold, or by a file."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from greenseg.data.assigned import Assigned
from greenseg.data.listing import Split, some
from greenseg.errors import UserError
from greenseg.settings import Settings


@dataclass(frozen=True)
class Rule:
    """The settings that divide subjects, with their names; see `greenseg.settings.fields`."""

    validation_share: float = 0.2
    split_seed: int = 0
    folds: int = 0
    fold: int = 0
    test_share: float = 0.0
    split_from: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The rule of a run."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def least(self) -> int:
        """Number of subjects that training and validation need."""
        return max(2, self.folds)


def divide(
    named: Mapping[str, Split | None], without_mask: Collection[str], rule: Rule, root: Path
) -> Mapping[str, Split]:
    """The split of each subject.

    A file of `split_from` decides alone. Otherwise, the test part comes first: the subjects that the data name, or
    those whose hash falls into `test_share`. Then the remaining subjects are divided as if they were all.

    Args:
        named: subjects with masks → the split that the data name, or None.
        without_mask: subjects that can only be predicted.
        rule: the rule.
        root: the data set.

    Raises:
        UserError: too few subjects, a split that is named for some only, or a rule that contradicts the data.
    """
    if rule.split_from:
        return Assigned.read(Path(rule.split_from)).of(named, without_mask, root)
    testing = {subject for subject, split in named.items() if split == "test"}
    if rule.test_share:
        testing = _held_out_for_test(named, testing, rule, root)
    rest = sorted(named.keys() - testing)
    _enough(len(rest), len(testing), rule, root)
    validating = _validating({subject: named[subject] for subject in rest}, rule, root)
    return {
        subject: "test" if subject in testing else "validation" if subject in validating else "train"
        for subject in named
    }


def _enough(number: int, testing: int, rule: Rule, root: Path) -> None:
    if number >= rule.least:
        return
    folds = rule.folds
    need = f"{folds} are needed for {folds} folds" if folds else "2 are needed, for training and for validation"
    count = "one subject only" if number == 1 else f"{number} subjects"
    raise UserError(f"{root}: {count}{' besides the test part' if testing else ''}; at least {need}")


def _validating(named: Mapping[str, Split | None], rule: Rule, root: Path) -> set[str]:
    """The subjects for validation.

    Args:
        named: the subjects outside the test part → the split that the data name, or None; sorted.
        rule: the rule.
        root: the data set.
    """
    subjects = list(named)
    if rule.folds:
        return _fold(subjects, rule.folds, rule.fold, rule.split_seed)
    if not any(named.values()):
        return _held_out(subjects, rule.validation_share, rule.split_seed)
    open_ones = [subject for subject in subjects if not named[subject]]
    if open_ones:
        raise UserError(f"{root}: a split is named for some subjects, but not for {some(open_ones)}; name all, or none")
    validating = {subject for subject in subjects if named[subject] == "validation"}
    if not validating or len(validating) == len(subjects):
        lacking = "training" if validating else "validation"
        raise UserError(f"{root}: no subject for {lacking}; name both splits, or none")
    return validating


def _held_out_for_test(named: Mapping[str, Split | None], testing: Collection[str], rule: Rule, root: Path) -> set[str]:
    """The subjects for `test_share`, by a hash that is independent of that for validation."""
    share = f"test_share {rule.test_share:g}"
    if testing:
        raise UserError(
            f"{root}: {share}, but the data set names a test part ({some(sorted(testing))}); set test_share to 0, or "
            f"name no test part"
        )
    if any(named.values()) and not rule.folds:
        raise UserError(
            f"{root}: {share}, but the data set names its splits; name the test part there, too (see docs/data.md), "
            f"redivide the subjects with --folds, or name all splits with --split-from"
        )
    if len(named) <= rule.least:
        need = f"{rule.folds + 1} are needed for {rule.folds} folds and" if rule.folds else "3 subjects are needed,"
        used = "" if rule.folds else " for training, for validation and"
        raise UserError(f"{root}: {len(named)} subject{'s' * (len(named) != 1)}; at least {need}{used} for {share}")
    place = {subject: _place(subject, rule.split_seed, "test/") for subject in named}
    return _first(place, rule.test_share, len(named) - rule.least)


def _place(subject: str, seed: int, purpose: str = "") -> float:
    """A subject's place in [0, 1), by hash."""
    text = f"{seed}/{subject}" if seed else subject
    return int(hashlib.sha256(f"{purpose}{text}".encode()).hexdigest()[:12], 16) / 16**12


def _first(place: Mapping[str, float], share: float, most: int) -> set[str]:
    """The subjects with a place below `share`: at least one, at most `most`."""
    ordered = sorted(place, key=lambda subject: (place[subject], subject))
    held_out = [subject for subject in ordered if place[subject] < share]
    return set((held_out or ordered[:1])[:most])


def _held_out(subjects: Iterable[str], share: float, seed: int) -> set[str]:
    place = {subject: _place(subject, seed) for subject in subjects}
    return _first(place, share, len(place) - 1)


def _fold(subjects: list[str], folds: int, fold: int, seed: int) -> set[str]:
    place = {s: _place(s, seed) for s in subjects}
    members: list[list[str]] = [[] for _ in range(folds)]
    for subject in sorted(subjects, key=place.__getitem__):
        members[int(place[subject] * folds)].append(subject)
    for empty in (m for m in members if not m):  # takes a subject from the fullest fold
        empty.append(max(members, key=len).pop())
    return set(members[fold])
