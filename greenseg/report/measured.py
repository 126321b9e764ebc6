"""What a report reads from the measurement of a run's prediction; see `greenseg.measurement`."""

from typing import TYPE_CHECKING, NamedTuple

from greenseg.energy import Energy
from greenseg.energy.reading import ESTIMATE

if TYPE_CHECKING:
    from greenseg.report.run import Run
    from greenseg.runs.record import Measured, Window


class Terms(NamedTuple):
    """What a measurement depends on, besides the network.

    Attributes:
        hardware: the device that predicted.
        sources: sources of the joules, with the constants of estimates.
        engine: engine and numeric precision; empty where they may differ, because they are compared.
    """

    hardware: str
    sources: str
    engine: str = ""

    def __str__(self) -> str:
        where = f"{self.hardware} ({self.sources})"
        return f"{self.engine} on {where}" if self.engine else where


def terms(run: "Run") -> Terms | None:
    """What the mean over repeats needs to be equal; None without a measurement."""
    found = run.record.measured
    if found is None:
        return None
    return Terms(_hardware(found), _sources(found), f"{found.runtime} {found.precision}".strip())


def machine(run: "Run") -> Terms | None:
    """What the measurements of two configurations need to be equal to compete; None without a measurement."""
    found = terms(run)
    return found and found._replace(engine="")


def _hardware(found: "Measured") -> str:
    hardware = found.hardware
    if found.device == "cuda" and hardware.gpus:
        return f"{hardware.gpus[0]} and {hardware.cpu}"
    return f"{hardware.cpu or 'unknown CPU'} with {hardware.cores or '?'} cores"


def _sources(found: "Measured") -> str:
    by_component = energy(found).sources
    said = [f"{component} {source}" for component, source in by_component.items()]
    said += [f"{component} unknown" for component in found.energy_method.unmeasured]
    if ESTIMATE in by_component.values() and (watts := found.energy_method.watts):
        said.append(f"at {watts[0][0]:g} W per core and {watts[1][0]:g} W per GB")
    return " ".join(said)


def energy(found: "Measured") -> Energy:
    """Energy of the window with the best batch size."""
    return Energy.from_json(found.best.energy) if found.best else Energy()


def joules_per_slice(run: "Run") -> float | None:
    """Joules per slice with the best batch size."""
    found = run.record.measured
    return found.joules_per_slice if found else None


def joules_per_volume(run: "Run") -> float | None:
    """Joules per slice with the best batch size × mean number of slices of a validation volume."""
    found = run.record.measured
    return found.joules_per_volume if found else None


def cpu_seconds(run: "Run") -> float | None:
    """CPU seconds per slice with the best batch size."""
    window = _best(run)
    return window.cpu_seconds / window.slices if window else None


def slices_per_second(run: "Run") -> float | None:
    """Slices per second with the best batch size."""
    window = _best(run)
    return window.slices / window.seconds if window else None


def latency(run: "Run") -> float | None:
    """Median duration of the prediction of one slice, in ms."""
    found = run.record.measured
    return found.batch_1.p50_ms if found and found.batch_1 else None


def slow_latency(run: "Run") -> float | None:
    """95th percentile of the duration of the prediction of one slice, in ms."""
    found = run.record.measured
    return found.batch_1.p95_ms if found and found.batch_1 else None


def size(run: "Run") -> float | None:
    """Size of the network on disk, in bytes."""
    found = run.record.measured
    return found.bytes if found else None


def _best(run: "Run") -> "Window | None":
    found = run.record.measured
    return found.best if found else None
