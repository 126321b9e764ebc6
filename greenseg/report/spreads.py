"""The means of results with intervals from the moderated spread of all of them; see `moderation`."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from greenseg.report.chance import Estimates, correlation, joint_freedom, t_quantiles
from greenseg.report.moderation import POSITIVE, SHARE, Scale, Values, moderate
from greenseg.report.objectives import ENERGIES, Objective
from greenseg.report.results import Result
from greenseg.report.statistics import CONFIDENCE, Change, Mean, Moments, t_quantile

_MANY = 1000.0
_LEAST_FREEDOM = 1.0  # of a configuration that ran once: with less, the others tell nothing about its spread


class Spread(NamedTuple):
    """A mean and the moderated spread of its repeats.

    Attributes:
        mean: the mean, with its interval; of a metric of test subjects, the one over subjects.
        number: number of repeats.
        even: the mean on the scale with even spread.
        slope: factor from this scale to the one of the values.
        variance: variance of a single repeat on this scale, × `Moments.inflation` for folds; 0 if unknown.
        freedom: degrees of freedom of the variance; 0 if unknown.
    """

    mean: Mean
    number: int
    even: float
    slope: float
    variance: float
    freedom: float

    @property
    def error(self) -> float:
        """Standard error of the mean on the scale with even spread."""
        return math.sqrt(self.variance / self.number)


class Spreads:
    """The spread of every objective, pooled over results.

    Energies are pooled by what is estimated, since an estimate scatters less or more than a measurement.

    Args:
        results: the results to pool over.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = results
        self._found: dict[str, dict[int, Spread]] = {}

    def of(self, result: Result, objective: Objective) -> Spread | None:
        """The spread of one of the results; None if it has no mean."""
        if objective.name not in self._found:
            self._found[objective.name] = self._pooled(objective)
        return self._found[objective.name].get(id(result))

    def figure(self, result: Result, objective: Objective) -> Mean | None:
        """The mean of one of the results with its 95 % interval; None if it has none."""
        spread = self.of(result, objective)
        return spread.mean if spread else None

    def change(self, before: Result, after: Result, objective: Objective) -> Change | None:
        """The change of a positive mean between two of the results, with the interval of the difference of logarithms.

        Welch (1947, doi:10.1093/biomet/34.1-2.28), with moderated variances. None if a mean is missing or not positive.
        """
        one, two = self.of(before, objective), self.of(after, objective)
        return change_of(one, two) if one and two else None

    def estimates(self, results: Sequence[Result], objectives: Sequence[Objective]) -> Estimates:
        """What is known of the means of some of the results, which have all of them; on scales with even spread."""
        spreads = [[s for objective in objectives if (s := self.of(result, objective))] for result in results]
        if len(objectives) == 1:  # which has no correlation
            return estimates_of(spreads, [[]] * len(results))
        repeats = [zip(*(result.values(objective) for objective in objectives), strict=True) for result in results]
        return estimates_of(spreads, [[row for row in rows if None not in row] for rows in repeats])

    def _pooled(self, objective: Objective) -> dict[int, Spread]:
        groups: dict[Hashable, list[tuple[Result, Moments]]] = {}
        folds = any(result.by_fold for result in self._results)
        for result in self._results:
            if moments := result.figure(objective):
                kind = _kind(result, objective), folds and _by_fold(result)
                groups.setdefault(kind, []).append((result, moments))
        found: dict[int, Spread] = {}
        for members in groups.values():
            spreads = spreads_of([moments for _, moments in members], scale_of(objective))
            for (result, _), spread in zip(members, spreads, strict=True):
                subjects = result.over_subjects(objective) if objective.over_subjects else None
                found[id(result)] = spread._replace(mean=subjects) if subjects else spread
        return found


def _by_fold(result: Result) -> bool:
    """Whether its spread is one over folds; so is that of a single fold, if others have several."""
    return result.by_fold or (len(result.repeats) == 1 and bool(result.settings["folds"]))


