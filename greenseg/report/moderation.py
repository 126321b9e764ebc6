"""The spread of repeats, pooled over configurations: two or three repeats alone cannot tell how much they scatter.

**Scale.** A `Scale` has a function g on whose values the spread is even: the logit for a quality from 0 to 1, the
logarithm for costs and distances, whose spread grows with their size. Variances are taken of the values themselves and
divided by the squared slope dx/dg at the mean (the variance function of a generalised linear model: McCullagh & Nelder
1989, Generalized Linear Models, ch. 2), so a repeat that fails to learn keeps its full distance from the others.

**Model.** As in limma (Smyth 2004, doi:10.2202/1544-6115.1027), a configuration's variance σ² is drawn from a scaled
inverse χ² distribution with d₀ degrees of freedom that all configurations share. Given d₀ and its scale s₀², an
observed variance s² with d degrees of freedom is moderated to (d₀s₀² + ds²)/(d₀ + d), with d₀ + d degrees of freedom.
Two things differ from limma, because a sweep has ten configurations and not ten thousand genes:

- d₀ and s₀² are not estimated by two numbers, but integrated over a grid of their posterior, so the result knows how
  well they are known. Prior: flat for the mean of log σ², half-normal with scale 1.5 for its standard deviation (a weak
  one for a hierarchical scale: Gelman 2006, doi:10.1214/06-BA117A).
- A configuration is an outlier with 2 % prior probability, with any larger variance, and then keeps its own. This is
  the robustness of Phipson et al. 2016 (doi:10.1214/16-AOAS920), as a mixture.

The resulting mixture of inverse χ² distributions is summarised by the one with the same mean and variance of log σ², as
Smyth matches them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_FLOOR = 1e-5  # of a variance, as a share of the median one: limma's, for the logarithm
_ROUNDING = 1e-24  # share of the largest variance that is 0
_NEAREST = 0.01  # to 0 and 1, and to 0 as a share of the median: beyond, g is a straight line
_UNEVENNESS = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.2, 1.5, 1.9, 2.4, 3.0])
"""Grid of the standard deviation of log σ² between configurations; 1.6 is a σ that differs by up to 16 times."""

_WEAK = 1.5  # scale of the half-normal prior of it
_LEVELS = np.linspace(-4.5, 4.5, 25)  # grid of the mean of log σ², in standard errors
_OUTLYING, _OUTLIERS_SPAN = 0.02, math.log(1e4)  # prior probability, and range of their log variances
_MOST = 200  # variances that determine the grid's weights; more would not change them
_NEGLIGIBLE = 1e-3  # weight of a cell of the grid


class Scale(NamedTuple):
    """A scale with even spread.

    Attributes:
        even: g, strictly increasing, for means of shape (n,).
        slope: dx/dg, the factor from the even scale to the one of the values, at means of shape (n,).
    """

    even: Callable[[Values], Values]
    slope: Callable[[Values], Values]


def _share_inside(means: Values) -> Values:
    return np.clip(means, _NEAREST, 1 - _NEAREST)


def _share_even(means: Values) -> Values:
    inside = _share_inside(means)
    return np.log(inside / (1 - inside)) + (means - inside) / (inside * (1 - inside))


def _share_slope(means: Values) -> Values:
    inside = _share_inside(means)
    return inside * (1 - inside)


def _positive_slope(means: Values) -> Values:
    least = _NEAREST * float(np.median(np.abs(means))) if len(means) else 0.0
    return np.maximum(means, least or 1e-100)


def _positive_even(means: Values) -> Values:
    inside = _positive_slope(means)
    return np.log(inside) + (means - inside) / inside


SHARE = Scale(_share_even, _share_slope)
"""The logit of values from 0 to 1; straight lines below 0.01 and above 0.99."""

POSITIVE = Scale(_positive_even, _positive_slope)
"""The logarithm of positive values; a straight line below 1 % of their median."""


@dataclass(frozen=True)
class Moderated:
    """Variances after moderation, each of a single repeat.

    Attributes:
        variance: shape (n,); 0 where it is unknown.
        freedom: degrees of freedom, shape (n,); 0 where the variance is unknown.
        total: degrees of freedom of all variances together, which no combination of them exceeds.
    """

    variance: Values
    freedom: Values
    total: float


def moderate(variances: Values, freedoms: Values) -> Moderated:
    """Variances drawn towards each other; see the module. Those without degrees of freedom get the common one.

    Variances stay as they are if fewer than two are known, or if more than half are exactly 0, which is no chance; if
    all known ones are 0, the unknown ones are, too.

    Args:
        variances: unbiased variances on a scale with even spread, shape (n,); ignored without degrees of freedom.
        freedoms: their degrees of freedom, shape (n,): repeats − 1.
    """
    known = freedoms > 0
    variances, freedoms = np.where(known, variances, 0.0), np.where(known, freedoms, 0.0)
    unit = float(variances.max()) if len(variances) else 0.0
    variances = np.where(variances > _ROUNDING * unit, variances, 0.0)
    total = float(freedoms.sum())
    if known.sum() < 2 or 2 * np.count_nonzero(variances) < known.sum():
        alike = known.sum() > 1 and not variances.any()
        return Moderated(variances, np.where(known, freedoms, total if alike else 0.0), total)
    scaled = variances / unit
    floor = _FLOOR * float(np.median(scaled[scaled > 0]))
    found, freedom = _posterior(np.where(known, np.maximum(scaled, floor), 1.0), freedoms)
    return Moderated(found * unit, np.where(known, freedom, np.minimum(freedom, total)), total)


def _posterior(s2: Values, d: Values) -> tuple[Values, Values]:
    """Scale and degrees of freedom of the posterior of each σ², shape (n,) both; see the module.

    Variances are positive, and have no meaning without degrees of freedom.
    """
    from scipy.special import digamma, polygamma

    prior_d = 2 * _inverse_trigamma(_UNEVENNESS**2)  # trigamma(d₀/2) is the variance of log σ²
    order = np.argsort(s2[d > 0], kind="stable")
    some = order[:: -(-len(order) // _MOST)]
    sample, freedoms = s2[d > 0][some], d[d > 0][some]
    logs = np.log(sample) - digamma(freedoms / 2) + np.log(freedoms / 2)  # unbiased for log σ²
    error = math.sqrt(max(float(logs.var()), float(polygamma(1, freedoms / 2).mean())) / len(logs))
    levels = float(np.median(logs)) + (1.2 if len(logs) < 5 else 1.0) * error * _LEVELS
    # The mean of log σ² is log s₀² + log(d₀/2) − digamma(d₀/2).
    prior = np.exp(levels - np.log(prior_d / 2)[:, None] + digamma(prior_d / 2)[:, None]).ravel()
    prior_d = np.repeat(prior_d, len(levels))
    log_prior = np.repeat(np.log(np.gradient(_UNEVENNESS)) - (_UNEVENNESS / _WEAK) ** 2 / 2, len(levels))
    ordinary, outlying = _densities(sample, freedoms, prior, prior_d)
    weight = log_prior + np.log(ordinary + outlying).sum(axis=0)
    weight = np.exp(weight - weight.max())
    cells = weight > _NEGLIGIBLE * weight.max()
    weight, prior, prior_d = weight[cells] / weight[cells].sum(), prior[cells], prior_d[cells]

    ordinary, outlying = np.ones((len(s2), len(weight))), np.zeros((len(s2), len(weight)))
    ordinary[d > 0], outlying[d > 0] = _densities(s2[d > 0], d[d > 0], prior, prior_d)
    outlier = outlying / (ordinary + outlying)
    drawn = (prior_d * prior + (d * s2)[:, None]) / (prior_d + d[:, None])
    mean, square = _log_moments(drawn, d, prior_d)
    own, own_square = _log_moments(s2, np.where(d > 0, d, 1.0))
    first = weight * ((1 - outlier) * mean + outlier * own[:, None])
    second = weight * ((1 - outlier) * square + outlier * own_square[:, None])
    mean = first.sum(axis=1)
    freedom = 2 * _inverse_trigamma(np.maximum(second.sum(axis=1) - mean**2, 1e-8))
    return np.asarray(np.exp(mean - np.log(freedom / 2) + digamma(freedom / 2))), np.asarray(freedom)


def _densities(s2: Values, d: Values, prior: Values, prior_d: Values) -> tuple[Values, Values]:
    """Densities of log s² in each cell of the grid, as an ordinary one and as an outlier; shapes (n, cells).

    s²/s₀² has an F distribution with d and d₀ degrees of freedom (Smyth 2004).
    """
    from scipy.special import betaln

    d = d[:, None]
    ratio = s2[:, None] / prior * (d / prior_d)
    logs = d / 2 * np.log(ratio) - (d + prior_d) / 2 * np.log1p(ratio) - betaln(d / 2, prior_d / 2)
    outlying = _OUTLYING / _OUTLIERS_SPAN * (s2[:, None] > prior)
    return np.maximum((1 - _OUTLYING) * np.exp(logs), 1e-300), outlying.astype(np.float64)


def _log_moments(scale: Values, d: Values, prior_d: Values | None = None) -> tuple[Values, Values]:
    """Mean and mean square of log σ² for scaled inverse χ² distributions with d or, in the columns, d + d₀ degrees of
    freedom.
    """
    from scipy.special import digamma, polygamma

    distinct, place = np.unique(d, return_inverse=True)  # few: both functions are slow
    halves = (distinct if prior_d is None else distinct[:, None] + prior_d) / 2
    mean = np.log(scale) + (np.log(halves) - digamma(halves))[place]
    return mean, mean**2 + polygamma(1, halves)[place]


def _inverse_trigamma(values: Values) -> Values:
    """The x with trigamma(x) = value, by interpolation of logarithms, with a relative error below 1e-5."""
    xs, known = _trigammas()
    return np.asarray(np.exp(np.interp(np.log(values), known, xs)))


@cache
def _trigammas() -> tuple[Values, Values]:
    """log x, and the rising log trigamma(x)."""
    from scipy.special import polygamma

    x = np.geomspace(1e9, 1e-4, 5000)
    return np.log(x), np.log(polygamma(1, x))
