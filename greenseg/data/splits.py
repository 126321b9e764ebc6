"""The split into training and validation: by subject, never by slice."""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from greenseg.data.layout import look
from greenseg.data.listing import Listing, some
from greenseg.errors import UserError
from greenseg.settings import Layout, Settings

SPLIT_BY = ("data", "layout", "validation_share", "split_seed", "folds", "fold")
"""The settings that decide the split of the files into training and validation."""


@dataclass(frozen=True)
class Case:
    """One subject: its files, in the order of their names, and their split."""

    subject: str
    split: Literal["train", "validation"]
    files: tuple[tuple[Path, Path], ...]
    """Pairs of an image and its mask."""
    ignored: tuple[int, ...] = ()
    """Labels of its masks that mean "not annotated" and do not count as foreground."""


def scan(
    root: Path,
    validation_share: float = 0.2,
    *,
    layout: Layout = "auto",
    split_seed: int = 0,
    folds: int = 0,
    fold: int = 0,
) -> list[Case]:
    """The cases of a data set for training and validation.

    If the data set names a split, it applies. Otherwise, a subject is used for validation if the hash of its name and
    `split_seed` falls into the first `validation_share`. With `folds`, the hash assigns all subjects to this number of
    folds, regardless of the split that the data set names, and the subjects of `fold` are used for validation. Adding a
    subject moves no other, unless a split or a fold would be empty.

    Args:
        root: folder of the data set, or its CSV file.
        validation_share: share of the subjects for validation if the data set names no split.
        layout: layout of the data set.
        split_seed: seed of the hash.
        folds: number of cross-validation folds; 0 = no cross-validation.
        fold: fold for validation, counted from 0.

    Raises:
        UserError: missing folders, images without mask, masks without image, a subject in two splits, too few subjects;
            lists all problems.
    """
    return cases(look(root, layout), root, validation_share, split_seed, folds, fold)


def cases_of(settings: Settings, root: Path) -> list[Case]:
    """The cases for these settings; raises like `scan`."""
    return scan(
        root,
        settings.validation_share,
        layout=settings.layout,
        split_seed=settings.split_seed,
        folds=settings.folds,
        fold=settings.fold,
    )


def cases(listing: Listing, root: Path, share: float, seed: int, folds: int, fold: int) -> list[Case]:
    """Like `scan`, for a data set that is already listed."""
    if listing.problems:
        raise UserError(listing.problems)
    files: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    named: dict[str, str | None] = {}
    ignored: dict[str, set[int]] = defaultdict(set)
    for entry in listing.entries:
        if entry.split != "test" and entry.mask is not None:
            files[entry.subject].append((entry.image, entry.mask))
            named[entry.subject] = entry.split
            ignored[entry.subject].update(entry.ignored)
    subjects = sorted(files)
    if len(subjects) < max(2, folds):
        need = f"{folds} are needed for {folds} folds" if folds else "2 are needed, for training and for validation"
        count = "one subject only" if len(subjects) == 1 else f"{len(subjects)} subjects"
        raise UserError(f"{root}: {count}; at least {need}")
    if folds:
        validating = _fold(subjects, folds, fold, seed)
    elif any(named.values()):
        open_ones = [subject for subject in subjects if not named[subject]]
        if open_ones:
            raise UserError(
                f"{root}: a split is named for some subjects, but not for {some(open_ones)}; name all, or none"
            )
        validating = {subject for subject in subjects if named[subject] == "validation"}
        if not validating or len(validating) == len(subjects):
            lacking = "training" if validating else "validation"
            raise UserError(f"{root}: no subject for {lacking}; name both splits, or none")
    else:
        validating = _held_out(subjects, share, seed)
    ordered = sorted(subjects, key=lambda subject: (subject in validating, subject))
    return [
        Case(s, "validation" if s in validating else "train", tuple(files[s]), tuple(sorted(ignored[s])))
        for s in ordered
    ]


def refuse_ignored(cases: Iterable[Case], labels: Iterable[int], root: Path) -> None:
    """Refuse training labels that mean "not annotated" in the data set.

    Raises:
        UserError: there are such labels.
    """
    both = sorted({label for case in cases for label in case.ignored} & set(labels))
    if both:
        shown = ", ".join(map(str, both))
        raise UserError(f"{root}: label {shown} is 'ignore' in this data set (not annotated); remove it from --labels")


def split_csv(cases: Iterable[Case]) -> str:
    """The split as a CSV file, which is a data set itself: `--data split.csv` trains on the same split."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    cases = list(cases)
    with_ignored = any(case.ignored for case in cases)
    writer.writerow(("image", "mask", "subject", "split", *(["ignore"] if with_ignored else [])))
    for case in cases:
        ignored = [" ".join(map(str, case.ignored))] if with_ignored else []
        writer.writerows((i.absolute(), m.absolute(), case.subject, case.split, *ignored) for i, m in case.files)
    return text.getvalue()


def _place(subject: str, seed: int) -> float:
    """A subject's place in [0, 1), by hash."""
    text = f"{seed}/{subject}" if seed else subject
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def _held_out(subjects: list[str], share: float, seed: int) -> set[str]:
    place = {s: _place(s, seed) for s in subjects}
    ordered = sorted(subjects, key=place.__getitem__)
    held_out = [s for s in ordered if place[s] < share]
    # Neither split may be empty.
    return set((held_out or ordered[:1])[: len(ordered) - 1])


def _fold(subjects: list[str], folds: int, fold: int, seed: int) -> set[str]:
    place = {s: _place(s, seed) for s in subjects}
    members: list[list[str]] = [[] for _ in range(folds)]
    for subject in sorted(subjects, key=place.__getitem__):
        members[int(place[subject] * folds)].append(subject)
    for empty in (m for m in members if not m):  # takes a subject from the fullest fold
        empty.append(max(members, key=len).pop())
    return set(members[fold])
