"""GPUs, from the counters of their drivers: NVML and AMD SMI."""

import contextlib
import itertools
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from greenseg.energy.reading import APPROXIMATE, SHARED, Reading
from greenseg.energy.sensors.sensor import reason
from greenseg.energy.sensors.visible import integer_devices

_NUMBERS = itertools.count()


class GpuSensor:
    """The GPUs that this process uses; see `Sensor`.

    Uses a `ZeusMonitor`, which polls the power of GPUs without a counter.
    """

    def __init__(self, gpus: tuple[int, ...], measured: Collection[str]) -> None:
        self.sources: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._number = next(_NUMBERS)
        # Joules per GPU and window that were approximated before the counter included them.
        self._owed: dict[tuple[int, str], float] = {}
        if not gpus:
            return
        from zeus.device import get_gpus
        from zeus.monitor import ZeusMonitor

        with integer_devices() as unknown:
            if unknown:
                self.missing["gpu"] = f"CUDA_VISIBLE_DEVICES names {', '.join(unknown)}, which the driver does not know"
                return
            try:
                self._gpus = get_gpus()
                for index in gpus:
                    self._gpus.get_name(index)
                    # Some drivers, such as Jetson's, know the GPU but not its energy.
                    if self._gpus.supports_get_total_energy_consumption(index):
                        self._gpus.get_total_energy_consumption(index)
                    else:
                        self._gpus.get_instant_power_usage(index)
            except Exception as error:  # each driver has its own exceptions; any of them means no reading
                self.missing["gpu"] = reason(error)
                return
            with _no_cpus():
                self._monitor = ZeusMonitor(gpu_indices=list(gpus), cpu_indices=[])
        self.sources["gpu"] = "amdsmi" if "amd" in type(self._gpus).__name__.lower() else "nvml"

    def begin(self, window: str) -> None:
        if self.sources:
            self._monitor.begin_window(self._key(window), sync_execution=False)

    def end(self, window: str) -> list[Reading]:
        if not self.sources:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about windows that read 0, which are handled here
            measured: Any = self._monitor.end_window(self._key(window), sync_execution=False)
        marks = set()
        total = low = high = 0.0
        for index, joules in measured.gpu_energy.items():
            if self.sources["gpu"] == "nvml" and processes_on(self._gpus, index) > 1:
                marks.add(SHARED)
            if joules <= 0:  # shorter than the counter's period
                joules = self._gpus.get_instant_power_usage(index) / 1000 * measured.time
                marks.add(APPROXIMATE)
                self._owed[index, window] = self._owed.get((index, window), 0.0) + joules
                high += 2 * joules
            else:
                # The counter later includes approximated windows, which must not count twice.
                paid = min(self._owed.get((index, window), 0.0), joules)
                self._owed[index, window] = 0.0
                high += joules
                joules -= paid
                low += joules
            total += joules
        if SHARED in marks:
            low = 0.0
        return [Reading("gpu", total, self.sources["gpu"], low, high, marks=frozenset(marks))]

    def _key(self, window: str) -> str:
        # All monitors share one SoC object of Zeus, so their windows need different names.
        return f"{window} of GPUs {self._number}" if self._monitor.soc_is_present else window


def wait_for(gpus: Iterable[int]) -> None:
    """Wait for the work that torch gave to GPUs, if torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for index in gpus:
            torch.cuda.synchronize(index)


def processes_on(gpus: Any, index: int) -> int:
    """Number of processes that compute on a GPU; 0 if the driver does not report it."""
    import pynvml

    try:
        return len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpus.gpus[index].handle))
    except (pynvml.NVMLError, AttributeError):
        return 0


@contextlib.contextmanager
def _no_cpus() -> Iterator[None]:
    """Hide CPUs from Zeus while the context lasts: it looks for them even if it measures none, and may fail."""
    import zeus.device.cpu
    from zeus.device.cpu.common import EmptyCPUs

    before = zeus.device.cpu._cpus
    zeus.device.cpu._cpus = EmptyCPUs()
    try:
        yield
    finally:
        zeus.device.cpu._cpus = before
