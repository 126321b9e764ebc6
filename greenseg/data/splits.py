"""The split into training, validation and test: by subject, never by slice."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from pathlib import Path

from greenseg.classes import BINARY, Classes
from greenseg.data.assigned import Assigned
from greenseg.data.layout import look
from greenseg.data.listing import Listing, Split
from greenseg.data.rules import Rule, divide
from greenseg.data.table import CLASSES, CT, channel_column
from greenseg.errors import UserError
from greenseg.settings import Layout, Settings

SPLIT_BY = ("data", "layout", "labels", "channels", *(field.name for field in fields(Rule)))
"""The settings that decide the files, their classes, and their split into training, validation and test."""

_ORDER: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Case:
    """One subject: its files, in the order of their names, and their split."""

    subject: str
    split: Split
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
    test_share: float = 0.0,
    split_from: str = "",
) -> list[Case]:
    """The cases of a data set for training and validation, without the test part.

    If the data set names a split, it applies. Otherwise, a subject is used for validation if the hash of its name and
    `split_seed` falls into the first `validation_share`. With `folds`, the hash assigns all subjects to this number of
    folds, regardless of the split that the data set names, and the subjects of `fold` are used for validation. Adding a
    subject moves no other, unless a split or a fold would be empty. The test part is taken out before.

    Args:
        root: folder of the data set, or its CSV file.
        validation_share: share of the subjects for validation if the data set names no split.
        layout: layout of the data set.
        labels: the setting; if it is empty, the data set may name classes.
        channels: the setting; empty = those of the layout.
        split_seed: seed of the hash.
        folds: number of cross-validation folds; 0 = no cross-validation.
        fold: fold for validation, counted from 0.
        test_share: share of the subjects for the test part, by another hash; 0 = those that the data set names.
        split_from: CSV file that names the split of each subject, instead of all other rules; empty = none.

    Raises:
        UserError: missing folders, images without mask, masks without image, a subject in two splits, too few subjects,
            classes that do not fit together, rules that contradict the data; lists all problems.
    """
    rule = Rule(validation_share, split_seed, folds, fold, test_share, split_from)
    return cases(look(root, layout, channels), root, rule, labels)


def cases_of(settings: Settings, root: Path) -> list[Case]:
    """The cases for training and validation with these settings, without the test part; raises like `scan`."""
    return [case for case in _all_of(settings, root) if case.split != "test"]


def test_cases_of(settings: Settings, root: Path) -> list[Case]:
    """The test part for these settings, whose masks are known; may be empty. Raises like `scan`."""
    return [case for case in _all_of(settings, root) if case.split == "test"]


def _all_of(settings: Settings, root: Path) -> list[Case]:
    return all_cases(look(root, settings.layout, settings.channels), root, Rule.of(settings), settings.labels)


def classes_of(labels: str, cases: Sequence[Case]) -> Classes:
    """The classes to train: those of the setting `labels`, else those of the data set, else any label above 0."""
    return Classes.of(labels) or next((case.classes for case in cases if case.classes), BINARY)


def cases(listing: Listing, root: Path, rule: Rule, labels: str = "") -> list[Case]:
    """Like `scan`, for a data set that is already listed."""
    return [case for case in all_cases(listing, root, rule, labels) if case.split != "test"]


def all_cases(listing: Listing, root: Path, rule: Rule, labels: str = "") -> list[Case]:
    """Like `cases`, and then the test part: subjects that a run neither trains on nor is chosen by."""
    problems = listing.problems + ([] if labels else listing.class_problems)
    if problems and rule.split_from:  # its subjects cannot be compared with an incomplete list
        problems += Assigned.read(Path(rule.split_from)).problems
    if problems:
        raise UserError(problems)
    more: dict[str, list[tuple[Path, ...]]] = defaultdict(list)
    files: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    named: dict[str, Split | None] = {}
    ignored: dict[str, set[int]] = defaultdict(set)
    without_mask: set[str] = set()
    for entry in listing.entries:
        if entry.mask is None:
            without_mask.add(entry.subject)
            continue
        files[entry.subject].append((entry.image, entry.mask))
        more[entry.subject].append(entry.more)
        named[entry.subject] = entry.split
        ignored[entry.subject].update(entry.ignored)
    split_of = divide(named, without_mask, rule, root)
    ct = next(iter(listing.entries)).ct
    return [
        Case(
            s,
            split_of[s],
            tuple(files[s]),
            tuple(sorted(ignored[s])),
            tuple(more[s]) if any(more[s]) else (),
            ct,
            None if labels else listing.classes,
        )
        for s in sorted(files, key=lambda subject: (_ORDER.index(split_of[subject]), subject))
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
    """The split as a CSV file, which is a data set itself: `--data split.csv` trains on the same split.

    Args:
        cases: the cases, those of the test part last.
    """
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
    """The cases for training and validation that `split_csv` wrote, without a look at their files.

    The test part is left out, since the content of a run is that of its training.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is missing or damaged.
    """
    found: dict[tuple[str, str, str, str, str], list[tuple[Path, ...]]] = {}
    with file.open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            if row["split"] == "test":
                continue
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
