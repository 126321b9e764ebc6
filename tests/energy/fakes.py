"""Fake hardware at the lowest boundary: the functions of NVML's driver library, and the files of RAPL. Zeus is real."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

Set = Callable[[Any, str, Any], None]
"""`monkeypatch.setattr`, or plain `setattr` in a process that ends anyway."""

OLD, NEW = pynvml.NVML_DEVICE_ARCH_PASCAL, pynvml.NVML_DEVICE_ARCH_AMPERE


@dataclass
class FakeGpu:
    """A GPU whose power follows a script.

    Attributes:
        joules: energy used until a time of `clock`.
        watts: power at a time of `clock`.
        period: of the energy counter, in seconds; 0 for a continuous one.
        processes: number of processes that compute on it.
    """

    joules: Callable[[float], float]
    watts: Callable[[float], float]
    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    period: float = 0.0
    processes: int = 1
    celsius: int = 40


def constant(watts: float, **options: Any) -> FakeGpu:
    """A GPU of constant power."""
    return FakeGpu(lambda t: watts * t, lambda t: watts, **options)


@dataclass
class FakeNvml:
    """NVML with scripted GPUs instead of a driver."""

    gpus: list[FakeGpu]
    clock: Callable[[], float] = time.time
    asked: set[int] = field(default_factory=set)

    def install(self, set_attribute: Set = setattr) -> "FakeNvml":
        """Replace pynvml's functions, and make Zeus forget what it found before."""
        import zeus.device.gpu
        import zeus.device.gpu.nvidia

        functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": self._handle,
            "nvmlDeviceGetName": lambda handle: f"Fake GPU {handle}",
            "nvmlDeviceGetUUID": lambda handle: self.gpus[handle].uuid,
            "nvmlDeviceGetMigMode": lambda handle: [0, 0],
            "nvmlDeviceGetArchitecture": lambda handle: NEW,
            "nvmlDeviceGetC2cModeInfoV": lambda handle: SimpleNamespace(isC2cEnabled=0),
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
            "nvmlDeviceGetFieldValues": self._power,
            "nvmlDeviceGetTemperatureV": lambda handle, kind: self.gpus[handle].celsius,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [None] * self.gpus[handle].processes,
        }
        for name, function in functions.items():
            set_attribute(pynvml, name, function)
        set_attribute(zeus.device.gpu, "_gpus", None)
        forget_nvml()
        return self

    def _handle(self, index: int) -> int:
        if not 0 <= index < len(self.gpus):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def _energy(self, handle: int) -> int:
        self.asked.add(handle)
        gpu, now = self.gpus[handle], self.clock()
        updated = now // gpu.period * gpu.period if gpu.period else now
        return round(gpu.joules(updated) * 1000)

    def _power(self, handle: int, fields: Any) -> Any:
        milliwatts = round(self.gpus[handle].watts(self.clock()) * 1000)
        return [SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, value=SimpleNamespace(uiVal=milliwatts))]


def forget_nvml() -> None:
    """Let Zeus ask again whether there is an NVML."""
    from zeus.device.gpu.nvidia import nvml_is_available

    nvml_is_available.cache_clear()


class FakeRapl:
    """A powercap tree with packages, with or without a DRAM domain each."""

    def __init__(self, root: Path, *, packages: int = 1, dram: bool = True, span: int = 262_143_328_850) -> None:
        self._zones: dict[str, Path] = {}
        self._span = span
        for n in range(packages):
            self._zones[f"package-{n}"] = root / f"intel-rapl:{n}"
            if dram:
                self._zones[f"dram-{n}"] = root / f"intel-rapl:{n}" / f"intel-rapl:{n}:0"
        for name, zone in self._zones.items():
            zone.mkdir(parents=True)
            (zone / "name").write_text(f"{name if name.startswith('package') else 'dram'}\n")
            (zone / "max_energy_range_uj").write_text(f"{span}\n")
            (zone / "energy_uj").write_text("1000000\n")

    def use(self, joules: float, zone: str = "package-0") -> None:
        """Advance a counter; it wraps as the hardware's does."""
        counter = self._zones[zone] / "energy_uj"
        unfinished = counter.with_suffix(".new")
        unfinished.write_text(f"{(int(counter.read_text()) + round(joules * 1e6)) % self._span}\n")
        unfinished.replace(counter)


def look_for_rapl_in(root: Path, set_attribute: Set = setattr) -> None:
    """Let Zeus look for RAPL in a folder, and forget what it found before."""
    import zeus.device.cpu
    from zeus.device.cpu import rapl

    set_attribute(rapl, "RAPL_DIR", str(root))
    set_attribute(zeus.device.cpu, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
