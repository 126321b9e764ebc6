"""The Pareto front of points with any number of objectives, and its properties, computed by moocore in C.

Points are arrays of shape (n, d), with a row per point and a column per objective. `maximise` has, for each objective,
whether more is better. A point with NaN in any objective is on no front and has no rank.

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
    """Whether each point is on the front, that is, no other point beats it; shape (n,).

    A point beats another if it is at least as good in all objectives and better in one. Equal points do not beat each
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

    Zitzler & Thiele (1998), PPSN V, 292–301. Points that are worse than the reference in an objective do not count.
    """
    known = points[~np.isnan(points).any(axis=1)]
    box = float(np.prod(np.abs(np.subtract(ideal, reference))))
    if not len(known) or not box:
        return 0.0
    return float(moocore.hypervolume(known, ref=list(reference), maximise=list(maximise))) / box


def knee(quality: NDArray[np.float64], cost: NDArray[np.float64]) -> int | None:
    """Index of the knee of a front: beyond this point, extra quality gets expensive.

    The knee is the point farthest above the straight line between the cheapest and the best point (Das 1999, Structural
    Optimization 18, 107–115), with quality against log cost, so that cost counts by ratio. None for fewer than three
    points, for costs that are not positive, or if no point lies above the line.

    Args:
        quality: quality of each point of a front, shape (n,); more is better.
        cost: cost of each point, shape (n,); less is better.
    """
    if len(quality) < 3 or (cost <= 0).any():
        return None
    logs = np.log(cost)
    width, height = np.ptp(logs), np.ptp(quality)
    if not width or not height:
        return None
    # With both scaled to 0 … 1, the line runs from (0, 0) to (1, 1).
    above = (quality - quality.min()) / height - (logs - logs.min()) / width
    best = int(np.argmax(above))
    return best if above[best] > 1e-9 else None


def front_probability(
    repeats: Sequence[Points], maximise: Sequence[bool], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Chance of each configuration to be on the front of means, shape (n,): the share of bootstrap samples with it.

    In each sample, every configuration's repeats are resampled, with replacement (Efron 1979, Annals of Statistics 7,
    1–26). A configuration with a single repeat does not move. The result is deterministic for a seed.

    Args:
        repeats: the points of each configuration, arrays of shape (repeats, d); no NaN.
        maximise: for each objective, whether more is better.
        draws: number of samples.
        seed: seed of the random numbers.
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
    """Indices of the configurations that can be on a front of means at all.

    A mean lies between the worst and the best repeat. So a configuration is never on the front if another one's worst
    beats its best. Leaving it out does not affect the others, since that other configuration beats all that it beats.
    """
    sign = np.where(maximise, -1.0, 1.0)  # less is better from here on
    best = np.stack([(points * sign).min(axis=0) for points in repeats])
    worst = np.stack([(points * sign).max(axis=0) for points in repeats])
    possible = np.ones(len(repeats), dtype=bool)
    for limit in worst[front(worst, [False] * len(sign))]:
        possible &= ~((limit <= best).all(axis=1) & (limit < best).any(axis=1))
    return np.flatnonzero(possible)
