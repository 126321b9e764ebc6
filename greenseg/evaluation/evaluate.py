"""The comparison of all volumes, class by class."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from greenseg.classes import FOREGROUND, MOST, Classes
from greenseg.data.listing import labels_text
from greenseg.errors import UserError
from greenseg.evaluation.pairs import Pair, Pairing, of_subjects
from greenseg.evaluation.volumes import labels_of, read_volumes
from greenseg.metrics.agreement import Agreement


@dataclass(frozen=True)
class VolumeResult:
    """A compared volume.

    Attributes:
        name: its subject, or the name of its first file if the subject has several volumes.
        subject: its subject.
        pairs: its files, in the order of the slices.
        agreements: one per class.
    """

    name: str
    subject: str
    pairs: tuple[Pair, ...]
    agreements: tuple[Agreement, ...]

    @property
    def references(self) -> list[Path]:
        """The files of the reference."""
        return [pair.reference for pair in self.pairs]

    @property
    def predictions(self) -> list[Path]:
        """The files of the prediction; empty if it is missing."""
        return [pair.prediction for pair in self.pairs if pair.prediction]


@dataclass
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        classes: the compared classes. For any label above 0, the labels are those that occur.
        tolerance: of surface Dice, in mm.
        volumes: the compared volumes.
        notes: notes for the user.
        temporary: whether the predictions are not kept, so that a file should not name them.
    """

    classes: Classes
    tolerance: float
    volumes: list[VolumeResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    temporary: bool = False


def evaluate(
    found: Pairing,
    labels: str = "",
    tolerance: float = 2.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Compare the masks of all pairs.

    The classes are those of `labels`, else those that the data set names. Otherwise, a data set has one class of any
    label above 0. In folders, each label that occurs is a class named by its number; a single label is `foreground`.

    Args:
        found: pairs of masks.
        labels: the setting.
        tolerance: of surface Dice, in mm.
        progress: called with the number of pairs that were read and their total.

    Raises:
        UserError: a file is unreadable, a prediction has another grid than its reference, slices do not form a volume,
            a class has an ignored label, or there are too many classes; lists all problems.
    """
    subjects = of_subjects(found.pairs)
    classes, notes = Classes.of(labels) or found.classes, list(found.notes)
    # Without names, every mask is read twice, since the labels are not known before: all masks may not fit into memory.
    total = len(found.pairs) * (1 if classes else 2)
    if classes:
        _refuse_ignored(classes, found.pairs)
    else:
        classes, more = _classes_that_occur(found, lambda done: progress(done, total))
        notes += more
    result = Evaluation(classes, tolerance, notes=notes)
    problems: list[str] = []
    done = total - len(found.pairs)
    for pairs in subjects:
        try:
            volumes = read_volumes(pairs, classes)
        except UserError as error:
            problems += error.problems
            continue
        for volume in volumes:
            first = volume.pairs[0]
            name = first.subject if len(volumes) == 1 else first.name
            agreements = volume.agreements(len(classes), tolerance)
            result.volumes.append(VolumeResult(name, first.subject, volume.pairs, agreements))
        notes += [volume.note for volume in volumes if volume.note]
        done += len(pairs)
        progress(done, total)
    if problems:
        raise UserError(problems)
    notes += _absent(result)
    return result


def _classes_that_occur(found: Pairing, progress: Callable[[int], None]) -> tuple[Classes, list[str]]:
    """The classes without names, and notes on labels that only predictions, or only references have."""
    problems: list[str] = []
    predicted, true = set[int](), set[int]()
    for done, pair in enumerate(found.pairs, 1):
        try:
            of_prediction, of_reference = labels_of(pair)
        except UserError as error:
            problems += error.problems
            continue
        predicted |= of_prediction
        true |= of_reference
        progress(done)
    labels = sorted(predicted | true)
    if len(labels) > MOST and not found.is_data_set:
        problems.append(f"masks have {labels_text(labels)}; at most {MOST} can be compared: name them with --labels")
    if problems:
        raise UserError(problems)
    if len(labels) < 2 or found.is_data_set:
        note = f"masks have the {labels_text(labels)}; all above 0 are one class, unless you set --labels"
        return Classes((FOREGROUND,), (tuple(labels or [1]),)), [note] * (len(labels) > 1)
    notes = [
        f"{labels_text(sorted(only))}: in no {other}; --labels {','.join(map(str, labels))} makes one class of all"
        for only, other in ((predicted - true, "reference"), (true - predicted, "prediction"))
        if only
    ]
    return Classes(tuple(map(str, labels)), tuple((label,) for label in labels)), notes


def _refuse_ignored(classes: Classes, pairs: Iterable[Pair]) -> None:
    ignored = {label for pair in pairs for label in pair.ignored}
    if both := sorted(ignored & {label for labels in classes.labels for label in labels}):
        raise UserError(f"{labels_text(both)}: not annotated in this data set; remove it from --labels")


def _absent(result: Evaluation) -> list[str]:
    """Notes on classes that no reference has, and on volumes without distances."""
    notes = [
        f"class '{name}' ({labels_text(labels)}): in no reference"
        for number, (name, labels) in enumerate(zip(result.classes.names, result.classes.labels, strict=True))
        if not any(volume.agreements[number].n_ref for volume in result.volumes)
    ]
    flat = [
        volume.name
        for volume in result.volumes
        if any(one.state != "empty" and one.hd95 is None for one in volume.agreements)
    ]
    if flat:
        notes.append(
            f"{len(flat)} of 2D images, whose distance is unknown ({flat[0]}{', …' * (len(flat) > 1)}): without HD95, "
            f"ASSD and surface Dice"
        )
    return notes
