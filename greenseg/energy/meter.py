"""A meter with consecutive laps, so that the parts of a run add up to the whole."""

import time
from collections.abc import Sequence
from dataclasses import replace

from greenseg.energy.estimate import Model, Usage, knows_machine, machine_cpu_seconds, usage
from greenseg.energy.neighbours import Neighbours
from greenseg.energy.reading import APPORTIONED, ESTIMATE, SHARED, Energy, Reading
from greenseg.energy.sensors import Sensors
from greenseg.energy.slurm import shares_node

_LAP, _WHOLE = "lap", "whole"


class EnergyMeter:
    """Energy of this process and its descendants, from sensors if there are any, otherwise estimated.

    It needs no torch. A GPU without a sensor cannot be estimated: it has no reading, and is in `unmeasured`.

    CPU counters count the whole machine. If other meters run beside this one, the joules are apportioned by CPU time
    and marked. So they are in a Slurm job on a node that other jobs may use, there with the CPU time of all other
    processes; if it is unknown, the joules are those of everybody, and marked `shared`.

    Args:
        gpus: indices of the GPUs that this process uses, in the framework's order.
        model: constants of the estimate; default: those of this machine.
        neighbours: the other meters of this machine.

    Attributes:
        cpu_seconds: CPU seconds of this process and its descendants in the last lap.
    """

    def __init__(
        self, gpus: Sequence[int] = (), *, model: Model | None = None, neighbours: Neighbours | None = None
    ) -> None:
        self.gpus = tuple(gpus)
        self.model = model or Model.of_this_machine()
        self._neighbours = neighbours or Neighbours()
        self._counts_cpu = True
        self._sensors = Sensors(self.gpus)
        self._shares_node = not {"cpu", "dram"}.isdisjoint(self._sensors.sources) and shares_node()
        self._knows_machine = self._shares_node and knows_machine()
        self._busy = machine_cpu_seconds()
        self._start = self._first = time.monotonic()
        self._used = self._first_used = usage()
        self._neighbours.exchange(self._used)
        self._laps = Energy()
        self.cpu_seconds = 0.0
        self._sensors.begin(_WHOLE)
        self._sensors.begin(_LAP)

    @property
    def missing(self) -> dict[str, str]:
        """Component → why it has no sensor."""
        return self._sensors.missing

    @property
    def unmeasured(self) -> dict[str, str]:
        """Component → why it has neither a sensor nor an estimate, and its joules are unknown."""
        return {component: why for component, why in self.missing.items() if component == "gpu"}

    def on(self, gpus: Sequence[int]) -> "EnergyMeter":
        """A meter like this one, for other GPUs, that starts now."""
        return EnergyMeter(gpus, model=self.model, neighbours=self._neighbours)

    def has_unmeasured_gpu(self, why: str) -> None:
        """Record that this process uses a GPU outside `gpus`; its joules are unknown unless a sensor covers it."""
        self._sensors.lacks("gpu", why)

    def leave_cpu_to_another(self) -> None:
        """From the last reading on, count only GPUs: another process of this node counts CPU and DRAM for both."""
        self._counts_cpu = False
        self._neighbours.leave()

    def lap(self, *, sync: bool = True) -> Energy:
        """Energy since the last lap, or since the meter was created. The next lap begins here.

        Args:
            sync: wait for pending work of the GPU first, so that this lap counts it.
        """
        measured = self._sensors.end(_LAP, sync)
        self._sensors.begin(_LAP)  # before anything else, whose joules would be in no lap
        now, used = time.monotonic(), usage()
        return self._add(measured, now, used)

    def close(self) -> tuple[Energy, dict[str, float]]:
        """End the meter; returns its last lap, and the difference between all laps and one window over them.

        The difference is a share of the window. Its keys are `seconds` and every component except estimated DRAM, whose
        estimate follows the memory per lap.
        """
        # Both end at the same moment: reading the neighbours in between would count in one of them alone.
        measured, over_all = self._sensors.end(_LAP, sync=False), self._sensors.end(_WHOLE, sync=False)
        now, used = time.monotonic(), usage()
        last = self._add(measured, now, used)
        self._neighbours.leave()
        seconds = now - self._first
        whole = Energy(seconds, self._complete(over_all, seconds, self._first_used, used))
        pairs = {"seconds": (self._laps.seconds, whole.seconds)}
        for component, source in whole.sources.items():
            if (component, source) != ("dram", ESTIMATE):
                pairs[component] = (self._laps.component(component), whole.component(component))
        return last, {name: (laps - total) / total for name, (laps, total) in pairs.items() if total > 0}

    def _add(self, measured: list[Reading], now: float, used: Usage) -> Energy:
        """Complete the readings of the lap that ends now; returns the share of this process."""
        seconds, cpu_seconds = now - self._start, max(used.cpu_seconds - self._used.cpu_seconds, 0.0)
        readings = self._complete(measured, seconds, self._used, used)
        self._laps += Energy(seconds, readings)
        others = self._neighbours.exchange(used) if self._counts_cpu else 0.0
        if self._shares_node:
            readings = self._of_node(readings, cpu_seconds, others)
        elif others > 0:
            readings = _apportioned(readings, cpu_seconds, others)
        self._start, self._used, self.cpu_seconds = now, used, cpu_seconds
        return Energy(seconds, readings)

    def _of_node(self, readings: tuple[Reading, ...], own: float, neighbours: float) -> tuple[Reading, ...]:
        """The share of this process on a node with other jobs, by the CPU seconds of all processes in this lap."""
        before, self._busy = self._busy, machine_cpu_seconds()
        if self._knows_machine:
            return _apportioned(readings, own, max(self._busy - before - own, neighbours))
        return tuple(
            replace(reading, low=0.0, marks=reading.marks | {SHARED}) if _is_of_node(reading) else reading
            for reading in readings
        )

    def _complete(self, readings: list[Reading], seconds: float, before: Usage, after: Usage) -> tuple[Reading, ...]:
        """Readings with estimates for components without a sensor, and without those that another process counts."""
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


def _apportioned(readings: tuple[Reading, ...], own: float, others: float) -> tuple[Reading, ...]:
    """The share of this process in the counters of the machine, by CPU seconds of its own and of others."""
    share = own / (own + others) if own + others else 1.0
    return tuple(_apportion(reading, share) if _is_of_node(reading) else reading for reading in readings)


def _apportion(reading: Reading, share: float) -> Reading:
    # The true share may be all or nothing, since the package also draws power outside its cores.
    return replace(
        reading, joules=reading.joules * share, low=0.0, high=reading.joules, marks=reading.marks | {APPORTIONED}
    )


def _is_of_node(reading: Reading) -> bool:
    """Whether a reading is of a counter of the whole machine; an estimate already counts only this run."""
    return reading.component in ("cpu", "dram") and reading.source != ESTIMATE
