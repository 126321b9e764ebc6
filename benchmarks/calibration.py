"""Whether the report's chances are true as often as they say, and its intervals cover what they estimate.

Sweeps are simulated with known true means, and given to the functions of the report. Each table has what greenseg did
until version 0.1.0 beside it: a bootstrap of the repeats, Student's t of each configuration alone, Welch's t, and t of
all pairs.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from greenseg.report.chance import Estimates, front_chances, near_best, t_quantiles
from greenseg.report.effects import Pairs, mean_differences
from greenseg.report.front import front, fronts
from greenseg.report.moderation import POSITIVE, SHARE, Values
from greenseg.report.spreads import Spread, change_of, estimates_of, spreads_of
from greenseg.report.statistics import moments_of

BINS = (0.0, 0.05, 0.25, 0.75, 0.95, 0.999)
"""Upper ends of the bins of chances; the last bin is above."""


@dataclass(frozen=True)
class Scenario:
    """How sweeps are simulated.

    Attributes:
        configurations: number of configurations.
        repeats: repeats of each; several numbers alternate, so (1, 3) has a single repeat in every second one.
        unevenness: how many times the standard deviations of configurations differ, at most.
        correlation: of quality and log energy within a configuration.
        collapse: share of the repeats that fail to learn, in every fourth configuration.
        ties: whether the second half of the configurations has the same means as the first.
    """

    configurations: int = 12
    repeats: tuple[int, ...] = (3,)
    unevenness: float = 1.0
    correlation: float = 0.0
    collapse: float = 0.0
    ties: bool = False


@dataclass(frozen=True)
class Sweep:
    """A simulated sweep.

    Attributes:
        values: Dice and joules of the repeats of each configuration, arrays of shape (repeats, 2).
        means: their true means, shape (configurations, 2).
    """

    values: list[Values]
    means: Values


def simulated(scenario: Scenario, random: np.random.Generator) -> Sweep:
    """A sweep of networks from 0.7 to 0.95 Dice, with a noise of 0.15 in logit Dice and of 5 % in joules.

    The larger networks tend to be better. A repeat that fails to learn has a logit Dice of −2.
    """
    n = scenario.configurations
    log_joules = random.normal(0, 0.7, n)
    logit = 2 + 0.5 * log_joules + random.normal(0, 0.35, n)
    if scenario.ties:
        half = n // 2
        logit[half : 2 * half], log_joules[half : 2 * half] = logit[:half], log_joules[:half]
    uneven = [np.exp(random.uniform(-0.5, 0.5, n) * math.log(scenario.unevenness)) for _ in range(2)]
    noise = 0.15 * uneven[0], 0.05 * uneven[1]
    collapses = np.where(np.arange(n) % 4 == 0, scenario.collapse, 0.0)
    values = []
    for i in range(n):
        normal = random.standard_normal((scenario.repeats[i % len(scenario.repeats)], 2))
        normal[:, 1] = scenario.correlation * normal[:, 0] + math.sqrt(1 - scenario.correlation**2) * normal[:, 1]
        centre = np.where(random.random(len(normal)) < collapses[i], -2.0, logit[i])
        dice = _sigmoid(centre + noise[0][i] * normal[:, 0])
        values.append(np.stack([dice, np.exp(log_joules[i] + noise[1][i] * normal[:, 1])], axis=1))
    learned, failed = (_mean_sigmoid(centre, noise[0]) for centre in (logit, np.full(n, -2.0)))
    dice = collapses * failed + (1 - collapses) * learned
    return Sweep(values, np.stack([dice, np.exp(log_joules + noise[1] ** 2 / 2)], axis=1))


def _sigmoid(values: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(-values)))


def _mean_sigmoid(centre: Values, noise: Values) -> Values:
    """Mean of the sigmoid of a normal distribution, by Gauss–Hermite quadrature."""
    nodes, weights = _nodes()
    return np.asarray(_sigmoid(centre[:, None] + noise[:, None] * nodes) @ weights / weights.sum())


@cache
def _nodes() -> tuple[Values, Values]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    return nodes, weights


def spreads(sweep: Sweep) -> list[list[Spread]]:
    """What the report finds: the spread of Dice and joules of each configuration."""
    columns = [
        spreads_of([moments_of(rows[:, k].tolist()) for rows in sweep.values], scale)
        for k, scale in enumerate((SHARE, POSITIVE))
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def estimates(sweep: Sweep) -> Estimates:
    """What the report knows of the true means."""
    return estimates_of(spreads(sweep), [rows.tolist() for rows in sweep.values])


# ── chances


def chances(sweep: Sweep, draws: int) -> Values:
    """The report's chances to be on the front."""
    return front_chances(estimates(sweep), [True, False], draws)


