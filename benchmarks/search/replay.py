"""Replays searches on a recorded grid."""

import random
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.grid import Grid
from greenseg.report.chance import Estimates, correlation, front_chances
from greenseg.report.front import front, hypervolume, ranks
from greenseg.report.moderation import POSITIVE, SHARE, moderate
from greenseg.search.curves import Curve
from greenseg.search.halving import Candidate, Options, next_round

BOTH = (True, False)
Values = NDArray[np.float64]

NETWORK = ("encoder", "decoder", "width", "decoder_width")
KIND = ("optimizer", "schedule", "lr")
"""Settings that change together in the grids."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        chosen: numbers of the configurations on its front.
        joules: joules of all its runs, with their start-ups.
    """

    chosen: list[int]
    joules: float


@dataclass(frozen=True)
class Case:
    """A grid with its configurations and seeds shuffled; the last seed is only for the score.

    Attributes:
        curves: for each configuration, the curve of each seed.
        settings: settings of each configuration.
        epochs: epochs of each run.
        restart: joules of a start-up.
    """

    curves: list[list[Curve]]
    settings: list[dict[str, object]]
    epochs: int
    restart: float

    @property
    def seen(self) -> int:
        """Number of seeds that a search sees."""
        return len(self.curves[0]) - 1

    @cached_property
    def points(self) -> Values:
        """Dice and joules of all runs, shape (configurations, seeds, 2)."""
        return np.array([[[curve.best, curve.joules[-1]] for curve in curves] for curves in self.curves])

    def whole(self, seeds: Sequence[int]) -> Found:
        """The grid itself with these seeds."""
        points = self.points[:, seeds]
        return Found(np.flatnonzero(front(points.mean(1), BOTH)).tolist(), float(points[..., 1].sum()))

    @cached_property
    def box(self) -> tuple[list[float], list[float]]:
        """The corners of the box of the score, from the means of all seeds.

        From the median Dice and the most joules to the best Dice and the least joules. Half of the configurations lie
        outside. The worst Dice of all would be that of a configuration that does not learn; the worst Dice of the
        front differs from the best one by less than seeds do.
        """
        dice, joules = self.points.mean(1).T
        return [float(np.median(dice)), float(joules.max())], [float(dice.max()), float(joules.min())]

    def score(self, chosen: Sequence[int]) -> float:
        """Hypervolume of configurations with the last seed, in the box."""
        return hypervolume(self.points[list(chosen), -1], BOTH, *self.box)

    def score_of_means(self, chosen: Sequence[int]) -> float:
        """Hypervolume of the means of all seeds of configurations, in the box."""
        return hypervolume(self.points[list(chosen)].mean(1), BOTH, *self.box)

    @cached_property
    def likely(self) -> frozenset[int]:
        """The configurations that are on the front with a chance of 0.5 or more, from all seeds."""
        return frozenset(np.flatnonzero(chances(self.points) >= 0.5).tolist())

    def recall(self, chosen: Sequence[int]) -> float:
        """The share of the likely ones among some configurations."""
        return len(self.likely & set(chosen)) / len(self.likely) if self.likely else 1.0


def chances(points: Values) -> Values:
    """Chance of each configuration to be on the front, as the report has it; points have shape (n, seeds, 2)."""
    number = points.shape[1]
    columns = []
    for values, scale in zip(np.moveaxis(points, 2, 0), (SHARE, POSITIVE), strict=True):
        means = values.mean(1)
        slopes = scale.slope(means)
        found = moderate(values.var(1, ddof=1) / slopes**2, np.full(len(means), number - 1.0))
        residuals = (values - means[:, None]) / slopes[:, None] / np.sqrt(found.variance)[:, None]
        columns.append((scale.even(means), np.sqrt(found.variance / number), found.freedom, residuals.ravel()))
    means, errors, freedoms, residuals = (np.column_stack(each) for each in zip(*columns, strict=True))
    return front_chances(Estimates(means, errors, freedoms, correlation(residuals)), BOTH)


