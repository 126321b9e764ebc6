"""A small scatter plot of characters, for the terminal."""

import math
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from greenseg.report.columns import FRONT
from greenseg.report.comparison import Comparison, Row
from greenseg.report.units import number

OTHER = "·"
_HEIGHT = 12
_WIDEST = 72


class Scatter:
    """Quality (up) against energy (to the right; logarithmic if it spans over a decade), with the front marked.

    Args:
        comparison: a comparison; with fewer than three complete results, nothing is drawn.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        comparison = self._comparison
        rows = [row for row in comparison.rows if comparison.known(row.result)]
        if len(rows) < 3:
            return
        cost, quality = comparison.energy, comparison.quality
        xs = [comparison.value(row.result, cost) for row in rows]
        ys = [comparison.value(row.result, quality) for row in rows]
        unit, size = comparison.unit(cost)
        logarithmic = min(xs) > 0 and max(xs) / min(xs) > 10
        ends = [f"{value:.3f}" for value in (max(ys), min(ys))]
        margin = max(map(len, ends)) + 1
        width = min(options.max_width - margin - 2, _WIDEST)
        grid = _grid(rows, [math.log(x) for x in xs] if logarithmic else xs, ys, width)
        heading = f"{quality.heading} against {cost.titled(unit)}{', log' if logarithmic else ''}"
        yield Text(f"{' ' * margin}{heading}", style="bold")
        for number_, line in enumerate(grid):
            tick = ends[0] if number_ == 0 else ends[1] if number_ == len(grid) - 1 else ""
            text = Text(f"{tick:>{margin - 1}} │")
            text.append_text(Text("".join(line)))
            text.highlight_regex(FRONT, "green")
            yield text
        left, right = number(min(xs) / size), number(max(xs) / size)
        yield Text(f"{' ' * margin}└{'─' * width}")
        yield Text(f"{' ' * margin} {left}{right:>{width - len(left)}}")


def _grid(rows: Sequence[Row], xs: Sequence[float], ys: Sequence[float], width: int) -> list[list[str]]:
    grid = [[" "] * width for _ in range(_HEIGHT)]
    points = zip(rows, _places(xs, width), _places(ys, _HEIGHT), strict=True)
    for row, across, up in sorted(points, key=lambda point: point[0].on_front):  # the front on top
        grid[_HEIGHT - 1 - up][across] = FRONT if row.on_front else OTHER
    return grid


def _places(values: Sequence[float], cells: int) -> list[int]:
    """Index of the cell for each value, among `cells` cells."""
    low, high = min(values), max(values)
    return [round((value - low) / (high - low) * (cells - 1)) if high > low else 0 for value in values]