def bootstrap(sweep: Sweep, draws: int, random: np.random.Generator) -> Values:
    """The chances of version 0.1.0: repeats drawn with replacement (Efron 1979)."""
    means = [rows[random.integers(0, len(rows), (draws, len(rows)))].mean(axis=1) for rows in sweep.values]
    return np.asarray(fronts(np.stack(means, axis=1), [True, False]).mean(axis=0))


@dataclass(frozen=True)
class Reliability:
    """How often chances came true.

    Attributes:
        brier: mean squared error of the chances.
        bins: (mean chance, share that was on the true front, number) for each bin.
    """

    brier: float
    bins: list[tuple[float, float, int]]


def said(sweep: Sweep) -> NDArray[np.bool_]:
    """Which configurations the report gives a chance: those with a known spread."""
    return np.asarray((estimates(sweep).freedoms > 0).all(axis=1))


def reliability(scenario: Scenario, trials: int, draws: int = 500, seed: int = 0) -> tuple[Reliability, Reliability]:
    """The reliability of the bootstrap and of the report's chances."""
    random = np.random.default_rng(seed)
    found: list[list[Values]] = [[], []]
    truth = []
    for _ in range(trials):
        sweep = simulated(scenario, random)
        shown = said(sweep)
        truth.append(front(sweep.means, [True, False])[shown])
        found[0].append(bootstrap(sweep, draws, random)[shown])
        found[1].append(chances(sweep, draws)[shown])
    old, new = (_reliability(np.concatenate(chance), np.concatenate(truth)) for chance in found)
    return old, new


def _reliability(chance: Values, true: NDArray[np.bool_]) -> Reliability:
    places = np.searchsorted(BINS, chance, side="left")
    bins = [
        (float(chance[places == k].mean()), float(true[places == k].mean()), int((places == k).sum()))
        if (places == k).any()
        else (math.nan, math.nan, 0)
        for k in range(len(BINS) + 1)
    ]
    return Reliability(float(((chance - true) ** 2).mean()), bins)


# ── intervals


@dataclass(frozen=True)
class Coverage:
    """How often intervals contain the truth.

    Attributes:
        share: share of the intervals with the truth inside.
        old_share: the same for those of version 0.1.0.
        width: median of the width, as a share of the old width.
        number: number of intervals.
    """

    share: float
    old_share: float
    width: float
    number: int


def _coverage(found: Sequence[tuple[float, float, float]]) -> Coverage:
    """From rows of (error, half, old half)."""
    errors, halves, old = np.abs(np.array(found, dtype=float).reshape(-1, 3)).T
    if not len(errors):
        return Coverage(math.nan, math.nan, math.nan, 0)
    known = np.isfinite(old)
    share = float((errors[known] <= old[known]).mean()) if known.any() else math.nan
    width = float(np.median(halves[known] / old[known])) if known.any() else math.nan
    return Coverage(float((errors <= halves).mean()), share, width, len(errors))


def coverage(scenario: Scenario, trials: int, seed: int = 0) -> dict[str, Coverage | float]:
    """Coverage of the means of Dice and joules, of savings, and of the set that holds the best."""
    random = np.random.default_rng(seed)
    dice: list[tuple[float, float, float]] = []
    joules: list[tuple[float, float, float]] = []
    savings: list[tuple[float, float, float]] = []
    best, sizes = 0, 0
    for _ in range(trials):
        sweep = simulated(scenario, random)
        found = spreads(sweep)
        for k, rows in enumerate((dice, joules)):
            old = _own_halves([values[:, k] for values in sweep.values])
            for row, true, own in zip(found, sweep.means[:, k], old.tolist(), strict=True):
                half = row[k].mean.half
                rows.append((row[k].mean.value - true, math.inf if half is None else half, own))
        welch = _welch_halves([np.log(values[:, 1]) for values in sweep.values]).tolist()
        for i in range(1, len(found)):
            change = change_of(found[0][1], found[i][1])
            assert change is not None
            true = math.log(sweep.means[i, 1] / sweep.means[0, 1])
            if change.low is not None and change.high is not None:
                error = math.log1p(change.share) - true
                half = (math.log1p(change.high) - math.log1p(change.low)) / 2
                savings.append((error, half, welch[i - 1]))
        known = estimates_of([row[:1] for row in found], [rows[:, :1].tolist() for rows in sweep.values])
        near = near_best(known, True)
        best += bool(near[sweep.means[:, 0].argmax()])
        sizes += int(near.sum())
    return {
        "Dice": _coverage(dice),
        "joules": _coverage(joules),
        "saving": _coverage(savings),
        "best": best / trials,
        "not told from the best": sizes / trials,
    }


