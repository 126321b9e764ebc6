"""What may be true of configurations, given the spread of their repeats: chances to be on the front, and the best.

Both draw the true means: mean + standard error × a draw of Student's t, which is their posterior distribution under a
flat prior. Draws are reproducible.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greenseg.report.front import front, fronts
from greenseg.report.moderation import Values

DRAWS = 1000
_MOST_SIMULATED = 200
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimates:
    """Means on scales with even spread, and how well they are known; n configurations, d objectives.

    Attributes:
        means: shape (n, d).
        errors: standard errors, shape (n, d); 0 for means without error, or with an unknown one.
        freedoms: degrees of freedom of the errors, shape (n, d).
        correlation: correlation of the errors of the objectives, shape (d, d).
    """

    means: Values
    errors: Values
    freedoms: Values
    correlation: Values

    def draws(self, random: np.random.Generator, number: int, chosen: NDArray[np.int64] | None = None) -> Values:
        """Draws of the true means of the chosen configurations, or of all; shape (number, chosen, d).

        Numerators are correlated between objectives, variances are not.
        """
        chosen = np.arange(len(self.means)) if chosen is None else chosen
        means, errors, freedoms = self.means[chosen], self.errors[chosen], self.freedoms[chosen]
        roots = np.linalg.cholesky(self.correlation + 1e-9 * np.eye(len(self.correlation)))
        normal = random.standard_normal((number, *means.shape)) @ roots.T
        moving = errors > 0
        freedom = np.where(moving, freedoms, 1.0)
        normal /= np.sqrt(random.chisquare(freedom, normal.shape) / freedom)
        return np.where(moving, means + errors * normal, means)


def correlation(residuals: Values) -> Values:
    """Correlation between objectives, pooled over configurations; shape (d, d).

    Args:
        residuals: differences of all repeats from the mean of their configuration, divided by their standard deviation;
            shape (repeats, d).
    """
    square = residuals.T @ residuals
    norm = np.sqrt(np.diag(square))
    found = square / np.where(norm, norm, 1.0) / np.where(norm, norm, 1.0)[:, None]
    return found + np.diag(1 - np.diag(found))


def front_chances(estimates: Estimates, maximise: Sequence[bool], draws: int = DRAWS, seed: int = 0) -> Values:
    """Chance of each configuration to be on the front, shape (n,): the share of draws of all means with it.

    Args:
        estimates: the configurations; an order that is the same on the scales as on the values.
        maximise: for each objective, whether more is better.
        draws: number of draws.
        seed: seed of the random numbers.
    """
    chances = np.zeros(len(estimates.means))
    if len(chances):
        possible = _possible(estimates, maximise)
        samples = estimates.draws(np.random.default_rng(seed), draws, possible)
        chances[possible] = fronts(samples, maximise).mean(axis=0)
    return chances


def _possible(estimates: Estimates, maximise: Sequence[bool]) -> NDArray[np.int64]:
    """Indices of the configurations that can be on a front at all, but for a chance of about 1 in 50,000.

    Another one's worst beats the best of those left out. Leaving them out does not affect the others, since that other
    configuration beats all that they beat.
    """
    reach = estimates.errors * t_quantiles(estimates.freedoms, 1e-5)
    sign = np.where(maximise, -1.0, 1.0)  # less is better from here on
    best, worst = estimates.means * sign - reach, estimates.means * sign + reach
    possible = np.ones(len(best), dtype=bool)
    for limit in worst[front(worst, [False] * len(sign))]:
        possible &= ~((limit <= best).all(axis=1) & (limit < best).any(axis=1))
    return np.flatnonzero(possible)


def t_quantiles(freedoms: Values, tail: float) -> Values:
    """The values that Student's t exceeds with the probability `tail`; 1 degree of freedom where there are none."""
    from scipy.special import stdtrit

    known = np.where(freedoms > 0, freedoms, 1.0)
    values, place = np.unique(known, return_inverse=True)
    return np.asarray(-stdtrit(values, tail))[place].reshape(known.shape)


