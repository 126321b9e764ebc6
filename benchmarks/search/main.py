"""Whether a search finds the front of a grid for a part of its joules, on recorded grids; writes docs/search.svg.

First, how well the Dice after some epochs orders the configurations: Kendall's τ between it and the Dice at the end.
Then searches on 200 shuffles of each grid. See docs/search.md for the scores.
"""

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.search import picture
from benchmarks.search.changed import CHANGES
from benchmarks.search.grid import GRIDS, Grid, load
from benchmarks.search.replay import (
    Case,
    Found,
    Values,
    after_constant,
    at_random,
    by_dice,
    by_optuna,
    by_rank,
    by_rungs,
    candidates_of,
    halving,
    replayed,
    shuffled,
    within,
)
from greenseg.search.halving import Options, stand

SHUFFLES = 200
_FEWER = 100
"""Shuffles with changed curves, and of what was tried."""

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.375, 0.4, 0.5, 0.6)
"""Budgets, as shares of the joules of the grid with the seeds that a search sees."""

_SHOWN = (0.2, 0.3, 0.4, 0.6)
_MAIN = 0.4

Method = Callable[[Case, Sequence[float]], list[Found]]

METHODS: dict[str, Method] = {
    "greenseg": lambda case, budgets: halving(case, budgets, Options()),
    "random": lambda case, budgets: within(case, at_random, budgets),
    "halving by Dice": lambda case, budgets: within(case, partial(by_rungs, order=by_dice), budgets),
    "halving by rank": lambda case, budgets: within(case, partial(by_rungs, order=by_rank), budgets),
    "after 3 epochs": lambda case, budgets: within(case, after_constant, budgets),
    "Optuna TPE": lambda case, budgets: within(case, partial(by_optuna, sampler="tpe"), budgets),
    "Optuna NSGA-II": lambda case, budgets: within(case, partial(by_optuna, sampler="nsga2"), budgets),
}
_QUICK = ("greenseg", "random", "halving by rank", "after 3 epochs")

TRIED: dict[str, Method] = {
    "as it is": METHODS["greenseg"],
    "without settings of the network": lambda case, budgets: halving(case, budgets, Options(), traits=False),
    "no anchors": lambda case, budgets: halving(case, budgets, Options(anchors=1)),
    "20 anchors": lambda case, budgets: halving(case, budgets, Options(anchors=20)),
    "twice as far per rung": lambda case, budgets: halving(case, budgets, Options(factor=2.0)),
    "from 3 epochs to the end": lambda case, budgets: halving(case, budgets, Options(factor=10.0)),
    "larger rounds (15 %)": lambda case, budgets: halving(case, budgets, Options(batch=0.15)),
    "bounds of 80 %": lambda case, budgets: halving(case, budgets, Options(confidence=0.8)),
}


class Scores(NamedTuple):
    """Scores of a method on a case, one per budget; those of `Case`, and the share of the joules of the grid."""

    unseen: list[float]
    means: list[float]
    recall: list[float]
    joules: list[float]


