"""Axes and the runs that they expand to, independent of YAML."""

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import prod
from typing import Any

from greenseg import model_names as names
from greenseg.classes import without_names
from greenseg.settings import ACCOUNTING, Overlays, Settings, group_of, values_of

Values = dict[str, Any]

MOST = 10_000
"""Largest number of values of a range; more is probably a mistake."""


@dataclass(frozen=True)
class Branch:
    """Values of an axis, and their condition.

    Attributes:
        rows: steps of the axis, each with a value for every setting of the axis.
        when: setting → values; the rows apply only if every one of these settings has one of its values.
    """

    rows: tuple[Values, ...]
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def holds(self, cell: Values) -> bool:
        """Whether the rows apply to a combination of other axes; a missing axis has none of the values."""
        return all(name in cell and cell[name] in values for name, values in self.when.items())


@dataclass(frozen=True)
class Between:
    """All numbers between two ends.

    Attributes:
        low: the lower end; a value.
        high: the upper end; a value.
        log: whether each factor has the same chance to be drawn, instead of each difference.
        unit: for whole numbers, what they are multiples of; None for all numbers.
    """

    low: float
    high: float
    log: bool = False
    unit: int | None = None


@dataclass(frozen=True)
class Axis:
    """One swept setting with its values, or several settings that change together.

    If several branches hold, the axis has the values of all of them; if none holds, it does not exist. An axis with
    `between` has no branches, and no grid can have it.
    """

    settings: tuple[str, ...]
    branches: tuple[Branch, ...]
    between: Between | None = None

    @property
    def needs(self) -> set[str]:
        """Settings that decide which branches hold."""
        return {name for branch in self.branches for name in branch.when}

    def rows(self, cell: Values) -> Sequence[Values]:
        """The steps of the axis in a combination of the axes before it."""
        return [row for branch in self.branches if branch.holds(cell) for row in branch.rows] or [{}]


def in_order(axes: Sequence[Axis]) -> list[Axis]:
    """The axes, each after the axes that it depends on, otherwise in the given order.

    Raises:
        ValueError: axes depend on each other in a circle; the message names their settings.
    """
    waiting, ordered, known = list(axes), list[Axis](), set[str]()
    while waiting:
        ready = next((axis for axis in waiting if axis.needs <= known), None)
        if ready is None:
            raise ValueError(" and ".join(", ".join(axis.settings) for axis in waiting))
        waiting.remove(ready)
        ordered.append(ready)
        known.update(ready.settings)
    return ordered


def combinations(axes: Sequence[Axis]) -> list[Values]:
    """Every combination of the axes, with the last axis changing fastest; empty without axes.

    Args:
        axes: axes in the order of `in_order`.
    """
    cells: list[Values] = [{}] if axes else []
    for axis in axes:
        cells = [cell | row for cell in cells for row in axis.rows(cell)]
    return cells


class Rules:
    """Finds the first of many rules that a combination matches, that is, whose values it has."""

    def __init__(self, rules: Sequence[Values]) -> None:
        # Index each rule by one value: that of its setting with the most distinct values in the rules.
        distinct: dict[str, set[Any]] = {}
        for rule in rules:
            for name, value in rule.items():
                distinct.setdefault(name, set()).add(value)
        self._tables: dict[str, dict[Any, list[tuple[int, Any]]]] = {}
        for number, rule in enumerate(rules):
            name = max(rule, key=lambda name: len(distinct[name]))
            self._tables.setdefault(name, {}).setdefault(rule[name], []).append((number, rule.items()))

    def first(self, cell: Values) -> int | None:
        """Index of the first rule that drops this combination, or None."""
        items = cell.items()
        matching = [
            number
            for name, table in self._tables.items()
            for number, rule in table.get(cell.get(name), ())
            if rule <= items
        ]
        return min(matching, default=None)


def included(originals: Sequence[Values], extras: Sequence[Values]) -> list[Values]:
    """The combinations of a grid with those of `include`, as in a matrix of GitHub Actions.

    Each extra is added to every original that it does not contradict, and may override earlier extras. If it
    contradicts all originals, it is a new combination.
    """
    if not extras:
        return list(originals)
    combinations = [dict(original) for original in originals]
    halves = [_with_halves(original) for original in originals]
    for extra in extras:
        wanted = _with_halves(extra)
        fits = [all(half.get(key, value) == value for key, value in wanted.items()) for half in halves]
        for combination, fit in zip(combinations, fits, strict=False):
            if fit:
                combination.update(extra)
        if not any(fits):
            combinations.append(dict(extra))
    return combinations


