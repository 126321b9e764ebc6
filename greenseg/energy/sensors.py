"""The sensors of this machine, through Zeus: which there are, and why others are not."""

import contextlib
import logging
import os
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
        if self._monitor.soc_is_present:  # Apple: one chip, with counters of its own
            for component in ("gpu", "cpu", "dram"):
                self.missing.pop(component, None)

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

    def begin(self, window: str, sync: bool) -> None:
        """Open a window."""
        self._monitor.begin_window(window, sync_execution=sync)

    def end(self, window: str, sync: bool) -> list[Reading]:
        """Close a window: a reading for each component that has a sensor."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a window that read 0: it is dealt with here
            measured: Any = self._monitor.end_window(window, sync_execution=sync)
        readings = self._gpu_readings(measured)
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

    def _gpu_readings(self, measured: Any) -> list[Reading]:
        if not measured.gpu_energy:
            return []
        marks = set()
        total = 0.0
        for index, joules in measured.gpu_energy.items():
            if joules <= 0:  # shorter than the counter's period
                joules = self._gpus.get_instant_power_usage(index) / 1000 * measured.time
                marks.add(APPROXIMATE)
            total += joules
            if self._gpu_source == "nvml" and processes_on(self._gpus, index) > 1:
                marks.add(SHARED)
        return [Reading("gpu", total, self._gpu_source, marks=frozenset(marks))]


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
    """CUDA_VISIBLE_DEVICES with indices for UUIDs while the context lasts: Zeus reads indices only.

    Yields the devices that the driver does not know; then Zeus sees none.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not before or "GPU-" not in before:
        yield []
        return
    devices = [device.strip() for device in before.split(",")]
    indices = [_index_of(device) for device in devices]
    unknown = [device for device, index in zip(devices, indices, strict=True) if not index.isdecimal()]
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if unknown else ",".join(indices)
    try:
        yield unknown
    finally:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


def _index_of(device: str) -> str:
    """Index of a GPU that is named by its UUID or the beginning of it, as CUDA allows; else what was given."""
    if not device.startswith("GPU-"):
        return device
    import pynvml

    try:
        pynvml.nvmlInit()
        uuids = [
            pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError:
        return device
    matching = [i for i, uuid in enumerate(uuids) if uuid.startswith(device)]
    return str(matching[0]) if len(matching) == 1 else device


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
