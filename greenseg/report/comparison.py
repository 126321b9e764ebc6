"""The comparison of every configuration with all others, for the report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from greenseg.report import front as fronts
from greenseg.report.chance import front_chances, near_best
from greenseg.report.effects import Pairs, mean_differences
from greenseg.report.labels import axes, differing, label
from greenseg.report.measured import Terms
from greenseg.report.moderation import Values
from greenseg.report.objectives import Objective
from greenseg.report.pairs import Figure, Trials, numbered
from greenseg.report.results import CONTENT, HARDWARE, Result, best_first
from greenseg.report.run import OF_NODE, Run, Way
from greenseg.report.spreads import Spread, Spreads
from greenseg.report.statistics import Change, Mean
from greenseg.runs.record import Watts
from greenseg.settings import ACCOUNTING, group_of

Kind = tuple[frozenset[Any], ...]
"""Sources of the joules per component, and constants of estimates; only configurations with the same kind compete."""


@dataclass(frozen=True)
class Row:
    """A configuration and its place among the others.

    Attributes:
        result: the configuration.
        on_front: whether no other configuration beats its means.
        probability: chance to be on the front, given the spread of repeats; None if its spread is unknown, because no
            competing configuration has repeats, or if it lacks a metric.
        rank: 1 on the front, 2 on the front of the rest, and so on; None if it lacks a metric.
        saved: saving as a share of the baseline's energy; None if their joules are not comparable.
    """

    result: Result
    on_front: bool = False
    probability: float | None = None
    rank: int | None = None
    saved: float | None = None


@dataclass(frozen=True)
class Volume:
    """The hypervolume of the front of results with comparable joules.

    Attributes:
        share: share of the box between `reference` and `ideal` that the front dominates.
        reference, ideal: corners of the box, with a value per objective.
        configurations: number of competing configurations.
    """

    share: float
    reference: tuple[float, ...]
    ideal: tuple[float, ...]
    configurations: int


@dataclass(frozen=True)
class Effect:
    """The effect of a value of an axis against the baseline's value, with everything else equal.

    Attributes:
        axis, value, reference: the setting, its value, and the reference value.
        quality: mean difference of the quality over all pairs.
        energy: change of the energy over comparable pairs; None without any.
        quality_between, energy_between: smallest and largest of both in a configuration, if these differ beyond noise.
    """

    axis: str
    value: Any
    reference: Any
    quality: Mean
    energy: Change | None
    quality_between: tuple[float, float] | None = None
    energy_between: tuple[float, float] | None = None


class Comparison:
    """Results compared by a quality, an energy and optionally a third objective.

    Args:
        results: at least one configuration.
        quality, energy: the objectives.
        third: third objective, or None.
        baseline: reference for savings; None for the configuration with the best quality.
        allow_mixed_sources: rank measured and estimated joules against each other.
        notes: sentences from reading the runs, to add to the warnings.
        relative_to: the configuration that energies are relative to, once for each class of hardware that has it.
        allow_mixed_hardware: rank measurements of prediction on different hardware against each other.
    """

    def __init__(
        self,
        results: Sequence[Result],
        quality: Objective,
        energy: Objective,
        third: Objective | None = None,
        baseline: Result | None = None,
        allow_mixed_sources: bool = False,
        notes: Sequence[str] = (),
        relative_to: Sequence[Result] = (),
        allow_mixed_hardware: bool = False,
    ) -> None:
        self.notes, self.relative_to = notes, relative_to
        self.quality, self.energy, self.third = quality, energy, third
        self.allow_mixed_sources, self.allow_mixed_hardware = allow_mixed_sources, allow_mixed_hardware
        self.objectives = [quality, energy, *([third] if third else [])]
        self.results = best_first(results, *self.objectives)
        self.baseline = baseline or self.best
        others = {id(one): one for one in (*relative_to, *([baseline] if baseline else [])) if one not in self.results}
        self.spreads = Spreads([*self.results, *others.values()])
        self._units: dict[str, tuple[str, float]] = {}
        self._kinds: dict[int, Kind] = {}

    def figure(self, result: Result, objective: Objective) -> Mean | None:
        """The mean of a result with its interval, from the spread of all results; see `Result.figure`."""
        return self.spreads.figure(result, objective)

    @cached_property
    def rows(self) -> list[Row]:
        """Every configuration with its place, best quality first."""
        places = {id(row.result): row for members in self.groups for row in self._places(members)}
        return [places.get(id(result)) or Row(result, saved=self.saved(result)) for result in self.results]

    @cached_property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for result in self.results for run in result.runs]

    @cached_property
    def by_identity(self) -> dict[str, list[Result]]:
        """Identity of a run's settings → the configurations with such a run."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            for identity in {run.record.identity for run in result.runs if run.record.identity}:
                found.setdefault(identity, []).append(result)
        return found

    def known(self, result: Result) -> bool:
        """Whether a result has a value for every objective, and joules that are comparable with others."""
        return not self.mixed(result) and all(result.figure(objective) is not None for objective in self.objectives)

    def kind(self, result: Result) -> Kind:
        """The kind that a result competes in: one class of hardware, and no estimates against measurements."""
        if id(result) not in self._kinds:
            self._kinds[id(result)] = self._kind(result, result.ways, result.watts, None)
        return self._kinds[id(result)]

    def _kind(self, of: Result, ways: Mapping[str, frozenset[Way]], watts: frozenset[Watts], run: Run | None) -> Kind:
        apart = tuple(
            frozenset(self._apart(objective, each) for each in ([run] if run else of.finished))
            for objective in self.objectives
            if objective.apart
        )
        if self.energy.apart:
            return apart  # prediction need not run where the training did
        hardware = (frozenset({of.where[HARDWARE]}),) if HARDWARE in of.where else ()
        return apart + hardware + self._sources(run or of, ways, watts)

    def _apart(self, objective: Objective, run: Run) -> Any:
        found = objective.apart(run) if objective.apart else None
        if isinstance(found, Terms):
            found = found._replace(**({"sources": ""} if self.allow_mixed_sources else {}))
            found = found._replace(**({"hardware": ""} if self.allow_mixed_hardware else {}))
        return found

    def _sources(self, of: Result | Run, ways: Mapping[str, frozenset[Way]], watts: frozenset[Watts]) -> Kind:
        if self.allow_mixed_sources:
            return ()
        counted = self.energy.components or tuple(ways)
        kind = frozenset((component, ways[component]) for component in counted if component in ways)
        estimated = any("estimated" in way for _, found in kind for way in found)
        if any(len(way) > 1 or OF_NODE in way for _, found in kind for way in found):
            return (kind, frozenset({id(of)}))  # the measured or own share is unknown, so nothing compares
        return (kind, frozenset(map(str, watts))) if estimated else (kind,)

    def mixed(self, result: Result) -> frozenset[str]:
        """Counted components with different sources between repeats, for which the result is not ranked."""
        if self.allow_mixed_sources or self.energy.apart:
            return frozenset()
        return result.mixed & set(self.energy.components) if self.energy.components else result.mixed

    def points(self, results: Sequence[Result]) -> fronts.Points:
        """Means of all objectives, shape (results, objectives); NaN if there is none."""
        means = [[result.figure(objective) for objective in self.objectives] for result in results]
        rows = [[np.nan if mean is None else mean.value for mean in row] for row in means]
        return np.array(rows, dtype=float).reshape(len(results), len(self.objectives))

    @cached_property
    def differing(self) -> list[str]:
        """The settings in which the results differ; see `labels.differing`."""
        return differing(self.results)

    @cached_property
    def axes(self) -> list[str]:
        """The settings that distinguish the results; see `labels.axes`."""
        return axes(self.differing)

    def label(self, result: Result) -> str:
        """A configuration in words, by the settings that distinguish it from the others."""
        return label(result, self.axes)

    def unit(self, objective: Objective) -> tuple[str, float]:
        """The unit for all values of an objective, and its size, to divide by."""
        if objective.name not in self._units:
            means = [result.figure(objective) for result in self.results]
            self._units[objective.name] = objective.unit([mean.value for mean in means if mean])
        return self._units[objective.name]

    @property
    def maximise(self) -> list[bool]:
        """For each objective, whether more is better."""
        return [objective.more_is_better for objective in self.objectives]

    @cached_property
    def groups(self) -> list[list[Result]]:
        """Groups of results that compete, the largest group first; results without all values are left out."""
        groups: dict[Kind, list[Result]] = {}
        for result in self.results:
            if self.known(result):
                groups.setdefault(self.kind(result), []).append(result)
        return sorted(groups.values(), key=len, reverse=True)

    def _places(self, members: Sequence[Result]) -> list[Row]:
        """The places of results that compete with each other."""
        points = self.points(members)
        chosen, ranks = fronts.front(points, self.maximise), fronts.ranks(points, self.maximise)
        probabilities: list[float | None] = [None] * len(members)
        estimates = self.spreads.estimates(members, self.objectives)
        known = [bool((freedoms > 0).all()) for freedoms in estimates.freedoms]
        if any(known):
            chances = front_chances(estimates, self.maximise).tolist()
            probabilities = [chance if spread else None for chance, spread in zip(chances, known, strict=True)]
        return [
            Row(result, bool(on_front), probability, int(rank), self.saved(result))
            for result, on_front, probability, rank in zip(members, chosen, probabilities, ranks, strict=True)
        ]

    def saved(self, result: Result) -> float | None:
        """Saving as a share of the baseline's energy; None if their joules are not comparable."""
        mean = result.figure(self.energy)
        base = self.baseline.figure(self.energy) if self.baseline else None
        if mean is None or base is None or not base.value or not self.comparable(result, self.baseline):
            return None
        return 1 - mean.value / base.value

    def competes(self, one: Result, other: Result) -> bool:
        """Whether two results have all values and comparable joules."""
        return self.known(one) and self.known(other) and self.comparable(one, other)

    def comparable(self, one: Result, other: Result | None) -> bool:
        """Whether the joules of two results are comparable."""
        if other is None or self.mixed(one) or self.mixed(other):
            return False
        return self.kind(one) == self.kind(other)

    def change(self, before: Result, after: Result) -> Change | None:
        """The change of energy from one configuration to another; None if they are not comparable."""
        return self.spreads.change(before, after, self.energy) if self.comparable(before, after) else None

    def relative(self, result: Result) -> Change | None:
        """The energy against that of `relative_to` on the same hardware; its share + 1 is the ratio.

        None if this class of hardware has no such configuration, or if their joules are not comparable.
        """
        references = (self.change(other, result) for other in self.relative_to)
        return next((change for change in references if change), None)

    # ── what stands out

    @property
    def best(self) -> Result | None:
        """The result with the best quality among those with all values."""
        return next((result for result in self.results if self.known(result)), None)

    @cached_property
    def near_best(self) -> list[Result]:
        """The results that cannot be distinguished from the best in quality, best first; see `chance.near_best`.

        Empty if the spread is unknown.
        """
        members = [result for result in self.results if result.figure(self.quality) is not None]
        estimates = self.spreads.estimates(members, [self.quality])
        if not estimates.freedoms.any():
            return []
        chosen = near_best(estimates, self.quality.more_is_better)
        return [result for result, near in zip(members, chosen, strict=True) if near]

    def cheapest_within(self, share: float = 0.01) -> Result | None:
        """The result with the least energy among those comparable to the best and within a share of its quality."""
        if self.best is None:
            return None
        limit = self.value(self.best, self.quality) * (1 - share if self.quality.more_is_better else 1 + share)
        near = [
            result
            for result in self.results
            if self.competes(result, self.best) and not self.quality.better(limit, self.value(result, self.quality))
        ]
        return best_first(near, self.energy, self.quality)[0]

    @staticmethod
    def value(result: Result, objective: Objective) -> float:
        """The mean of an objective of a result, which must have it."""
        mean = result.figure(objective)
        assert mean is not None
        return mean.value

    def front_of(self, group: Sequence[Result]) -> list[Result]:
        """The front of results that compete with each other, cheapest first."""
        chosen = fronts.front(self.points(group), self.maximise)
        return best_first((r for r, on_front in zip(group, chosen, strict=True) if on_front), self.energy, self.quality)

    def knee(self) -> Result | None:
        """The configuration of the front beyond which extra quality gets expensive; see `front.knee`."""
        if self.best is None:
            return None
        members = self.front_of([result for result in self.results if self.competes(result, self.best)])
        points = self.points(members)
        quality = points[:, 0] if self.quality.more_is_better else -points[:, 0]
        found = fronts.knee(quality, points[:, 1])
        return None if found is None else members[found]

    def volumes(self) -> list[Volume]:
        """The hypervolume of every group; the reference is the worst possible value, or the worst observed one."""
        found = []
        for members in self.groups:
            points = self.points(members)
            reference, ideal = [], []
            for column, objective in zip(points.T, self.objectives, strict=True):
                worst = float(column.min() if objective.more_is_better else column.max())
                reference.append(worst if objective.worst is None else objective.worst)
                ideal.append(objective.ideal)
            share = fronts.hypervolume(points, self.maximise, reference, ideal)
            found.append(Volume(share, tuple(reference), tuple(ideal), len(members)))
        return found

    @cached_property
    def swept(self) -> list[str]:
        """The settings that differ and affect training."""
        return [name for name in self.differing if name not in (CONTENT, HARDWARE) and group_of(name) != ACCOUNTING]

    @cached_property
    def effects(self) -> list[Effect]:
        """The mean effect of each value of each axis, over all pairs of runs that differ in nothing else."""
        trials = Trials(self.results, self.differing)
        figures = self._quality_of(trials), self._energy_of(trials)
        found = [self._pairs(name, trials, *figures) for name in self.swept]
        qualities = mean_differences([[quality for *_, quality, _ in effects] for effects in found])
        energies = mean_differences([[energy for *_, energy in effects if energy] for effects in found])
        said = []
        for effects, of_quality, of_energy in zip(found, qualities, energies, strict=True):
            spent = iter(of_energy)
            for (name, value, reference, _, energy), quality in zip(effects, of_quality, strict=True):
                changed = next(spent) if energy else None
                said.append(
                    Effect(
                        name,
                        value,
                        reference,
                        quality.mean,
                        Change.of_log(changed.mean) if changed else None,
                        quality.between,
                        _shares(changed.between) if changed else None,
                    )
                )
        return said

    def _quality_of(self, trials: Trials) -> Figure:
        """The quality of each trial."""
        values = [value for result in self.results for value in result.values(self.quality)]
        noise, freedom = self._noise(trials, self.quality, lambda spread: spread.variance * spread.slope**2)
        return Figure(np.array(values, dtype=float), noise, freedom)

    def _energy_of(self, trials: Trials) -> Figure:
        """The logarithm of the energy of each trial; NaN if its duplicates have different terms.

        Joules are comparable with the same kind of source and the same accounting settings.
        """
        values = [value for result in self.results for value in result.values(self.energy)]
        terms = [
            frozenset(self._terms(self.results[place], run) for run in runs)
            for place, runs in zip(trials.of, trials.runs, strict=True)
        ]
        logs = [
            math.log(value) if value and value > 0 and len(of) == 1 else math.nan
            for value, of in zip(values, terms, strict=True)
        ]
        noise, freedom = self._noise(trials, self.energy, lambda spread: spread.variance)
        return Figure(np.array(logs), noise, freedom, numbered(terms))

    def _noise(self, trials: Trials, objective: Objective, of: Callable[[Spread], float]) -> tuple[Values, Values]:
        """Variance of each trial if it was independent, and its degrees of freedom."""
        spreads = [self.spreads.of(result, objective) for result in self.results]
        known = [(of(spread), spread.freedom) if spread and spread.freedom else (math.nan, 0.0) for spread in spreads]
        noise, freedom = np.array(known)[trials.of].T
        return noise, freedom

    def _terms(self, result: Result, run: Run) -> tuple[Kind, Any]:
        ways = {component: frozenset({way}) for component, way in run.ways.items()}
        # Effects may change the engine of a measured prediction; the kind has the rest of its terms.
        return self._kind(result, ways, run.watts, run), None if self.energy.apart else self.energy.terms(run)

    def _pairs(
        self, name: str, trials: Trials, quality: Figure, energy: Figure
    ) -> list[tuple[str, Any, Any, Pairs, Pairs | None]]:
        """Axis, value, reference, and the pairs with differences in quality and in log energy."""
        reference = (self.baseline or self.results[0]).settings[name]
        return [
            (name, match.value, reference, pairs, energy.pairs(match))
            for match in trials.matches(name, reference)
            if (pairs := quality.pairs(match))
        ]


def _shares(between: tuple[float, float] | None) -> tuple[float, float] | None:
    return (math.expm1(between[0]), math.expm1(between[1])) if between else None
