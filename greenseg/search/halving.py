"""A search for the front of a grid that pauses runs, and gives up only those that cannot be on the front.

Each round is a function of the curves at the end of the round before, and of a seed. A run keeps its epochs, since its
schedule depends on them; a round only says how far it goes for now.

Every configuration trains a few epochs, which tell its joules. Then the cheapest configuration of each kind trains to
the end, and after that whatever may change the front most for its joules: a run that is paused, or one more seed.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from greenseg.report.front import front
from greenseg.search.candidates import LEAST, Candidate, Options, Prediction, Step, predicted
from greenseg.search.curves import Curve
from greenseg.search.standing import Standing, View, stand

__all__ = ["AUDIT", "LEAST", "Audit", "Candidate", "Options", "Prediction", "Standing", "Step", "audit_of",
           "next_round", "predicted", "stand"]  # fmt: skip

AUDIT = "audit"
"""The reason of the steps that train given-up runs to the end."""

_CHANCES = (0.05, 0.95)
"""Between these chances to be on the front, a configuration gets one more seed."""

_NEAR = 0.75
"""A run that would stop beyond this share of its epochs trains to the end instead."""

_PILOTS = 8
"""Number of configurations that tell how much the others cost, if the budget is in joules."""

_LEAST_AUDITS = 10
_LEAST_BATCH = 3  # runs in a round, so that several can train at a time


def next_round(
    candidates: Sequence[Candidate],
    curves: Mapping[str, Curve],
    options: Options,
    number: int,
    failed: AbstractSet[str] = frozenset(),
) -> list[Step]:
    """The steps of a round; empty if the search is done.

    Args:
        candidates: all runs of the grid.
        curves: run → its curve at the end of the round before; runs that have not begun are missing.
        options: how to search.
        number: number of the round, from 0.
        failed: runs that failed; they take no more part.
    """
    alive = [c for c in candidates if c.key not in failed]
    view = View(alive, {key: curve for key, curve in curves.items() if key not in failed}, options)
    steps = _Affordable(candidates, curves, options)
    if number == 0:
        waiting = view.waiting if options.budget is None else _shuffled(view.waiting, options)[:_PILOTS]
        return [Step(c, _first(c, options), "every configuration") for c in waiting]
    if found := steps.of(Step(c, _first(c, options), "every configuration") for c in _shuffled(view.waiting, options)):
        return found
    if not view.ended.any() and (found := steps.of(_anchors(view))):
        return found
    most = max(_LEAST_BATCH, round(options.batch * len(view.begun)))
    return steps.of(_promising(view), most) or steps.of(
        Step(c, c.epochs, AUDIT)
        for c in view.begun
        if c.key in view.standing.given_up and _drawn(c, options) < options.audit
    )


class Audit(NamedTuple):
    """How many given-up runs may have been on the front.

    Attributes:
        audited: number of given-up runs that trained to the end nevertheless.
        wrong: how many of them are on the front.
        given_up: number of the others.
        at_most: bound on how many of those would be on the front, with 95 % confidence; None with too few audits.
    """

    audited: int
    wrong: int
    given_up: int
    at_most: int | None


def audit_of(
    alive: Sequence[Candidate], curves: Mapping[str, Curve], options: Options, audited: AbstractSet[str]
) -> Audit:
    """How many of the runs that a search gave up may have been on the front.

    Args:
        alive: all runs but failed ones.
        curves: run → its curve so far.
        options: how to search.
        audited: the given-up runs that it trained to the end.
    """
    alive = sorted(alive, key=lambda c: c.key)
    standing = stand(alive, curves, options)
    ended = [c for c in alive if c.key in curves and curves[c.key].ended and c.repeat == 0]
    points = np.array([[curves[c.key].best, curves[c.key].joules[-1]] for c in ended]).reshape(-1, 2)
    best = {c.key for c, on in zip(ended, front(points, (True, False)), strict=True) if on}
    results = {c.key: c.results for c in alive}
    others = sum(results[key] != results[by] for key, by in standing.given_up.items())
    tried = audited & {c.key for c in ended}
    wrong = len(tried & best)
    return Audit(len(tried), wrong, others, _at_most(len(tried), wrong, others))


def _at_most(audited: int, wrong: int, others: int) -> int | None:
    """The largest number of the others that a 95 % bound of the hypergeometric distribution allows."""
    if audited < _LEAST_AUDITS:
        return None
    from scipy.stats import hypergeom

    more = np.arange(others + 1)
    tails = hypergeom.cdf(wrong, audited + others, wrong + more, audited)
    return int(more[tails > 0.05].max())


def _first(candidate: Candidate, options: Options) -> int:
    return min(max(LEAST, round(options.first * candidate.epochs)), candidate.epochs)


def _further(candidate: Candidate, curve: Curve, options: Options) -> int:
    until = max(round(len(curve.dice) * options.factor), len(curve.dice) + 1)
    return candidate.epochs if until > _NEAR * candidate.epochs else until


def _drawn(candidate: Candidate, options: Options) -> float:
    """A number from 0 to 1 that only the seed and the key decide."""
    digest = hashlib.sha256(f"{options.seed} {candidate.key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _shuffled(candidates: Iterable[Candidate], options: Options) -> list[Candidate]:
    return sorted(candidates, key=lambda c: (_drawn(c, options), c.key))


def _anchors(view: View) -> list[Step]:
    """The cheapest configurations of all kinds: as many of each as possible."""
    kinds = defaultdict[str, list[Candidate]](list)
    for each in sorted(view.begun, key=lambda c: (view.standing.joules[c.key], c.key)):
        kinds[repr(each.kind)].append(each)
    order = sorted(kinds)
    random.Random(view.options.seed).shuffle(order)
    ranked = sorted(
        (place, number, each) for number, kind in enumerate(order) for place, each in enumerate(kinds[kind])
    )
    return [Step(c, c.epochs, f"anchor of {_named(c.kind)}") for _, _, c in ranked[: view.options.anchors]]


def _named(kind: Hashable) -> str:
    return ", ".join(map(str, kind)) if isinstance(kind, tuple) else str(kind)


def _promising(view: View) -> list[Step]:
    """All steps that may change the front, the most useful for its joules first.

    The use of a step is the spread of the hypervolume that its configuration adds to the front, times the share of the
    variance that the step removes: all of it for a run that has not ended, 1/(k + 1) for one more than k seeds.
    """
    if not view.begun:
        return []
    chances, spreads = view.chances()
    found = []
    for each, chance, spread, joules in zip(view.begun, chances, spreads, view.joules, strict=True):
        curve, group = view.curves[each.key], view.repeats[each.configuration]
        why = f"chance {chance:.2f} to be on the front"
        if not curve.ended:
            if each.key not in view.standing.given_up:
                cost = max(view.standing.joules[each.key] - curve.joules[-1], 1e-9)
                expected = view.standing.bounds[each.key].expected
                step = Step(each, _further(each, curve, view.options), f"{why}, expected Dice {expected:.3f}")
                found.append((spread / cost, step))
            continue
        further = [c for c in group if c.key not in view.curves]
        if further and _CHANCES[0] < chance < _CHANCES[1]:
            done = len(group) - len(further)
            step = Step(further[0], further[0].epochs, f"{why} after {done} seed{'s' * (done > 1)}")
            found.append((spread / joules / (done + 1), step))
    return [step for _, step in sorted(found, key=lambda each: (-each[0], each[1].candidate.key))]


class _Affordable:
    """The choice of steps that the budget allows.

    Args:
        candidates: all runs of the grid.
        curves: run → its curve at the end of the round before.
        options: how to search.
    """

    def __init__(self, candidates: Sequence[Candidate], curves: Mapping[str, Curve], options: Options) -> None:
        self._curves = curves
        grid = predicted(candidates, curves)
        limits = [] if options.budget is None else [options.budget]
        if options.share is not None and grid:
            limits.append(options.share * grid.mean)
        known = sorted((c for c in candidates if c.key in curves), key=lambda c: c.key)
        self._left = min(limits) - sum(curves[c.key].joules[-1] for c in known) if limits else None
        self._alike = defaultdict[str, list[Curve]](list)
        for each in known:
            self._alike[each.configuration].append(curves[each.key])

    def of(self, steps: Iterable[Step], most: int | None = None) -> list[Step]:
        """Those that the budget allows, in their order, at most some of them."""
        if self._left is None:
            return list(steps)[:most]
        left, found = self._left, list[Step]()
        for step in steps:
            cost = self._cost(step)
            if cost <= left and len(found) != most:
                left -= cost
                found.append(step)
        return found

    def _cost(self, step: Step) -> float:
        """Joules of a step; of a run that has not begun, as of its other repeats, or else as of all."""
        if curve := self._curves.get(step.candidate.key):
            return curve.joules_after(step.until) - curve.joules[-1]
        others = self._alike.get(step.candidate.configuration) or [c for group in self._alike.values() for c in group]
        return float(np.mean([_unended(curve).joules_after(step.until) for curve in others])) if others else 0.0


def _unended(curve: Curve) -> Curve:
    """A curve as if it went on: another run need not stop early where this one did."""
    return replace(curve, ended=False)
