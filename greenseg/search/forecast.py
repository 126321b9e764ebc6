"""The Dice that runs are heading for, from the curves that have ended, with how well it is known.

The logit of the Dice at the end is a linear function of the logit of the best Dice so far and of effects of the
settings, with one function for each number of epochs. It is a Bayesian linear regression with conjugate priors, whose
prediction is Student's t (Gelman et al. 2013, Bayesian Data Analysis, ch. 14); the sizes of the effects and of the
slope relative to the noise are those with the largest marginal likelihood.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from greenseg.search.curves import Curve

Values = NDArray[np.float64]

_NEAREST = 0.01  # to a Dice of 0 and 1
_PRIOR_FREEDOM = 2.0
_PRIOR_NOISE = 0.3
"""Standard deviation of the logits of runs that differ only by chance; it counts as much as `_PRIOR_FREEDOM` runs."""

_FLAT = 1e-3
_EFFECTS = (0.1, 0.3, 1.0, 3.0)
_SLOPES = (0.1, 1.0, 10.0, 1000.0)
"""Grids of prior precisions, in inverse noise variances: of effects, and of the slope."""


def logit(dice: Values) -> Values:
    """Logits of Dice, kept finite; shape (n,)."""
    inside = np.clip(dice, _NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(inside / (1 - inside)))


def expit(values: Values) -> Values:
    """Dice of logits; the same shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -700, 700))))


class Prediction(NamedTuple):
    """Student's t of logits to come, shape (n,) each, but for the degrees of freedom."""

    mean: Values
    scale: Values
    freedom: float


class Regression:
    """Bayesian linear regression of logits.

    Args:
        features: shape (n, p); the first column is 1.
        values: shape (n,).
        groups: for each column, 0 for a flat prior, 1 for effects, 2 for the slope; shape (p,).
    """

    def __init__(self, features: Values, values: Values, groups: NDArray[np.int64]) -> None:
        square, cross, total = features.T @ features, features.T @ values, float(values @ values)
        best = -np.inf
        self.shape = (_PRIOR_FREEDOM + len(values)) / 2
        for effect in _EFFECTS:
            for slope in _SLOPES if (groups == 2).any() else (1.0,):
                prior = np.array([_FLAT, effect, slope])[groups]
                root = np.linalg.cholesky(square + np.diag(prior))
                half = np.linalg.solve(root, cross)
                scale = (_PRIOR_FREEDOM * _PRIOR_NOISE**2 + max(total - float(half @ half), 0.0)) / 2
                likelihood = np.log(prior).sum() / 2 - np.log(np.diag(root)).sum() - self.shape * np.log(scale)
                if likelihood > best:
                    best, self.root, self.scale = likelihood, root, scale
                    self.weights = np.linalg.solve(root.T, half)
        self.freedom = 2 * self.shape
        self.noise = float(np.sqrt(self.scale / self.shape))

    def at(self, features: Values) -> Prediction:
        """Prediction for other runs; features have shape (m, p)."""
        spread = np.linalg.solve(self.root, features.T)
        scale = self.noise * np.sqrt(1 + (spread**2).sum(axis=0))
        return Prediction(features @ self.weights, scale, self.freedom)


class Effects:
    """Columns of features for the values of settings.

    Args:
        traits: the settings of each run; shape (n, any).
    """

    def __init__(self, traits: Sequence[tuple[Hashable, ...]]) -> None:
        columns: dict[tuple[int, Hashable], int] = {}
        for each in traits:
            for place, value in enumerate(each):
                columns.setdefault((place, value), len(columns) + 1)
        self.count = len(columns)
        self.table = np.zeros((len(traits), self.count + 1))
        self.table[:, 0] = 1
        for row, each in enumerate(traits):
            for place, value in enumerate(each):
                self.table[row, columns[place, value]] = 1


def forecast(traits: Sequence[tuple[Hashable, ...]], curves: Sequence[Curve]) -> tuple[Prediction, Regression | None]:
    """The logits at the end of runs, of ended ones their own with scale 0; and the regression on settings alone.

    Without any ended run, the logits so far with an infinite scale, and None.

    Args:
        traits: for each run, the settings that distinguish it.
        curves: for each run, its curve so far.
    """
    mean, scale = logit(np.array([curve.best for curve in curves])), np.zeros(len(curves))
    ended = [i for i, curve in enumerate(curves) if curve.ended]
    if not ended:
        return Prediction(mean, np.full(len(curves), np.inf), 1.0), None
    effects = Effects(traits)
    groups = np.minimum(np.arange(effects.count + 1), 1)
    values = mean[ended]
    by_epochs = defaultdict[int, list[int]](list)
    for i, curve in enumerate(curves):
        if not curve.ended:
            by_epochs[len(curve.dice)].append(i)
    plain = Regression(effects.table[ended], values, groups)
    for epochs, members in sorted(by_epochs.items()):
        known = [k for k, i in enumerate(ended) if len(curves[i].dice) > epochs]
        so_far = logit(np.array([curves[ended[k]].best_until(epochs) for k in known]))
        middle = so_far.mean() if known else 0.0
        features = np.column_stack([effects.table[[ended[k] for k in known]], so_far - middle])
        now = np.column_stack([effects.table[members], mean[members] - middle])
        found = Regression(features, values[known], np.append(groups, 2)).at(now)
        mean[members], scale[members] = found.mean, found.scale
    return Prediction(mean, scale, plain.freedom), plain
