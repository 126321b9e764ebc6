"""The statistics of a report: means and changes with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """A mean over repeats, or over subjects.

    Attributes:
        value: the mean.
        half: half the width of its 95 % interval (Student t); None if the spread is unknown.
        n: number of repeats or subjects.
        borrowed: whether the interval of a single repeat comes from the spread of others.
    """

    value: float
    half: float | None
    n: int
    borrowed: bool = False

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
    return mean, math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1)


class Moments(NamedTuple):
    """Repeats in short, without an interval, which needs the spread of other configurations; see `spreads`.

    Attributes:
        value: the mean.
        variance: unbiased variance; 0 for one repeat.
        n: number of repeats; of folds if they differ by fold.
        overlap: correlation of folds by common training data, as a variance of the mean: see `moments_over_folds`.
    """

    value: float
    variance: float
    n: int
    overlap: float = 0.0

    @property
    def inflation(self) -> float:
        """Variance of the mean × n / variance: 1 for independent repeats."""
        return 1 + self.n * self.overlap


def moments_of(values: Sequence[float]) -> Moments:
    """Mean and variance of at least one value."""
    if len(values) == 1:
        return Moments(values[0], 0.0, 1)
    return Moments(*_moments(values), len(values))


def moments_over_folds(folds: Sequence[Sequence[float]], overlap: float) -> Moments:
    """Moments of at least two folds, each with the mean over its seeds.

    Folds share training data, so their mean varies more than s²/k says. The corrected resampled t-test has the variance
    s²·(1/k + n_test/n_train) instead (Nadeau & Bengio 2003, doi:10.1023/A:1024068626366).

    Args:
        folds: the values of the seeds of each fold. overlap: n_test/n_train, which is 1/(K − 1) for K-fold
            cross-validation; 0 for values that depend on no training.
    """
    means = [math.fsum(values) / len(values) for values in folds]
    return Moments(*_moments(means), len(means), overlap)


def overlap_of(folds: int) -> float:
    """n_test/n_train of a cross-validation with so many folds."""
    return 1 / (max(folds, 2) - 1)


@dataclass(frozen=True, slots=True)
class Change:
    """Relative change of a positive value: -0.3 is 30 % less.

    Attributes:
        share: relative change of the means.
        low, high: its 95 % interval; None if the spread is unknown.
        n: number of repeats or pairs.
    """

    share: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of_log(cls, difference: Mean) -> "Change":
        """The change of a difference of logarithms."""
        if difference.half is None:
            return cls(math.expm1(difference.value), None, None, difference.n)
        share, low, high = map(math.expm1, (difference.value, difference.low, difference.high))
        return cls(share, low, high, difference.n)


@cache
def t_quantile(freedom: float) -> float:
    """The factor of a two-sided 95 % interval: the 97.5 % quantile of Student's t for the degrees of freedom."""
    from scipy.special import stdtrit  # takes 0.2 s, and only repeats need it

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
