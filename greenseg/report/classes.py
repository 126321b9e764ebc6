"""The table of the quality of each class."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from greenseg.report.columns import quality_text
from greenseg.report.comparison import Comparison, Row
from greenseg.report.objectives import QUALITIES, Objective, of_class
from greenseg.report.results import Result, classes_of
from greenseg.report.table import Width, fitted_table

_FOLDED = 10  # least width of a folded name


def class_table(comparison: Comparison, rows: Sequence[Row], room: int) -> Iterator[Text | Table]:
    """A heading and a table with the mean over classes and each class; nothing if no run has several classes.

    It has a row per configuration, with the quality of the comparison. A single configuration has a row per class
    instead, with every quality.

    Args:
        comparison: the comparison.
        rows: rows to show.
        room: width in characters.
    """
    names = classes_of(row.result for row in rows)
    if not names:
        return
    if len(rows) == 1:
        known = [quality for quality in QUALITIES.values() if rows[0].result.figure(quality)]
        lines = [
            [name, *(_text(comparison, rows[0].result, _of(quality, name)) for quality in known)]
            for name in ("", *names)
        ]
        heading, headings = "Quality of each class", ["class", *(quality.heading for quality in known)]
        lines[0][0] = "mean"
    else:
        quality = QUALITIES[comparison.quality.name.partition(":")[0]]
        heading, headings = f"{quality.heading} of each class", ["configuration", "mean", *names]
        lines = [
            [
                comparison.label(row.result),
                *(_text(comparison, row.result, _of(quality, name)) for name in ("", *names)),
            ]
            for row in rows
        ]
    widths = []
    for number, cells in enumerate(zip(headings, *lines, strict=True)):
        whole = max(map(len, cells))
        widths.append(Width(whole if number else min(whole, _FOLDED), whole))
    table = fitted_table([(text, number > 0) for number, text in enumerate(headings)], widths, room)
    for line in lines:
        table.add_row(*map(Text, line))
    yield Text(heading, style="bold")
    yield table


def _of(quality: Objective, name: str) -> Objective:
    """A quality of a class, or of all if the name is empty."""
    return of_class(quality.name, name) if name else quality


def _text(comparison: Comparison, result: Result, objective: Objective) -> str:
    mean = comparison.figure(result, objective)
    return quality_text(result, objective, mean) if mean else "–"
