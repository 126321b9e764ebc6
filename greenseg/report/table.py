"""The Pareto table: one row per configuration, with the axes that differ and the sources of the joules."""

from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from greenseg.report.columns import FRONT, OPTIONAL, Column, column, default_columns
from greenseg.report.comparison import Comparison, Row
from greenseg.report.labels import label
from greenseg.report.units import count

_SHORT = 12  # longer values may be folded, so that numbers and sources fit on a terminal
_FOLDED, _UNFOLDED = 16, 28  # least width of a folded value, and its width with enough space
_LEAST = 20  # least width of a column with several settings
_TOGETHER = "configuration"  # column with several settings
_MOST_COLUMNS = 3  # more settings share one column, so that numbers keep theirs
_WANTED, _WIDEST = {_TOGETHER: 32, "source": 24}, {_TOGETHER: 48, "source": 24}
UNLIMITED = 100_000  # width without a terminal


class Width(NamedTuple):
    """Width of a column: the least with folded cells, and the width without folding."""

    least: int
    whole: int


class ParetoTable:
    """The table of a comparison. It fits the terminal by leaving out columns, which it then names.

    Cells are never cut: if even the narrowest table does not fit, its lines are longer than the terminal.

    Args:
        comparison: the comparison to show.
        rows: rows to show, in their order; None for all of the comparison.
        names: names of the columns to show, regardless of width; None for the default columns.
        wide: show all columns without folding, since there is no terminal.
    """

    def __init__(
        self,
        comparison: Comparison,
        rows: Sequence[Row] | None = None,
        names: Sequence[str] | None = None,
        wide: bool = False,
    ) -> None:
        self._comparison = comparison
        self._rows = comparison.rows if rows is None else rows
        self._names: list[str] = list(names or default_columns(comparison))
        self._all, self._wide = wide or bool(names), wide
        self._columns = {name: column(comparison, name) for name in self._names}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = UNLIMITED if self._wide else options.max_width
        names, left_out = (self._names, []) if self._all else self._choose(room)
        yield Text(title(self._comparison), style="bold")
        yield self._table(names, room)
        if left_out:
            headings = ", ".join(self._columns[name].heading for name in left_out)
            yield Text(f"No space for: {headings}. A wider terminal or --columns shows them.", style="dim")

    def _choose(self, room: int) -> tuple[list[str], list[str]]:
        """The columns that fit, and those that do not."""
        needed = {self._comparison.energy.name, self._comparison.third.name if self._comparison.third else ""}
        optional = [name for name in OPTIONAL if name in self._names and name not in needed]
        settings = [name for name in self._names if name in self._comparison.axes]
        tight = self._width([name for name in self._names if name not in optional], _FOLDED) > room
        names = list(self._names)
        if tight or len(settings) > _MOST_COLUMNS:
            self._columns[_TOGETHER] = Column(
                _TOGETHER, _TOGETHER, lambda row: label(row.result, settings), lambda row: None, figure=False
            )
            names = [_TOGETHER, *(name for name in names if name not in settings)]
        left_out = []
        for name in optional:
            # The first ones are left out before any setting is folded, the next if folding is not enough, the last if
            # nothing else helps.
            longest = {"runs": 0, "chance": _FOLDED, "saved": _FOLDED}.get(name, _UNFOLDED)
            if self._width(names, longest) > room:
                names.remove(name)
                left_out.append(name)
        return names, left_out

    def _table(self, names: Sequence[str], room: int) -> Table:
        columns = [self._columns[name] for name in names]
        table = fitted_table(
            [("", False), *((column.heading, column.figure) for column in columns)],
            [Width(len(FRONT), len(FRONT)), *map(self._of, names)],
            room,
        )
        for row in self._rows:
            cells = [Text(FRONT if row.on_front else ""), *(self._cell(row, column) for column in columns)]
            table.add_row(*cells, style="green" if row.on_front else "")
        return table

    def _cell(self, row: Row, column: Column) -> Text:
        style = "red" if column.name == "source" and not row.result.finished else ""
        if column.name in ("source", self._comparison.energy.name) and row.result.estimated:
            style = "italic"
        return Text(column.text(row), style=style)

    def _width(self, names: Sequence[str], longest: int) -> int:
        """Width of a table with these columns and settings folded to `longest` characters; 0 gives the narrowest."""
        widths = [len(FRONT)]
        for name in names:
            least, whole = self._of(name)
            widths.append(min(whole, max(least, _WANTED.get(name, longest) if longest else 0)))
        return _total(widths)

    def _of(self, name: str) -> Width:
        """The width of a column."""
        column = self._columns[name]
        texts = [column.heading, *(column.text(row) for row in self._rows)]
        whole = max(map(len, texts))
        if not self._wide:
            whole = min(whole, _WIDEST.get(name, whole))
        if name == "source":
            return Width(min(whole, longest_word(texts)), whole)
        if column.figure or name in ("precision", "status") or whole <= _SHORT:
            return Width(whole, whole)
        return Width(min(whole, _LEAST if name == _TOGETHER else _FOLDED), whole)


def fitted_table(columns: Sequence[tuple[str, bool]], widths: Sequence[Width], room: int) -> Table:
    """An empty table whose columns share the space, numbers first; it is wider if columns cannot be folded enough.

    Args:
        columns: heading of each column, and whether it is right-aligned.
        widths: width of each column.
        room: available width in characters.
    """
    shares = [width.least for width in widths]
    spare = max(room - _total(shares), 0)
    for index in sorted(range(len(columns)), key=lambda index: not columns[index][1]):  # right-aligned columns first
        more = min(spare, widths[index].whole - shares[index])
        spare -= more
        shares[index] += more
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, width=_total(shares))
    for (heading, right), share in zip(columns, shares, strict=True):
        # The width is explicit, because rich would cut numbers if space is short.
        table.add_column(Text(heading), width=share, justify="right" if right else "left", overflow="fold")
    return table


def longest_word(texts: Sequence[str]) -> int:
    """Length of the longest word: a cell of this width is folded only between words."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def _total(widths: Sequence[int]) -> int:
    """Width of a table, with the spaces around its columns."""
    return sum(widths) + 2 * len(widths)


def title(comparison: Comparison) -> str:
    """Title of the report: the objectives, and the numbers of configurations and runs."""
    energy = "energy" if comparison.energy.name == "total" else comparison.energy.describe
    size = f"{count(len(comparison.results), 'configuration')}, {count(len(comparison.runs), 'run')}"
    third = f" and {comparison.third.describe}" if comparison.third else ""
    return f"{comparison.quality.heading} against {energy}{third}: {size}"