def main() -> None:
    """Print the tables of all recorded grids, and draw them."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes: the matrices are small
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        drawn = {}
        for name in GRIDS:
            grid = load(name)
            print(f"{name}: {len(grid.curves)} configurations × {len(grid.curves[0])} seeds × {grid.epochs} epochs")
            _correlations(grid)
            found = pool.map(partial(_scores, name, ""), range(SHUFFLES), chunksize=5)
            drawn[name] = found
            _table(found, (*METHODS,))
            _areas(found)
            _all_seeds(pool.map(partial(_against_all, name), range(SHUFFLES), chunksize=5))
            _guard(pool.map(partial(_bounds, name), range(SHUFFLES), chunksize=5))
            print(f"{name} with new seeds")
            _areas(pool.map(partial(_with_new_seeds, name), range(_FEWER), chunksize=5))
            for change in CHANGES:
                print(f"{name} with changed curves: {change}")
                _table(pool.map(partial(_scores, name, change), range(_FEWER), chunksize=5), _QUICK)
        print(
            "phantom, what was tried: difference of the mean scores to the search as it is, at 20 to 60 % of the joules"
        )
        _tried(pool.map(_trials, range(_FEWER), chunksize=5))
    picture.draw(drawn, SHARES)


def _correlations(grid: Grid) -> None:
    groups = defaultdict[str, list[int]](list)
    for number, settings in enumerate(grid.settings):
        groups["all"].append(number)
        groups[settings["schedule"]].append(number)
    epochs = sorted({1, 2, 3, 4, 6, 8, 10, 12, 15, grid.epochs})
    print(f"Kendall's τ after epoch    {'  '.join(f'{e:4}' for e in epochs)}")
    for name, members in groups.items():
        cells = []
        for epoch in epochs:
            of = [
                stats.kendalltau(
                    [grid.curves[i][s].best_until(epoch) for i in members], [grid.curves[i][s].best for i in members]
                ).statistic
                for s in range(len(grid.curves[0]))
            ]
            cells.append(f"{np.mean(of):4.2f}")
        print(f"  {name:20} {len(members):3}  {'  '.join(cells)}", flush=True)


def _case(name: str, change: str, shuffle: int) -> Case:
    grid = load(name)
    return shuffled(CHANGES[change](grid, shuffle) if change else grid, shuffle)


def _scores(name: str, change: str, shuffle: int) -> dict[str, Scores]:
    """Scores of all methods on a shuffle; of the grid itself, and of one seed of it."""
    case = _case(name, change, shuffle)
    whole = case.whole(range(case.seen))
    budgets = [share * whole.joules for share in SHARES]
    found = {"grid": [whole], "one seed": [case.whole([0])]}
    if change:
        budgets = [share * whole.joules for share in _SHOWN]
        found |= {method: METHODS[method](case, budgets) for method in _QUICK}
    else:
        found["all seeds"] = [case.whole(range(case.seen + 1))]
        found |= {method: ask(case, budgets) for method, ask in METHODS.items()}
    return {method: _scored(case, each, whole.joules) for method, each in found.items()}


def _with_new_seeds(name: str, shuffle: int) -> dict[str, Scores]:
    """Scores of all methods on a shuffle whose seeds are drawn, with all budgets."""
    case = _case(name, "new seeds, 2 + 1", shuffle)
    whole = case.whole(range(case.seen)).joules
    budgets = [share * whole for share in SHARES]
    return {method: _scored(case, ask(case, budgets), whole) for method, ask in METHODS.items()}


def _scored(case: Case, found: Sequence[Found], joules: float) -> Scores:
    return Scores(
        [case.score(each.chosen) for each in found],
        [case.score_of_means(each.chosen) for each in found],
        [case.recall(each.chosen) for each in found],
        [each.joules / joules for each in found],
    )


def _table(found: list[dict[str, Scores]], methods: Sequence[str]) -> None:
    shares = SHARES if "all seeds" in found[0] else _SHOWN
    print("  hypervolume as a share of the grid's, on the unseen seed: median (lowest 5 %); of the means of all seeds:")
    print("  mean; recall of likely front members: mean; at a share of the joules of the grid")
    _line(found, "grid", 0)
    _line(found, "one seed", 0)
    for method in methods:
        for share in _SHOWN:
            _line(found, method, shares.index(share))


def _line(found: list[dict[str, Scores]], method: str, place: int) -> None:
    whole = [scores["grid"] for scores in found]
    rows = [scores[method] for scores in found]
    unseen = _ratio([row.unseen[place] for row in rows], [w.unseen[0] for w in whole])
    means = _ratio([row.means[place] for row in rows], [w.means[0] for w in whole])
    recall = np.mean([row.recall[place] for row in rows])
    joules = np.mean([row.joules[place] for row in rows])
    print(
        f"    {method:16} {np.median(unseen):6.1%} ({np.quantile(unseen, 0.05):4.0%})  {means.mean():6.1%}  "
        f"{recall:4.0%}  at {joules:4.0%}",
        flush=True,
    )


def _ratio(scores: Sequence[float], whole: Sequence[float]) -> Values:
    """Ratios; 1 where both are 0."""
    top, bottom = np.array(scores), np.array(whole)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.where(top > 0, 2.0, 1.0))


def area(scores: Sequence[float]) -> float:
    """Mean of a score over the budgets: the area under it, divided by the range of the joules."""
    return float(np.trapezoid(scores, SHARES)) / (SHARES[-1] - SHARES[0])


def _areas(found: list[dict[str, Scores]]) -> None:
    print(f"  lead in the area under hypervolume and joules, {SHARES[0]:.0%} to {SHARES[-1]:.0%}, with 95 % interval:")
    print("  unseen seed; means of all seeds")
    for method in METHODS:
        if method != "greenseg":
            cells = [_lead([area(getattr(s["greenseg"], of)) - area(getattr(s[method], of)) for s in found])
                     for of in ("unseen", "means")]  # fmt: skip
            print(f"    over {method:16} {cells[0]}   {cells[1]}", flush=True)


def _lead(differences: Sequence[float]) -> str:
    half = 1.96 * np.std(differences, ddof=1) / len(differences) ** 0.5
    return f"{np.mean(differences):+.3f} ± {half:.3f}"


def _against_all(name: str, shuffle: int) -> tuple[float, ...]:
    """Scores of a search with 25 % of the joules of the grid with all seeds, and of that grid."""
    case = _case(name, "", shuffle)
    whole = case.whole(range(case.seen + 1))
    (search,) = halving(case, [0.25 * whole.joules], Options())
    return (
        *(case.score(each.chosen) for each in (search, whole)),
        *(case.score_of_means(each.chosen) for each in (search, whole)),
        case.recall(search.chosen),
        search.joules / whole.joules,
    )


def _all_seeds(found: list[tuple[float, ...]]) -> None:
    columns = np.array(found).T
    unseen, means = _ratio(columns[0], columns[1]), _ratio(columns[2], columns[3])
    print(
        f"  against the grid with all seeds, which knows the one of the score: {np.median(unseen):.1%} "
        f"({np.quantile(unseen, 0.05):.0%}), means {means.mean():.1%}, recall {columns[4].mean():.0%} "
        f"at {columns[5].mean():.0%} of its joules",
        flush=True,
    )


def _bounds(name: str, shuffle: int) -> tuple[int, int, int, int, int]:
    """Of a search with 40 % of the joules: paused runs, those that end within their bound, given-up ones, and those of
    them that are on the front of the first seeds and of the means of all seeds.
    """
    case = _case(name, "", shuffle)
    whole = case.whole(range(case.seen))
    _, curves = replayed(case, Options(budget=_MAIN * whole.joules))
    runs = candidates_of(case)
    standing = stand([each for each, _ in runs.values()], curves, Options())
    paused = [key for key, curve in curves.items() if not curve.ended]
    inside = sum(case.curves[runs[key][1]][0].best <= standing.bounds[key].high for key in paused)
    given_up = {runs[key][1] for key in standing.given_up}
    first, all_seeds = case.whole([0]), case.whole(range(case.seen + 1))
    return (
        len(paused),
        inside,
        len(given_up),
        len(given_up & set(first.chosen)),
        len(given_up & set(all_seeds.chosen)),
    )


def _guard(found: list[tuple[int, int, int, int, int]]) -> None:
    paused, inside, given_up, first, all_seeds = np.sum(found, axis=0).tolist()
    print(f"  bounds: {inside / paused:.1%} of {paused} paused runs end below; {Options().confidence:.0%} wanted")
    print(f"  of {given_up} given-up runs, {first} are on the front of their seed, {all_seeds} on that of all seeds")


def _trials(shuffle: int) -> dict[str, tuple[float, float]]:
    """Mean scores of all variants over some budgets, on the recorded grid and with new seeds."""
    found = {}
    cases = [_case("phantom", change, shuffle) for change in ("", "new seeds, 2 + 1")]
    for name, method in TRIED.items():
        areas = []
        for case in cases:
            budgets = [share * case.whole(range(case.seen)).joules for share in _SHOWN]
            areas.append(float(np.mean([case.score_of_means(each.chosen) for each in method(case, budgets)])))
        found[name] = (areas[0], areas[1])
    return found


def _tried(found: list[dict[str, tuple[float, float]]]) -> None:
    for name in TRIED:
        cells = [_lead([each[name][k] - each["as it is"][k] for each in found]) for k in range(2)]
        print(f"    {name:32} recorded {cells[0]}   new seeds {cells[1]}", flush=True)
