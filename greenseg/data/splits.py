"""The split into training and validation: by subject, never by slice."""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

from greenseg.classes import BINARY, Classes
from greenseg.data.layout import look
from greenseg.data.listing import Listing, some
from greenseg.data.table import CLASSES, CT, channel_column
from greenseg.errors import UserError
from greenseg.settings import Layout, Settings

SPLIT_BY = ("data", "layout", "labels", "channels", "validation_share", "split_seed", "folds", "fold")
"""The settings that decide the files, their classes, and their split into training and validation."""


@dataclass(frozen=True)
class Case:
    """One subject: its files, in the order of their names, and their split."""

    subject: str
    split: Literal["train", "validation"]
    files: tuple[tuple[Path, Path], ...]
    """Pairs of an image and its mask."""
    ignored: tuple[int, ...] = ()
    """Labels of its masks that mean "not annotated"."""
    more: tuple[tuple[Path, ...], ...] = ()
    """For each pair, the images of its further channels; empty if there is one channel."""
    ct: tuple[int, ...] = ()
    """Indices of the channels in Hounsfield units."""
    classes: Classes | None = None
    """The classes that the data set names, if they apply: it names several, and the setting `labels` is empty."""

    @property
    def images(self) -> list[tuple[Path, ...]]:
        """For each pair, the images of all channels, in order."""
        return [(image, *more) for (image, _), more in zip(self.files, self.more or repeat(()), strict=False)]


def scan(
    root: Path,
    validation_share: float = 0.2,
    *,
    layout: Layout = "auto",
    labels: str = "",
    channels: str = "",
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
        labels: the setting; if it is empty, the data set may name classes.
        channels: the setting; empty = those of the layout.
        split_seed: seed of the hash.
        folds: number of cross-validation folds; 0 = no cross-validation.
        fold: fold for validation, counted from 0.

    Raises:
        UserError: missing folders, images without mask, masks without image, a subject in two splits, too few subjects,
            classes that do not fit together; lists all problems.
    """
    return cases(look(root, layout, channels), root, validation_share, split_seed, folds, fold, labels)


def cases_of(settings: Settings, root: Path) -> list[Case]:
    """The cases for these settings; raises like `scan`."""
    return scan(
        root,
        settings.validation_share,
        layout=settings.layout,
        labels=settings.labels,
        channels=settings.channels,
        split_seed=settings.split_seed,
        folds=settings.folds,
        fold=settings.fold,
    )


def classes_of(labels: str, cases: Sequence[Case]) -> Classes:
    """The classes to train: those of the setting `labels`, else those of the data set, else any label above 0."""
    return Classes.of(labels) or next((case.classes for case in cases if case.classes), BINARY)


def cases(listing: Listing, root: Path, share: float, seed: int, folds: int, fold: int, labels: str = "") -> list[Case]:
    """Like `scan`, for a data set that is already listed."""
    if problems := listing.problems + ([] if labels else listing.class_problems):
        raise UserError(problems)
    more: dict[str, list[tuple[Path, ...]]] = defaultdict(list)
    files: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    named: dict[str, str | None] = {}
    ignored: dict[str, set[int]] = defaultdict(set)
    for entry in listing.entries:
        if entry.split != "test" and entry.mask is not None:
            files[entry.subject].append((entry.image, entry.mask))
            more[entry.subject].append(entry.more)
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
    ct = next(iter(listing.entries)).ct
    return [
        Case(
            s,
            "validation" if s in validating else "train",
            tuple(files[s]),
            tuple(sorted(ignored[s])),
            tuple(more[s]) if any(more[s]) else (),
            ct,
            None if labels else listing.classes,
        )
        for s in ordered
    ]


def refuse_ignored(cases: Iterable[Case], classes: Classes, root: Path) -> None:
    """Refuse training labels that mean "not annotated" in the data set.

    Raises:
        UserError: there are such labels.
    """
    labels = {label for of_class in classes.labels for label in of_class}
    both = sorted({label for case in cases for label in case.ignored} & labels)
    if both:
        shown = ", ".join(map(str, both))
        raise UserError(f"{root}: label {shown} is 'ignore' in this data set (not annotated); remove it from --labels")


def split_csv(cases: Iterable[Case]) -> str:
    """The split as a CSV file, which is a data set itself: `--data split.csv` trains on the same split."""
    cases = list(cases)
    rows = []
    for case in cases:
        about = {
            "subject": case.subject,
            "split": case.split,
            "ignore": " ".join(map(str, case.ignored)),
            CT: " ".join(str(place + 1) for place in case.ct),
            CLASSES: str(case.classes or ""),
        }
        for (_, mask), images in zip(case.files, case.images, strict=True):
            columns = {channel_column(n): str(path.absolute()) for n, path in enumerate(images, 1)}
            rows.append({"image": "", "mask": str(mask.absolute())} | columns | about)
    channels = max((len(images) for case in cases for images in case.images), default=1)
    optional = [*map(channel_column, range(2, channels + 1)), "ignore", CT, CLASSES]
    used = [name for name in optional if any(row.get(name) for row in rows)]
    text = io.StringIO()
    always = ("image", "mask", "subject", "split")
    writer = csv.DictWriter(text, (*always, *used), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_split(file: Path) -> list[Case]:
    """The cases that `split_csv` wrote, without a look at their files.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is missing or damaged.
    """
    found: dict[tuple[str, str, str, str, str], list[tuple[Path, ...]]] = {}
    with file.open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            further = [row[name] for name in row if str(name).startswith("image_")]
            paths = tuple(Path(path) for path in (row["image"], row["mask"], *further))
            ignored, ct, classes = (row.get(name) or "" for name in ("ignore", CT, CLASSES))
            about = (row["subject"], row["split"], ignored, ct, classes)
            found.setdefault(about, []).append(paths)
    return [
        Case(
            subject,
            split,  # type: ignore[arg-type]
            tuple((image, mask) for image, mask, *_ in of_case),
            tuple(map(int, ignored.split())),
            tuple(paths[2:] for paths in of_case) if len(of_case[0]) > 2 else (),
            tuple(int(number) - 1 for number in ct.split()),
            Classes.of(classes),
        )
        for (subject, split, ignored, ct, classes), of_case in found.items()
    ]


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