def near_best(estimates: Estimates, more_is_better: bool, draws: int = DRAWS, seed: int = 0) -> NDArray[np.bool_]:
    """Which configurations may be the best, shape (n,): with 95 % confidence, the truly best one is among them.

    Hsu's multiple comparisons with the best (1984, doi:10.1214/aos/1176346732): a configuration is left out if another
    one's mean is better by more than the one-sided quantile for comparing this configuration with all others (Dunnett
    1955, doi:10.1080/01621459.1955.10501294), times the standard error of the difference. The quantile is simulated for
    its own standard errors and degrees of freedom, if neither a single comparison nor Bonferroni's bound decides; for
    more than 200 configurations, the bound alone decides, which leaves a few more in. Configurations with an unknown
    error may always be the best, and leave no other one out.

    Args:
        estimates: the configurations, with one objective.
        more_is_better: whether more is better.
        draws: number of draws for a quantile.
        seed: seed of the random numbers.
    """
    from scipy.special import stdtr

    means = estimates.means[:, 0] * (1 if more_is_better else -1)
    variances, freedoms = estimates.errors[:, 0] ** 2, estimates.freedoms[:, 0]
    found = np.zeros(len(means), dtype=bool)
    noise: Values | None = None
    unknown = freedoms == 0
    found[unknown] = True
    for i in np.setdiff1d(_contenders(means, variances, freedoms), np.flatnonzero(unknown)):
        mean = means[i]
        rivals = np.flatnonzero((means > mean) & ~unknown)
        variance = variances[rivals] + variances[i]
        if (variance == 0).any():
            continue  # beaten without error
        if not len(rivals):
            found[i] = True
            continue
        lead = (means[rivals] - mean) / np.sqrt(variance)
        tails = stdtr(joint_freedom(variances[rivals], variances[i], freedoms[rivals], freedoms[i]), -lead)
        if tails.min() >= 1 - CONFIDENCE or len(means) > _MOST_SIMULATED:
            found[i] = tails.min() * (len(means) - 1) > 1 - CONFIDENCE
        elif tails.min() * (len(means) - 1) > 1 - CONFIDENCE:
            if noise is None:
                spread = Estimates(0 * estimates.means, estimates.errors, estimates.freedoms, estimates.correlation)
                noise = spread.draws(np.random.default_rng(seed), draws)[..., 0]
            joint = np.sqrt(variances + variances[i])
            others = (np.arange(len(means)) != i) & (joint > 0)
            largest = ((noise[:, others] - noise[:, [i]]) / joint[others]).max(axis=1)
            found[i] = lead.max() <= np.quantile(largest, CONFIDENCE)
    return found


def _contenders(means: Values, variances: Values, freedoms: Values) -> NDArray[np.int64]:
    """Indices of the configurations that none of the best means beats by Bonferroni's bound; a quick first look."""
    from scipy.special import stdtr

    left = np.ones(len(means), dtype=bool)
    order = np.argsort(-means, kind="stable")
    for best in order[freedoms[order] > 0][:3]:
        variance = variances + variances[best]
        beaten = (means < means[best]) & (variance > 0)
        freedom = joint_freedom(variances, variances[best], freedoms, freedoms[best])
        tails = stdtr(freedom, -(means[best] - means) / np.sqrt(np.where(beaten, variance, 1.0)))
        left &= ~beaten | (tails * (len(means) - 1) > 1 - CONFIDENCE)
    return np.flatnonzero(left)


def joint_freedom(one: Values, other: Values, freedoms: Values, others: Values) -> Values:
    """Degrees of freedom of the sum of two moderated variances; without error, infinite.

    By Satterthwaite's matching of variances (1946, doi:10.2307/3002019), but for variances that err together, as those
    of the same pool may: standard deviations add up. Independent ones would have up to twice as many.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(v > 0, v / np.sqrt(f), 0.0) for v, f in ((one, freedoms), (other, others))]
        return np.where(parts[0] + parts[1] > 0, ((one + other) / (parts[0] + parts[1])) ** 2, np.inf)
