"""Pictures for papers and slides: the front and learning curves, drawn by matplotlib (the extra `plots`).

Colours are those of Okabe & Ito (https://jfly.uni-koeln.de/color/), which colour-blind people can distinguish. Markers
and line styles differ as well, so that a black-and-white print is readable.
"""

import io
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.path import Path as Line
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from greenseg.report.comparison import Comparison
from greenseg.report.curves import curve
from greenseg.report.results import Result, best_first
from greenseg.report.units import count, joule_unit

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#8c8c8c"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2)))
_SIZE = (7.0, 4.6)  # inches: the width of a page's text
_MARGIN = 0.15  # inches beside the text below the axes
_DASH = 0.5  # inches of a line's sample in the legend
_MOST_WITH_BARS = 80  # more grey error bars would be unreadable
_MOST_NAMED = 6  # largest number of points with names beside them
_MARKER = 5  # points around the centre of a marker that no label may cover
_LABEL_WIDTH = 30  # characters per line of a label
_TWO_COLUMNS = 50  # longest line, in characters, of a key in two columns
_TURNS = (5, 3, 13, 6, 2, 14, 11, 4, 12, 7, 1, 15, 10, 9, 0, 8)  # sixteenths; first those away from the front's line
_DIRECTIONS = [(math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)) for turn in _TURNS]
_DISTANCES = (8, 16, 28, 42, 60, 80)  # points
_STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "pdf.fonttype": 42, "svg.hashsalt": "greenseg", "figure.dpi": 200,
}  # fmt: skip


def front_picture(comparison: Comparison, kind: str) -> bytes:
    """The front of quality against energy, with 95 % intervals; estimates are hollow.

    The points of the front and the baseline have their names beside them. If there are many, or a name does not fit
    without covering something, they have numbers, with a key below the axes.

    Args:
        comparison: the comparison to draw.
        kind: `png`, `svg` or `pdf`.
    """
    with mpl.rc_context(_STYLE):
        return _saved(draw_front(comparison), kind)


def draw_front(comparison: Comparison) -> Figure:
    """The figure of `front_picture`; its labels are annotations of its only axes."""
    figure, ax = _figure()
    quality, energy = comparison.quality, comparison.energy
    known = [row for row in comparison.rows if comparison.known(row.result)]
    size = _scales(ax, comparison, [comparison.value(row.result, energy) for row in known])
    others = [row.result for row in known if not row.on_front]
    bars = len(known) <= _MOST_WITH_BARS
    for estimated in (False, True):
        members = [result for result in others if bool(result.estimated) == estimated]
        name = "others (estimate)" if estimated else "others"
        _points(ax, comparison, members, size, _GREY, "o", 4, bars, hollow=estimated, name=name)
    labelled, lines = [], []
    for group in comparison.groups:
        members = comparison.front_of(group)
        hollow = bool(members[0].estimated)
        xs = [comparison.value(result, energy) / size for result in members]
        ys = [comparison.value(result, quality) for result in members]
        if comparison.third is None:  # steps in two objectives would be wrong for three
            steps = [xs[0], *np.repeat(xs[1:], 2)], [*np.repeat(ys[:-1], 2), ys[-1]]
            lines += ax.plot(*steps, color=_BLUE, linewidth=1.2, linestyle="--" if hollow else "-", zorder=3)
        _points(
            ax, comparison, members, size, _BLUE, "o", 6, True, hollow, name=f"front{' (estimate)' if hollow else ''}"
        )
        labelled += members
    base = comparison.baseline
    if base is not None and comparison.known(base):
        _points(ax, comparison, [base], size, _ORANGE, "D", 6, True, bool(base.estimated), name="baseline")
        labelled += [] if base in labelled else [base]
    if known:
        _limits(ax, comparison, [row.result for row in known], [*labelled], size)
        # Above the axes, it covers nothing.
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=5, frameon=False, fontsize=8, borderaxespad=0)
    _label(figure, ax, comparison, labelled, [row.result for row in known], lines, size)
    return figure


def curves_picture(comparison: Comparison, kind: str) -> bytes:
    """Dice per epoch against the joules spent so far, for every repeat of the configurations on the front.

    Args:
        comparison: the comparison to draw.
        kind: `png`, `svg` or `pdf`.
    """
    with mpl.rc_context(_STYLE):
        return _saved(draw_curves(comparison), kind)


