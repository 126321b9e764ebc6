"""The effect of each setting, all else equal, with intervals that respect what pairs have in common.

An effect is the mean difference over pairs of runs that differ in one setting and nothing else, seed and fold included.
It is the mean over *the configurations of this sweep*; what varies is the training. So, with pairs of configuration g
and seed s:

- Differences between the means of configurations are no noise, and pairs of the same configuration are no independent
  samples of configurations: residuals are taken from the mean of each configuration. The range of these means is part
  of the result if it exceeds the noise (F test, 1 %).
- Seeds are shared. What a seed does to both runs of a pair cancels in the difference (blocking). What it does to one
  value of the setting, such as the initialisation of an encoder, returns in all configurations with this value:
  residuals are summed over a seed before they are squared (cluster-robust: Liang & Zeger 1986,
  doi:10.1093/biomet/73.1.13, one of the two ways of Cameron, Gelbach & Miller 2011, doi:10.1198/jbes.2010.07136; the
  other way is the first point).
- There are two or three seeds. So this variance is divided by the one that independent runs would give, from their
  moderated spread. The ratio is moderated over the effects of the setting, and the mean ratio without clusters of the
  other settings, which shows the blocking (1, as for independent runs, if there is no other setting).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greenseg.report.chance import t_quantiles
from greenseg.report.moderation import Values, moderate
from greenseg.report.statistics import CONFIDENCE, Mean, mean_of

_COMMON_FREEDOM = 2.0  # degrees of freedom that the ratio of all settings counts for
_ROUNDING = 1e-9  # of differences, as a share of their mean
_DIFFERENT = 0.01  # probability of a range of configurations as large by chance


@dataclass(frozen=True)
class Pairs:
    """Pairs of runs that differ in one setting.

    Attributes:
        differences: after − before, shape (n,), n > 0.
        configurations, repeats: numbers that are equal for equal values of all other settings, and for equal seeds
            and folds; shape (n,).
        noise: variance of each difference if its runs were independent, shape (n,); NaN if unknown.
        freedom: degrees of freedom of the noise.
    """

    differences: Values
    configurations: NDArray[np.int64]
    repeats: NDArray[np.int64]
    noise: Values
    freedom: float


@dataclass(frozen=True)
class MeanDifference:
    """The mean of pairs.

    Attributes:
        mean: the mean with its interval; `n` is the number of pairs.
        between: smallest and largest mean of a configuration, if these differ by more than noise; else None.
    """

    mean: Mean
    between: tuple[float, float] | None


def mean_differences(settings: Sequence[Sequence[Pairs]]) -> list[list[MeanDifference]]:
    """The mean of the pairs of each effect, for each setting, whose effects share their ratio; see the module.

    If nobody has repeats, the spread between configurations stands in for the noise, which is then too large, if
    anything.
    """
    summaries = [[_summary(pairs) for pairs in effects] for effects in settings]
    found = []
    for number, (own, effects) in enumerate(zip(summaries, settings, strict=True)):
        blocked = _blocked([summary for place, other in enumerate(summaries) if place != number for summary in other])
        pairs = zip(own, effects, _spread(own, blocked), strict=True)
        found.append([_difference(summary, each, *spread) for summary, each, spread in pairs])
    return found


def _blocked(others: Sequence["_Summary"]) -> float:
    """Mean ratio of the variance of pairs to that of independent runs; 1 without pairs."""
    known = [summary for summary in others if summary.expected and summary.rest]
    ratios = sum(summary.rest * summary.paired / summary.expected for summary in known)
    return ratios / sum(summary.rest for summary in known) if known else 1.0


def _spread(effects: Sequence["_Summary"], blocked: float) -> list[tuple[float, float]]:
    """Squared standard error and degrees of freedom of each effect of a setting; 0 degrees if unknown."""
    ratios = [effect.clustered / effect.expected if effect.expected else 0.0 for effect in effects]
    freedoms = [effect.freedom if effect.expected else 0.0 for effect in effects]
    common = min((effect.noise_freedom for effect in effects if effect.expected), default=0.0)
    moderated = moderate(np.array([*ratios, blocked]), np.array([*freedoms, min(common, _COMMON_FREEDOM)]))
    found = []
    for place, effect in enumerate(effects):
        if effect.expected:
            freedom = float(moderated.freedom[place])
            if freedom < 1 <= common:  # no repeats of its own
                found.append((blocked * effect.expected, common))
            else:
                found.append((float(moderated.variance[place]) * effect.expected, freedom))
        else:
            found.append((effect.clustered, effect.freedom))
    return found


def _difference(summary: "_Summary", pairs: Pairs, square: float, freedom: float) -> MeanDifference:
    if not freedom:
        return MeanDifference(mean_of(pairs.differences.tolist()), None)
    n = len(pairs.differences)
    half = float(t_quantiles(np.array([freedom]), (1 - CONFIDENCE) / 2)[0]) * math.sqrt(square) if square else 0.0
    return MeanDifference(Mean(summary.mean, half, n), _between(summary, n * square, freedom))


@dataclass(frozen=True, eq=False)
class _Summary:
    """An effect in numbers.

    Attributes:
        mean: the mean of its pairs.
        clustered: squared standard error of the mean, with seeds as clusters; 0 if no configuration has several seeds.
        freedom: its degrees of freedom.
        paired: squared standard error, with independent pairs.
        rest: its degrees of freedom.
        expected: squared standard error, with independent runs; 0 if unknown.
        noise_freedom: its degrees of freedom.
        means, sizes: mean and number of pairs of each configuration.
    """

    mean: float
    clustered: float
    freedom: float
    paired: float
    rest: int
    expected: float
    noise_freedom: float
    means: Values
    sizes: Values


def _summary(pairs: Pairs) -> _Summary:
    configuration, repeat = (
        np.unique(numbers, return_inverse=True)[1] for numbers in (pairs.configurations, pairs.repeats)
    )
    n, groups, seeds = len(configuration), int(configuration.max()) + 1, int(repeat.max()) + 1
    sizes = np.bincount(configuration).astype(float)
    means = np.bincount(configuration, pairs.differences) / sizes
    residuals = pairs.differences - means[configuration]
    mean, rest = float(pairs.differences.mean()), n - groups
    residuals[np.abs(residuals) < _ROUNDING * abs(mean)] = 0.0
    factor = 1 / (n * rest) if rest else 0.0
    expected = float(pairs.noise.sum()) / n**2
    return _Summary(
        mean,
        clustered=float((np.bincount(repeat, residuals) ** 2).sum()) * factor,
        # Each set of configurations that share seeds loses one degree of freedom.
        freedom=float(seeds - _parts(configuration, repeat)) if rest else 0.0,
        paired=float((residuals**2).sum()) * factor,
        rest=rest,
        expected=expected if math.isfinite(expected) else 0.0,
        noise_freedom=pairs.freedom,
        means=means,
        sizes=sizes,
    )


def _parts(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Number of connected parts of the graph whose edges are the pairs (one, other), with numbers from 0.

    Each node takes the smallest label of its neighbours until none changes. scipy.sparse has it as well, but takes
    0.1 s to import.
    """
    labels = np.arange(int(other.max()) + 1)
    while True:
        of_one = np.full(int(one.max()) + 1, len(labels))
        np.minimum.at(of_one, one, labels[other])
        found = labels.copy()
        np.minimum.at(found, other, of_one[one])
        if (found == labels).all():
            return len(np.unique(labels))
        labels = found


def _between(summary: _Summary, noise: float, freedom: float) -> tuple[float, float] | None:
    """Smallest and largest mean, if an F test tells them apart; `noise` is the variance of a single pair."""
    from scipy.special import fdtrc

    groups = len(summary.means)
    if groups < 2:
        return None
    spread = float((summary.sizes * (summary.means - summary.mean) ** 2).sum()) / (groups - 1)
    if (
        spread <= (_ROUNDING * summary.mean) ** 2
        or fdtrc(groups - 1, freedom, spread / max(noise, 1e-300)) >= _DIFFERENT
    ):
        return None
    return float(summary.means.min()), float(summary.means.max())
