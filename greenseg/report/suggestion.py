"""The fewest further seeds that would settle which configurations are on the front.

A configuration is settled if its chance to be on the front is outside of 5 to 95 %, or if its means are known to a
practical margin, within which a difference has no consequence. The rule is greedy: among the configurations that are
not settled and those that compete with them, the next seed goes to the one that lowers Σ p(1 − p), the expected number
of wrong decisions, most per joule. For this, a further seed is expected to change neither means nor spread, but to
lower the standard error as √n. The means will change: ask again after the seeds.

Folds share training data, so a further one lowers the variance of a mean quality only from s²(1/k + n_test/n_train) to
s²(1/(k + 1) + n_test/n_train) (Nadeau & Bengio 2003, doi:10.1023/A:1024068626366). Further seeds of folds that have all
run are not counted on: how much of s² is that of the seeds is unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenseg import yamlfile
from greenseg.report.chance import CONFIDENCE, Estimates, t_quantiles
from greenseg.report.comparison import Comparison
from greenseg.report.front import fronts
from greenseg.report.moderation import Values
from greenseg.report.objectives import Objective
from greenseg.report.results import Result
from greenseg.report.statistics import overlap_of
from greenseg.report.units import count, joules
from greenseg.settings import Settings

UNSETTLED = (0.05, 0.95)
"""Chances between which a configuration is not settled."""

MARGIN = 0.01
"""Practical margin, as a share of a mean."""

MOST = 10
"""Largest number of further seeds of a configuration."""

_FIRST = 2  # further seeds of each configuration on the front if no spread is known
_DRAWS = 400
_CANDIDATES = 6  # unsettled ones that the next seed may be for


@dataclass(frozen=True)
class Suggestion:
    """Further seeds.

    Attributes:
        further: configurations with their number of further seeds, which is above 0.
        joules: what these are expected to cost, from the mean of each configuration.
        unsettled: number of configurations that are not settled now.
        left: number of those that even `MOST` further seeds would not settle; none are suggested for them.
        known: whether the spread is known.
    """

    further: tuple[tuple[Result, int], ...]
    joules: float
    unsettled: int
    left: int
    known: bool


def suggest(comparison: Comparison) -> Suggestion:
    """The further seeds that would settle the fronts of a comparison."""
    found: list[tuple[Result, int]] = []
    unsettled = left = 0
    known = False
    for members in comparison.groups:
        estimates = comparison.spreads.estimates(members, comparison.objectives)
        if not (estimates.freedoms > 0).all(axis=1).any():
            chosen = comparison.front_of(members) if len(members) > 1 else []
            found += [(result, _FIRST) for result in chosen]
            unsettled += len(chosen)
            continue
        known = True
        numbers = np.array([len(result.repeats) for result in members])
        costs = np.array([comparison.value(result, comparison.energy) for result in members])
        slopes = np.array([[_slope(comparison, r, o) for o in comparison.objectives] for r in members])
        shrinking = np.array([_shrinking(result, comparison.objectives) for result in members])
        further, before, after = _greedy(estimates, numbers, costs, slopes, shrinking, comparison.maximise)
        unsettled, left = unsettled + before, left + after
        found += [(result, int(number)) for result, number in zip(members, further, strict=True) if number]
    spent = sum(number * _joules(result) for result, number in found)
    return Suggestion(tuple(found), spent, unsettled, left, known)


def _slope(comparison: Comparison, result: Result, objective: Objective) -> float:
    spread = comparison.spreads.of(result, objective)
    return spread.slope / abs(spread.mean.value) if spread and spread.mean.value else 1.0


def _shrinking(result: Result, objectives: Sequence[Objective]) -> Values:
    """Factors of the standard errors after 0, 1, … `MOST` further repeats, shape (MOST + 1, objectives)."""
    n, folds = len(result.repeats), int(result.settings["folds"])
    plain = np.sqrt(n / (n + np.arange(MOST + 1.0)))
    if not folds:
        return np.stack([plain] * len(objectives), axis=1)
    known = {runs[0].settings["fold"] for runs in result.repeats}
    later = [repeat["fold"] for repeat in _next_repeats(result, MOST)]
    counts = np.array([len({*known, *later[:more]}) for more in range(MOST + 1)])
    squares = 1 / counts + overlap_of(folds)
    return np.stack([np.sqrt(squares / squares[0]) if o.learned else plain for o in objectives], axis=1)


def _joules(result: Result) -> float:
    return sum(run.own_joules for run in result.finished) / len(result.finished)


def _greedy(
    estimates: Estimates,
    numbers: NDArray[np.int64],
    costs: Values,
    slopes: Values,
    shrinking: Values,
    maximise: Sequence[bool],
) -> tuple[NDArray[np.int64], int, int]:
    """Further seeds of each configuration, and the numbers of unsettled ones before and after them.

    `slopes`, of shape (n, d), are factors from the scales with even spread to shares of the means; `shrinking`, of
    shape (n, MOST + 1, d), those of the standard errors after each number of further seeds.
    """
    noise = Estimates(0 * estimates.means, estimates.errors, estimates.freedoms, estimates.correlation).draws(
        np.random.default_rng(0), _DRAWS
    )
    quantiles = t_quantiles(estimates.freedoms, (1 - CONFIDENCE) / 2)
    halves = np.where(estimates.freedoms > 0, quantiles * estimates.errors * slopes, np.inf)
    further, places = np.zeros(len(numbers), dtype=np.int64), np.arange(len(numbers))
    costs = np.where(costs > 0, costs, 1.0)

    def samples(further: NDArray[np.int64]) -> Values:
        return estimates.means + noise * shrinking[places, further]

    def chances(drawn: Values) -> Values:
        return np.asarray(fronts(drawn, maximise).mean(axis=0))

    def open_ones(chance: Values, further: NDArray[np.int64]) -> NDArray[np.bool_]:
        shrunk = halves * shrinking[places, further]
        between = (chance > UNSETTLED[0]) & (chance < UNSETTLED[1])
        return np.asarray(between & (shrunk > MARGIN).any(axis=1))

    most = np.full(len(numbers), MOST)
    too_alike = open_ones(chances(samples(most)), most)
    drawn = samples(further)
    chance = chances(drawn)
    before = open_ones(chance, further)
    too_alike &= before
    while (unsettled := open_ones(chance, further) & ~too_alike).any():
        doubt = chance * (1 - chance)
        able = _candidates(drawn * np.where(maximise, 1.0, -1.0), unsettled, doubt / costs)
        able = able[further[able] < MOST]
        if not len(able):
            too_alike |= unsettled
            break
        gains = []
        for one in able:
            more = further.copy()
            more[one] += 1
            changed = drawn.copy()
            changed[:, one] = estimates.means[one] + noise[:, one] * shrinking[one, more[one]]
            later = chances(changed)
            gains.append((doubt.sum() - (later * (1 - later)).sum()) / costs[one])
        best = int(np.argmax(gains))
        # If the draws do not tell, the one with the fewest repeats.
        chosen = int(able[best] if gains[best] > 0 else able[np.argmin((numbers + further)[able])])
        further[chosen] += 1
        drawn = samples(further)
        chance = chances(drawn)
    return further, int(before.sum()), int(too_alike.sum())


def _candidates(drawn: Values, unsettled: NDArray[np.bool_], doubts: Values) -> NDArray[np.int64]:
    """The most doubtful configurations, and those that beat each of them most often, which may be beyond doubt.

    In `drawn`, of shape (draws, n, d), more is better.
    """
    doubtful = np.flatnonzero(unsettled)
    chosen = set()
    for one in doubtful[np.argsort(-doubts[doubtful], kind="stable")][:_CANDIDATES]:
        beaten = (drawn >= drawn[:, [one]]).all(axis=2).mean(axis=0)
        beaten[one] = 0.0
        rivals = np.argsort(-beaten, kind="stable")[:2]
        chosen |= {int(one), *(int(rival) for rival in rivals if beaten[rival] > 0)}
    return np.array(sorted(chosen), dtype=np.int64)


def as_sweep(comparison: Comparison, suggestion: Suggestion) -> str:
    """A sweep file that trains the further seeds, with what they are for as comments."""
    lines = [f"# {said}" for said in _said(suggestion)]
    if not suggestion.further:
        return "\n".join(lines) + "\n"
    runs = []
    for result, number in suggestion.further:
        label = " ".join(comparison.label(result).split())  # a comment is one line
        lines.append(f"# {label}: {count(number, 'further seed')}")
        runs += [_given(result) | repeat for repeat in _next_repeats(result, number)]
    common = {name: value for name, value in runs[0].items() if all(run.get(name, _NONE) == value for run in runs)}
    common = {name: value for name, value in common.items() if name not in ("seed", "fold")}
    include = [{name: value for name, value in run.items() if name not in common} for run in runs]
    text = yamlfile.dump({"base": common, "include": include} if common else {"include": include})
    return "\n".join(lines) + "\n" + text


_NONE = object()


def _said(suggestion: Suggestion) -> list[str]:
    number = sum(number for _, number in suggestion.further)
    spent = f"{count(number, 'further seed')}, about {joules(suggestion.joules)}."
    if not suggestion.known:
        return ["Nothing ran twice, so the spread is unknown. Repeat the front first, then ask again:", spent]
    if not suggestion.unsettled:
        margin = f"{MARGIN * 100:g} %"
        return [f"The front is settled: every chance is below 5 or above 95 %, or the means are known to {margin}."]
    said = [f"{count(suggestion.unsettled, 'configuration')} with a chance between 5 and 95 % to be on the front."]
    if suggestion.left:
        said.append(f"{suggestion.left} of them are too alike to tell, even with {MOST} further seeds each.")
    return said + (
        [f"To settle the rest: {spent}" if suggestion.left else f"To settle them: {spent}"] if number else []
    )


def _given(result: Result) -> dict[str, Any]:
    """The settings of a result that differ from their defaults; the network is always named."""
    settings: Mapping[str, Any] = {**result.runs[0].settings, "data": result.settings["data"]}
    names = [name for name in Settings.model_fields if name in settings and name not in ("seed", "fold")]
    return {
        name: settings[name]
        for name in names
        if name in ("encoder", "decoder") or settings[name] != Settings.model_fields[name].default
    }


def _next_repeats(result: Result, number: int) -> Sequence[dict[str, int]]:
    """Seeds, and folds of a cross-validation, that a result has not been run with."""
    folds = int(result.runs[0].settings.get("folds") or 0)
    taken = {(int(run.settings["seed"]), int(run.settings["fold"])) for run in result.runs}
    found: list[dict[str, int]] = []
    seed = 0
    while len(found) < number:
        for fold in range(max(folds, 1)):
            if (seed, fold) not in taken and len(found) < number:
                found.append({"seed": seed, "fold": fold} if folds else {"seed": seed})
        seed += 1
    return found