def draw_curves(comparison: Comparison) -> Figure:
    """The figure of `curves_picture`: the baseline, and the cheapest of the front, seven in all."""
    figure, ax = _figure()
    front = [result for group in comparison.groups for result in comparison.front_of(group)]
    base = [comparison.baseline] if comparison.baseline and comparison.baseline.finished else []
    others = [result for result in front if result not in base]
    room = len(_COLOURS) - len(base)
    chosen = best_first([*base, *others[:room]], comparison.energy)
    drawn = [[curve(run) for run in result.finished] for result in chosen]
    ends = [one.joules[-1] for curves in drawn for one in curves if one.joules]
    unit, size = joule_unit(ends)
    for result, curves, colour, dashes in zip(chosen, drawn, _COLOURS, _DASHES, strict=False):
        name = "\n".join(_broken(figure, comparison.label(result), 8, _SIZE[0] - 2 * _MARGIN - _DASH))
        for number_, one in enumerate(curves):
            points = [
                (joules / size, dice) for joules, dice in zip(one.joules, one.dice, strict=True) if dice is not None
            ]
            ax.plot(
                *zip(*points, strict=True) if points else ([], []),
                color=colour, linestyle=dashes, linewidth=1.2, label=name if number_ == 0 else None,
            )  # fmt: skip
    if ends and max(ends) > 10 * min(ends):
        _logarithmic(ax)
    ax.set_xlabel(f"energy spent, {unit}")
    ax.set_ylabel("Dice")
    if chosen:
        more = len(others[room:])
        title = f"{count(more, 'configuration')} of the front with more energy not drawn" if more else None
        legend = figure.legend(
            loc="outside lower left", frameon=False, fontsize=8, handlelength=3, title=title, title_fontsize=8,
            alignment="left",
        )  # fmt: skip
        height = legend.get_window_extent(_renderer(figure)).height / figure.dpi
        figure.set_size_inches(_SIZE[0], _SIZE[1] + height)
    return figure


PICTURES: dict[str, Callable[[Comparison, str], bytes]] = {"front": front_picture, "curves": curves_picture}


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _renderer(figure: Figure) -> Any:
    """The renderer, which measures text."""
    return figure.canvas.get_renderer()  # type: ignore[attr-defined]


