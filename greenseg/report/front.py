"""The Pareto front of quality against energy."""

from collections.abc import Sequence

from greenseg.report.results import Result


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices, ascending, of the points that no other point beats.

    A point is beaten by one that is at least as good in both and better in one. Equal points do not beat each other.

    Args:
        points: (quality, cost) of each; more quality and less cost are better; finite.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    chosen: list[int] = []
    best = float("-inf")
    last: tuple[float, float] | None = None
    for i in order:  # by rising cost: on the front is what tops all that was cheaper
        quality, _ = points[i]
        if quality > best or points[i] == last:
            chosen.append(i)
            best, last = max(best, quality), points[i]
    return sorted(chosen)


def on_front(results: Sequence[Result], allow_mixed_sources: bool = False) -> set[int]:
    """Indices of the results on the front of Dice against joules.

    Results compete only where the same components were measured and the same were estimated: an estimate neither beats
    a measurement nor is beaten by one.

    Args:
        results: to choose from.
        allow_mixed_sources: let all compete with all.
    """
    classes: dict[tuple[frozenset[str], ...], list[int]] = {}
    for i, result in enumerate(results):
        if result.dice is not None and result.joules is not None:
            kind: tuple[frozenset[str], ...] = ()
            if not allow_mixed_sources:
                kind = (frozenset(result.sources), result.estimated, frozenset(result.unmeasured))
            classes.setdefault(kind, []).append(i)
    chosen = set()
    for members in classes.values():
        points = [(results[i].dice or 0.0, results[i].joules or 0.0) for i in members]
        chosen |= {members[k] for k in front(points)}
    return chosen
