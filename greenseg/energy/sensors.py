"""The sensors of this machine, through Zeus: which there are, and why others are not."""

import logging
from dataclasses import dataclass, field
from typing import Any

from greenseg.energy.reading import Reading


@dataclass
class ZeusSensors:
    """GPU, CPU and DRAM energy of a window, by a `ZeusMonitor`.

    `ZeusMonitor` itself is silent about sensors that are missing, and then reads 0; here each missing component stands
    in `missing` with the reason.

    Attributes:
        gpus: indices of the GPUs that this process uses, as the framework counts them (after CUDA_VISIBLE_DEVICES).
        cpu: whether to read CPU packages and DRAM; only one process of a node may.
        missing: component → why it has no sensor.
    """

    gpus: tuple[int, ...] = ()
    cpu: bool = True
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        logging.getLogger("zeus").setLevel(logging.WARNING)
        from zeus.device import get_cpus, get_gpus
        from zeus.monitor import ZeusMonitor

        self._gpu_source = "nvml"
        if self.gpus:
            try:
                devices = get_gpus()
                for index in self.gpus:
                    devices.get_name(index)
                if "amd" in type(devices).__name__.lower():
                    self._gpu_source = "amdsmi"
            except Exception as error:  # every driver has its own exceptions; any of them means no reading
                self.missing["gpu"] = _reason(error)
        if self.cpu:
            try:
                packages = len(get_cpus())
            except Exception as error:  # no RAPL, or no permission to read it
                self.missing["cpu"] = self.missing["dram"] = _reason(error)
            else:
                if not packages:  # as in some containers: the folder is there, and empty
                    self.missing["cpu"] = self.missing["dram"] = "RAPL lists no CPU package"
        gpus = [] if "gpu" in self.missing else list(self.gpus)
        cpus: list[int] | None = [] if not self.cpu or "cpu" in self.missing else None
        # A window shorter than the counter's period would read 0: then power × time (Zeus' approx_instant_energy).
        self._monitor = ZeusMonitor(gpu_indices=gpus, cpu_indices=cpus, approx_instant_energy=True)

    def begin(self, sync: bool) -> None:
        """Open a window."""
        self._monitor.begin_window("lap", sync_execution=sync)

    def end(self, sync: bool) -> list[Reading]:
        """Close the window: a reading for each component that has a sensor."""
        measured: Any = self._monitor.end_window("lap", sync_execution=sync)
        parts = [
            ("gpu", measured.gpu_energy, self._gpu_source),
            ("cpu", measured.cpu_energy, "rapl"),
            ("dram", measured.dram_energy, "rapl"),
        ]
        readings = [Reading(name, sum(joules.values()), source) for name, joules, source in parts if joules]
        if self.cpu and measured.cpu_energy and not measured.dram_energy:
            self.missing.setdefault("dram", "RAPL has no DRAM domain on this CPU")
        return readings


def visible_gpus() -> int:
    """Number of GPUs that this process sees and that Zeus can reach; 0 where there is no driver."""
    from zeus.device import get_gpus

    try:
        return len(get_gpus())
    except Exception:  # no driver, or no library: no GPU to measure
        return 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
