"""The sensors of this machine, through Zeus: which there are, and why others are not."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greenseg.energy.reading import APPROXIMATE, SHARED, Reading

_STUCK_SECONDS = 0.1  # no CPU counter updates that slowly


class ZeusSensors:
    """GPU, CPU and DRAM energy of windows, by a `ZeusMonitor`.

    `ZeusMonitor` itself is silent about sensors that are missing, and then reads 0; here each missing component stands
    in `missing` with the reason.

    Args:
        gpus: indices of the GPUs that this process uses, as the framework counts them (after CUDA_VISIBLE_DEVICES).

    Attributes:
        missing: component → why it has no sensor.
    """

    def __init__(self, gpus: tuple[int, ...] = ()) -> None:
        logging.getLogger("zeus").setLevel(logging.ERROR)
        from zeus.monitor import ZeusMonitor

        self.missing: dict[str, str] = {}
        self._gpu_source = "nvml"
        self._gpus: Any = None
        self._owed: dict[
            tuple[int, str], float
        ] = {}  # joules of a GPU that were counted before its counter showed them
        with _integer_devices() as unknown:
            if gpus and unknown:
                self.missing["gpu"] = f"CUDA_VISIBLE_DEVICES names {', '.join(unknown)}, which the driver does not know"
            elif gpus:
                self._find_gpus(gpus)
            self._find_cpus()
            # Zeus asks for GPUs even where it shall measure none, and only some of its errors are caught there.
            self._monitor = ZeusMonitor(
                gpu_indices=[] if "gpu" in self.missing else list(gpus),
                cpu_indices=[] if "cpu" in self.missing else None,
            )
        self.measures_gpu = bool(self._monitor.gpu_indices) or self._monitor.soc_is_present
        if self._monitor.soc_is_present:  # Apple: one chip, with counters of its own
            self.missing.clear()

    def _find_gpus(self, wanted: tuple[int, ...]) -> None:
        from zeus.device import get_gpus

        try:
            self._gpus = get_gpus()
            for index in wanted:
                self._gpus.get_name(index)
        except Exception as error:  # every driver has its own exceptions; any of them means no reading
            self.missing["gpu"] = _reason(error)
        else:
            if "amd" in type(self._gpus).__name__.lower():
                self._gpu_source = "amdsmi"

    def _find_cpus(self) -> None:
        from zeus.device import get_cpus

        try:
            packages = len(get_cpus())
        except Exception as error:  # no RAPL, or no permission to read it
            self.missing["cpu"] = self.missing["dram"] = _reason(error)
        else:
            if not packages:  # as in some containers: the folder is there, and empty
                self.missing["cpu"] = self.missing["dram"] = "RAPL lists no CPU package"

    def begin(self, window: str) -> None:
        """Open a window."""
        self._monitor.begin_window(window, sync_execution=False)

    def end(self, window: str, sync: bool) -> list[Reading]:
        """Close a window: a reading for each component that has a sensor.

        Args:
            window: its name.
            sync: first wait for what the GPUs were asked to do.
        """
        if sync:
            self._synchronise()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a window that read 0: it is dealt with here
            measured: Any = self._monitor.end_window(window, sync_execution=False)
        readings = self._gpu_readings(measured, window)
        for component, joules in (("cpu", measured.cpu_energy), ("dram", measured.dram_energy)):
            if component in self.missing:
                continue
            total = sum((joules or {}).values())
            if total > 0 or measured.time < _STUCK_SECONDS:
                if joules:
                    readings.append(Reading(component, total, "rapl"))
                continue
            # Counters of some virtual machines exist and never move; a CPU without DRAM domain has none.
            self.missing[component] = "the RAPL counter does not move" if joules else "RAPL has no DRAM domain here"
        soc = measured.soc_energy
        if soc is not None:
            parts = (("cpu", "cpu_total_mj"), ("gpu", "gpu_mj"), ("dram", "dram_mj"))
            found = [(component, getattr(soc, field, None)) for component, field in parts]
            readings += [Reading(component, mj / 1000, "soc") for component, mj in found if mj is not None]
        return readings

    def _synchronise(self) -> None:
        """Wait for the GPUs; before Zeus closes a window, which is lost where waiting fails."""
        torch = sys.modules.get("torch")
        if self._monitor.gpu_indices and torch is not None and torch.cuda.is_initialized():
            for index in self._monitor.gpu_indices:
                torch.cuda.synchronize(index)

    def _gpu_readings(self, measured: Any, window: str) -> list[Reading]:
        if not measured.gpu_energy:
            return []
        marks = set()
        total = low = high = 0.0
        for index, joules in measured.gpu_energy.items():
            if self._gpu_source == "nvml" and processes_on(self._gpus, index) > 1:
                marks.add(SHARED)
            if joules <= 0:  # shorter than the counter's period
                joules = self._gpus.get_instant_power_usage(index) / 1000 * measured.time
                marks.add(APPROXIMATE)
                self._owed[index, window] = self._owed.get((index, window), 0.0) + joules
                high += 2 * joules
            else:
                # The counter catches up with windows that were approximated: they must not count twice.
                paid = min(self._owed.get((index, window), 0.0), joules)
                self._owed[index, window] = 0.0
                high += joules
                joules -= paid
                low += joules
            total += joules
        if SHARED in marks:
            low = 0.0
        return [Reading("gpu", total, self._gpu_source, low, high, marks=frozenset(marks))]


def visible_gpus() -> int:
    """Number of GPUs that this process sees and that Zeus can reach; 0 where there is no driver."""
    from zeus.device import get_gpus

    try:
        with _integer_devices():
            return len(get_gpus())
    except Exception:  # no driver, or no library: no GPU to measure
        return 0


def processes_on(gpus: Any, index: int) -> int:
    """How many processes compute on a GPU; 0 where the driver does not say."""
    import pynvml

    try:
        return len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpus.gpus[index].handle))
    except (pynvml.NVMLError, AttributeError):
        return 0


def rapl_files() -> list[Path]:
    """The energy counters of all CPU packages, where Zeus looks for them, readable or not."""
    from zeus.device.cpu import rapl

    roots = [Path(rapl.RAPL_DIR), Path("/zeus_sys/class/powercap/intel-rapl")]
    return [zone / "energy_uj" for root in roots for zone in sorted(root.glob("intel-rapl:*"))]


@contextlib.contextmanager
def _integer_devices() -> Iterator[list[str]]:
    """CUDA_VISIBLE_DEVICES as CUDA reads it, in plain indices, while the context lasts: Zeus reads nothing else.

    CUDA takes UUIDs, too, and the beginning of one, and stops at the first entry that is no device (such as -1). Yields
    the UUIDs that the driver does not know; MIG slices are left for Zeus to refuse.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not before or before.startswith("MIG"):
        yield []
        return
    uuids = _uuids()
    indices: list[str] = []
    unknown: list[str] = []
    for device in (entry.strip() for entry in before.split(",")):
        matching = [str(i) for i, uuid in enumerate(uuids) if uuid.startswith(device)] if "GPU-" in device else [device]
        if len(matching) != 1 or not matching[0].isdecimal() or int(matching[0]) >= len(uuids):
            unknown += [device] if "GPU-" in device else []
            break
        indices.append(matching[0])
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(indices)
    try:
        yield unknown
    finally:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


def _uuids() -> list[str]:
    """UUID of every NVIDIA GPU, in NVML's order; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except pynvml.NVMLError:
        return []


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
