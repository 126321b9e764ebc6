"""A meter that is read lap after lap, so that the parts of a run add up to the whole."""

import time
from collections.abc import Sequence

from greenseg.energy.estimate import WATTS_PER_CORE, WATTS_PER_GB, usage
from greenseg.energy.reading import ESTIMATE, Energy, Reading
from greenseg.energy.sensors import ZeusSensors


class EnergyMeter:
    """Energy of this process and its descendants, from sensors where there are any, else estimated.

    Needs no torch. A GPU without a sensor cannot be estimated: it has no reading then, and stands in `unmeasured`.

    Args:
        gpus: indices of the GPUs that this process uses, as the framework counts them.
        watts_per_core: estimate of a busy core, in watts.
        watts_per_gb: estimate of a GB of DRAM, in watts.
    """

    def __init__(
        self,
        gpus: Sequence[int] = (),
        *,
        watts_per_core: float = WATTS_PER_CORE,
        watts_per_gb: float = WATTS_PER_GB,
    ) -> None:
        self.watts_per_core, self.watts_per_gb = watts_per_core, watts_per_gb
        self.gpus = tuple(gpus)
        self._counts_cpu = True
        self._open()

    def _open(self) -> None:
        self._sensors = ZeusSensors(self.gpus, cpu=self._counts_cpu)
        self._start, self._used = time.monotonic(), usage()
        self._sensors.begin(sync=False)

    @property
    def missing(self) -> dict[str, str]:
        """Component → why it has no sensor."""
        return dict(self._sensors.missing)

    @property
    def unmeasured(self) -> dict[str, str]:
        """Component → why it has neither sensor nor estimate, so that its joules are unknown."""
        return {component: why for component, why in self.missing.items() if component == "gpu"}

    def on(self, gpus: Sequence[int]) -> "EnergyMeter":
        """A meter like this one, for other GPUs, that starts now."""
        return EnergyMeter(gpus, watts_per_core=self.watts_per_core, watts_per_gb=self.watts_per_gb)

    def leave_cpu_to_another(self) -> None:
        """Count GPUs only from the last reading on: another process of this node counts CPU and DRAM for both."""
        self._counts_cpu = False

    def lap(self, *, sync: bool = True) -> Energy:
        """Energy since the last lap, or since the meter was made; the next lap begins here.

        Args:
            sync: first wait for what the GPU was asked to do, so that it is counted in this lap.
        """
        readings = self._sensors.end(sync)
        now, used = time.monotonic(), usage()
        self._sensors.begin(sync=False)  # just synchronised
        seconds = now - self._start
        measured = {reading.component for reading in readings}
        if "cpu" not in measured:
            cpu = max(used.cpu_seconds - self._used.cpu_seconds, 0.0) * self.watts_per_core
            readings.append(Reading("cpu", cpu, ESTIMATE))
        if "dram" not in measured:
            resident = (used.resident_gb + self._used.resident_gb) / 2
            readings.append(Reading("dram", seconds * resident * self.watts_per_gb, ESTIMATE))
        if not self._counts_cpu:
            readings = [reading for reading in readings if reading.component not in ("cpu", "dram")]
        self._start, self._used = now, used
        return Energy(seconds, tuple(sorted(readings, key=lambda reading: reading.component)))
