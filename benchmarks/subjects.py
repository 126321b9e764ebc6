"""Whether intervals over subjects and folds cover what they estimate, and optimism is estimated without bias.

Trials are simulated with known truth, and given to the functions of the report.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from greenseg.report.moderation import SHARE, Values
from greenseg.report.optimism import of_choice, of_epochs
from greenseg.report.spreads import change_of, spreads_of
from greenseg.report.statistics import moments_of, moments_over_folds
from greenseg.report.subjects import detectable, half_over_subjects, peculiar

_DRAWS = 400


class Sweep(NamedTuple):
    """A simulated sweep: Dice of shape (configurations, seeds, subjects), and the true means over both."""

    dice: Values
    means: Values


def simulated(random: np.random.Generator, configurations: int, seeds: int, subjects: int, joint: float) -> Sweep:
    """A sweep with even steps of the logit Dice of 0.1, of seeds of 0.15, and of subjects of 0.6.

    Of the latter, a third is peculiar to the configuration. `joint` is what is peculiar to a subject and a seed.
    """
    level = 2 + 0.1 * np.arange(configurations)
    hard = 0.5 * random.standard_normal(subjects)
    own = 0.33 * random.standard_normal((configurations, subjects))
    seed = 0.15 * random.standard_normal((configurations, seeds))
    both = joint * random.standard_normal((configurations, seeds, subjects))
    logit = level[:, None, None] + hard + own[:, None] + seed[..., None] + both
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    deviation = math.sqrt(0.5**2 + 0.33**2 + 0.15**2 + joint**2)
    return Sweep(_sigmoid(logit), _sigmoid(level[:, None] + deviation * nodes) @ weights / weights.sum())


def _sigmoid(values: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(-values)))


class Covered(NamedTuple):
    """Share of the intervals with the truth inside: over seeds alone, of the bootstrap, and of the report."""

    seeds: float
    bootstrap: float
    now: float


def over_subjects(seeds: int, subjects: int, joint: float = 0.3, trials: int = 200, seed: int = 0) -> Covered:
    """Coverage of the mean Dice over seeds and subjects, of 6 configurations a trial.

    The bootstrap draws subjects and seeds with replacement, and takes percentiles of the means.
    """
    random = np.random.default_rng(seed)
    inside = np.zeros(3)
    for _ in range(trials):
        sweep = simulated(random, 6, seeds, subjects, joint)
        spreads = spreads_of([moments_of(rows.mean(axis=1).tolist()) for rows in sweep.dice], SHARE)
        drawn = random.integers(0, subjects, (_DRAWS, subjects))
        for rows, spread, true in zip(sweep.dice, spreads, sweep.means, strict=True):
            error = abs(rows.mean() - true)
            half = half_over_subjects(rows.mean(axis=0).tolist(), (spread.error * spread.slope) ** 2, spread.freedom)
            again = random.integers(0, seeds, (_DRAWS, seeds))
            means = rows[again[:, :, None], drawn[:, None, :]].mean(axis=(1, 2))
            low, high = np.quantile(means, (0.025, 0.975))
            inside += (error <= (spread.mean.half or 0.0), low <= true <= high, error <= (half or 0.0))
    return Covered(*(inside / (6 * trials)).tolist())


class Power(NamedTuple):
    """Share of paired t tests that find the difference which the report calls detectable with 80 % power."""

    found: float


def power(subjects: int, trials: int = 2000, seed: int = 0) -> Power:
    """The difference is that of the true spread; the test is the paired t test of the subjects."""
    random = np.random.default_rng(seed)
    known = random.standard_normal((2, 100_000))
    known[0] = 0
    spread = float(known[1].std(ddof=1))
    unit = np.array([0.0, 1.0])[:, None] * _with_spread(subjects)
    shift = (detectable(unit) or 0.0) * spread
    differences = shift + random.standard_normal((trials, subjects))
    from scipy.special import stdtr

    t = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / math.sqrt(subjects))
    return Power(float((2 * stdtr(subjects - 1, -np.abs(t)) < 0.05).mean()))


def _with_spread(n: int) -> Values:
    """n values with standard deviation 1."""
    values = np.arange(float(n))
    return np.asarray((values - values.mean()) / values.std(ddof=1))


class Folds(NamedTuple):
    """Share of the intervals with the truth inside, without and with the correction for folds."""

    plain: float
    corrected: float


def over_folds(folds: int, subjects: int = 40, seeds: int = 1, trials: int = 2000, seed: int = 0) -> Folds:
    """Coverage of the mean quality of a linear regression with 8 features over all folds.

    The quality of a subject is exp(−|error|/2) plus noise of the seed; the truth is the mean over data sets and
    subjects.
    """
    random = np.random.default_rng(seed)
    x = random.standard_normal((trials, subjects, 8))
    y = x.sum(axis=2) + random.standard_normal((trials, subjects))
    values = np.zeros((trials, folds, seeds))
    truth = np.zeros((trials, folds))
    fresh = random.standard_normal((2000, 8))
    noise = random.standard_normal(2000)
    for fold in range(folds):
        held = np.arange(subjects) % folds == fold
        inside, outcome = x[:, ~held], y[:, ~held, None]
        weights = np.linalg.solve(inside.transpose(0, 2, 1) @ inside, inside.transpose(0, 2, 1) @ outcome)
        error = (x[:, held] @ weights)[..., 0] - y[:, held]
        values[:, fold] = np.exp(-np.abs(error) / 2).mean(axis=1)[:, None]
        rest = fresh @ weights[..., 0].T - (fresh.sum(axis=1) + noise)[:, None]
        truth[:, fold] = np.exp(-np.abs(rest) / 2).mean(axis=0)
    values += 0.02 * random.standard_normal(values.shape)
    hits = np.zeros(2)
    for rows in values:
        plain = moments_of(rows.mean(axis=1).tolist())
        corrected = moments_over_folds(rows.tolist(), 1 / (folds - 1))
        for k, moments in enumerate((plain, corrected)):
            (spread,) = spreads_of([moments], SHARE)
            hits[k] += abs(spread.mean.value - truth.mean()) <= (spread.mean.half or 0.0)
    return Folds(*(hits / trials).tolist())


class Optimism(NamedTuple):
    """Mean of the true optimism, and of the estimated one."""

    true: float
    estimated: float


def of_best(levels: Sequence[float], seeds: int = 3, subjects: int = 20, trials: int = 300, seed: int = 0) -> Optimism:
    """Optimism of the best of configurations with these true logit Dice, for other seeds and subjects."""
    random = np.random.default_rng(seed)
    level = np.array(levels)
    found = np.zeros((trials, 2))
    for trial in range(trials):
        hard = 0.5 * random.standard_normal(subjects)
        own = 0.33 * random.standard_normal((len(level), subjects))
        noise = (
            0.15 * random.standard_normal((len(level), seeds)),
            0.2 * random.standard_normal((len(level), seeds, subjects)),
        )
        dice = level[:, None, None] + own[:, None] + hard + noise[0][..., None] + noise[1]
        dice = 0.8 + 0.1 * (dice - 2)  # on a straight line, so that the truth is exact
        means = dice.mean(axis=(1, 2))
        spreads = spreads_of([moments_of(rows.mean(axis=1).tolist()) for rows in dice], SHARE)
        best = int(means.argmax())
        errors = np.array([spread.error * spread.slope for spread in spreads])
        both = np.sqrt(errors**2 + peculiar(dice.mean(axis=1)))
        # What is hard for all moves all means together, so it is no part of the choice.
        found[trial] = means[best] - (0.8 + 0.1 * (level[best] + hard.mean() - 2)), of_choice(means, both)
    return Optimism(*found.mean(axis=0).tolist())


def of_curve(
    epochs: int, subjects: int, noise: float, rise: float = 0.05, trials: int = 1000, seed: int = 0
) -> Optimism:
    """Optimism of the best epoch of a curve that rises to 0.85, with noise of each epoch and subject."""
    random = np.random.default_rng(seed)
    true = 0.85 - rise * np.exp(-np.arange(epochs) / (epochs / 5))
    found = np.zeros((trials, 2))
    for trial in range(trials):
        hard = 0.05 * random.standard_normal(subjects)
        together = true + 0.005 * random.standard_normal(epochs)
        scores = together[:, None] + hard + noise * random.standard_normal((epochs, subjects))
        means = scores.mean(axis=1)
        best = int(means.argmax())
        found[trial] = means[best] - together[best] - hard.mean(), of_epochs([scores]) or 0.0
    return Optimism(*found.mean(axis=0).tolist())


def relative(seeds: int, trials: int = 400, seed: int = 0) -> float:
    """Coverage of the ratio of the joules of 5 configurations to a sixth one on the same hardware; noise of 5 %."""
    from greenseg.report.moderation import POSITIVE

    random = np.random.default_rng(seed)
    inside = 0
    for _ in range(trials):
        level = random.normal(0, 0.7, 6)
        joules = np.exp(level[:, None] + 0.05 * random.standard_normal((6, seeds)))
        spreads = spreads_of([moments_of(rows.tolist()) for rows in joules], POSITIVE)
        for k in range(1, 6):
            change = change_of(spreads[0], spreads[k])
            assert change is not None
            assert change.low is not None
            assert change.high is not None
            inside += change.low <= math.expm1(level[k] - level[0]) <= change.high
    return inside / (5 * trials)


_TRIALS = 2000  # for each figure, so that the standard error of a coverage is below 0.5 %
_SEED = 20_261  # of no simulation that a choice in greenseg rests on


def main(share: float = 1.0, seed: int = _SEED) -> None:
    """Print coverage and bias.

    Args:
        share: share of the number of trials.
        seed: seed of the random numbers.
    """
    trials = max(int(share * _TRIALS), 2)
    print("Coverage of 95 % intervals of the mean Dice over seeds and subjects")
    print("seeds subjects   seeds alone   percentile bootstrap   subjects and seeds")
    for seeds in (2, 3, 5):
        for subjects in (3, 5, 10, 20, 50):
            found = over_subjects(seeds, subjects, trials=trials, seed=seed)
            print(f"{seeds:5} {subjects:8}   {found.seeds:11.3f}   {found.bootstrap:20.3f}   {found.now:18.3f}")
    print("\nPower for the difference that is called detectable with 80 %")
    for subjects in (2, 5, 10, 30, 100):
        print(f"{subjects:4} subjects  {power(subjects, 10 * trials, seed).found:.3f}")
    print("\nCoverage of the mean over folds: plain, corrected")
    for folds in (3, 5, 10):
        for seeds in (1, 3):
            coverage = over_folds(folds, seeds=seeds, trials=trials, seed=seed)
            print(f"{folds:3} folds {seeds} seeds  {coverage.plain:.3f}  {coverage.corrected:.3f}")
    print("\nCoverage of the energy relative to a configuration on the same hardware")
    for seeds in (2, 3, 5):
        print(f"{seeds} seeds  {relative(seeds, trials, seed):.3f}")
    print("\nOptimism of the best of n: true, estimated")
    random = np.random.default_rng(1)
    for n in (4, 12, 40):
        for name, levels in {
            "all equal": np.full(n, 2.0),
            "normal": random.normal(2, 0.2, n),
            "a quarter is good": np.where(np.arange(n) < max(n // 4, 2), 2.0, random.uniform(0.5, 1.8, n)),
        }.items():
            best = of_best(levels.tolist(), trials=trials, seed=seed)
            print(f"{n:3} {name:18} {best.true:.4f}  {best.estimated:.4f}")
    print("\nOptimism of the best epoch: true, estimated")
    for epochs in (10, 50, 200):
        for subjects in (5, 20):
            for noise in (0.01, 0.04):
                curve = of_curve(epochs, subjects, noise, trials=trials, seed=seed)
                print(f"{epochs:4} epochs {subjects:3} subjects noise {noise}  {curve.true:.4f}  {curve.estimated:.4f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
