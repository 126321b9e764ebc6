"""The sensors of this machine, through Zeus. A sensor is one file and one entry in `SENSORS`."""

import logging
from collections.abc import Sequence

from greenseg.energy.reading import Reading
from greenseg.energy.sensors.gpu import GpuSensor, processes_on, wait_for
from greenseg.energy.sensors.rapl import RaplSensor, rapl_files, read_packages
from greenseg.energy.sensors.sensor import Sensor
from greenseg.energy.sensors.soc import SocSensor
from greenseg.energy.sensors.visible import temperatures, visible_gpus

__all__ = ["SENSORS", "Sensors", "processes_on", "rapl_files", "read_packages", "temperatures", "visible_gpus"]

SENSORS: tuple[type[Sensor], ...] = (GpuSensor, RaplSensor, SocSensor)
"""In order of priority: if several sensors measure a component, the first one counts."""


class Sensors:
    """All sensors together. Each component is measured once or has a reason for its lack of a sensor.

    Args:
        gpus: indices of the GPUs that this process uses, as the framework numbers them (after CUDA_VISIBLE_DEVICES).
    """

    def __init__(self, gpus: Sequence[int] = ()) -> None:
        logging.getLogger("zeus").setLevel(logging.ERROR)
        self._gpus = tuple(gpus)
        self._sensors: list[Sensor] = []
        self._unmeasured: dict[str, str] = {}
        for kind in SENSORS:
            self._sensors.append(kind(self._gpus, self.sources.keys()))

    @property
    def sources(self) -> dict[str, str]:
        """Component → source, for each component with a sensor."""
        found: dict[str, str] = {}
        for sensor in self._sensors:
            found = sensor.sources | found
        return {component: source for component, source in found.items() if component not in self._unmeasured}

    @property
    def missing(self) -> dict[str, str]:
        """Component → why it has no sensor."""
        sources = self.sources
        found = {component: why for sensor in self._sensors for component, why in sensor.missing.items()}
        found |= self._unmeasured
        return {component: why for component, why in found.items() if component not in sources}

    def lacks(self, component: str, why: str) -> None:
        """Note that a component is in use but not measured, unless a sensor measures it."""
        if component not in self.sources:
            self._unmeasured[component] = why

    def begin(self, window: str) -> None:
        """Open a window."""
        for sensor in self._sensors:
            sensor.begin(window)

    def end(self, window: str, sync: bool) -> list[Reading]:
        """Close a window; returns a reading for each component with a sensor.

        Args:
            window: name of the window.
            sync: first wait for the pending work of the GPUs.
        """
        if sync and "gpu" in self.sources:
            wait_for(self._gpus)  # before any window closes, so that none is lost if waiting fails
        return [reading for sensor in self._sensors for reading in sensor.end(window)]