def _saved(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    # Without a date in it, the same runs give the same bytes.
    date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    figure.savefig(content, format=kind, metadata=date)
    return content.getvalue()


def _scales(ax: Axes, comparison: Comparison, values: Sequence[float]) -> float:
    """Label the axes and set their scales; returns the size of the energy unit, to divide by."""
    quality, energy = comparison.quality, comparison.energy
    unit, size = comparison.unit(energy)
    if values and min(values) > 0 and max(values) > 10 * min(values):
        _logarithmic(ax)
    ax.set_xlabel(energy.titled(unit).replace("total ", "energy of the run, "))
    ax.set_ylabel(quality.heading, parse_math=False)
    return size


def _limits(ax: Axes, comparison: Comparison, results: Sequence[Result], front: Sequence[Result], size: float) -> None:
    """Set limits that include all points and the intervals of the front; other intervals may be cut off."""
    for objective, scale, get, change in (
        (comparison.energy, size, ax.get_xscale, ax.set_xlim),
        (comparison.quality, 1.0, ax.get_yscale, ax.set_ylim),
    ):
        means = [moments.value / scale for result in results if (moments := result.figure(objective))]
        ends = [mean for result in front if (mean := comparison.figure(result, objective))]
        low = min([*means, *(end.low / scale for end in ends)])
        high = max([*means, *(end.high / scale for end in ends)])
        if objective.more_is_better:  # an interval may exceed the possible range
            high = min(high, objective.ideal)
        if get() == "log":
            low = max(low, min(means) / 2)
            low, high = low / 1.15, high * 1.3
        else:
            low = max(low, 0.0) if min(means) >= 0 else low
            low, high = low - 0.05 * (high - low or 1), high + 0.12 * (high - low or 1)
        change(low, high)


def _logarithmic(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _points(
    ax: Axes, comparison: Comparison, results: Sequence[Result], size: float, colour: str, marker: str, width: float,
    bars: bool, hollow: bool, name: str,
) -> None:  # fmt: skip
    if not results:
        return
    means = [
        (comparison.figure(result, comparison.energy), comparison.figure(result, comparison.quality))
        for result in results
    ]
    xs, ys = [x.value / size for x, _ in means if x], [y.value for _, y in means if y]
    # The interval of a positive value may reach below 0, but a bar on a log scale cannot.
    x_bars = [
        [min(x.half or 0.0, x.value * 0.999) / size for x, _ in means if x],
        [(x.half or 0.0) / size for x, _ in means if x],
    ]
    ax.errorbar(
        xs, ys, xerr=x_bars if bars else None, yerr=[y.half or 0.0 for _, y in means if y] if bars else None,
        fmt=marker, color=colour, markersize=width, markerfacecolor="white" if hollow else colour, markeredgewidth=1.0,
        elinewidth=0.8, alpha=0.55 if colour == _GREY else 1.0, zorder=2 if colour == _GREY else 4, label=name,
    )  # fmt: skip


# ── labels that do not collide


def _label(
    figure: Figure, ax: Axes, comparison: Comparison, results: Sequence[Result], all_results: Sequence[Result],
    lines: Sequence[Line2D], size: float,
) -> None:  # fmt: skip
    """Label each point with its name, or with a number and a key if there are many or a name does not fit."""
    ordered = best_first(results, comparison.quality, comparison.energy)
    texts = [comparison.label(result) for result in ordered]

    def place(result: Result) -> tuple[float, float]:
        return comparison.value(result, comparison.energy) / size, comparison.value(result, comparison.quality)

    points = [place(result) for result in ordered]
    others = [place(result) for result in all_results if result not in ordered]
    names = ["\n".join(textwrap.wrap(text, _LABEL_WIDTH, break_on_hyphens=False)) for text in texts]
    if len(texts) <= _MOST_NAMED and _write(figure, ax, names, points, others, lines, all_or_none=True):
        return
    _key(figure, texts)
    _write(figure, ax, [str(number) for number in range(1, len(texts) + 1)], points, others, lines)


def _key(figure: Figure, texts: Sequence[str]) -> None:
    """Add the key of the numbers below the axes, and increase the height of the picture accordingly."""
    numbered = [f"{number:\N{FIGURE SPACE}>2}  {text}" for number, text in enumerate(texts, 1)]
    columns = 2 if max(map(len, numbered)) <= _TWO_COLUMNS else 1
    indent = "\n" + "\N{FIGURE SPACE}" * 2 + "  "
    keys = [indent.join(_broken(figure, key, 7.5, _SIZE[0] / columns - 2 * _MARGIN - 0.2)) for key in numbered]
    half = math.ceil(len(keys) / columns)
    parts = ["\n".join(keys[column * half : (column + 1) * half]) for column in range(columns)]
    for column, part in enumerate(parts):
        left = _MARGIN / _SIZE[0] + column / 2
        figure.text(left, 0.01, part, fontsize=7.5, va="bottom", linespacing=1.3)
    height = (1 + max(part.count("\n") + 1 for part in parts)) * 7.5 * 1.4 / 72
    total = _SIZE[1] + height
    figure.set_size_inches(_SIZE[0], total)
    figure.set_layout_engine("constrained", rect=(0, height / total, 1, _SIZE[1] / total))


def _broken(figure: Figure, text: str, size: float, room: float) -> list[str]:
    """A text in lines that are no longer than `room` inches."""
    renderer, font = _renderer(figure), FontProperties(size=size)
    for columns in range(len(text), 1, -1):
        lines = textwrap.wrap(text, columns, break_on_hyphens=False)
        widths = [renderer.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines]
        if max(widths) <= room * figure.dpi:
            return lines
    return [text]


def _write(
    figure: Figure, ax: Axes, texts: Sequence[str], points: Sequence[tuple[float, float]],
    others: Sequence[tuple[float, float]], lines: Sequence[Line2D], all_or_none: bool = False,
) -> bool:  # fmt: skip
    """Write texts beside points, as near as possible without covering anything; texts that do not fit are left out.

    Args:
        figure, ax: the figure and axes to write in.
        texts, points: texts, and their points in the axes.
        others: points without a text.
        lines: lines of the front.
        all_or_none: write none if one does not fit.

    Returns:
        Whether anything was written.
    """
    figure.draw_without_rendering()  # settles the layout
    radius = _MARKER * figure.dpi / 72

    def box(point: tuple[float, float]) -> Bbox:
        x, y = ax.transData.transform(point)
        return Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius)

    taken = _Taken(
        [box(point) for point in points],
        [box(point) for point in others] if len(others) <= _MOST_WITH_BARS else [],
        [line.get_transform().transform_path(line.get_path()) for line in lines],
    )
    if (legend := ax.get_legend()) is not None:
        taken.boxes.append(legend.get_window_extent())
    written = [
        _place(figure, ax, text, point, taken, (2, 1) if all_or_none else (2, 1, 0))
        for text, point in zip(texts, points, strict=True)
    ]
    if all_or_none and None in written:
        for text in filter(None, written):
            text.remove()
        return False
    figure.set_layout_engine("none")
    return True


@dataclass(frozen=True)
class _Taken:
    """Areas that labels must not cover, in pixels.

    Attributes:
        boxes: points with a label, the legend, labels.
        others: points without a label; covered only if there is no other space.
        lines: the front, and lines from labels to their points.
    """

    boxes: list[Bbox]
    others: list[Bbox]
    lines: list[Line]

    def free(self, box: Bbox, leader: Line, own: Bbox, care: int) -> bool:
        """Whether a label and its leader line fit at a place.

        Args:
            box: box of the label.
            leader: line from its point.
            own: box of this point.
            care: 0: the label covers no box and no line; 1: its leader does not cross one either; 2: neither of them
                covers one of the others.
        """
        crossed = [other for other in self.boxes if other is not own]
        return (
            not any(box.overlaps(other) for other in self.boxes)
            and not any(line.intersects_bbox(box, filled=False) for line in self.lines)
            and (care < 1 or not any(leader.intersects_bbox(other) for other in crossed))
            and (care < 1 or not any(leader.intersects_path(line, filled=False) for line in self.lines))
            and (care < 2 or not any(box.overlaps(other) or leader.intersects_bbox(other) for other in self.others))
        )


def _place(
    figure: Figure, ax: Axes, text: str, point: tuple[float, float], taken: _Taken, cares: Sequence[int]
) -> Annotation | None:
    """Write a label beside a point, as near as it fits; None if it does not fit."""
    renderer = _renderer(figure)
    room = figure.bbox.padded(-2)
    spot = ax.transData.transform(point)
    own = min(taken.boxes, key=lambda box: abs(box.x0 + box.x1 - 2 * spot[0]) + abs(box.y0 + box.y1 - 2 * spot[1]))
    annotation = ax.annotate(
        text, point, (0, 0), textcoords="offset points", fontsize=7.5, color="#222222", zorder=5, linespacing=1.0,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
    )  # fmt: skip
    for care, distance, (right, up) in itertools.product(cares, _DISTANCES, _DIRECTIONS):
        annotation.xyann = offset = right * distance, up * distance
        annotation.set_horizontalalignment("left" if right > 0.1 else "right" if right < -0.1 else "center")
        annotation.set_verticalalignment("bottom" if up > 0.1 else "top" if up < -0.1 else "center")
        box = text_box(annotation, renderer)
        way = np.array(offset) * figure.dpi / 72
        leader = Line([spot + way * _MARKER / distance, spot + way])  # the front's line goes through the point itself
        inside = room.contains(*box.min) and room.contains(*box.max)
        clear = box.x0 > ax.bbox.x0 and box.y0 > ax.bbox.y0  # of the numbers along the axes
        if inside and clear and taken.free(box, leader, own, care):
            taken.boxes.append(box)
            taken.lines.append(leader)
            return annotation
    annotation.remove()
    return None


def text_box(annotation: Annotation, renderer: Any) -> Bbox:
    """Box of the text of an annotation, without the line to its point, in pixels."""
    annotation.update_positions(renderer)
    return Text.get_window_extent(annotation, renderer).padded(4)
