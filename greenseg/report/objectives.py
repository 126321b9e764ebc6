"""What a report can trade off: quality, energy, other costs. Each is a line that says how a record holds it."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from greenseg.report.run import Run
from greenseg.report.units import Unit, joule_unit, parameter_unit, plain_unit


def _none(run: Run) -> Hashable:
    return None


@dataclass(frozen=True)
class Objective:
    """A figure of a run that can be compared.

    Attributes:
        name: on the command line, and in exports.
        heading: of a column; `{}` stands for the unit.
        read: the figure of a run; None where its record does not hold it.
        unit: the unit for a column of such figures.
        more_is_better: else less is.
        ideal: the best that it could be.
        worst: the worst that it could be; None where there is no such limit.
        digits: after the point, of a quality; costs have as many as their size asks for.
        components: whose joules it counts; empty for all of them.
        terms: of a run, the settings that its figure was reckoned with: means are over equal ones only.
        reckoned: name of these settings.
        describe: what it is, in half a sentence.
    """

    name: str
    heading: str
    read: Callable[[Run], float | None]
    describe: str
    unit: Unit = plain_unit
    more_is_better: bool = False
    ideal: float = 0.0
    worst: float | None = None
    digits: int | None = None
    components: tuple[str, ...] = ()
    terms: Callable[[Run], Hashable] = _none
    reckoned: str = ""

    def of(self, run: Run) -> float | None:
        """The figure of a run; None where it is not known, or is no finite number."""
        value = self.read(run)
        return value if value is not None and math.isfinite(value) else None

    def better(self, one: float, other: float) -> bool:
        """Whether one figure is better than another."""
        return one > other if self.more_is_better else one < other


def _component(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.energy.component(name) if name in run.energy.sources else None


def _warm_up(run: Run) -> Hashable:
    return str(run.settings["measure_after"])


def _target(run: Run) -> Hashable:
    target = run.metrics.energy_to_dice
    return target and target.dice


def _carbon(run: Run) -> Hashable:
    carbon = run.metrics.co2e
    return carbon and f"{carbon.grams_per_kwh} g/kWh × {carbon.pue}"


def _joules_to_dice(run: Run) -> float | None:
    target = run.metrics.energy_to_dice
    return target.joules if target else None


def _grams(run: Run) -> float | None:
    carbon = run.metrics.co2e
    return carbon.grams if carbon else None


def _peak_memory(run: Run) -> float | None:
    memory = run.record.memory
    return memory.gpu_gb or memory.host_gb


def _by_name(*objectives: Objective) -> dict[str, Objective]:
    return {objective.name: objective for objective in objectives}


def _quality(name: str, heading: str, read: Callable[[Run], float | None], describe: str) -> Objective:
    """One between 0 and 1, of which more is better."""
    return Objective(name, heading, read, describe, more_is_better=True, ideal=1.0, worst=0.0, digits=4)


QUALITIES = _by_name(
    _quality("dice", "Dice", lambda run: run.metrics.dice, "Dice of whole volumes, at its best epoch"),
    _quality("iou", "IoU", lambda run: run.metrics.iou, "IoU of whole volumes, at the epoch of the best Dice"),
    Objective(
        "hd95",
        "HD95 mm",
        lambda run: run.metrics.hd95,
        "95th percentile of the distance of surfaces, in mm, at the epoch of the best Dice",
        digits=2,
    ),
)

ENERGIES = _by_name(
    Objective("total", "total {}", lambda run: run.metrics.joules, "joules of the whole run, all attempts", joule_unit),
    Objective("gpu", "GPU {}", _component("gpu"), "joules of the GPUs", joule_unit, components=("gpu",)),
    Objective("cpu", "CPU {}", _component("cpu"), "joules of the CPU", joule_unit, components=("cpu",)),
    Objective(
        "per-epoch",
        "{}/epoch",
        lambda run: run.metrics.joules_per_epoch,
        "joules of an epoch, validation included",
        joule_unit,
        terms=_warm_up,
        reckoned="measure_after",
    ),
    Objective(
        "per-slice",
        "{}/slice",
        lambda run: run.metrics.joules_per_slice,
        "joules of training on one slice",
        joule_unit,
        terms=_warm_up,
        reckoned="measure_after",
    ),
    Objective(
        "inference",
        "{}/inference",
        lambda run: run.metrics.joules_per_inference,
        "joules of segmenting one slice, in validation",
        joule_unit,
        terms=_warm_up,
        reckoned="measure_after",
    ),
    Objective(
        "to-dice",
        "{} to Dice",
        _joules_to_dice,
        "joules until the target Dice",
        joule_unit,
        terms=_target,
        reckoned="energy_to_dice",
    ),
    Objective(
        "co2e",
        "g CO2e",
        _grams,
        "greenhouse gases, in g CO2 equivalent",
        terms=_carbon,
        reckoned="co2e",
    ),
)

COSTS = _by_name(
    Objective(
        "params", "{} params", lambda run: run.record.network.parameters, "parameters of the network", parameter_unit
    ),
    Objective("peak-memory", "peak GB", _peak_memory, "most memory in use, of the GPU or, without one, of the host"),
    Objective("seconds", "seconds", lambda run: run.metrics.seconds, "duration of the run, all attempts"),
)

OBJECTIVES = QUALITIES | ENERGIES | COSTS
