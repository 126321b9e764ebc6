"""Who trains and who validates: by subject, never by slice."""

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
"""The settings that decide which files train, and which validate."""


@dataclass(frozen=True)
class Case:
    """One subject: its files, in the order of their names, and the split that all of them are in."""

    subject: str
    split: Literal["train", "validation"]
    files: tuple[tuple[Path, Path], ...]
    """Pairs of an image and its mask."""
    ignored: tuple[int, ...] = ()
    """Labels of its masks that mean "not annotated", so that they are not brain."""


def scan(
    root: Path,
    validation_share: float = 0.2,
    *,
    layout: Layout = "auto",
    split_seed: int = 0,
    folds: int = 0,
    fold: int = 0,
) -> list[Case]:
    """The cases of a data set that train and validate.

    Where the data set names a split it holds. Else a subject validates if the hash of its name and `split_seed` falls
    into the first `validation_share`; with `folds`, all subjects are dealt to that many folds by the hash, whatever
    split the data set names, and those of `fold` validate. So adding a subject moves no other, unless a side or a fold
    would be empty.

    Args:
        root: folder of the data set, or its CSV file.
        validation_share: share of the subjects that validate, where the data names none.
        layout: of the data set.
        split_seed: of the hash.
        folds: of a cross-validation; 0 = none.
        fold: that validates, from 0.

    Raises:
        UserError: missing folders, images without mask, masks without image, a subject in two splits, too few
            subjects; all that was found.
    """
    return cases(look(root, layout), root, validation_share, split_seed, folds, fold)


def cases_of(settings: Settings, root: Path) -> list[Case]:
    """The cases that these settings train and validate on; raises as `scan` does."""
    return scan(
        root,
        settings.validation_share,
        layout=settings.layout,
        split_seed=settings.split_seed,
        folds=settings.folds,
        fold=settings.fold,
    )


def cases(listing: Listing, root: Path, share: float, seed: int, folds: int, fold: int) -> list[Case]:
    """See `scan`, for a data set that has been listed."""
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
        need = f"{folds} are needed for {folds} folds" if folds else "2 are needed, one to train and one to validate"
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
            raise UserError(f"{root}: nobody {'trains' if validating else 'validates'}; name both splits, or none")
    else:
        validating = _held_out(subjects, share, seed)
    ordered = sorted(subjects, key=lambda subject: (subject in validating, subject))
    return [
        Case(s, "validation" if s in validating else "train", tuple(files[s]), tuple(sorted(ignored[s])))
        for s in ordered
    ]


def refuse_ignored(cases: Iterable[Case], labels: Iterable[int], root: Path) -> None:
    """Refuse labels to train on that the data set says nobody annotated.

    Raises:
        UserError: there are some.
    """
    both = sorted({label for case in cases for label in case.ignored} & set(labels))
    if both:
        shown = ", ".join(map(str, both))
        raise UserError(f"{root}: its data set calls label {shown} 'ignore' (not annotated); leave it out of --labels")


def split_csv(cases: Iterable[Case]) -> str:
    """The split as a CSV file that is itself a data set: `--data split.csv` trains on the same one."""
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
    # Never nobody to validate, never nobody to train.
    return set((held_out or ordered[:1])[: len(ordered) - 1])


def _fold(subjects: list[str], folds: int, fold: int, seed: int) -> set[str]:
    place = {s: _place(s, seed) for s in subjects}
    members: list[list[str]] = [[] for _ in range(folds)]
    for subject in sorted(subjects, key=place.__getitem__):
        members[int(place[subject] * folds)].append(subject)
    for empty in (m for m in members if not m):  # takes one of the fullest fold
        empty.append(max(members, key=len).pop())
    return set(members[fold])