def shuffled(grid: Grid, seed: int) -> Case:
    """A case with seeds in another order for each configuration, and configurations in another order."""
    draw = random.Random(seed)
    order = draw.sample(range(len(grid.curves)), len(grid.curves))
    curves = [draw.sample(grid.curves[i], len(grid.curves[i])) for i in order]
    return Case(curves, [grid.settings[i] for i in order], grid.epochs, grid.restart)


class Ledger:
    """The runs of a replayed search.

    Args:
        case: the case.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.at: dict[tuple[int, int], int] = {}
        self.joules = 0.0

    def copy(self) -> "Ledger":
        """A ledger with the same runs."""
        found = Ledger(self.case)
        found.at, found.joules = dict(self.at), self.joules
        return found

    def cost(self, configuration: int, seed: int, until: int) -> float:
        """Joules to train a run up to an epoch, with the start-up of a run that goes on."""
        joules, done = self.case.curves[configuration][seed].joules, self.at.get((configuration, seed), 0)
        if done >= until:
            return 0.0
        return joules[until - 1] - (joules[done - 1] - self.case.restart if done else 0.0)

    def train(self, configuration: int, seed: int, until: int) -> None:
        """Train a run up to an epoch."""
        self.joules += self.cost(configuration, seed, until)
        self.at[configuration, seed] = max(until, self.at.get((configuration, seed), 0))

    def found(self) -> Found:
        """The front of the means of all finished runs."""
        groups: dict[int, list[int]] = {}
        for (configuration, seed), epochs in self.at.items():
            if epochs == self.case.epochs:
                groups.setdefault(configuration, []).append(seed)
        names = sorted(groups)
        points = np.array([self.case.points[i, groups[i]].mean(0) for i in names]).reshape(-1, 2)
        return Found([names[k] for k in np.flatnonzero(front(points, BOTH))], self.joules)


Asks = Iterator[tuple[int, int, int]]
"""Runs to train, in their order: configuration, seed, epochs."""


def within(case: Case, asks: Callable[[Case, Ledger], Asks], budgets: Sequence[float]) -> list[Found]:
    """What a search has found at each of some rising budgets, up to the first run that goes beyond."""
    ledger, found = Ledger(case), list[Found]()
    for ask in asks(case, ledger):
        while len(found) < len(budgets) and ledger.joules + ledger.cost(*ask) > budgets[len(found)]:
            found.append(ledger.found())
        if len(found) == len(budgets):
            return found
        ledger.train(*ask)
    return found + [ledger.found()] * (len(budgets) - len(found))


def candidates_of(case: Case, traits: bool = True) -> dict[str, tuple[Candidate, int]]:
    """The runs of a case, each with the number of its configuration."""
    found = {}
    for i, settings in enumerate(case.settings):
        kind, network = (tuple(settings[name] for name in names) for names in (KIND, NETWORK))
        values = (network, *(settings[name] for name in KIND[:2]), kind) if traits else ()
        for s in range(case.seen):
            key = f"{i:04}-{s}"
            found[key] = Candidate(key, f"{i:04}", s, kind, case.epochs, i, values), i
    return found


def halving(case: Case, budgets: Sequence[float], options: Options, traits: bool = True) -> list[Found]:
    """The search of greenseg with some budgets; the first rounds, which a budget does not cut, are replayed once."""
    free = [_State(case, traits)]
    while free[-1].ledger.joules <= max(budgets) and (after := free[-1].after(options)):
        free.append(after)
    found = []
    for budget in budgets:
        reached = sum(state.ledger.joules <= budget for state in free)
        found.append(replayed(case, replace(options, budget=budget), traits, free[max(reached - 2, 0)])[0])
    return found


class _State:
    """A replayed search after some rounds."""

    def __init__(self, case: Case, traits: bool) -> None:
        self.case, self.runs = case, candidates_of(case, traits)
        self.candidates = [each for each, _ in self.runs.values()]
        self.ledger, self.seen, self.number = Ledger(case), dict[str, Curve](), 0

    def after(self, options: Options) -> "_State | None":
        """The state after one more round; None if the search is done."""
        steps = next_round(self.candidates, self.seen, options, self.number)
        if not steps:
            return None
        found = copy(self)
        found.ledger, found.seen, found.number = self.ledger.copy(), dict(self.seen), self.number + 1
        for step in steps:
            i, s = self.runs[step.candidate.key][1], step.candidate.repeat
            found.ledger.train(i, s, step.until)
            found.seen[step.candidate.key] = self.case.curves[i][s].until(step.until)
        return found


def replayed(
    case: Case, options: Options, traits: bool = True, state: _State | None = None
) -> tuple[Found, dict[str, Curve]]:
    """A search of greenseg from a state or from the start, and its curves at the end."""
    state = state or _State(case, traits)
    while after := state.after(options):
        state = after
    return state.ledger.found(), state.seen


def at_random(case: Case, ledger: Ledger) -> Asks:
    """All configurations in their (shuffled) order with one seed, then with the next."""
    for seed in range(case.seen):
        for i in range(len(case.curves)):
            yield i, seed, case.epochs


def by_rungs(
    case: Case, ledger: Ledger, order: Callable[[Values], Values], first: int = 3, factor: float = 2.0
) -> Asks:
    """Successive halving: each rung keeps the first share of an order of (Dice so far, joules so far).

    Those that the rungs have dropped go on afterwards, the last dropped first, and then all have the next seed.
    """
    for seed in range(case.seen):
        alive, until, dropped = list(range(len(case.curves))), first, list[int]()
        while until <= case.epochs:
            for i in alive:
                yield i, seed, until
            if until == case.epochs:
                break
            points = np.array([_at(case, i, seed, until) for i in alive])
            ordered = [alive[k] for k in np.argsort(order(points), kind="stable")]
            number = max(round(len(alive) / factor), 1)
            alive, dropped = ordered[:number], ordered[number:] + dropped
            until = min(round(until * factor), case.epochs)
        for i in dropped:
            yield i, seed, case.epochs


def _at(case: Case, configuration: int, seed: int, epochs: int) -> tuple[float, float]:
    curve = case.curves[configuration][seed].until(epochs)
    return curve.best, curve.joules[-1]


def by_dice(points: Values) -> Values:
    """The order of plain successive halving."""
    return np.asarray(-points[:, 0])


def by_rank(points: Values) -> Values:
    """Non-dominated rank, then Dice."""
    return ranks(points, BOTH) + (1 - points[:, 0]) / 2


def after_constant(case: Case, ledger: Ledger, first: int = 3) -> Asks:
    """All configurations for a few epochs, then by rank to the end (arXiv:2404.04111, for two objectives)."""
    for seed in range(case.seen):
        points = []
        for i in range(len(case.curves)):
            yield i, seed, first
            points.append(_at(case, i, seed, first))
        for i in np.argsort(by_rank(np.array(points)), kind="stable").tolist():
            yield i, seed, case.epochs


def by_optuna(case: Case, ledger: Ledger, sampler: str) -> Asks:
    """A multi-objective sampler of Optuna over the settings; a configuration that comes again has its next seed.

    As many trials as the grid has runs; those of configurations without a further seed cost nothing.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = random.Random(repr(case.points[:, 0, 0].tolist())).randrange(2**31)
    found: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=seed)
        if sampler == "tpe"
        else optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=found)
    networks, kinds = ([repr([each[k] for k in names]) for each in case.settings] for names in (NETWORK, KIND))
    place = {pair: i for i, pair in enumerate(zip(networks, kinds, strict=True))}
    choices = sorted(set(networks)), sorted(set(kinds))
    done = [0] * len(case.curves)
    for _ in range(len(done) * case.seen):
        trial = study.ask()
        i = place[trial.suggest_categorical("network", choices[0]), trial.suggest_categorical("kind", choices[1])]
        if done[i] < case.seen:
            yield i, done[i], case.epochs
            done[i] += 1
        study.tell(trial, case.points[i, done[i] - 1].tolist())
