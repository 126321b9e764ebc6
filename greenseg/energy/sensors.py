"""The sensors of this machine, through Zeus: which there are, and why others are not."""

import contextlib
import itertools
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from greenseg.energy.reading import APPROXIMATE, SHARED, Reading

_STUCK_SECONDS = 0.1  # no CPU counter updates that slowly

_NUMBERS = itertools.count()
_NO_DRAM = "RAPL has no DRAM domain here"

_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
"""Names of the RAPL zones that are CPU packages, as Linux gives them."""

_SOC_FIELDS = {
    # GPU SRAM and the Neural Engine are in none of these; cores and clusters are parts of cpu_total_mj.
    "AppleSilicon": {"cpu": "cpu_total_mj", "gpu": "gpu_mj", "dram": "dram_mj"},
    # total_energy_mj is that of the whole module, CPU and GPU included.
    "Jetson": {"cpu": "cpu_energy_mj", "gpu": "gpu_energy_mj"},
}
"""Zeus's class of a chip with counters of its own → component → the field of the measurement, in mJ. No two overlap."""


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
        self._number = next(_NUMBERS)
        self._packages: list[int] = []  # where CPU packages stand in Zeus's list
        self._soc: dict[str, str] = {}  # component → its field in Zeus's measurement of the SoC
        self._owed: dict[
            tuple[int, str], float
        ] = {}  # joules of a GPU that were counted before its counter showed them
        with _integer_devices() as unknown:
            if gpus and unknown:
                self.missing["gpu"] = f"CUDA_VISIBLE_DEVICES names {', '.join(unknown)}, which the driver does not know"
            elif gpus:
                self._find_gpus(gpus)
            self._find_cpus()
            # Zeus asks for GPUs and CPUs even where it must measure none, and catches only some of the errors.
            with _no_cpus() if "cpu" in self.missing else contextlib.nullcontext():
                self._monitor = ZeusMonitor(
                    gpu_indices=[] if "gpu" in self.missing else list(gpus),
                    cpu_indices=self._packages,
                )
        if self._monitor.soc_is_present:
            self._find_soc(uses_gpu=bool(gpus))
        self.measures_gpu = bool(self._monitor.gpu_indices) or "gpu" in self._soc

    @property
    def sources(self) -> dict[str, str]:
        """Component → source, for each component that has a sensor."""
        found = {"gpu": self._gpu_source} if self._monitor.gpu_indices else {}
        found |= {"cpu": "rapl", "dram": "rapl"} if self._packages else {}
        found |= dict.fromkeys(self._soc, "soc")
        return {component: source for component, source in found.items() if component not in self.missing}

    def _find_gpus(self, wanted: tuple[int, ...]) -> None:
        from zeus.device import get_gpus

        try:
            self._gpus = get_gpus()
            for index in wanted:
                self._gpus.get_name(index)
                # Some drivers, such as Jetson's, know the GPU but not its energy.
                if self._gpus.supports_get_total_energy_consumption(index):
                    self._gpus.get_total_energy_consumption(index)
                else:
                    self._gpus.get_instant_power_usage(index)
        except Exception as error:  # every driver has its own exceptions; any of them means no reading
            self.missing["gpu"] = _reason(error)
        else:
            if "amd" in type(self._gpus).__name__.lower():
                self._gpu_source = "amdsmi"

    def _find_cpus(self) -> None:
        from zeus.device import get_cpus

        try:
            cpus = get_cpus()
            self._packages = cpu_packages(cpus)
            with_dram = [index for index in self._packages if cpus.supports_get_dram_energy_consumption(index)]
        except Exception as error:  # no RAPL, or no permission to read it
            self._packages = []
            self.missing["cpu"] = self.missing["dram"] = _reason(error)
            return
        if not self._packages:  # as in some containers: the folder is there, and empty
            self.missing["cpu"] = self.missing["dram"] = "RAPL lists no CPU package"
        elif not with_dram:
            self.missing["dram"] = _NO_DRAM
        elif len(with_dram) < len(self._packages):  # a part of the memory is not measured: estimate all of it
            self.missing["dram"] = (
                f"only {len(with_dram)} of the {len(self._packages)} CPU packages have a DRAM domain in RAPL"
            )

    def _find_soc(self, uses_gpu: bool) -> None:
        """Find what the chip itself measures, of the components that nothing else does."""
        kind = type(self._monitor.soc).__name__
        fields = _SOC_FIELDS.get(kind)
        why = f"greenseg does not know the sensors of this SoC ({kind})"
        available: set[str] = set()
        if fields:
            why = f"this SoC ({kind}) has no sensor for it that Zeus reads"
            try:
                available = self._monitor.soc.get_available_metrics()
            except Exception as error:  # every chip has its own exceptions; any of them means no reading
                why = f"the SoC ({kind}) does not answer: {_reason(error)}"
        measured = self.sources
        for component in ("gpu", "cpu", "dram"):
            field = (fields or {}).get(component)
            if component in measured:  # by its own driver: it must not count twice
                continue
            if field in available:
                self._soc[component] = str(field)
                self.missing.pop(component, None)
            elif component != "gpu" or uses_gpu:  # a run that uses no GPU misses none
                self.missing[component] = why

    def begin(self, window: str) -> None:
        """Open a window."""
        self._monitor.begin_window(self._key(window), sync_execution=False)

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
            measured: Any = self._monitor.end_window(self._key(window), sync_execution=False)
        readings = self._gpu_readings(measured, window)
        for component, joules in (("cpu", measured.cpu_energy), ("dram", measured.dram_energy)):
            if component in self.missing or component in self._soc:
                continue
            total = sum((joules or {}).values())
            if total > 0 or measured.time < _STUCK_SECONDS:
                if joules:
                    readings.append(Reading(component, total, "rapl"))
                continue
            # Counters of some virtual machines exist and never move.
            self.missing[component] = "the RAPL counter does not move" if joules else _NO_DRAM
        for component, field in self._soc.items():
            mj = getattr(measured.soc_energy, field, None)
            if mj is None:
                self.missing[component] = "the SoC stopped telling its energy"
            else:
                readings.append(Reading(component, mj / 1000, "soc"))
        return readings

    def _key(self, window: str) -> str:
        # Zeus has one object for the SoC, however many monitors there are: their windows must not share names.
        return f"{window} {self._number}" if self._monitor.soc_is_present else window

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


