"""Fake hardware at the lowest boundary: the functions of NVML's driver library, and the files of RAPL. Zeus is real."""

import json
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
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
        registers: file that holds the limits of all GPUs, if several processes must see the same ones; none of them
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


class FakePowercap:
    """A powercap tree with zones of any name anywhere, as laptops and servers have them."""

    def __init__(self, root: Path, zones: dict[str, str]) -> None:
        """Make the zones.

        Args:
            root: of the tree, such as /sys/class/powercap/intel-rapl.
            zones: folder of each, below the root, and its name.
        """
        self._root = root
        for folder, name in zones.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / "name").write_text(f"{name}\n")
            (root / folder / "max_energy_range_uj").write_text("262143328850\n")
            (root / folder / "energy_uj").write_text("1000000\n")

    def use(self, **joules: float) -> None:
        """Advance the counters of all zones of a name."""
        for counter in self._root.rglob("energy_uj"):
            name = counter.with_name("name")
            spent = joules.get(name.read_text().strip().replace("-", "_") if name.exists() else "", 0.0)
            counter.write_text(f"{int(counter.read_text()) + round(spent * 1e6)}\n")


class FakeZeusd:
    """The RAPL part of Zeus's root daemon: it lists every zone that it gets."""

    def __init__(self, socket: Path) -> None:
        self.microjoules: dict[int, tuple[int, int | None]] = {}
        daemon = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/discover":
                    cpus = [{"id": n, "dram_available": dram is not None} for n, (_, dram) in daemon.zones()]
                    answer: Any = {"gpus": [], "cpus": cpus, "enabled_api_groups": ["cpu-read"], "auth_required": False}
                else:
                    answer = {n: {"cpu_energy_uj": cpu, "dram_energy_uj": dram} for n, (cpu, dram) in daemon.zones()}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def address_string(self) -> str:
                return "a socket"

        self._server = socketserver.ThreadingUnixStreamServer(str(socket), Answer)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def zones(self) -> list[tuple[int, tuple[int, int | None]]]:
        """Index, µJ of the CPU and of DRAM, of each."""
        return list(self.microjoules.items())

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


class FakeJetson:
    """The power sensors of an NVIDIA Jetson: the files of its INA3221, and what tells Zeus that it is one.

    Zeus polls them in a process of its own, as on a real one.
    """

    def __init__(self, root: Path, milliwatts: dict[str, float]) -> None:
        """Make the files.

        Args:
            root: stands for `/`.
            milliwatts: power of each rail.
        """
        self._root = root
        sensors = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
        sensors.mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/nv_tegra_release").touch()
        for n, (rail, power) in enumerate(milliwatts.items(), start=1):
            (sensors / f"in{n}_label").write_text(f"{rail}\n")
            (sensors / f"in{n}_input").write_text("5000\n")  # mV
            (sensors / f"curr{n}_input").write_text(f"{power / 5}\n")  # mA

    def install(self, set_attribute: Set = setattr) -> "FakeJetson":
        """Let Zeus find it."""
        import zeus.device.soc
        from zeus.device.soc import jetson

        def below(path: str | Path) -> Path:
            inside = Path(path).is_relative_to(self._root) or not Path(path).is_absolute()
            return Path(path) if inside else self._root / Path(path).relative_to("/")

        set_attribute(jetson, "Path", below)
        set_attribute(jetson, "platform", SimpleNamespace(processor=lambda: "aarch64"))
        set_attribute(jetson, "os", SimpleNamespace(path=SimpleNamespace(exists=lambda path: below(path).exists())))
        set_attribute(zeus.device.soc, "_soc", None)
        return self

    def close(self) -> None:
        """Stop Zeus's polling."""
        import zeus.device.soc

        if zeus.device.soc._soc is not None:
            zeus.device.soc._soc._stop_process()


class FakeApple:
    """Apple's energy counters, as the library `zeus_apple_silicon` gives them; mJ of each window."""

    def __init__(self, **millijoules: int) -> None:
        fields = (
            "cpu_total_mj efficiency_cores_mj performance_cores_mj efficiency_cluster_mj performance_cluster_mj "
            "efficiency_core_manager_mj performance_core_manager_mj dram_mj gpu_mj gpu_sram_mj ane_mj"
        )
        self.metrics = SimpleNamespace(**dict.fromkeys(fields.split(), None) | millijoules)

    def install(self, set_attribute: Set = setattr) -> "FakeApple":
        """Let Zeus find it."""
        import zeus.device.soc
        from zeus.device.soc import apple

        monitor = SimpleNamespace(
            get_cumulative_energy=lambda: self.metrics,
            begin_window=lambda key, restart=False: None,
            end_window=lambda key: self.metrics,
        )
        set_attribute(apple, "zeus_apple_silicon", SimpleNamespace(AppleEnergyMonitor=lambda: monitor))
        set_attribute(apple, "zeus_apple_available", True)
        set_attribute(apple, "sys", SimpleNamespace(platform="darwin"))
        set_attribute(apple, "platform", SimpleNamespace(processor=lambda: "arm"))
        set_attribute(zeus.device.soc, "_soc", None)
        apple.apple_silicon_is_available.cache_clear()
        return self

    def close(self) -> None:
        """Let Zeus ask again whether there is such a chip."""
        from zeus.device.soc import apple

        apple.apple_silicon_is_available.cache_clear()


def look_for_rapl_in(root: Path, set_attribute: Set = setattr) -> None:
    """Let Zeus look for RAPL in a folder, and forget what it found before."""
    import zeus.device.cpu
    from zeus.device.cpu import rapl

    set_attribute(rapl, "RAPL_DIR", str(root))
    set_attribute(zeus.device.cpu, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
