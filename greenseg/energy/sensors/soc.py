"""Chips with sensors of their own: Apple silicon and NVIDIA Jetson."""

import copy
import itertools
import sys
from collections.abc import Collection
from typing import Any

from greenseg.energy.reading import Reading
from greenseg.energy.sensors.sensor import reason

_NUMBERS = itertools.count()

FIELDS = {
    # These exclude GPU SRAM and the Neural Engine; cpu_total_mj includes cores and clusters.
    "AppleSilicon": {"cpu": "cpu_total_mj", "gpu": "gpu_mj", "dram": "dram_mj"},
    # total_energy_mj is the whole module, including CPU and GPU.
    "Jetson": {"cpu": "cpu_energy_mj", "gpu": "gpu_energy_mj"},
}
"""Zeus's class of a chip → component → field of the measurement, in mJ. The fields do not overlap."""


class SocSensor:
    """The components of a chip that no other sensor measures; see `Sensor`."""

    def __init__(self, gpus: tuple[int, ...], measured: Collection[str]) -> None:
        from zeus.device.soc import get_soc
        from zeus.device.soc.common import ZeusSoCInitError

        self.sources: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._fields: dict[str, str] = {}
        self._number = next(_NUMBERS)
        _answer_with_snapshots()
        try:
            self._soc: Any = get_soc()
        except ZeusSoCInitError:  # no such chip
            return
        kind = type(self._soc).__name__
        fields = FIELDS.get(kind)
        why = f"greenseg does not support the sensors of this SoC ({kind})"
        available: set[str] = set()
        if fields:
            why = f"this SoC ({kind}) has no sensor for it that Zeus can read"
            try:
                available = self._soc.get_available_metrics()
            except Exception as error:  # each chip has its own exceptions; any of them means no reading
                why = f"the SoC ({kind}) does not respond: {reason(error)}"
        for component in ("gpu", "cpu", "dram"):
            if component in measured:
                continue
            field = (fields or {}).get(component)
            if field in available:
                self._fields[component] = str(field)
                self.sources[component] = "soc"
            elif component != "gpu" or gpus:  # a run without a GPU needs no GPU sensor
                self.missing[component] = why

    def begin(self, window: str) -> None:
        if self.sources:
            self._soc.begin_window(self._key(window), restart=False)

    def end(self, window: str) -> list[Reading]:
        if not self.sources:
            return []
        measured: Any = self._soc.end_window(self._key(window))
        readings = []
        for component, source in list(self.sources.items()):
            mj = getattr(measured, self._fields[component], None)
            if mj is None:
                del self.sources[component]
                self.missing[component] = "the SoC stopped reporting its energy"
            else:
                readings.append(Reading(component, mj / 1000, source))
        return readings

    def _key(self, window: str) -> str:
        # All meters share one object of Zeus for the chip, so their windows need different names.
        return f"{window} {self._number}"


# Zeus's process for a Jetson puts the object that it keeps adding to into a queue, whose thread pickles it later: under
# load, after the next poll of one rail and before that of another. A copy has all rails of the same moment.


class _Snapshots:
    """A queue that takes a copy of what is put into it."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, measurement: Any) -> None:
        self._queue.put(copy.copy(measurement))


def _poll(commands: Any, results: Any, rails: Any) -> None:
    """Stands for the function of the same arguments that Zeus runs in its process for a Jetson."""
    import asyncio

    from zeus.device.soc import jetson

    asyncio.run(jetson._polling_process_async(commands, _Snapshots(results), rails))


def _answer_with_snapshots() -> None:
    if sys.platform == "linux":
        from zeus.device.soc import jetson

        jetson._polling_process_async_wrapper = _poll
