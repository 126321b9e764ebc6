"""After how many volumes compressing has paid for itself."""

import math

from greenseg.energy import Energy
from greenseg.report import measured
from greenseg.report.comparison import Comparison
from greenseg.report.objectives import ENERGIES, Objective
from greenseg.report.results import Result
from greenseg.report.run import Run, ways_of

NEVER = math.inf
_VOLUME = ENERGIES["inference-volume"]


def _extra(run: Run) -> float | None:
    """Joules of compressing: of a run and of all its parents but the first, which trained the whole network."""
    own, _ = run.metrics.own
    if own is None:
        return None
    return own + sum(Energy.from_json(each.energy).joules for each in run.record.lineage.parents[:-1] if each.energy)


_EXTRA = Objective("extra", "extra {}", _extra, "joules of compressing")


def break_even(comparison: Comparison, result: Result) -> float | None:
    """Number of volumes after which the joules of compressing are saved, against the network before compression.

    Joules of compressing ÷ (joules per volume before − after), as means over repeats. Before is the first parent: for a
    pruned network in 8 bits, it is the one without pruning, in torch.

    Returns:
        A whole number, or `NEVER`; None if that run or a measurement is missing here, or if joules are not comparable.
    """
    parent = _first_parent(comparison, result)
    if parent is None:
        return None
    own, before, after = result.figure(_EXTRA), parent.figure(_VOLUME), result.figure(_VOLUME)
    if own is None or before is None or after is None or not _comparable(comparison, result, parent):
        return None
    saved = before.value - after.value
    return math.ceil(own.value / saved) if saved > 0 else NEVER


def _first_parent(comparison: Comparison, result: Result) -> Result | None:
    """The configuration of the first parents of all finished repeats; None if it is not here or there are several."""
    found: list[Result] = []
    for run in result.finished:
        parents = run.record.lineage.parents
        same = comparison.by_identity.get(parents[-1].identity, []) if parents else []
        known = [other for other in same if other.content == result.content]
        if not known:
            return None
        found += [next((other for other in known if other.where == result.where), known[0])]
    return found[0] if found and all(other is found[0] for other in found) else None


def _comparable(comparison: Comparison, child: Result, parent: Result) -> bool:
    """Whether child and parent were measured in equal terms, and their joules are known in the ways of the training."""
    machines = {measured.machine(run) for result in (child, parent) for run in result.finished}
    if len(machines) != 1:
        return False
    if comparison.allow_mixed_sources:
        return True
    for run in child.finished:
        assert run.record.measured
        ways = ways_of(measured.energy(run.record.measured), list(run.record.measured.energy_method.unmeasured))
        if any(run.ways.get(component, way) != way for component, way in ways.items()):
            return False
    return True
