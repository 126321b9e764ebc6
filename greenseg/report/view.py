"""A comparison on the terminal: table, scatter, answer in words."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from greenseg.report import answer
from greenseg.report.classes import class_table
from greenseg.report.comparison import Comparison, Row
from greenseg.report.scatter import Scatter
from greenseg.report.table import UNLIMITED, ParetoTable, Width, fitted_table, longest_word
from greenseg.report.trust import said as said_of
from greenseg.report.trust import trust
from greenseg.report.units import count

ROWS = 40
"""Default number of rows of a table; rows on the front are always shown."""

_EFFECTS = 12
_FOLDED = 10  # least width of a folded name or value of a setting


class ReportView:
    """The complete output of `greenseg report`.

    Args:
        comparison: the comparison to show.
        rows: rows to show, in their order.
        names: names of the columns; None for the default columns.
        all_rows: show all rows, even if there are very many.
        wide: show all columns without folding.
        classes: also show the quality of each class; that of a single configuration is always shown.
    """

    def __init__(
        self,
        comparison: Comparison,
        rows: Sequence[Row],
        names: Sequence[str] | None = None,
        all_rows: bool = False,
        wide: bool = False,
        classes: bool = False,
    ) -> None:
        self._comparison, self._names, self._wide = comparison, names, wide
        self._rows = list(rows) if all_rows else [row for i, row in enumerate(rows) if i < ROWS or row.on_front]
        self._hidden = len(rows) - len(self._rows)
        self._classes = classes or len(comparison.results) == 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        comparison = self._comparison
        room = UNLIMITED if self._wide else options.max_width
        yield ParetoTable(comparison, self._rows, self._names, self._wide)
        if self._hidden:
            yield Text(
                f"{count(self._hidden, 'more configuration')}: --top {len(comparison.rows)} shows all.", style="dim"
            )
        for said in answer.legend(comparison):
            yield Text(said, style="dim")
        if failures := answer.failures(comparison):
            yield Text(failures, style="red")
        yield Text()
        if self._classes:
            yield from class_table(comparison, self._rows, room)
        yield Scatter(comparison)
        yield Text()
        for said in [*answer.decision(comparison), *said_of(trust(comparison), comparison)]:
            yield Text(said)
        yield Text()
        yield from self._effects(room)
        for warning in answer.warnings(comparison):
            yield Text(warning, style="yellow")

    def _effects(self, room: int) -> RenderResult:
        comparison = self._comparison
        rows = answer.effect_rows(comparison, _EFFECTS)
        if rows:
            headings = ["setting", "value", "reference"]
            figures = [comparison.quality.heading, answer.energy_name(comparison), "pairs"]
            columns = [*((heading, False) for heading in headings), *((heading, True) for heading in figures)]
            widths = []
            for (heading, figure), cells in zip(columns, zip(*rows, strict=True), strict=True):
                texts = [heading, *cells]
                whole = max(map(len, texts))
                widths.append(Width(min(whole, longest_word(texts) if figure else _FOLDED), whole))
            yield Text("Effect of each setting, all else equal", style="bold")
            table = fitted_table(columns, widths, room)
            for row in rows:
                table.add_row(*map(Text, row))
            yield table
            for said in answer.uneven(comparison)[:_EFFECTS]:
                yield Text(said)
        hidden = len(comparison.effects) - len(rows)
        if hidden:
            yield Text(f"{count(hidden, 'smaller effect')} in --format json.", style="dim")
        if unpaired := answer.unpaired(comparison):
            yield Text(
                f"No two runs differ only in {', nor only in '.join(unpaired)}; their effect is unknown.", style="dim"
            )
