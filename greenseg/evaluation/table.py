"""Tables of an evaluation."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from greenseg.evaluation.evaluate import Evaluation
from greenseg.evaluation.summary import METRICS, ClassSummary, mean
from greenseg.report.columns import interval
from greenseg.report.table import Width, fitted_table, longest_word
from greenseg.report.units import count

_UNDEFINED = "–"
_FOLDED = 16  # least width of a folded name


def title(result: Evaluation) -> str:
    """Title of the table of classes."""
    subjects = len({volume.subject for volume in result.volumes})
    several = ", means with 95 % intervals over subjects" if subjects > 1 else ""
    return f"{count(len(result.volumes), 'volume')} of {count(subjects, 'subject')}{several}"


def class_table(result: Evaluation, classes: Sequence[ClassSummary], room: int) -> Table:
    """One row per class: means with intervals, and numbers of volumes. Several classes have a row of their means.

    Args:
        result: the evaluation.
        classes: its summaries.
        room: width in characters; intervals are below their means if there is little.
    """
    lines = []
    for of_class in classes:
        means = [(of_class.means[metric.key], metric.digits) for metric in METRICS]
        cells = [_UNDEFINED if value is None else interval(value, digits) for value, digits in means]
        states = [str(of_class.volumes[state]) for state in ("missed", "spurious", "empty")]
        lines.append([of_class.name, *cells, *states])
    if len(classes) > 1:
        lines.append(["mean", *_means_of_classes(classes), "", "", ""])
    return _table(["class", *_headings(result), "missed", "spurious", "both empty"], lines, room, names=1)


def _means_of_classes(classes: Sequence[ClassSummary]) -> Iterator[str]:
    for metric in METRICS:
        means = [of_class.means[metric.key] for of_class in classes]
        yield _number(mean([one.value if one else None for one in means]), metric.digits)


def volume_table(result: Evaluation, room: int) -> Table:
    """One row per volume and class."""
    lines = []
    for volume in result.volumes:
        for name, agreement in zip(result.classes.names, volume.agreements, strict=True):
            cells = [_number(metric.value(agreement), metric.digits) for metric in METRICS]
            state = {"both": "", "empty": "both empty"}.get(agreement.state, agreement.state)
            lines.append([volume.name, name, *cells, state])
    return _table(["volume", "class", *_headings(result), "masks"], lines, room, names=2)


def worst_text(of_class: ClassSummary, number: int) -> str:
    """The worst volumes of a class with their Dice, in words."""
    shown = [f"{volume.name} ({volume.agreements[number].dice or 0:.4f})" for volume in of_class.worst]
    return f"Lowest Dice of {of_class.name}: {', '.join(shown) or 'undefined in all volumes'}"


def _number(value: float | None, digits: int) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}".replace("-", "−")


def _headings(result: Evaluation) -> list[str]:
    return [metric.heading.format(tolerance=result.tolerance) for metric in METRICS]


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], room: int, names: int) -> Table:
    """A table whose first `names` columns are text, the others numbers."""
    widths = []
    for place, texts in enumerate(zip(headings, *lines, strict=True)):
        least = longest_word(texts)
        widths.append(Width(min(least, _FOLDED) if place < names else least, max(map(len, texts))))
    table = fitted_table([(heading, place >= names) for place, heading in enumerate(headings)], widths, room)
    for line in lines:
        table.add_row(*map(Text, line))
    return table
