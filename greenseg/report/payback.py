"""After how many volumes compressing has paid for itself."""

import math

from greenseg.energy import Energy
from greenseg.report import measured
from greenseg.report.comparison import Comparison
from greenseg.report.objectives import ENERGIES, Objective
from greenseg.report.results import Result
from greenseg.report.run import Run, ways_of

NEVER = math.inf
_PARENT = "parent"  # phase of the joules that a child has from its parent
_VOLUME = ENERGIES["inference-volume"]


def _own(run: Run) -> float | None:
    """Joules of a child beyond those of its parent."""
    phases = run.record.energy.phases if run.record.energy else {}
    inherited = Energy.from_json(phases[_PARENT]).joules if _PARENT in phases else 0.0
    return None if run.metrics.joules is None else run.metrics.joules - inherited


_OWN = Objective("own-joules", "own {}", _own, "joules beyond those of the parent")


def break_even(comparison: Comparison, result: Result) -> float | None:
    """Number of volumes after which the joules of compressing are saved, against the configuration of the parent.

    Own joules of the child ÷ (joules per volume of the parent − those of the child), as means over repeats.

    Returns:
        A whole number, or `NEVER`; None if a parent or a measurement is missing here, or if joules are not comparable.
    """
    parent = _parent(comparison, result)
    if parent is None:
        return None
    own, before, after = result.figure(_OWN), parent.figure(_VOLUME), result.figure(_VOLUME)
    if own is None or before is None or after is None or not _comparable(comparison, result, parent):
        return None
    saved = before.value - after.value
    return math.ceil(own.value / saved) if saved > 0 else NEVER


def _parent(comparison: Comparison, result: Result) -> Result | None:
    """The configuration of the parents of all finished repeats; None if it is not here, or if there are several."""
    found: list[Result] = []
    for run in result.finished:
        ancestor = run.record.lineage.parent
        if ancestor is None or ancestor.identity is None:
            return None
        known = [
            other for other in comparison.by_identity.get(ancestor.identity, []) if other.content == result.content
        ]
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
