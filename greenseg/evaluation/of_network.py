"""The predictions of a trained network for the masked images of a data set, to compare with its masks."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from greenseg.data.content import Content, read
from greenseg.data.layout import look
from greenseg.data.listing import Entry, some
from greenseg.data.splits import Case
from greenseg.errors import UserError
from greenseg.evaluation.pairs import Pair, Pairing, name_of_mask
from greenseg.inference import subject
from greenseg.inference.predictor import Predictor
from greenseg.inference.subject import Image
from greenseg.inference.write import suffix_for, write_like
from greenseg.report.units import count
from greenseg.settings import Layout

_BATCH = 8


def predict_references(
    predictor: Predictor,
    root: Path,
    folder: Path,
    layout: Layout = "auto",
    channels: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pairing:
    """Predict all images of a data set that have a mask.

    Args:
        predictor: the network.
        root: the data set.
        folder: folder for the predicted masks.
        layout: layout of the data set.
        channels: the setting.
        progress: called with the number of predicted images and their total.

    Returns:
        The pairs, with the classes of the network unless it has one of any label above 0.

    Raises:
        UserError: files are missing or unreadable, or have other channels than the network; lists all problems.
    """
    listing = look(root, layout, channels)
    problems = list(listing.problems)
    of_subject: dict[str, list[Entry]] = defaultdict(list)
    for entry in listing.entries:
        if entry.mask:
            of_subject[entry.subject].append(entry)
    if not of_subject and not problems:
        problems.append(f"{root}: no masks in layout {listing.layout}, so there is nothing to compare with")
    if problems:
        raise UserError(problems)
    classes = predictor.recipe.classes
    found = Pairing([], True, classes if all(classes.labels) else None, list(listing.notes))
    total = sum(map(len, of_subject.values()))
    for entries in of_subject.values():
        try:
            images = [Image.of(entry.images, predictor.recipe) for entry in entries]
        except UserError as error:
            problems += error.problems
            continue
        if problems:
            continue  # the rest is only read to find all problems
        slices = subject.predict(predictor, subject.on_grid(images, predictor.recipe), _BATCH)
        parts = np.split(slices, np.cumsum([image.slices for image in images])[:-1])
        for entry, image, part in zip(entries, images, parts, strict=True):
            assert entry.mask
            numbers = subject.classes_of(subject.bring_back(part, image, predictor.recipe.spacing))
            file = folder / f"{len(found.pairs)}{suffix_for(entry.image)}"
            write_like(subject.as_labels(numbers, predictor.recipe), image, file)
            name = name_of_mask(entry.mask)
            found.pairs.append(Pair(name, entry.subject, entry.mask, file, entry.ignored, entry.image))
            progress(len(found.pairs), total)
    if problems:
        raise UserError(problems)
    return found


def known_subjects(run: Path, root: Path, layout: Layout = "auto", channels: str = "") -> list[str]:
    """Sentences about the subjects of a data set that the run was trained on, or that chose its best epoch.

    Their images are compared, not their names.

    Args:
        run: directory of the run, or an exported file, whose subjects are unknown.
        root: the data set, which `predict_references` could read.
        layout: its layout.
        channels: the setting.
    """
    content = read(run / "content.json") if run.is_dir() else None
    if content is None:
        return [f"{run}: the subjects of its training are unknown; make sure that {root} has none of them"]
    part_of = {of_subject.images: of_subject.split for of_subject in content.subjects.values()}
    now = Content.of(_cases(look(root, layout, channels).entries))
    seen: dict[str, list[str]] = defaultdict(list)
    for name, of_subject in now.subjects.items():
        if of_subject.images in part_of:
            seen[part_of[of_subject.images]].append(name)
    why = {"train": "trained this network", "validation": "chose its best epoch"}
    return [
        f"{len(seen[split])} of {count(len(now.subjects), 'subject')} {what} ({some(sorted(seen[split]))}): their "
        f"quality says little about others"
        for split, what in why.items()
        if seen[split]
    ]


def _cases(entries: Sequence[Entry]) -> list[Case]:
    of_subject: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.mask:
            of_subject[entry.subject].append(entry)
    return [
        Case(
            name,
            "validation",
            tuple((entry.image, entry.mask) for entry in group if entry.mask),
            tuple(sorted({label for entry in group for label in entry.ignored})),
            tuple(entry.more for entry in group) if any(entry.more for entry in group) else (),
            group[0].ct,
        )
        for name, group in of_subject.items()
    ]
