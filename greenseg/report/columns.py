"""The columns that a report can show, sort by and export: settings, metrics, and the rank of a configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from greenseg.report.comparison import Comparison, Row
from greenseg.report.labels import MODEL, setting, setting_text, source, value_text
from greenseg.report.objectives import COSTS, ENERGIES, QUALITIES, SHOWN, TEST, Objective, named, of_class
from greenseg.report.payback import NEVER, break_even
from greenseg.report.results import Result, classes_of, objectives_of
from greenseg.report.statistics import Change, Mean
from greenseg.report.subjects import carried
from greenseg.report.units import number, percent

FRONT = "●"
RELATIVE = "relative"
SUBJECTS = "dice-subjects"
BREAK_EVEN = "break-even"
ON_GRID = "*"
"""Mark of a quality that was measured on the training grid."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: name for `--columns` and `--sort`.
        heading: heading of the column.
        text: returns the text for people.
        value: returns the value for programs and for sorting; None if there is none.
        figure: whether it is a number.
        descending: whether the largest value is the best.
    """

    name: str
    heading: str
    text: Callable[[Row], str]
    value: Callable[[Row], Any]
    figure: bool = True
    descending: bool = False


_PLACES = {
    "front": Column("front", "", lambda row: FRONT if row.on_front else "", lambda row: row.on_front, False, True),
    "runs": Column("runs", "runs", lambda row: _runs(row), lambda row: len(row.result.finished), descending=True),
    "chance": Column("chance", "chance", lambda row: _chance(row), lambda row: row.probability, descending=True),
    "rank": Column("rank", "rank", lambda row: str(row.rank or "–"), lambda row: row.rank),
    "status": Column("status", "status", lambda row: row.result.status, lambda row: row.result.status, False),
    "source": Column("source", "source", lambda row: _source(row), lambda row: source(row.result), False),
    "on-grid": Column("on-grid", "on grid", lambda row: value_text(_on_grid(row)), lambda row: _on_grid(row), False),
}


def column_names(comparison: Comparison) -> list[str]:
    """The names of all columns."""
    relative = [RELATIVE] if comparison.relative_to else []
    objectives = objectives_of(comparison.results)
    return [MODEL, *comparison.results[0].settings, *objectives, SUBJECTS, BREAK_EVEN, "saved", *relative, *_PLACES]


def column(comparison: Comparison, name: str) -> Column:
    """The column with a name."""
    if name in _PLACES:
        return _PLACES[name]
    if name == "saved":
        return Column(name, name, lambda row: _saved(comparison, row), lambda row: row.saved, descending=True)
    if name == BREAK_EVEN:
        return Column(name, name, lambda row: _break_even(comparison, row), lambda row: volumes(comparison, row.result))
    if name == RELATIVE:
        return Column(name, name, lambda row: _relative(comparison, row), lambda row: ratio(comparison, row))
    if name == SUBJECTS:
        return Column(
            name, "Dice, subjects", lambda row: _of_subjects(comparison, row),
            lambda row: mean.value if (mean := over_subjects(comparison, row.result)) else None, descending=True,
        )  # fmt: skip
    if objective := named(name):
        return _figure_column(comparison, objective)
    return Column(name, name, lambda row: setting_text(row.result, name), lambda row: setting(row.result, name), False)


MEASURED = ("inference-volume", "cpu-seconds", "latency", "size")
"""Columns of measured runs."""

OPTIONAL = ("test-joules", "peak-memory", "params", "per-epoch", "seconds", "chance", "saved", "runs")
"""Columns that a narrow table may omit, in this order."""


def default_columns(comparison: Comparison) -> list[str]:
    """Names of the columns of a table with enough space."""
    results = comparison.results
    shown = list(comparison.axes)
    if any(len(result.runs) > 1 for result in results):
        shown.append("runs")
    shown.append(comparison.quality.name)
    if any(result.figure(TEST) for result in results):
        shown.append(TEST.name)
    if comparison.energy.name == "total" and any(result.figure(ENERGIES["per-epoch"]) for result in results):
        shown.append("per-epoch")
    shown.append(comparison.energy.name)
    if any(run.record.lineage.ancestors for run in comparison.runs):
        shown.append("own")
    if comparison.energy.name == "e2mip":
        shown.append("e2mip-score")
    if any(result.figure(SHOWN["test-joules"]) for result in results):
        shown.append("test-joules")
    shown.append("saved")
    if comparison.relative_to:
        shown.append(RELATIVE)
    if any(row.probability is not None for row in comparison.rows):
        shown.append("chance")
    if any(result.figure(ENERGIES["inference"]) for result in results):
        shown += MEASURED
    if any(volumes(comparison, result) is not None for result in results):
        shown.append(BREAK_EVEN)
    third = [comparison.third.name] if comparison.third else []
    costs = ["seconds", "params"]
    if any(result.figure(COSTS["peak-memory"]) for result in results):
        costs.append("peak-memory")
    return list(dict.fromkeys([*shown, *third, *costs, "source"]))


def columns_with_classes(comparison: Comparison) -> list[str]:
    """Names of the default columns, with the quality of each class after the quality."""
    shown, quality = default_columns(comparison), comparison.quality.name
    after = shown.index(quality) + 1
    each = [of_class(quality.partition(":")[0], name).name for name in classes_of(comparison.results)]
    return list(dict.fromkeys([*shown[:after], *each, *shown[after:]]))


def _figure_column(comparison: Comparison, objective: Objective) -> Column:
    unit, size = comparison.unit(objective)

    def text(row: Row) -> str:
        if not objective.digits:
            return number(None if (value := figure(row.result, objective)) is None else value / size)
        mean = comparison.figure(row.result, objective)
        return "–" if mean is None else quality_text(row.result, objective, mean)

    return Column(
        objective.name,
        objective.titled(unit),
        text,
        lambda row: figure(row.result, objective),
        descending=objective.more_is_better,
    )


def quality_text(result: Result, objective: Objective, mean: Mean) -> str:
    """A quality with its interval, and with a mark if it was measured on the training grid."""
    return interval(mean, objective.digits or 0) + (ON_GRID if objective.judges and result.on_grid else "")


def figure(result: Result, objective: Objective) -> float | None:
    """The mean, if there is one."""
    mean = result.figure(objective)
    return None if mean is None else mean.value


def interval(mean: Mean, digits: int, sign: str = "") -> str:
    """A quality with its 95 % interval: `0.8123 ±0.0045`, or `0.8123 (±0.0045)` for a single repeat.

    Args:
        mean: mean over repeats or subjects.
        digits: number of digits after the point.
        sign: `+` to always show the sign.
    """
    half = "" if mean.half is None else f"±{mean.half:.{digits}f}"
    shown = half and f" ({half})" if mean.borrowed else half and f" {half}"
    return f"{mean.value:{sign}.{digits}f}".replace("-", "−") + shown


def _on_grid(row: Row) -> bool | None:
    """Whether the quality was measured on the training grid; None without a finished run."""
    return row.result.on_grid if row.result.finished else None


def _runs(row: Row) -> str:
    done, total = len(row.result.finished), len(row.result.runs)
    return str(total) if done == total else f"{done} of {total}"


def _saved(comparison: Comparison, row: Row) -> str:
    if row.result is comparison.baseline:
        return "baseline"
    return percent(row.saved)


def volumes(comparison: Comparison, result: Result) -> int | str | None:
    """Volumes after which compressing has paid for itself, or `never`; see `payback.break_even`."""
    found = break_even(comparison, result)
    return None if found is None else "never" if found == NEVER else int(found)


def _break_even(comparison: Comparison, row: Row) -> str:
    found = volumes(comparison, row.result)
    return "–" if found is None else found if isinstance(found, str) else f"{found:,}"


def ratio(comparison: Comparison, row: Row) -> float | None:
    """Energy ÷ energy of the configuration of `--relative-to` on the same hardware, if there is one."""
    change = comparison.relative(row.result)
    return change.share + 1 if change else None


def _relative(comparison: Comparison, row: Row) -> str:
    if row.result in comparison.relative_to:
        return "reference"
    change = comparison.relative(row.result)
    return ratio_text(change) if change else "–"


def ratio_text(change: Change) -> str:
    """A ratio with its 95 % interval: `0.62 (0.58–0.66)`."""
    said = number(change.share + 1)
    if change.low is None or change.high is None:
        return said
    return f"{said} ({number(change.low + 1)}–{number(change.high + 1)})"


def over_subjects(comparison: Comparison, result: Result) -> Mean | None:
    """The Dice with its interval over subjects and repeats, if there is one; see `subjects.carried`."""
    dice = QUALITIES["dice"]
    spread = comparison.spreads.of(result, dice)
    return carried(result, dice, spread) if spread else None


def _of_subjects(comparison: Comparison, row: Row) -> str:
    mean = over_subjects(comparison, row.result)
    return "–" if mean is None else quality_text(row.result, QUALITIES["dice"], mean)


def _chance(row: Row) -> str:
    """The chance as text; – if the spread is unknown."""
    return percent(row.probability)


def _source(row: Row) -> str:
    return source(row.result) if row.result.finished else row.result.status


def sort(rows: Sequence[Row], column: Column, reverse: bool = False) -> list[Row]:
    """Rows in the order of a column, the best first; rows without a value are always last."""
    known = [row for row in rows if column.value(row) is not None]
    unknown = [row for row in rows if column.value(row) is None]

    def key(row: Row) -> tuple[int, Any]:
        found = column.value(row)
        return (0, found) if isinstance(found, int | float) else (1, str(found))

    return sorted(known, key=key, reverse=column.descending != reverse) + unknown