def _own_halves(repeats: Sequence[Values]) -> Values:
    """Half the width of Student's interval of each configuration alone; NaN for a single repeat."""
    squares, freedoms = _own_squares(repeats)
    return np.asarray(t_quantiles(freedoms, 0.025) * np.sqrt(squares))


def _welch_halves(repeats: Sequence[Values]) -> Values:
    """Half the width of Welch's interval of the difference of each configuration to the first one."""
    squares, freedoms = _own_squares(repeats)
    both = squares[1:] + squares[0]
    parts = squares**2 / np.maximum(freedoms, 1)
    return np.asarray(t_quantiles(both**2 / (parts[1:] + parts[0]), 0.025) * np.sqrt(both))


def _own_squares(repeats: Sequence[Values]) -> tuple[Values, Values]:
    """Squared standard error of each mean, and its degrees of freedom; NaN for a single repeat."""
    moments = [moments_of(values.tolist()) for values in repeats]
    squares = [each.variance / each.n if each.n > 1 else math.nan for each in moments]
    return np.array(squares), np.array([each.n - 1.0 for each in moments])


@dataclass(frozen=True)
class Factorial:
    """A sweep over all combinations of three settings, for effects in logit Dice.

    Attributes:
        levels: number of values of each setting.
        seeds: number of seeds, shared by all combinations.
        common: standard deviation of what a seed does to all runs.
        shared: standard deviation of what a seed does to one value of the first setting, whatever the others.
        interaction: standard deviation of what is peculiar to a combination.
        unevenness: how many times the standard deviations of configurations differ, at most.
        counted: the settings whose effects count; None for all.
    """

    levels: tuple[int, ...] = (3, 2, 2)
    seeds: int = 3
    common: float = 0.0
    shared: float = 0.0
    interaction: float = 0.0
    unevenness: float = 1.0
    counted: tuple[int, ...] | None = None


def effect_coverage(factorial: Factorial, trials: int, seed: int = 0) -> Coverage:
    """Coverage of the mean effect of each counted value over the combinations of the sweep; noise 0.15 per run."""
    random = np.random.default_rng(seed)
    levels, seeds = factorial.levels, factorial.seeds
    found: list[tuple[float, float, float]] = []
    for _ in range(trials):
        truth = factorial.interaction * random.standard_normal(levels)
        sigma = 0.15 * np.exp(random.uniform(-0.5, 0.5, levels) * math.log(factorial.unevenness))
        runs = truth[..., None] + sigma[..., None] * random.standard_normal((*levels, seeds))
        runs += factorial.common * random.standard_normal(seeds)
        runs += factorial.shared * random.standard_normal((levels[0], *[1] * (len(levels) - 1), seeds))
        pooled = spreads_of([moments_of(rows) for rows in np.exp(runs).reshape(-1, seeds).tolist()], POSITIVE)
        variances = np.array([spread.variance for spread in pooled]).reshape(levels)
        freedom = min(spread.freedom for spread in pooled)
        pairs: list[list[Pairs]] = [[] for _ in levels]
        errors, old, counts = [], [], []
        for axis, number in enumerate(levels):
            values, true, noise = (np.moveaxis(array, axis, 0) for array in (runs, truth, variances))
            for level in range(1, number):
                differences = values[level] - values[0]
                contexts = np.arange(noise[0].size).repeat(seeds)
                noises = (noise[level] + noise[0]).ravel().repeat(seeds)
                repeats = np.tile(np.arange(seeds), noise[0].size)
                pairs[axis].append(Pairs(differences.ravel(), contexts, repeats, noises, freedom))
                errors.append(float(differences.mean() - (true[level] - true[0]).mean()))
                old.append(float(_own_halves([differences.ravel()])[0]))
                counts.append(factorial.counted is None or axis in factorial.counted)
        means = [difference.mean for effects in mean_differences(pairs) for difference in effects]
        for mean, error, own, counted in zip(means, errors, old, counts, strict=True):
            assert mean.half is not None
            if counted:
                found.append((error, mean.half, own))
    return _coverage(found)


