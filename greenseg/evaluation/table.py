"""Tables of an evaluation."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from greenseg.evaluation.evaluate import Evaluation
from greenseg.evaluation.summary import METRICS, ClassSummary, mean
from greenseg.report.columns import interval
from greenseg.report.units import count

_UNDEFINED = "–"


def class_table(result: Evaluation, classes: Sequence[ClassSummary]) -> Table:
    """One row per class: means with 95 % intervals, and numbers of volumes. Several classes have a row of means."""
    subjects = len({volume.subject for volume in result.volumes})
    several = ", means with 95 % intervals over subjects" if subjects > 1 else ""
    table = _table(f"{count(len(result.volumes), 'volume')} of {count(subjects, 'subject')}{several}")
    _add_columns(table, result, ("class",), ("missed", "spurious", "both empty"))
    for of_class in classes:
        cells = []
        for metric in METRICS:
            value = of_class.means[metric.key]
            cells.append(_UNDEFINED if value is None else interval(value, metric.digits))
        states = [str(of_class.volumes[state]) for state in ("missed", "spurious", "empty")]
        table.add_row(*map(Text, (of_class.name, *cells, *states)))
    if len(classes) > 1:
        cells = []
        for metric in METRICS:
            means = [of_class.means[metric.key] for of_class in classes]
            cells.append(_number(mean([one.value if one else None for one in means]), metric.digits))
        table.add_row(*map(Text, ("mean", *cells, "", "", "")))
    return table


def volume_table(result: Evaluation) -> Table:
    """One row per volume and class."""
    table = _table("Volumes")
    _add_columns(table, result, ("volume", "class"), ("",))
    for volume in result.volumes:
        for name, agreement in zip(result.classes.names, volume.agreements, strict=True):
            cells = [_number(metric.value(agreement), metric.digits) for metric in METRICS]
            state = {"both": "", "empty": "both empty"}.get(agreement.state, agreement.state)
            table.add_row(*map(Text, (volume.name, name, *cells, state)))
    return table


def worst_text(of_class: ClassSummary, number: int) -> str:
    """The worst volumes of a class with their Dice, in words."""
    shown = [f"{volume.name} ({volume.agreements[number].dice or 0:.4f})" for volume in of_class.worst]
    return f"Lowest Dice of {of_class.name}: {', '.join(shown) or 'undefined in all volumes'}"


def _number(value: float | None, digits: int) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}".replace("-", "−")


def _add_columns(table: Table, result: Evaluation, before: Sequence[str], after: Sequence[str]) -> None:
    for name in before:
        table.add_column(name, overflow="fold")
    headings = [metric.heading.format(tolerance=result.tolerance) for metric in METRICS]
    for name in (*headings, *after):
        table.add_column(name, justify="right")


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
