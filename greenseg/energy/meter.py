"""A meter that is read lap after lap, so that the parts of a run add up to the whole."""

import time
from collections.abc import Sequence

from greenseg.energy.estimate import Model, Usage, usage
from greenseg.energy.neighbours import Neighbours
from greenseg.energy.reading import APPORTIONED, ESTIMATE, Energy, Reading
from greenseg.energy.sensors import Sensors

_LAP, _WHOLE = "lap", "whole"


class EnergyMeter:
    """Energy of this process and its descendants, from sensors where there are any, else estimated.

    Needs no torch. A GPU without a sensor cannot be estimated: it has no reading then, and stands in `unmeasured`.

    CPU counters count the machine. Where other meters run beside this one, their joules are apportioned by CPU time and
    marked so.

    Args:
        gpus: indices of the GPUs that this process uses, as the framework counts them.
        model: constants of the estimate; by default those of this machine.
        neighbours: the other meters of this machine.
    """

    def __init__(
        self, gpus: Sequence[int] = (), *, model: Model | None = None, neighbours: Neighbours | None = None
    ) -> None:
        self.gpus = tuple(gpus)
        self.model = model or Model.of_this_machine()
        self._neighbours = neighbours or Neighbours()
        self._counts_cpu = True
        self._sensors = Sensors(self.gpus)
        self._start = self._first = time.monotonic()
        self._used = self._first_used = usage()
        self._neighbours.exchange(self._used)
        self._laps = Energy()
        self._sensors.begin(_WHOLE)
        self._sensors.begin(_LAP)

    @property
    def missing(self) -> dict[str, str]:
        """Component → why it has no sensor."""
        return self._sensors.missing

    @property
    def unmeasured(self) -> dict[str, str]:
        """Component → why it has neither sensor nor estimate, so that its joules are unknown."""
        return {component: why for component, why in self.missing.items() if component == "gpu"}

    def on(self, gpus: Sequence[int]) -> "EnergyMeter":
        """A meter like this one, for other GPUs, that starts now."""
        return EnergyMeter(gpus, model=self.model, neighbours=self._neighbours)

    def has_unmeasured_gpu(self, why: str) -> None:
        """Say that this process uses a GPU that is none of `gpus`; unknown, unless the machine measures it anyway."""
        self._sensors.lacks("gpu", why)

    def leave_cpu_to_another(self) -> None:
        """Count GPUs only from the last reading on: another process of this node counts CPU and DRAM for both."""
        self._counts_cpu = False
        self._neighbours.leave()

    def lap(self, *, sync: bool = True) -> Energy:
        """Energy since the last lap, or since the meter was made; the next lap begins here.

        Args:
            sync: first wait for what the GPU was asked to do, so that it is counted in this lap.
        """
        measured = self._sensors.end(_LAP, sync)
        now, used = time.monotonic(), usage()
        self._sensors.begin(_LAP)
        seconds, cpu_seconds = now - self._start, used.cpu_seconds - self._used.cpu_seconds
        readings = self._complete(measured, seconds, self._used, used)
        self._laps += Energy(seconds, readings)
        others = self._neighbours.exchange(used) if self._counts_cpu else 0.0
        if others > 0:
            share = max(cpu_seconds, 0.0) / (max(cpu_seconds, 0.0) + others)
            readings = tuple(_apportion(reading, share) for reading in readings)
        self._start, self._used = now, used
        return Energy(seconds, readings)

    def close(self) -> dict[str, float]:
        """End the meter; returns by how much its laps differ from one window over all of them, as shares of the window.

        `seconds`, and every component but an estimated DRAM, whose estimate follows the memory from lap to lap.
        """
        readings = self._sensors.end(_WHOLE, sync=False)
        now, used = time.monotonic(), usage()
        self._neighbours.leave()
        seconds = now - self._first
        whole = Energy(seconds, self._complete(readings, seconds, self._first_used, used))
        pairs = {"seconds": (self._laps.seconds, whole.seconds)}
        for component, source in whole.sources.items():
            if (component, source) != ("dram", ESTIMATE):
                pairs[component] = (self._laps.component(component), whole.component(component))
        return {name: (laps - total) / total for name, (laps, total) in pairs.items() if total > 0}

    def _complete(self, readings: list[Reading], seconds: float, before: Usage, after: Usage) -> tuple[Reading, ...]:
        """Readings with estimates of what no sensor measured, and without what is another process's to count."""
        measured = {reading.component for reading in readings}
        cpu_seconds = max(after.cpu_seconds - before.cpu_seconds, 0.0)
        gb_seconds = seconds * (before.resident_gb + after.resident_gb) / 2
        estimates = (("cpu", cpu_seconds, self.model.core_watts), ("dram", gb_seconds, self.model.gb_watts))
        for component, amount, (watts, low, high) in estimates:
            if component not in measured:
                readings.append(Reading(component, amount * watts, ESTIMATE, amount * low, amount * high))
        if not self._counts_cpu:
            readings = [reading for reading in readings if reading.component not in ("cpu", "dram")]
        return tuple(sorted(readings, key=lambda reading: reading.component))


def _apportion(reading: Reading, share: float) -> Reading:
    if reading.component not in ("cpu", "dram") or reading.source == ESTIMATE:
        return reading  # an estimate is of this run's own use already
    # It may have been all of it, or none: what the package draws beside its cores belongs to nobody.
    marks = reading.marks | {APPORTIONED}
    return Reading(reading.component, reading.joules * share, reading.source, 0.0, reading.joules, marks)
