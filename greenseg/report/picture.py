"""Pictures for papers and slides: the front, and learning curves. By matplotlib (the extra `plots`).

Colours are those of Okabe & Ito (https://jfly.uni-koeln.de/color/), which colour-blind people can tell apart; markers
and line styles differ as well, so that a black-and-white print can be read.
"""

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from greenseg.report.comparison import Comparison
from greenseg.report.curves import curve
from greenseg.report.results import Result, best_first
from greenseg.report.units import joule_unit

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#8c8c8c"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2)))
_SIZE = (7.0, 4.6)  # inches: the width of a page's text
_MOST_WITH_BARS = 80  # more grey error bars than that are fog
_MOST_NAMED = 6  # points that are named beside them
_MARKER = 5  # points around the middle of one, that no label covers
_LABEL_WIDTH = 26  # characters of a line
_DIRECTIONS = [(math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)) for turn in (5, 3, 13, 6, 2, 14, 11, 4, 12)]
_DISTANCES = (8, 16, 28, 42, 60)  # points
_STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "pdf.fonttype": 42, "svg.hashsalt": "greenseg", "figure.dpi": 200,
}  # fmt: skip


def front_picture(comparison: Comparison, kind: str) -> bytes:
    """The front of quality against energy, with 95 % intervals; estimates are hollow.

    Labels that find no place without covering something are left out.

    Args:
        comparison: what to draw.
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
    labelled = []
    for group in comparison.groups:
        members = comparison.front_of(group)
        hollow = bool(members[0].estimated)
        xs = [comparison.value(result, energy) / size for result in members]
        ys = [comparison.value(result, quality) for result in members]
        if comparison.third is None:  # of three objectives the steps of two would be wrong
            ax.step(xs, ys, where="post", color=_BLUE, linewidth=1.2, linestyle="--" if hollow else "-", zorder=3)
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
        ax.legend(loc="lower right", frameon=False, fontsize=8)
    _label(figure, ax, comparison, labelled, size)
    return figure


def curves_picture(comparison: Comparison, kind: str) -> bytes:
    """Dice of every epoch against the joules spent until then, of every repeat of the configurations on the front.

    Args:
        comparison: what to draw.
        kind: `png`, `svg` or `pdf`.
    """
    with mpl.rc_context(_STYLE):
        return _saved(draw_curves(comparison), kind)


def draw_curves(comparison: Comparison) -> Figure:
    """The figure of `curves_picture`: the cheapest seven of the front, the baseline among them."""
    figure, ax = _figure()
    chosen = [result for group in comparison.groups for result in comparison.front_of(group)]
    base = comparison.baseline
    if base is not None and base.finished and base not in chosen:
        chosen = [base, *chosen]
    chosen = chosen[: len(_COLOURS)]
    drawn = [[curve(run) for run in result.finished] for result in chosen]
    ends = [one.joules[-1] for curves in drawn for one in curves if one.joules]
    unit, size = joule_unit(ends)
    for result, curves, colour, dashes in zip(chosen, drawn, _COLOURS, _DASHES, strict=False):
        name = comparison.label(result)
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
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, fontsize=8, ncols=1)
    return figure


PICTURES: dict[str, Callable[[Comparison, str], bytes]] = {"front": front_picture, "curves": curves_picture}


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _saved(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    # Without a date in it, the same runs give the same bytes.
    date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    figure.savefig(content, format=kind, metadata=date)
    return content.getvalue()


def _scales(ax: Axes, comparison: Comparison, values: Sequence[float]) -> float:
    """Name the axes, choose their scales; returns what to divide the energy by."""
    quality, energy = comparison.quality, comparison.energy
    unit, size = comparison.unit(energy)
    if values and min(values) > 0 and max(values) > 10 * min(values):
        _logarithmic(ax)
    ax.set_xlabel(energy.heading.format(unit).strip().replace("total ", "energy of the run, "))
    ax.set_ylabel(quality.heading)
    return size


def _limits(ax: Axes, comparison: Comparison, results: Sequence[Result], front: Sequence[Result], size: float) -> None:
    """Room for all points and the intervals of the front; those of others may leave the picture."""
    for objective, scale, get, change in (
        (comparison.energy, size, ax.get_xscale, ax.set_xlim),
        (comparison.quality, 1.0, ax.get_yscale, ax.set_ylim),
    ):
        means = [mean.value / scale for result in results if (mean := result.figure(objective))]
        ends = [mean for result in front if (mean := result.figure(objective))]
        low = min([*means, *(end.low / scale for end in ends)])
        high = max([*means, *(end.high / scale for end in ends)])
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
    means = [(result.figure(comparison.energy), result.figure(comparison.quality)) for result in results]
    xs, ys = [x.value / size for x, _ in means if x], [y.value for _, y in means if y]
    # The interval of a positive figure may reach below 0; a bar on a log scale cannot.
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


def _label(figure: Figure, ax: Axes, comparison: Comparison, results: Sequence[Result], size: float) -> None:
    """Name each point beside it or, where there are many, by a number that a key under the picture explains."""
    ordered = best_first(results, comparison.quality, comparison.energy)
    texts = [comparison.label(result) for result in ordered]
    if len(texts) > _MOST_NAMED:
        keys = [f"{number:\N{FIGURE SPACE}>2}  {text}" for number, text in enumerate(texts, 1)]
        half = math.ceil(len(keys) / 2) if max(map(len, keys)) < _LABEL_WIDTH * 2 else len(keys)
        for column, part in enumerate((keys[:half], keys[half:])):
            figure.text(0.02 + column / 2, 0.01, "\n".join(part), fontsize=7.5, va="bottom")
        height = half * 0.145
        total = _SIZE[1] + height
        figure.set_size_inches(_SIZE[0], total)
        figure.set_layout_engine("constrained", rect=(0, height / total, 1, _SIZE[1] / total))
        texts = [str(number) for number in range(1, len(texts) + 1)]
    figure.draw_without_rendering()  # settles the layout
    figure.set_layout_engine("none")
    places = [
        (comparison.value(result, comparison.energy) / size, comparison.value(result, comparison.quality))
        for result in ordered
    ]
    radius = _MARKER * figure.dpi / 72
    spots = [ax.transData.transform(place) for place in places]
    taken = [Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius) for x, y in spots]
    if (legend := ax.get_legend()) is not None:
        taken.append(legend.get_window_extent())
    for text, place in zip(texts, places, strict=True):
        _place(figure, ax, "\n".join(textwrap.wrap(text, _LABEL_WIDTH)), place, taken)


def _place(figure: Figure, ax: Axes, text: str, place: tuple[float, float], taken: list[Bbox]) -> None:
    """Write a label beside a point, as near as it covers nothing that is taken; where it finds no room, not at all."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    room = figure.bbox.padded(-2)
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            annotation = ax.annotate(
                text, place, (right * distance, up * distance), textcoords="offset points", fontsize=7.5,
                ha="left" if right > 0.1 else "right" if right < -0.1 else "center", color="#222222", zorder=5,
                va="bottom" if up > 0.1 else "top" if up < -0.1 else "center", linespacing=1.0,
                bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
                arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
            )  # fmt: skip
            box = text_box(annotation, renderer)
            inside = room.contains(*box.min) and room.contains(*box.max)
            clear = box.x0 > ax.bbox.x0 and box.y0 > ax.bbox.y0  # of the numbers along the axes
            if inside and clear and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                return
            annotation.remove()


def text_box(annotation: Annotation, renderer: Any) -> Bbox:
    """Where the text of an annotation is, without the line to its point; in pixels."""
    annotation.update_positions(renderer)
    return Text.get_window_extent(annotation, renderer).padded(4)
