"""CPU packages and their memory, from the counters of RAPL, directly or through zeusd."""

import contextlib
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from greenseg.energy.reading import Reading
from greenseg.energy.sensors.sensor import reason

_STUCK_SECONDS = 0.1  # every counter updates faster
_NO_DRAM = "RAPL has no DRAM domain on this machine"

_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
"""Names that Linux gives to RAPL zones of CPU packages."""


class _Counters(NamedTuple):
    """The sum of the counters of all packages: time of reading, and joules per component."""

    time: float
    joules: dict[str, float]


class RaplSensor:
    """CPU and DRAM of the whole machine; see `Sensor`."""

    def __init__(self, gpus: tuple[int, ...], measured: Collection[str]) -> None:
        from zeus.device import get_cpus

        self.sources: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._begun: dict[str, _Counters] = {}
        try:
            self._cpus = get_cpus()
            self._packages = cpu_packages(self._cpus)
            with_dram = [i for i in self._packages if self._cpus.supports_get_dram_energy_consumption(i)]
        except Exception as error:  # no RAPL, or no permission to read it
            self.missing = dict.fromkeys(("cpu", "dram"), reason(error))
            return
        if not self._packages:  # as in some containers, which have the folder empty
            self.missing = dict.fromkeys(("cpu", "dram"), "RAPL lists no CPU package")
            return
        self.sources["cpu"] = "rapl"
        if len(with_dram) == len(self._packages):
            self.sources["dram"] = "rapl"
        elif not with_dram:
            self.missing["dram"] = _NO_DRAM
        else:  # parts of the memory have no sensor: estimate all of it
            self.missing["dram"] = (
                f"only {len(with_dram)} of the {len(self._packages)} CPU packages have a DRAM domain in RAPL"
            )

    def begin(self, window: str) -> None:
        if self.sources:
            self._begun[window] = self._read()

    def end(self, window: str) -> list[Reading]:
        if not self.sources:
            return []
        before, now = self._begun.pop(window), self._read()
        readings = []
        for component, source in list(self.sources.items()):
            if component not in before.joules or component not in now.joules:
                self._lose(component, _NO_DRAM)
                continue
            joules = now.joules[component] - before.joules[component]
            if joules > 0 or now.time - before.time < _STUCK_SECONDS:
                readings.append(Reading(component, joules, source))
            else:  # some virtual machines have counters that never move
                self._lose(component, "the RAPL counter does not move")
        return readings

    def _lose(self, component: str, why: str) -> None:
        del self.sources[component]
        self.missing[component] = why

    def _read(self) -> _Counters:
        found: Any = [self._cpus.get_total_energy_consumption(index) for index in self._packages]
        joules = {"cpu": sum(each.cpu_mj for each in found) / 1000}
        if all(each.dram_mj is not None for each in found):
            joules["dram"] = sum(each.dram_mj for each in found) / 1000
        return _Counters(time.time(), joules)


def cpu_packages(cpus: Any) -> list[int]:
    """Indices of the CPU packages in Zeus's list of CPUs, each package once.

    Zeus takes every zone at the top of RAPL's tree for a package. But most laptops also have `psys` there: the whole
    platform, which includes the packages.

    Args:
        cpus: Zeus's list, from the files of RAPL or from `zeusd`.

    Raises:
        OSError: the name of a zone is unreadable. It may be a package, so the other ones may be incomplete.
    """
    found: dict[str, int] = {}
    for index, cpu in enumerate(cpus.cpus):
        name = _zone_name(_rapl_root() / f"intel-rapl:{cpu.cpu_index}")
        if _PACKAGE.fullmatch(name):
            found.setdefault(name, index)  # a second zone with this name is the same package
    return list(found.values())


def rapl_files() -> list[Path]:
    """The files with the energy counters of all CPU packages, in Zeus's folder, readable or not."""
    found: dict[str, Path] = {}
    for zone in sorted(_rapl_root().glob("intel-rapl:*")):
        with contextlib.suppress(OSError):
            name = _zone_name(zone)
            if _PACKAGE.fullmatch(name):
                found.setdefault(name, zone / "energy_uj")
    return list(found.values())


def read_packages() -> float:
    """Sum of the counters of all CPU packages, in µJ, read through Zeus, which may use `zeusd`."""
    from zeus.device import get_cpus

    cpus = get_cpus()
    return float(sum(cpus.get_total_energy_consumption(index).cpu_mj for index in cpu_packages(cpus)) * 1000)


def _rapl_root() -> Path:
    """The folder in which Zeus looks for RAPL."""
    from zeus.device.cpu import rapl

    return next(
        (root for root in map(Path, (rapl.RAPL_DIR, rapl.CONTAINER_RAPL_DIR)) if root.exists()), Path(rapl.RAPL_DIR)
    )


def _zone_name(zone: Path) -> str:
    """The kernel's name of a zone; raises OSError if it is unreadable."""
    try:
        return (zone / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise OSError(f"cannot read whether {zone.name} is a CPU package: {error}") from error