def _with_halves(combination: Values) -> Values:
    """A combination with `model` replaced by its encoder and decoder."""
    if "model" not in combination:
        return combination
    encoder, decoder = names.split_model(combination["model"])
    rest = {key: value for key, value in combination.items() if key != "model"}
    return {"encoder": encoder, "decoder": decoder} | rest


@dataclass(frozen=True)
class Space:
    """Configurations to draw from.

    Attributes:
        base: settings of all runs.
        axes: axes without conditions; a configuration has one row of each, or one number between its ends.
        seeds: seeds that every configuration runs with; without seeds, it runs once.
    """

    base: Values
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...] = ()

    @property
    def size(self) -> int | None:
        """Number of combinations; None if an axis has all numbers between two ends."""
        if any(axis.between for axis in self.axes):
            return None
        return prod(len(axis.rows({})) for axis in self.axes)

    def runs(self, values: Values) -> tuple[Settings, ...]:
        """The runs of a configuration, one per seed.

        Args:
            values: a value for every setting of every axis, in the form that `canonical` returns.
        """
        run = Overlays(self.base).over(values)
        return tuple(run.model_copy(update={"seed": seed}) for seed in self.seeds) or (run,)


@dataclass(frozen=True)
class Expansion:
    """The expansion of a grid.

    Attributes:
        runs: settings of the runs in the order of the file, without duplicates; empty if rules dropped everything.
        dropped: number of combinations that each rule dropped, as the first.
        duplicates: number of runs merged with an equal earlier run.
    """

    runs: list[Settings]
    dropped: list[int]
    duplicates: int


def expand(
    base: Values, axes: Sequence[Axis], exclude: Sequence[Values], include: Sequence[Values], seeds: Sequence[int]
) -> Expansion:
    """The runs of a grid.

    Args:
        base: settings of all runs; without axes and `include`, they are the only combination.
        axes: axes in the order of `in_order`.
        exclude: rules for dropping combinations.
        include: extras for `included`.
        seeds: seeds for every combination; without seeds, each combination runs once.
    """
    with _without_collection():
        rules, dropped = Rules(exclude), [0] * len(exclude)
        kept = []
        for cell in combinations(axes):
            number = rules.first(cell)
            if number is None:
                kept.append(cell)
            else:
                dropped[number] += 1
        wanted = included(kept, include)
        if not wanted and not axes:
            wanted = [{}]
        overlays = Overlays(base)
        runs = [overlays.over(values) for values in wanted]
        if seeds:
            runs = [run.model_copy(update={"seed": seed}) for run in runs for seed in seeds]
        # Compared by the varied settings, since short identities may collide.
        varied = {name for values in wanted for name in values} | {"encoder", "decoder", "seed"}
        tell_apart = values_of([name for name in varied if group_of(name) != ACCOUNTING and name != "labels"])
        distinct: dict[Any, Settings] = {}
        for run in runs:
            labels = without_names(run.labels) if "labels" in varied else ""
            distinct.setdefault((tell_apart(run), labels), run)
    return Expansion(list(distinct.values()), dropped, len(runs) - len(distinct))


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Disable garbage collection while the context lasts: it would scan a hundred thousand runs repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def spread(first: float, last: float, *, step: float | None = None, times: float | None = None) -> list[float]:
    """The values of a range, ends included: from `first`, in steps of `step` or factors of `times`, up to `last`.

    It uses decimal arithmetic, so that 0.1, 0.2, 0.3 are exact; whole numbers stay whole.

    >>> spread(8, 64, times=2)
    [8, 16, 32, 64]

    Raises:
        ValueError: it does not lead from `first` to `last`, or has more than `MOST` values.
    """
    by = step if step is not None else times
    assert by is not None
    value, end, change = (Decimal(str(number)) for number in (first, last, by))
    if step is None and (value <= 0 or end <= 0 or change <= 0):
        raise ValueError("a range with 'times' needs numbers above 0")
    ahead = (value + change if step is not None else value * change) - value
    if value != end and ahead * (end - value) <= 0:
        raise ValueError(f"'{'step' if step is not None else 'times'}' {by} never leads from {first} to {last}")
    whole = isinstance(first, int)
    values: list[float] = []
    while value <= end if ahead > 0 else value >= end:
        if len(values) == MOST:
            raise ValueError(f"more than {MOST} values from {first} to {last}")
        values.append(int(value) if whole and value == value.to_integral_value() else float(value))
        value = value + change if step is not None else value * change
        if ahead == 0:
            break
    return values
