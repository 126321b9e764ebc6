"""Fake hardware at the lowest boundary: the functions of NVML's driver library, and the files of RAPL. Zeus is real."""

import json
import time
from collections.abc import Callable, Sequence
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
        limits: lowest and highest power limit, then the one that it has at first, in watts.
        clocks: of its graphics engine, in MHz; empty for one that cannot be locked.
    """

    joules: Callable[[float], float]
    watts: Callable[[float], float]
    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    period: float = 0.0
    processes: int = 1
    celsius: int = 40
    limits: tuple[int, int, int] = (100, 400, 350)
    clocks: Sequence[int] = (210, 600, 1005, 1410)


def constant(watts: float, **options: Any) -> FakeGpu:
    """A GPU of constant power."""
    return FakeGpu(lambda t: watts * t, lambda t: watts, **options)


@dataclass
class FakeNvml:
    """NVML with scripted GPUs instead of a driver.

    Attributes:
        permission: whether limits may be set.
        registers: file that holds the limits of all GPUs, where several processes shall see the same ones; none of them
            may set any while there is a file `forbidden` beside it.
    """

    gpus: list[FakeGpu]
    clock: Callable[[], float] = time.time
    asked: set[int] = field(default_factory=set)
    permission: bool = True
    registers: Path | None = None
    _history: list[tuple[int, str, int]] = field(default_factory=list)
    _limits: dict[str, int] = field(default_factory=dict)

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
            "nvmlDeviceGetPowerManagementLimit": self.power_limit,
            "nvmlDeviceGetPowerManagementLimitConstraints": lambda h: [w * 1000 for w in self.gpus[h].limits[:2]],
            "nvmlDeviceSetPowerManagementLimit": lambda handle, mw: self._set(handle, "power", mw),
            "nvmlDeviceGetSupportedMemoryClocks": self._memory_clocks,
            "nvmlDeviceGetSupportedGraphicsClocks": lambda handle, memory: list(self.gpus[handle].clocks),
            "nvmlDeviceSetGpuLockedClocks": lambda handle, low, high: self._set(handle, "clock", high),
            "nvmlDeviceResetGpuLockedClocks": lambda handle: self._set(handle, "clock", 0),
        }
        for name, function in functions.items():
            set_attribute(pynvml, name, function)
        set_attribute(zeus.device.gpu, "_gpus", None)
        forget_nvml()
        return self

    # ── limits

    def power_limit(self, gpu: int) -> int:
        """The power limit of a GPU, in mW."""
        return self._read().get(f"{gpu} power", self.gpus[gpu].limits[2] * 1000)

    def locked_clock(self, gpu: int) -> int:
        """Where its clock is locked, in MHz; 0 where it is not. The real NVML does not tell."""
        return self._read().get(f"{gpu} clock", 0)

    @property
    def history(self) -> list[tuple[int, str, int]]:
        """Every limit that was set, in order: GPU, `power` or `clock`, mW or MHz (0: unlocked)."""
        if self.registers:
            log = self.registers.with_suffix(".log")
            return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
        return self._history

    def _read(self) -> dict[str, int]:
        if self.registers and self.registers.exists():
            return dict(json.loads(self.registers.read_text()))
        return self._limits

    def _set(self, handle: int, what: str, value: int) -> None:
        if not self.permission or (self.registers and self.registers.with_name("forbidden").exists()):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        self._history.append((handle, what, value))
        self._limits = self._read() | {f"{handle} {what}": value}
        if self.registers:
            with self.registers.with_suffix(".log").open("a") as log:
                log.write(f"{json.dumps([handle, what, value])}\n")
            unfinished = self.registers.with_suffix(".new")
            unfinished.write_text(json.dumps(self._limits))
            unfinished.replace(self.registers)

    def _memory_clocks(self, handle: int) -> list[int]:
        if not self.gpus[handle].clocks:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [405, 1215]

    # ── readings

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
