"""The standing of a search: projections of all runs, the runs that it gives up, and chances to be on the front."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from greenseg.report.chance import t_quantiles
from greenseg.report.moderation import Values
from greenseg.search.candidates import Candidate, Options
from greenseg.search.curves import Bounds, Curve
from greenseg.search.forecast import Effects, Regression, expit, forecast, logit

_DRAWS = 256
_SEEDS = 4.0
"""Number of repeats that a first guess counts as: repeats vary half as much as configurations with equal effects."""

_UNKNOWN = 30.0  # logits; the scale of a projection without any finished run


@dataclass
class Standing:
    """Where a search stands.

    Attributes:
        given_up: run → the run that costs less and is better, or has the same results.
        bounds: run → its Dice at the end, of runs that have begun.
        joules: run → its joules at the end, of runs that have begun.
        undecided: first runs of configurations that have neither ended nor been given up, in the order of their keys.
    """

    given_up: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, Bounds] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)
    undecided: list[str] = field(default_factory=list)


class View:
    """All that follows from some curves.

    Args:
        candidates: all runs but failed ones.
        curves: run → its curve so far; runs that have not begun are missing.
        options: how to search.

    Attributes:
        standing: the standing of the search.
        repeats: configuration → its runs, in the order of their repeats.
        waiting: first runs of configurations that have not begun, by key.
        begun: first runs of configurations that have begun, but for those that another one stands for; n runs by key.
        ended: whether they have ended, shape (n,).
        means, errors: logit of the expected Dice of each of these configurations, and its scale; shape (n,) each.
        freedom: degrees of freedom of the errors.
        counts: number of finished runs of each, shape (n,).
        joules: joules of each, shape (n,).
    """

    def __init__(self, candidates: Sequence[Candidate], curves: Mapping[str, Curve], options: Options) -> None:
        alive = sorted(candidates, key=lambda c: c.key)
        self.curves, self.options, self.standing = curves, options, Standing()
        self.repeats = defaultdict[str, list[Candidate]](list)
        for each in sorted(alive, key=lambda c: (c.repeat, c.key)):
            self.repeats[each.configuration].append(each)
        known = [c for c in alive if c.key in curves]
        self.standing.joules = {c.key: curves[c.key].joules_after(c.epochs) for c in known}
        same = _same_results(known, curves, self.standing.joules, options.noise)
        once = [c for c in alive if c.repeat == 0 and c.key not in same]
        self.waiting = [c for c in once if c.key not in curves]
        self.begun = [c for c in once if c.key in curves]
        self.ended = np.array([curves[c.key].ended for c in self.begun], dtype=bool)
        self._project(known)
        self.standing.given_up = same | self._beaten()
        decided = self.standing.given_up.keys() | {c.key for c in known if curves[c.key].ended}
        self.standing.undecided = [c.key for c in once if c.key not in decided]

    def _project(self, known: Sequence[Candidate]) -> None:
        """The bounds of all runs, and what is known of the configurations."""
        curves = self.curves
        traits = [c.traits or (c.kind,) for c in known]
        logits, regression = forecast(traits, [curves[c.key] for c in known])
        self.freedom = logits.freedom
        scale = np.minimum(logits.scale, _UNKNOWN)
        reach = self._quantile() * scale
        sides = (expit(logits.mean + side * reach).tolist() for side in (0, -1, 1))
        for each, *values in zip(known, *sides, strict=True):
            best = curves[each.key].best
            self.standing.bounds[each.key] = (
                Bounds(best, best, best) if curves[each.key].ended else Bounds(*(max(value, best) for value in values))
            )
        place = {c.key: k for k, c in enumerate(known)}
        first = [place[c.key] for c in self.begun]
        runs = [[c for c in self.repeats[each.configuration] if c.key in curves] for each in self.begun]
        self.joules = np.array([np.mean([self.standing.joules[c.key] for c in group]) for group in runs])
        own = [logit(np.array([curves[c.key].best for c in group if curves[c.key].ended])) for group in runs]
        self.counts = np.array([len(values) for values in own])
        self.means, self.errors = logits.mean[first], scale[first]
        if regression:
            expected = regression.at(Effects(traits).table[first]).mean
            self._add_repeats(own, expected, regression)

    def _add_repeats(self, own: Sequence[Values], expected: Values, regression: Regression) -> None:
        """Means and errors of configurations with finished runs.

        Their own means are drawn to what the regression expects, as in any model with random effects: the fewer
        repeats, the more. So a single lucky seed does not beat all others.
        """
        noise = regression.noise**2
        within = sum(float(((values - values.mean()) ** 2).sum()) for values in own if len(values))
        freedom = float((self.counts - 1).clip(0).sum())
        seeds = (within + _SEEDS * noise / 2) / (freedom + _SEEDS)
        between = max(noise - seeds, 0.1 * noise)
        some = self.counts > 0
        observed = np.array([values.mean() if len(values) else 0.0 for values in own])
        variance = seeds / self.counts.clip(1)
        share = between / (between + variance)
        self.means = np.where(some, expected + share * (observed - expected), self.means)
        self.errors = np.where(some, np.sqrt(share * variance), self.errors)

    def _quantile(self) -> float:
        return float(t_quantiles(np.array([self.freedom]), 1 - self.options.confidence)[0])

    def _beaten(self) -> dict[str, str]:
        """Run → the run whose configuration costs less beyond the noise and is better beyond all bounds."""
        if not self.begun:
            return {}
        reach = self._quantile() * self.errors
        so_far = logit(np.array([self.curves[c.key].best for c in self.begun]))
        low, high = self.means - reach, np.maximum(self.means + reach, so_far)
        order = np.argsort(self.joules, kind="stable")
        highest = np.maximum.accumulate(low[order])
        cheaper = np.searchsorted(self.joules[order], self.joules * (1 - self.options.noise), "left")
        return {
            self.begun[i].key: self.begun[order[np.argmax(low[order[: cheaper[i]]])]].key
            for i in np.flatnonzero(~self.ended & (cheaper > 0))
            if highest[cheaper[i] - 1] > high[i]
        }

    def chances(self) -> tuple[Values, Values]:
        """Chance of each configuration to be on the front, and how much the hypervolume that it adds varies.

        Both over draws of all means and joules; shape (n,) each.
        """
        random, shape = np.random.default_rng(0), (_DRAWS, len(self.begun))
        dice = expit(random.standard_t(max(self.freedom, 2.0), shape) * self.errors + self.means)
        spread = self.options.noise / np.sqrt(self.counts.clip(1))
        return _contributions(dice, self.joules * np.exp(random.standard_normal(shape) * spread))


def stand(candidates: Sequence[Candidate], curves: Mapping[str, Curve], options: Options) -> Standing:
    """Project all runs that have begun, and give up those that another one beats beyond all bounds.

    Arguments are those of `View`.
    """
    return View(candidates, curves, options).standing


def _same_results(
    known: Sequence[Candidate], curves: Mapping[str, Curve], joules: Mapping[str, float], noise: float
) -> dict[str, str]:
    """Run → the run that stands for it: of those with the same results, the one that costs least.

    The one that has trained furthest stays, since joules differ by chance.
    """
    groups = defaultdict[Hashable, list[Candidate]](list)
    for each in known:
        groups[each.results].append(each)
    found: dict[str, str] = {}
    for group in groups.values():
        once = [c for c in group if c.repeat == 0]
        if len(once) < 2:
            continue
        furthest = max(len(curves[c.key].dice) for c in once)
        leaders = [c for c in once if len(curves[c.key].dice) == furthest]
        least = min(joules[c.key] for c in leaders)
        leader = next(c for c in leaders if joules[c.key] <= least * (1 + noise))
        found |= {c.key: leader.key for c in group if c.configuration != leader.configuration}
    return found


def _contributions(dice: Values, joules: Values) -> tuple[Values, Values]:
    """Chance of each configuration to be on the front, and the spread of the hypervolume that it alone adds.

    Args:
        dice, joules: draws, shape (draws, n).
    """
    order = np.argsort(joules, axis=1, kind="stable")
    ordered, costs = (np.take_along_axis(each, order, axis=1) for each in (dice, joules))
    start = np.full((len(dice), 1), np.quantile(dice, 0.05) if dice.size else 0.0)
    before = np.maximum.accumulate(np.concatenate([start, ordered[:, :-1]], axis=1), axis=1)
    on = ordered > before
    ends = np.minimum.accumulate(np.where(on, costs, costs[:, -1:])[:, ::-1], axis=1)[:, ::-1]
    ends = np.concatenate([ends[:, 1:], costs[:, -1:]], axis=1)
    added, chosen = np.empty_like(dice), np.empty_like(on)
    np.put_along_axis(added, order, np.where(on, (ordered - before) * (ends - costs), 0.0), axis=1)
    np.put_along_axis(chosen, order, on, axis=1)
    return chosen.mean(axis=0), added.std(axis=0)
