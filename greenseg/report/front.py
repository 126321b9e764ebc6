"""The Pareto front of points with any number of objectives, and what can be said of it. By moocore, in C.

Points are arrays of shape (n, d): a row for each point, a column for each objective. `maximise` says for each objective
whether more is better. A point with NaN in any objective has no figure there: it is on no front and in no rank.

Source: moocore, https://multi-objective.github.io/moocore; its front and its hypervolume for 2 and 3 objectives take
O(n log n).
"""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
DRAWS = 1000


def front(points: Points, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Which points no other point beats, shape (n,).

    A point is beaten by one that is at least as good in all objectives and better in one. Equal points do not beat each
    other.
    """
    known = ~np.isnan(points).any(axis=1)
    chosen = np.zeros(len(points), dtype=bool)
    if known.any():
        chosen[known] = moocore.is_nondominated(points[known], maximise=list(maximise), keep_weakly=True)
    return chosen


def ranks(points: Points, maximise: Sequence[bool]) -> NDArray[np.int64]:
    """Rank of each point, shape (n,): 1 for the front, 2 for the front of the rest, and so on; 0 for NaN."""
    known = ~np.isnan(points).any(axis=1)
    found = np.zeros(len(points), dtype=np.int64)
    if known.any():
        found[known] = moocore.pareto_rank(points[known], maximise=list(maximise)) + 1
    return found


def hypervolume(points: Points, maximise: Sequence[bool], reference: Sequence[float], ideal: Sequence[float]) -> float:
    """The share of the box between the reference and the ideal that the points dominate: 0 to 1.

    Zitzler & Thiele (1998), PPSN V, 292–301. Points that are worse than the reference in an objective count nothing.
    """
    known = points[~np.isnan(points).any(axis=1)]
    box = float(np.prod(np.abs(np.subtract(ideal, reference))))
    if not len(known) or not box:
        return 0.0
    return float(moocore.hypervolume(known, ref=list(reference), maximise=list(maximise))) / box


def knee(quality: NDArray[np.float64], cost: NDArray[np.float64]) -> int | None:
    """Index of the point of a front from which on more quality becomes dear.

    The point farthest from the straight line between the cheapest and the best one (Das 1999, Structural Optimization
    18, 107–115), of quality against log cost, since a tenfold cost is a step wherever it is. None for fewer than three
    points, where cost is not positive, or where no point lies above the line.

    Args:
        quality: of each point of a front, shape (n,); more is better.
        cost: of each, shape (n,); less is better.
    """
    if len(quality) < 3 or (cost <= 0).any():
        return None
    logs = np.log(cost)
    width, height = np.ptp(logs), np.ptp(quality)
    if not width or not height:
        return None
    # With both scaled to 0 … 1 the line runs from (0, 0) to (1, 1).
    above = (quality - quality.min()) / height - (logs - logs.min()) / width
    best = int(np.argmax(above))
    return best if above[best] > 1e-9 else None


def front_probability(
    repeats: Sequence[Points], maximise: Sequence[bool], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """How likely each configuration is on the front of means, shape (n,): the share of bootstrap samples where it is.

    In each sample, every configuration's repeats are resampled, with replacement (Efron 1979, Annals of Statistics 7,
    1–26). One with a single repeat stays where it is. Deterministic under the seed.

    Args:
        repeats: the points of each configuration, arrays of shape (repeats, d); no NaN.
        maximise: for each objective, whether more is better.
        draws: number of samples.
        seed: of the random numbers.
    """
    if not repeats:
        return np.zeros(0)
    candidates = _possible(repeats, maximise)
    chosen = np.zeros(len(repeats))
    samples = np.empty((draws, len(candidates), len(maximise)))
    random = np.random.default_rng(seed)
    by_number: dict[int, list[int]] = {}
    for position, i in enumerate(candidates):
        by_number.setdefault(len(repeats[i]), []).append(position)
    for number, positions in by_number.items():
        points = np.stack([repeats[candidates[position]] for position in positions])
        for draw in range(draws):
            taken = random.integers(0, number, size=(len(positions), number, 1))
            samples[draw, positions] = np.take_along_axis(points, taken, axis=1).mean(axis=1)
    for sample in samples:
        chosen[candidates] += front(sample, maximise)
    return chosen / draws


def _possible(repeats: Sequence[Points], maximise: Sequence[bool]) -> NDArray[np.int64]:
    """Indices of those that can be on a front of means at all.

    A mean lies between the worst and the best repeat, so one whose best is beaten by another's worst never is. Nor does
    it matter to the rest: what it could beat, the one that beats it beats as well.
    """
    sign = np.where(maximise, -1.0, 1.0)  # less is better from here on
    best = np.stack([(points * sign).min(axis=0) for points in repeats])
    worst = np.stack([(points * sign).max(axis=0) for points in repeats])
    possible = np.ones(len(repeats), dtype=bool)
    for limit in worst[front(worst, [False] * len(sign))]:
        possible &= ~((limit <= best).all(axis=1) & (limit < best).any(axis=1))
    return np.flatnonzero(possible)
