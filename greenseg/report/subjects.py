"""How far a mean carries to other subjects, not only to other seeds.

A quality is a mean over seeds and over the validation subjects. Other patients would change it as other seeds would,
and often more. The variance of the mean is taken as

    s²(subjects)/n + s²(seeds)/k,

where s²(subjects) is the variance over subjects of their means over seeds, and s²(seeds) the moderated variance of the
seeds (module `moderation`). This is the variance of the bootstrap that draws subjects and seeds independently (Owen
2007, doi:10.1214/07-AOAS122): what is peculiar to a subject and a seed counts in both terms, so it errs to the wide
side. The interval is Student's t with the degrees of freedom of the sum (Satterthwaite 1946, doi:10.2307/3002019) and
not the percentiles of the bootstrap, which are too narrow for ten subjects; `python -m benchmarks subjects` has both.

Between folds, subjects differ, too, so there the two terms are largely the same: the larger one counts alone.

Configurations are compared on the same subjects, so what is hard for all of them cancels: a difference has the spread
of the paired differences.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from greenseg.report.moderation import Values
from greenseg.report.objectives import Objective
from greenseg.report.results import Result
from greenseg.report.spreads import Spread
from greenseg.report.statistics import Mean, mean_of, t_quantile

POWER = 0.8
"""Probability to find a difference that is there."""

MOST = 200
"""Largest number of configurations that are compared with the best by subject."""


def carried(result: Result, objective: Objective, spread: Spread) -> Mean | None:
    """The mean of a result with the interval over subjects and repeats; `n` is the number of subjects.

    None if it has no values of subjects. One subject has no interval.
    """
    scores = [*result.of_each_subject(objective).values()]
    if not scores:
        return None
    seeds = (spread.error * spread.slope) ** 2 if spread.freedom else 0.0
    return Mean(
        spread.mean.value, half_over_subjects(scores, seeds, spread.freedom, apart=not result.by_fold), len(scores)
    )


def half_over_subjects(scores: Sequence[float], seeds: float, freedom: float, apart: bool = True) -> float | None:
    """Half the width of a 95 % interval over subjects and repeats; None for a single subject.

    Args:
        scores: the mean of each subject over repeats.
        seeds: squared standard error of the mean over repeats.
        freedom: its degrees of freedom; 0 if it is unknown, then the interval is one over subjects.
        apart: whether repeats have the same subjects; if not, as folds, the larger of both intervals counts.
    """
    own = mean_of(scores).half
    if own is None:
        return None
    if not apart:
        return max(own, t_quantile(freedom) * math.sqrt(seeds) if freedom else 0.0)
    squares = (own / t_quantile(len(scores) - 1)) ** 2, seeds if freedom else 0.0
    parts = sum(square**2 / n for square, n in zip(squares, (len(scores) - 1, freedom or 1.0), strict=True))
    return t_quantile(sum(squares) ** 2 / parts) * math.sqrt(sum(squares)) if parts else 0.0


def gap(ones: Sequence[float], others: Sequence[float]) -> Mean:
    """Mean of some subjects − mean of others, with an interval if both have two.

    The interval is Welch's (1947, doi:10.1093/biomet/34.1-2.28). `n` is the smaller number of subjects.
    """
    n = min(len(ones), len(others))
    difference = math.fsum(ones) / len(ones) - math.fsum(others) / len(others)
    if n < 2:
        return Mean(difference, None, n)
    pairs = [(float(np.var(scores, ddof=1)) / len(scores), len(scores) - 1) for scores in (ones, others)]
    square, parts = sum(square for square, _ in pairs), sum(square**2 / freedom for square, freedom in pairs)
    return Mean(difference, t_quantile(square**2 / parts) * math.sqrt(square) if parts else 0.0, n)


def matrix(scores: Sequence[Mapping[str, float]]) -> Values:
    """The subjects that all configurations have, shape (configurations, subjects)."""
    shared = [name for name in scores[0] if all(name in each for each in scores)] if scores else []
    return np.array([[each[name] for name in shared] for each in scores]).reshape(len(scores), len(shared))


def detectable(scores: Values) -> float | None:
    """The difference to the first configuration that a paired t test of so many subjects finds with 80 % power, at 5 %.

    For the median of the standard deviations of the paired differences. It is the noncentrality of Student's t with
    this power, times s/√n (Cohen 1988, Statistical Power Analysis, ch. 2). Exact for normal differences.

    Args:
        scores: mean of each subject over repeats, shape (configurations, subjects).

    Returns:
        The difference; None for a single subject or a single configuration.
    """
    from scipy.special import nctdtrinc

    configurations, subjects = scores.shape
    if subjects < 2 or configurations < 2:
        return None
    spread = float(np.median((scores[1:] - scores[0]).std(axis=1, ddof=1)))
    noncentral = float(nctdtrinc(subjects - 1, 1 - POWER, t_quantile(subjects - 1)))
    return noncentral * spread / math.sqrt(subjects)


def peculiar(scores: Values) -> float:
    """Variance of what is peculiar to a configuration and a subject, divided by the number of subjects.

    It is the residual variance of a two-way analysis of variance without repeats; 0 if it is unknown. So much more do
    means of configurations vary against each other with other subjects.

    Args:
        scores: mean of each subject over repeats, shape (configurations, subjects).
    """
    configurations, subjects = scores.shape
    if subjects < 2 or configurations < 2:
        return 0.0
    rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float((rest**2).sum() / ((configurations - 1) * (subjects - 1) * subjects))
