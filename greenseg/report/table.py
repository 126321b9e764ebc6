"""The Pareto table: one row a configuration, only the axes that differ, every joule with its source."""

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

_SHORT = 12  # longer values may be folded, so that the figures and their source fit a terminal
_FOLDED, _UNFOLDED = 16, 28  # columns that a long value may be folded to, and that it has where there is room
_LEAST = 20  # columns that several settings in one may be folded to
_TOGETHER = "configuration"  # several settings in one column
_MOST_COLUMNS = 3  # more settings share one column, so that the figures keep theirs
_WANTED, _WIDEST = {_TOGETHER: 32, "source": 24}, {_TOGETHER: 48, "source": 24}
UNLIMITED = 100_000  # room, where there is no terminal


class Width(NamedTuple):
    """Of a column: the least that its cells can be folded to, and what it needs so that none is."""

    least: int
    whole: int


class ParetoTable:
    """The table of a comparison; as wide as there is room, figures that do not fit are left out, and said so.

    What is shown is never cut: where there is not even room for the narrowest table, its lines are longer.

    Args:
        comparison: what to show.
        rows: those to show, in their order; None for all of the comparison.
        names: of the columns to show, whatever their width; None for the usual ones.
        wide: show all columns and fold none: there is no terminal that could be too narrow.
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
            yield Text(f"No room for: {headings}. A wider terminal or --columns shows them.", style="dim")

    def _choose(self, room: int) -> tuple[list[str], list[str]]:
        """The columns that there is room for, and those that there is none for."""
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
            # The first ones go rather than that a setting is folded, the next where folding is not enough, the last one
            # where nothing else helps.
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
        """Of a table with these columns, its settings folded to `longest`; 0: all folded as far as they can be."""
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
    """An empty table whose columns share the room, figures first; wider than that where they cannot be folded so far.

    Args:
        columns: of each the heading, and whether it stands to the right.
        widths: of each.
        room: in characters.
    """
    shares = [width.least for width in widths]
    spare = max(room - _total(shares), 0)
    for index in sorted(range(len(columns)), key=lambda index: not columns[index][1]):  # what stands to the right first
        more = min(spare, widths[index].whole - shares[index])
        spare -= more
        shares[index] += more
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, width=_total(shares))
    for (heading, right), share in zip(columns, shares, strict=True):
        # Its width is given, or rich would cut figures where there is no room.
        table.add_column(heading, width=share, justify="right" if right else "left", overflow="fold")
    return table


def longest_word(texts: Sequence[str]) -> int:
    """Characters of the longest word: a cell as wide is folded between words only."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def _total(widths: Sequence[int]) -> int:
    """Of a table, with the spaces around its columns."""
    return sum(widths) + 2 * len(widths)


def title(comparison: Comparison) -> str:
    """What is compared, and how much of it."""
    energy = "energy" if comparison.energy.name == "total" else comparison.energy.describe
    size = f"{count(len(comparison.results), 'configuration')}, {count(len(comparison.runs), 'run')}"
    third = f" and {comparison.third.describe}" if comparison.third else ""
    return f"{comparison.quality.heading} against {energy}{third}: {size}"
