"""The statistics of a report: means and changes with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over repeats, or over subjects.

    Attributes:
        value: the mean.
        half: half the width of its 95 % interval (Student t); None for one repeat, which has no spread.
        n: number of repeats or subjects.
    """

    value: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        """Lower end of the interval; the value itself without an interval."""
        return self.value - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end of the interval; the value itself without an interval."""
        return self.value + (self.half or 0.0)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of at least one value, with its interval: mean ± t(n − 1, 97.5 %) · s / √n."""
    n = len(values)
    if n == 1:
        return Mean(values[0], None, 1)
    mean, variance = _moments(values)
    return Mean(mean, t_quantile(n - 1) * math.sqrt(variance / n), n)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and unbiased variance; the module `statistics` takes 30 times as long because it uses exact fractions."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


@dataclass(frozen=True, slots=True)
class Change:
    """Relative change of a positive value: -0.3 is 30 % less.

    Attributes:
        share: relative change of the geometric means.
        low, high: its 95 % interval; None if there are too few values.
        n: number of values or pairs.
    """

    share: float
    low: float | None
    high: float | None
    n: int


def paired_change(befores: Sequence[float], afters: Sequence[float]) -> Change | None:
    """The change between pairs of positive values, with the t interval of the log ratios.

    None if there are no valid pairs.
    """
    logs = [math.log(after / before) for before, after in zip(befores, afters, strict=True) if before > 0 and after > 0]
    if not logs:
        return None
    mean = mean_of(logs)
    if mean.half is None:
        return Change(math.expm1(mean.value), None, None, 1)
    return Change(math.expm1(mean.value), math.expm1(mean.low), math.expm1(mean.high), mean.n)


def change(befores: Sequence[float], afters: Sequence[float]) -> Change | None:
    """The change between two groups of positive values, with Welch's t interval of the difference of their mean logs.

    Welch, B. L. (1947), Biometrika 34 (1–2), 28–35. None if a group is empty.
    """
    one = [math.log(value) for value in befores if value > 0]
    two = [math.log(value) for value in afters if value > 0]
    if not one or not two:
        return None
    n = min(len(one), len(two))
    if n == 1:
        return Change(math.expm1(math.fsum(two) / len(two) - math.fsum(one) / len(one)), None, None, 1)
    (before, spread_before), (after, spread_after) = _moments(one), _moments(two)
    difference, parts = after - before, (spread_before / len(one), spread_after / len(two))
    variance = sum(parts)
    if variance == 0:
        half = 0.0
    else:
        freedom = variance**2 / sum(p**2 / (len(g) - 1) for p, g in zip(parts, (one, two), strict=True))
        half = t_quantile(freedom) * math.sqrt(variance)
    return Change(math.expm1(difference), math.expm1(difference - half), math.expm1(difference + half), n)


@cache
def t_quantile(freedom: float) -> float:
    """The factor of a two-sided 95 % interval: the 97.5 % quantile of Student's t for the degrees of freedom."""
    from scipy.special import stdtrit  # takes 0.2 s, and only repeats need it

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
