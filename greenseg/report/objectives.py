"""The figures of a report: quality, energy, other costs. Each is one entry that reads its value from a record."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from greenseg.report import measured
from greenseg.report.units import Unit, joule_unit, megabyte_unit, parameter_unit, plain_unit

if TYPE_CHECKING:
    from greenseg.report.run import Run  # not on the way to --help, which lists the objectives

_DIGITS = 8  # of a content, in reports


def _none(run: "Run") -> Hashable:
    return None


@dataclass(frozen=True)
class Objective:
    """A metric of a run that can be compared.

    Attributes:
        name: name on the command line and in exports.
        heading: heading of its column; `{}` stands for the unit.
        read: returns the value of a run; None if its record lacks it.
        describe: description in half a sentence.
        unit: returns the unit for a column of values.
        more_is_better: whether more is better, else less.
        ideal: the best possible value.
        worst: the worst possible value; None if there is no limit.
        digits: digits after the point for a quality; None for costs, which have significant digits.
        components: components whose joules count; empty for all.
        terms: returns the settings that the value of a run depends on; means need equal terms.
        reckoned: name of these settings.
        apart: returns what two configurations need to have in common to compete; None if they need nothing besides
            comparable joules. Energies with it are not those of the training.
        remedy: half a sentence about the way to get values, if no run has one.
        judges: whether it judges predictions; then its values on the training grid get a mark.
        of_subjects: returns the value of each subject of a run; None if it has none.
        over_subjects: whether the interval of a mean is the one over subjects, each with its mean over repeats, and not
            the one over repeats.
    """

    name: str
    heading: str
    read: Callable[["Run"], float | None]
    describe: str
    unit: Unit = plain_unit
    more_is_better: bool = False
    ideal: float = 0.0
    worst: float | None = None
    digits: int | None = None
    components: tuple[str, ...] = ()
    terms: Callable[["Run"], Hashable] = _none
    reckoned: str = ""
    apart: Callable[["Run"], Hashable] | None = None
    remedy: str = ""
    judges: bool = False
    of_subjects: Callable[["Run"], Mapping[str, float | None]] | None = None
    over_subjects: bool = False

    @property
    def learned(self) -> bool:
        """Whether it depends on what a run has learned; costs do not."""
        return self.judges or self.over_subjects or self.more_is_better

    def titled(self, unit: str) -> str:
        """The heading with a unit."""
        return self.heading.replace("{}", unit).strip()

    def of(self, run: "Run") -> float | None:
        """The value of a run; None if it is unknown or not finite."""
        value = self.read(run)
        return value if value is not None and math.isfinite(value) else None

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one > other if self.more_is_better else one < other


def _component(name: str) -> Callable[["Run"], float | None]:
    return lambda run: run.energy.component(name) if name in run.energy.sources else None


def _warm_up(run: "Run") -> Hashable:
    return str(run.settings["measure_after"])


def _target(run: "Run") -> Hashable:
    target = run.metrics.energy_to_dice
    return target and target.dice


def _carbon(run: "Run") -> Hashable:
    carbon = run.metrics.co2e
    return carbon and f"{carbon.grams_per_kwh} g/kWh × {carbon.pue}"


def _joules_to_dice(run: "Run") -> float | None:
    target = run.metrics.energy_to_dice
    return target.joules if target else None


def _grams(run: "Run") -> float | None:
    carbon = run.metrics.co2e
    return carbon.grams if carbon else None


def _inference(run: "Run") -> Hashable:
    if run.tested:
        return f"test part {(run.record.test.content or 'unknown')[:_DIGITS]}"
    return f"a validation pass (measure_after {_warm_up(run)})"


def _e2mip(run: "Run") -> float | None:
    joules, inference = run.metrics.joules, run.inference_joules
    return None if joules is None or inference is None else joules + inference


def _e2mip_score(run: "Run") -> float | None:
    joules, dice = _e2mip(run), run.metrics.dice
    return None if joules is None or dice is None else 100 * dice - joules / 1000


def _test_content(run: "Run") -> Hashable:
    return run.record.test.content


def _peak_memory(run: "Run") -> float | None:
    memory = run.record.memory
    return memory.gpu_gb or memory.host_gb


def _by_name(*objectives: Objective) -> dict[str, Objective]:
    return {objective.name: objective for objective in objectives}


def _quality(name: str, heading: str, read: Callable[["Run"], float | None], describe: str) -> Objective:
    """A quality between 0 and 1; more is better."""
    return Objective(name, heading, read, describe, more_is_better=True, ideal=1.0, worst=0.0, digits=4, judges=True)


_REMEDY = "`greenseg measure RUN…` measures it"


def _measured(
    name: str, heading: str, read: Callable[["Run"], float | None], describe: str, unit: Unit = plain_unit
) -> Objective:
    """A cost of prediction, from `greenseg measure`."""
    return Objective(
        name, heading, read, describe, unit, terms=measured.terms, reckoned="measurement", apart=measured.machine,
        remedy=_REMEDY,
    )  # fmt: skip


QUALITIES = _by_name(
    replace(
        _quality("dice", "Dice", lambda run: run.metrics.dice, "Dice per volume, at its best epoch"),
        of_subjects=lambda run: run.metrics.volume_dice,
    ),
    _quality("iou", "IoU", lambda run: run.metrics.iou, "IoU per volume, at the epoch of the best Dice"),
    Objective(
        "hd95",
        "HD95 mm",
        lambda run: run.metrics.hd95,
        "95th percentile of the surface distance, in mm, at the epoch of the best Dice",
        digits=2,
        judges=True,
    ),
)

ENERGIES = _by_name(
    Objective(
        "total",
        "total {}",
        lambda run: run.metrics.joules,
        "joules of the whole run, all attempts, with its parent and teacher",
        joule_unit,
    ),
    Objective(
        "own", "own {}", lambda run: run.metrics.own[0], "joules of the run without parent and teacher", joule_unit
    ),
    Objective("gpu", "GPU {}", _component("gpu"), "joules of the GPUs", joule_unit, components=("gpu",)),
    Objective("cpu", "CPU {}", _component("cpu"), "joules of the CPU", joule_unit, components=("cpu",)),
    Objective(
        "per-epoch",
        "{}/epoch",
        lambda run: run.metrics.joules_per_epoch,
        "joules per epoch, validation included",
        joule_unit,
        terms=_warm_up,
        reckoned="measure_after",
    ),
    Objective(
        "per-slice",
        "{}/slice",
        lambda run: run.metrics.joules_per_slice,
        "joules per training slice",
        joule_unit,
        terms=_warm_up,
        reckoned="measure_after",
    ),
    Objective(
        "validation-slice",
        "{}/validation slice",
        lambda run: run.metrics.joules_per_inference,
        "joules per slice of the validation passes of the training",
        joule_unit,
        terms=_warm_up,
        reckoned="measure_after",
    ),
    _measured(
        "inference",
        "{}/inference",
        measured.joules_per_slice,
        "joules of predicting a slice with the best batch size",
        joule_unit,
    ),
    _measured(
        "inference-volume",
        "{}/volume",
        measured.joules_per_volume,
        "joules of predicting a volume: per slice with the best batch size × mean slices of a validation volume",
        joule_unit,
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
    Objective(
        "e2mip",
        "E2MIP {}",
        _e2mip,
        "joules of training and of inference: on the test part, or once on the validation slices",
        joule_unit,
        terms=_inference,
        reckoned="inference",
    ),
)

COSTS = _by_name(
    Objective(
        "params", "{} params", lambda run: run.record.network.parameters, "parameters of the network", parameter_unit
    ),
    Objective("peak-memory", "peak GB", _peak_memory, "peak memory of the GPU, or of the host without a GPU"),
    Objective("seconds", "seconds", lambda run: run.metrics.seconds, "duration of the run, all attempts"),
    _measured("latency", "latency ms", measured.latency, "median time to predict one slice, in ms"),
    Objective("size", "size {}", measured.size, "size of the network on disk", megabyte_unit, remedy=_REMEDY),
)

TEST = replace(
    _quality("test", "test Dice", lambda run: run.record.test.dice, "Dice per volume of the test part"),
    judges=False,
    terms=_test_content,
    reckoned="test part",
    of_subjects=lambda run: run.record.test.volume_dice,
    over_subjects=True,
)

SHOWN = _by_name(
    TEST,
    Objective(
        "test-joules",
        "test {}",
        lambda run: run.tested.joules if run.tested else None,
        "joules of predicting the test part, which are no part of the total",
        joule_unit,
    ),
    _measured(
        "latency-p95",
        "95 % ms",
        measured.slow_latency,
        "95th percentile of the time to predict one slice, in ms",
    ),
    _measured("cpu-seconds", "CPU s/slice", measured.cpu_seconds, "CPU seconds of predicting a slice"),
    replace(
        _measured("slices-per-second", "slices/s", measured.slices_per_second, "slices predicted per second"),
        more_is_better=True,
    ),
    Objective(
        "e2mip-score",
        "E2MIP score",
        _e2mip_score,
        "100 × Dice − kJ of training and inference (arXiv:2405.15778)",
        more_is_better=True,
        digits=2,
        terms=_inference,
        reckoned="inference",
    ),
)
"""Figures of columns, conditions and exports by which nothing is chosen: they are no objectives of a front."""

OBJECTIVES = QUALITIES | ENERGIES | COSTS | SHOWN


@cache
def of_class(quality: str, name: str) -> Objective:
    """A quality of one of several classes, such as `dice:csf`; runs without this class have no value.

    Args:
        quality: a name in `QUALITIES`.
        name: name of the class.
    """

    def read(run: "Run") -> float | None:
        scores = run.metrics.classes.get(name)
        return getattr(scores, quality) if scores else None

    def of_subjects(run: "Run") -> Mapping[str, float | None]:
        scores = run.metrics.classes.get(name)
        return scores.volume_dice if scores else {}

    whole = QUALITIES[quality]
    return replace(
        whole,
        name=f"{quality}:{name}",
        heading=f"{name} {whole.heading}",
        read=read,
        describe=f"{whole.describe}, of {name}",
        of_subjects=of_subjects if whole.of_subjects else None,
    )


def named(name: str) -> Objective | None:
    """The objective with this name, which may be that of a class; None if there is none."""
    quality, colon, of = name.partition(":")
    return of_class(quality, of) if colon and quality in QUALITIES else OBJECTIVES.get(name)