def _kind(result: Result, objective: Objective) -> Hashable:
    """What the results that share a spread have in common."""
    if objective.name not in ENERGIES:
        return None
    return result.estimated & set(objective.components) if objective.components else result.estimated


def scale_of(objective: Objective) -> Scale:
    """The scale with even spread: the logit for values from 0 to 1, else the logarithm."""
    return SHARE if objective.more_is_better and (objective.worst, objective.ideal) == (0.0, 1.0) else POSITIVE


def spreads_of(figures: Sequence[Moments], scale: Scale) -> list[Spread]:
    """The spreads of configurations, pooled over all of them."""
    means = np.array([moments.value for moments in figures])
    variances = np.array([moments.variance for moments in figures])
    numbers = np.array([float(moments.n) for moments in figures])
    inflations = np.array([moments.inflation for moments in figures])
    slopes = scale.slope(means)
    moderated = moderate(variances / slopes**2, numbers - 1)
    known = (numbers > 1) | (moderated.freedom >= _LEAST_FREEDOM)
    freedoms = np.where(known, moderated.freedom, 0.0)
    freedoms = np.where(freedoms < _MANY, np.round(freedoms, 2), freedoms)  # few distinct ones, for Student's t
    inflated = moderated.variance * inflations
    halves = _halves(inflated / numbers * slopes**2, freedoms)
    columns = (array.tolist() for array in (scale.even(means), slopes, inflated, freedoms))
    return [
        Spread(Mean(f.value, half, f.n, half is not None and f.n == 1), f.n, even, slope, variance, freedom)
        for f, half, even, slope, variance, freedom in zip(figures, halves, *columns, strict=True)
    ]


def _halves(squares: Values, freedoms: Values) -> list[float | None]:
    """Half the widths of 95 % intervals for squared standard errors; None without degrees of freedom."""
    if not (squares * freedoms).any():  # and scipy takes 0.2 s
        return [0.0 if freedom else None for freedom in freedoms.tolist()]
    halves = t_quantiles(freedoms, (1 - CONFIDENCE) / 2) * np.sqrt(squares)
    return [half if freedom else None for half, freedom in zip(halves.tolist(), freedoms.tolist(), strict=True)]


def change_of(before: Spread, after: Spread) -> Change | None:
    """The change of a positive mean; see `Spreads.change`."""
    if before.mean.value <= 0 or after.mean.value <= 0:
        return None
    half, n = None, min(before.number, after.number)
    if before.freedom and after.freedom:
        one, two = before.error**2, after.error**2
        freedom = float(joint_freedom(*map(np.array, (one, two, before.freedom, after.freedom))))
        half = t_quantile(freedom) * math.sqrt(one + two) if one + two else 0.0
    return Change.of_log(Mean(math.log(after.mean.value / before.mean.value), half, n))


def estimates_of(spreads: Sequence[Sequence[Spread]], repeats: Sequence[Sequence[Sequence[float]]]) -> Estimates:
    """What is known of the means of configurations, on scales with even spread.

    Args:
        spreads: spread of each objective, for each configuration.
        repeats: values of each objective in each repeat, for each configuration.
    """
    rows_of = [[(s.even, s.error if s.freedom else 0.0, s.freedom) for s in row] for row in spreads]
    table = np.array(rows_of).reshape(len(spreads), len(spreads[0]) if spreads else 1, 3)
    again = [place for place, rows in enumerate(repeats) if len(rows) > 1]
    units = [[s.slope * math.sqrt(s.variance) or math.inf for s in spreads[place]] for place in again]
    values = np.array([values for place in again for values in repeats[place]]).reshape(-1, table.shape[1])
    sizes = np.array([len(repeats[place]) for place in again], dtype=np.int64)
    if again:
        means = np.add.reduceat(values, np.cumsum(sizes) - sizes) / sizes[:, None]
        values = (values - means.repeat(sizes, axis=0)) / np.array(units).repeat(sizes, axis=0)
    return Estimates(table[..., 0], table[..., 1], table[..., 2], correlation(values))