# ── tables

SCENARIOS = {
    "equal spread": Scenario(),
    "spread × 4": Scenario(unevenness=4),
    "spread × 16": Scenario(unevenness=16),
    "correlated 0.7": Scenario(correlation=0.7),
    "a third collapses": Scenario(collapse=0.33),
    "ties": Scenario(ties=True),
    "3 configurations": Scenario(3),
    "40 configurations": Scenario(40),
    "200 configurations": Scenario(200),
}
REPEATS: tuple[tuple[int, ...], ...] = ((2,), (3,), (5,), (10,), (1, 3))
FACTORIALS = {
    "independent": Factorial(),
    "one setting": Factorial((2,)),
    "2 × 2": Factorial((2, 2)),
    "seeds common to all runs": Factorial(common=0.3),
    "seeds shared by a value": Factorial(shared=0.2, counted=(0,)),
    "its other settings": Factorial(shared=0.2, counted=(1, 2)),
    "interaction": Factorial(interaction=0.3),
    "spread × 4": Factorial(unevenness=4),
    "10 × 2 × 2": Factorial((10, 2, 2)),
}


_SWEEPS = 2000  # simulated for each coverage, so that its standard error is below 0.5 %
_CHANCES = 12_000  # for each line
_SEED = 20_261  # of no simulation that a choice in greenseg rests on


def main(share: float = 1.0, seed: int = _SEED) -> None:
    """Print reliability and coverage; takes an hour.

    Args:
        share: share of the number of simulated sweeps.
        seed: seed of the random numbers.
    """
    for part in PARTS.values():
        begun = time.perf_counter()
        part(share, seed)
        print(f"{time.perf_counter() - begun:.0f} s\n", flush=True)


def _chances(share: float, seed: int) -> None:
    print("Chance to be on the front: mean chance → share on the true front, for chances in")
    ends = ["0", *(f"to {end:g}" for end in BINS[1:]), "above"]
    print(f"{'':31}{'':9} Brier  {'  '.join(f'{end:>12}' for end in ends)}")
    for name, scenario in SCENARIOS.items():
        for repeats in REPEATS:
            trials = max(int(share * _CHANCES / scenario.configurations), 2)
            both = reliability(replace(scenario, repeats=repeats), trials, seed=seed)
            for method, found in zip(("bootstrap", "now"), both, strict=True):
                bins = "  ".join(
                    f"{said:.3f}→{true:.3f}" if number >= 20 else " " * 11 + "–" for said, true, number in found.bins
                )
                print(f"{name:18} {_repeats(repeats):15} {method:9} {found.brier:.4f}  {bins}", flush=True)


def _intervals(share: float, seed: int) -> None:
    print("Coverage of 95 % intervals (of version 0.1.0) × median width as a share of the old")
    for name, scenario in SCENARIOS.items():
        for repeats in REPEATS:
            found = coverage(replace(scenario, repeats=repeats), max(int(share * _SWEEPS), 2), seed)
            cells = [f"{key} {_cell(each)}" for key, each in found.items() if isinstance(each, Coverage)]
            cells += [f"{key} {each:.3f}" for key, each in found.items() if isinstance(each, float)]
            print(f"{name:18} {_repeats(repeats):15} {'  '.join(cells)}", flush=True)


def _effects(share: float, seed: int) -> None:
    print("Coverage of 95 % intervals of effects (of version 0.1.0) × median width as a share of the old")
    for name, factorial in FACTORIALS.items():
        for seeds in (2, 3, 5, 10):
            found = effect_coverage(replace(factorial, seeds=seeds), max(int(share * _SWEEPS), 2), seed)
            print(f"{name:25} {seeds:2} seeds  {_cell(found)}", flush=True)


PARTS = {"chances": _chances, "intervals": _intervals, "effects": _effects}


def _repeats(repeats: tuple[int, ...]) -> str:
    return f"{' or '.join(map(str, repeats))} repeats"


def _cell(found: Coverage) -> str:
    return f"{found.share:.3f} ({found.old_share:.3f}) × {found.width:.2f}"