def cpu_packages(cpus: Any) -> list[int]:
    """Where CPU packages stand in Zeus's list of CPUs, each package once.

    Zeus takes every zone at the top of RAPL's tree for a package. But most laptops have `psys` there: the whole
    platform, in which the packages are contained.

    Args:
        cpus: Zeus's list, of RAPL's own files or of those that `zeusd` reads.

    Raises:
        OSError: a zone does not tell its name. It may be a package, so the others may be too few.
    """
    found: dict[str, int] = {}
    for index, cpu in enumerate(cpus.cpus):
        name = _zone_name(_rapl_root() / f"intel-rapl:{cpu.cpu_index}")
        if _PACKAGE.fullmatch(name):
            found.setdefault(name, index)  # a second zone of the same name is the same package again
    return list(found.values())


def rapl_files() -> list[Path]:
    """The energy counters of all CPU packages, where Zeus looks for them, readable or not."""
    found: dict[str, Path] = {}
    for zone in sorted(_rapl_root().glob("intel-rapl:*")):
        with contextlib.suppress(OSError):
            name = _zone_name(zone)
            if _PACKAGE.fullmatch(name):
                found.setdefault(name, zone / "energy_uj")
    return list(found.values())


def read_packages() -> float:
    """What the counters of all CPU packages show together, in µJ, read through Zeus (which may ask `zeusd`)."""
    from zeus.device import get_cpus

    cpus = get_cpus()
    return float(sum(cpus.get_total_energy_consumption(index).cpu_mj for index in cpu_packages(cpus)) * 1000)


def temperatures(names: Sequence[str] | None = None) -> list[int]:
    """Temperatures of GPUs in °C; those of GPUs that cannot be found, or do not tell, are left out.

    Args:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES takes them; by default all that this process sees.
    """
    from zeus.device import get_gpus

    if names is not None and not names:
        return []
    found: list[int] = []
    try:
        with _integer_devices():
            gpus = get_gpus()
            every = range(len(gpus))
    except Exception:  # no driver, or no library
        return []
    for index in every if names is None else _positions(names, len(every)):
        with contextlib.suppress(Exception):  # every driver has its own
            found.append(gpus.get_gpu_temperature(index))
    return found


def _positions(names: Iterable[str], number: int) -> list[int]:
    """Where GPUs stand among those that this process sees, as Zeus lists them.

    Args:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES takes them.
        number: of GPUs that this process sees.
    """
    uuids = _uuids()

    def plain(name: str) -> str:
        matching = _matching(name, uuids)
        return matching[0] if len(matching) == 1 else name

    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = [plain(name) for name in visible or map(str, range(number))][:number]
    return [seen.index(name) for name in map(plain, names) if name in seen]


def _rapl_root() -> Path:
    """Where Zeus looks for RAPL."""
    from zeus.device.cpu import rapl

    return next(
        (root for root in map(Path, (rapl.RAPL_DIR, rapl.CONTAINER_RAPL_DIR)) if root.exists()), Path(rapl.RAPL_DIR)
    )


def _zone_name(zone: Path) -> str:
    """What the kernel calls a zone; OSError where it does not tell."""
    try:
        return (zone / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise OSError(f"RAPL does not tell whether {zone.name} is a CPU package: {error}") from error


@contextlib.contextmanager
def _no_cpus() -> Iterator[None]:
    """While the context lasts, Zeus finds no CPU, instead of raising what `get_cpus` raised before."""
    import zeus.device.cpu
    from zeus.device.cpu.common import EmptyCPUs

    before = zeus.device.cpu._cpus
    zeus.device.cpu._cpus = EmptyCPUs()
    try:
        yield
    finally:
        zeus.device.cpu._cpus = before


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
        matching = _matching(device, uuids)
        if len(matching) != 1 or not matching[0].isdecimal() or int(matching[0]) >= len(uuids):
            unknown += [device] if "GPU-" in device else []
            break
        indices.append(matching[0])
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(indices)
    try:
        yield unknown
    finally:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


def _matching(name: str, uuids: list[str]) -> list[str]:
    """Indices of the GPUs that CUDA takes for one name: an index itself, or a UUID or its beginning."""
    return [str(i) for i, uuid in enumerate(uuids) if uuid.startswith(name)] if "GPU-" in name else [name]


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
