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


def fronts(samples: Points, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """The front of each of many samples of the same points, shape (samples, n); samples have shape (samples, n, d).

    For two objectives, all at once: in the order of the second, a point is on the front if its first is better than
    that of every point before it (Kung, Luccio & Preparata 1975, doi:10.1145/321906.321910). No NaN.
    """
    if samples.shape[2] != 2:
        return np.stack([front(sample, maximise) for sample in samples])
    signs = np.where(maximise, 1.0, -1.0)
    first, second = samples[..., 0] * signs[0], samples[..., 1] * -signs[1]  # more and less is better
    order = np.argsort(second, axis=-1)
    ordered = np.take_along_axis(second, order, axis=-1)
    tied = bool((ordered[:, 1:] == ordered[:, :-1]).any())
    if tied:
        order = np.lexsort((-first, second), axis=-1)
        ordered = np.take_along_axis(second, order, axis=-1)
    firsts = np.take_along_axis(first, order, axis=-1)
    best = np.maximum.accumulate(firsts, axis=-1)
    chosen = np.ones(firsts.shape, dtype=bool)
    chosen[:, 1:] = firsts[:, 1:] > best[:, :-1]
    if tied:  # equal points are neighbours, and share the place of the first of them
        begins = np.ones(firsts.shape, dtype=bool)
        begins[:, 1:] = (firsts[:, 1:] != firsts[:, :-1]) | (ordered[:, 1:] != ordered[:, :-1])
        leader = np.maximum.accumulate(np.where(begins, np.arange(firsts.shape[1]), 0), axis=-1)
        chosen = np.take_along_axis(chosen, leader, axis=-1)
    found = np.empty_like(chosen)
    np.put_along_axis(found, order, chosen, axis=-1)
    return found
