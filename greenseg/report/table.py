"""The Pareto table: one row a configuration, only the axes that differ, every joule with its source."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from greenseg.report.columns import FRONT, OPTIONAL, Column, column, default_columns
from greenseg.report.comparison import Comparison, Row
from greenseg.report.labels import label
from greenseg.report.units import count

_SHORT = 12  # longer values may be folded, so that the figures and their source fit a terminal
_FOLDED, _UNFOLDED = 16, 28  # columns that a long value may be folded to, and that it has where there is room
_CONFIGURATION, _WIDEST_CONFIGURATION = 32, 48  # columns of several settings in one
_SOURCE = 24
_MOST_COLUMNS = 3  # more settings share one column, so that the figures keep theirs


class ParetoTable:
    """The table of a comparison; as wide as there is room, figures that do not fit are left out, and said so.

    Args:
        comparison: what to show.
        rows: those to show, in their order; None for all of the comparison.
        names: of the columns to show, whatever their width; None for the usual ones.
    """

    def __init__(
        self, comparison: Comparison, rows: Sequence[Row] | None = None, names: Sequence[str] | None = None
    ) -> None:
        self._comparison = comparison
        self._rows = comparison.rows if rows is None else rows
        self._names: list[str] = list(names or default_columns(comparison))
        self._columns = {name: column(comparison, name) for name in self._names}
        needed = {comparison.energy.name, comparison.third.name if comparison.third else ""}
        self._optional = [name for name in OPTIONAL if name in self._names and name not in needed and not names]
        self._settings = [name for name in self._names if name in comparison.axes]
        self._together: list[str] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = [name for name in self._names if name not in self._optional]
        tight = self._width(needed, _FOLDED) > options.max_width
        self._together = self._settings if tight or len(self._settings) > _MOST_COLUMNS else []
        names, left_out = list(self._names), []
        for name in self._optional:
            # The first ones go rather than that a setting is folded, the last ones only where folding is not enough.
            longest = _FOLDED if name in OPTIONAL[-2:] else _UNFOLDED  # chance and saved
            if self._width(names, longest) > options.max_width:
                names.remove(name)
                left_out.append(self._columns[name].heading)
        yield self._table(names)
        if left_out:
            room = f"No room for: {', '.join(left_out)}. A wider terminal or --columns shows them."
            yield Text(room, style="dim")

    def _table(self, names: Sequence[str]) -> Table:
        table = Table(
            title=title(self._comparison),
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("", no_wrap=True)
        shown = [name for name in names if name not in self._together]
        if self._together:
            table.add_column(
                "configuration", overflow="fold", min_width=_CONFIGURATION, max_width=_WIDEST_CONFIGURATION
            )
        for name in shown:
            self._add(table, self._columns[name])
        for row in self._rows:
            table.add_row(*self._cells(row, shown), style="green" if row.on_front else "")
        return table

    def _add(self, table: Table, column: Column) -> None:
        width = self._natural(column.name)
        if column.name == "source":
            table.add_column(column.heading, min_width=len("estimate,"), max_width=_SOURCE, overflow="fold")
        elif column.figure:
            table.add_column(column.heading, justify="right", no_wrap=True)
        elif column.name == "precision" or width <= _SHORT:
            table.add_column(column.heading, no_wrap=True)
        else:
            table.add_column(column.heading, min_width=min(width, _FOLDED), overflow="fold")

    def _cells(self, row: Row, shown: Sequence[str]) -> list[Text]:
        cells = [Text(FRONT if row.on_front else "")]
        if self._together:
            cells.append(Text(label(row.result, self._together)))
        for name in shown:
            style = "red" if name == "source" and not row.result.finished else ""
            if name in ("source", self._comparison.energy.name) and row.result.estimated:
                style = "italic"
            cells.append(Text(self._columns[name].text(row), style=style))
        return cells

    def _width(self, names: Sequence[str], longest: int) -> int:
        """Of a table with these columns, with settings folded where they are longer."""
        widths = [len(FRONT), _CONFIGURATION] if self._together else [len(FRONT)]
        for name in names:
            folds = name in self._settings and name != "precision"
            if name not in self._together:
                widths.append(min(self._natural(name), longest) if folds else self._natural(name))
        return sum(widths) + 2 * len(widths)

    def _natural(self, name: str) -> int:
        """Characters of the widest cell of a column."""
        column = self._columns[name]
        widest = max([len(column.heading), *(len(column.text(row)) for row in self._rows)])
        return min(widest, _SOURCE) if name == "source" else widest


def title(comparison: Comparison) -> str:
    """What is compared, and how much of it."""
    energy = "energy" if comparison.energy.name == "total" else comparison.energy.describe
    size = f"{count(len(comparison.results), 'configuration')}, {count(len(comparison.runs), 'run')}"
    third = f" and {comparison.third.describe}" if comparison.third else ""
    return f"{comparison.quality.heading} against {energy}{third}: {size}"
