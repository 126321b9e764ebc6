"""The runs of a grid, how to search among them, and the joules that all of them would cost."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from greenseg.search.curves import Curve

LEAST = 3
"""The least number of epochs that a configuration trains: the first may cost more than the others."""


@dataclass(frozen=True)
class Candidate:
    """A run of the grid.

    Attributes:
        key: identifies it, and orders it among equals.
        configuration: the same for runs that differ only in the seed.
        repeat: its number among these, from 0.
        kind: settings on which the shape of a learning curve depends most.
        epochs: its number of epochs.
        results: the same for configurations that differ only in settings that change joules but no result.
        traits: values of the settings that differ in the grid, in the same order for all runs; settings that change
            together can be one value. The kind alone if empty.
    """

    key: str
    configuration: str
    repeat: int
    kind: Hashable
    epochs: int
    results: Hashable
    traits: tuple[Hashable, ...] = ()


@dataclass(frozen=True)
class Options:
    """How to search.

    Attributes:
        budget: joules for all runs; None for no limit.
        share: the same as a share of the predicted joules of the grid; the lesser of both counts.
        first: share of its epochs that every configuration trains; at least `LEAST` epochs.
        factor: a run that goes on trains this many times as far; from there, to the end.
        anchors: number of configurations that train to the end first.
        batch: number of runs in a round, as a share of the configurations.
        confidence: of the bounds by which a run is given up.
        noise: share by which joules differ by chance.
        audit: share of the given-up runs that train to the end nevertheless.
        seed: of the choice of anchors and audits.
    """

    budget: float | None = None
    share: float | None = None
    first: float = 0.15
    factor: float = 3.0
    anchors: int = 10
    batch: float = 0.05
    confidence: float = 0.95
    noise: float = 0.03
    audit: float = 0.1
    seed: int = 0


class Step(NamedTuple):
    """A run, the number of epochs that it has at the end of a round, and the reason."""

    candidate: Candidate
    until: int
    why: str


class Prediction(NamedTuple):
    """Joules of the grid: expected, and the bounds of a range that has them with 95 %."""

    mean: float
    low: float
    high: float


_SPREAD = 0.05
"""Spread of the joules of repeats before any are known, as a share."""


def predicted(candidates: Sequence[Candidate], curves: Mapping[str, Curve]) -> Prediction | None:
    """Joules of all runs of the grid, each trained to the end; None before the first curve.

    Runs that have not begun cost as much as the other runs of their configuration, or else as the mean of all.
    """
    groups = defaultdict[str, list[Candidate]](list)
    for each in sorted(candidates, key=lambda c: c.key):
        groups[each.configuration].append(each)
    known = {
        name: {c.key: curves[c.key].joules_after(c.epochs) for c in group if c.key in curves}
        for name, group in sorted(groups.items())
    }
    means = np.array([np.mean([*found.values()]) for found in known.values() if found])
    if not len(means):
        return None
    ratios = [joules / np.mean([*found.values()]) - 1 for found in known.values() for joules in found.values()]
    freedom = len(ratios) - len(means)
    spread = float(np.sqrt(np.sum(np.square(ratios)) / freedom)) if freedom else _SPREAD
    between = float(means.std(ddof=1)) if len(means) > 1 else float(means[0])
    mean, variance, unknown, sure = 0.0, 0.0, 0, 0.0
    for name, group in sorted(groups.items()):
        found = known[name]
        alike = float(np.mean([*found.values()])) if found else 0.0
        for each in group:
            if each.key in found:
                mean += found[each.key]
                sure += curves[each.key].joules[-1]
                variance += 0.0 if curves[each.key].ended else (spread * found[each.key]) ** 2
            elif found:
                mean += alike
                variance += (spread * alike) ** 2
            else:
                unknown += 1
    mean += unknown * float(means.mean())
    # Of those without any run: each differs from the mean of the others, which is not known well itself.
    variance += between**2 * (unknown + unknown**2 / len(means))
    reach = 1.96 * float(variance**0.5)
    return Prediction(float(mean), float(max(mean - reach, sure)), float(mean + reach))
