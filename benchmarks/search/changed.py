"""Recorded grids with changed curves: more or less noise, new seeds, slow starters, crossing curves."""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.search.grid import Grid
from benchmarks.search.replay import NETWORK, Values
from greenseg.search.curves import Curve
from greenseg.search.forecast import expit, logit

_NONE = 0.0101
"""The least Dice whose logit is known."""


def with_noise(grid: Grid, factor: float) -> Grid:
    """All logits at a multiple of their distance from the mean of their configuration."""
    logits = _logits(grid)
    means = logits.mean(1, keepdims=True)
    return _with_dice(grid, _dice(means + factor * (logits - means)))


def with_new_seeds(grid: Grid, seed: int, number: int) -> Grid:
    """Other seeds for each configuration: its mean, and the deviations of random runs with the same network.

    Unlike three recorded runs, an unseen one then knows nothing of those that were seen.
    """
    draw = random.Random(seed)
    logits, joules = _logits(grid), np.log([[curve.joules for curve in curves] for curves in grid.curves])
    recorded = logits.shape[1]
    alike = defaultdict[str, list[int]](list)
    for i, settings in enumerate(grid.settings):
        alike[repr([settings[name] for name in NETWORK])].append(i)
    inflation = (recorded / (recorded - 1)) ** 0.5  # of deviations from a mean of the same runs
    curves = []
    for i, settings in enumerate(grid.settings):
        runs = []
        for _ in range(number):
            j, s = draw.choice(alike[repr([settings[name] for name in NETWORK])]), draw.randrange(recorded)
            sign = inflation * draw.choice((-1, 1))
            dice = _dice(logits[i].mean(0) + sign * (logits[j, s] - logits[j].mean(0)))
            spent = np.exp(joules[i].mean(0) + sign * (joules[j, s] - joules[j].mean(0)))
            runs.append(Curve(tuple(dice.tolist()), tuple(np.maximum.accumulate(spent).tolist()), True))
        curves.append(runs)
    return replace(grid, curves=curves)


def with_slow_starters(grid: Grid) -> Grid:
    """Every third configuration starts slowly: after a share x of its epochs, it is where it was after x²."""
    dice = _padded(grid)
    epochs = np.arange(1, grid.epochs + 1)
    earlier = np.ceil(epochs**2 / grid.epochs).astype(int) - 1
    chosen = random.Random(0).sample(range(len(dice)), len(dice) // 3)
    dice[chosen] = dice[chosen][..., earlier]
    return _with_dice(grid, dice)


def with_crossing(grid: Grid) -> Grid:
    """The better a configuration is in the end, the later it learns: the order of early Dice is turned round."""
    dice = _padded(grid)
    order = np.argsort(np.argsort(dice.max(2).mean(1))) / len(dice)
    share = np.arange(1, grid.epochs + 1) / grid.epochs
    return _with_dice(grid, dice * share ** (3 * order)[:, None, None])


CHANGES: dict[str, Callable[[Grid, int], Grid]] = {
    "half the noise": lambda grid, seed: with_noise(grid, 0.5),
    "twice the noise": lambda grid, seed: with_noise(grid, 2.0),
    "slow starters": lambda grid, seed: with_slow_starters(grid),
    "crossing curves": lambda grid, seed: with_crossing(grid),
    "new seeds, 2 + 1": lambda grid, seed: with_new_seeds(grid, seed, 3),
    "new seeds, 3 + 1": lambda grid, seed: with_new_seeds(grid, seed, 4),
}
"""Name → the grid of a shuffle."""


def _padded(grid: Grid) -> Values:
    """Dice of all epochs, shape (configurations, seeds, epochs); 0 if undefined."""
    dice = np.array([[curve.dice for curve in curves] for curves in grid.curves], dtype=float)
    return np.asarray(np.nan_to_num(dice))


def _logits(grid: Grid) -> Values:
    return logit(_padded(grid))


def _dice(logits: Values) -> Values:
    found = expit(logits)
    return np.where(found <= _NONE, 0.0, found)


def _with_dice(grid: Grid, dice: Values) -> Grid:
    curves = [
        [replace(curve, dice=tuple(values.tolist())) for curve, values in zip(curves, rows, strict=True)]
        for curves, rows in zip(grid.curves, dice, strict=True)
    ]
    return replace(grid, curves=curves)
