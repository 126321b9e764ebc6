"""The estimate of CPU and DRAM energy, for machines that cannot measure it.

The model is that of Green Algorithms (Lannelongue, Grealey & Inouye 2021, doi:10.1002/advs.202100707), applied to the
resources that the run used instead of those reserved for it:

    CPU joules  = CPU seconds of the process tree × watts per busy core
    DRAM joules = seconds × resident memory of the process tree in GB × watts per GB

It leaves out mainboard, fans, disks, power supply and idle power. Such models differ by several times (on one idle
machine, codecarbon and carbontracker by 4.6 times). So every estimate has a range, and estimated joules should be
compared only with estimated joules of the same machine.
"""

import contextlib
import csv
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

DEFAULT_CORE_WATTS = 12.0
"""A busy core of an unknown CPU: thermal design power per core of "any" CPU in Green Algorithms."""

LEAST_CORE_WATTS = 3.5
"""A busy virtual core in a cloud: Cloud Carbon Footprint's average at full load for AWS
(https://www.cloudcarbonfootprint.org/docs/methodology). The low end of the range for an unknown CPU."""

MOST_CORE_WATTS = 24.0
"""The high end for an unknown CPU: twice the default. This is an assumption: few cores may share a whole package."""

RATED_RANGE = (0.5, 1.25)
"""Range around a CPU's rated power: many loads stay at half of it, and a short turbo exceeds it. An assumption."""

DEFAULT_GB_WATTS = 0.3725
"""A GB of DRAM: Green Algorithms, after Karyakin & Salem 2017, doi:10.1145/3076113.3076117."""

GB_RANGE = (0.5, 2.0)
"""Range around it, for kinds of DRAM and for installed but unused DRAM. An assumption."""


_TRIES = 5  # readings of a process tree, if processes keep ending meanwhile


@dataclass(frozen=True, slots=True)
class Model:
    """The constants of an estimate, and their origin.

    Attributes:
        core_watts: watts per busy core, then the low and high end of the range.
        gb_watts: watts per GB of resident memory, then the low and high end of the range.
        basis: the constants and their origin in words.
    """

    core_watts: tuple[float, float, float]
    gb_watts: tuple[float, float, float]
    basis: str

    @classmethod
    def of_this_machine(cls, cpu_watts: float = 0.0, dram_watts: float = 0.0) -> "Model":
        """The model for this machine.

        Args:
            cpu_watts: watts per busy core from the user; 0 to look the CPU up.
            dram_watts: watts per GB from the user; 0 for the default.
        """
        low, high = GB_RANGE
        gb = (dram_watts, dram_watts, dram_watts) if dram_watts else (DEFAULT_GB_WATTS,) * 3
        gb_watts = gb if dram_watts else (gb[0], gb[0] * low, gb[0] * high)
        dram = f"{gb[0]:g} W per GB ({'given' if dram_watts else 'Green Algorithms'})"
        if cpu_watts:
            return cls((cpu_watts,) * 3, gb_watts, f"{cpu_watts:g} W per busy core (given); {dram}")
        rated, why = rated_core_watts()
        if rated:
            low, high = RATED_RANGE
            return cls((rated, rated * low, rated * high), gb_watts, f"{rated:.2f} W per busy core ({why}); {dram}")
        core = (DEFAULT_CORE_WATTS, LEAST_CORE_WATTS, MOST_CORE_WATTS)
        return cls(core, gb_watts, f"{DEFAULT_CORE_WATTS:g} W per busy core (Green Algorithms' default: {why}); {dram}")


def cpu_name() -> str:
    """Name of the CPU model, from the kernel."""
    names = _cpuinfo("model name")
    return names[0] if names else ""


def is_virtual_machine() -> bool:
    """Whether the kernel reports a hypervisor."""
    return "hypervisor" in (_cpuinfo("flags") or [""])[0].split()


@cache
def rated_core_watts() -> tuple[float, str]:
    """Rated power of this CPU per hardware thread, in watts, or 0; and the reason.

    The rated power comes from codecarbon's table of CPUs, from the extra `carbon`. The table is read as a file, since
    importing codecarbon is slow.
    """
    name = cpu_name()
    if not name:
        return 0.0, "the CPU has no name"
    if is_virtual_machine():
        return 0.0, f"'{name}' is a virtual CPU"
    spec = importlib.util.find_spec("codecarbon")
    if spec is None or not spec.submodule_search_locations:
        return 0.0, "its rated power is unknown without the extra 'carbon': pip install 'greenseg[carbon]'"
    table = Path(spec.submodule_search_locations[0], "data", "hardware", "cpu_power.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rated = next((row["TDP"] for row in csv.DictReader(file) if _plain(row["Name"]) == _plain(name)), "")
    try:
        watts, threads = float(rated), int(_cpuinfo("siblings")[0])
    except (ValueError, IndexError):  # some rows of the table have no number
        return 0.0, f"'{name}' is not in codecarbon's table"
    return watts / threads, f"{name}: rated {watts:g} W, {threads} threads"


def _plain(name: str) -> str:
    name = re.sub(r"\((r|tm)\)|@.*$|\b(cpu|processor|\d+-core)\b", " ", name.lower())
    return " ".join(name.split())


def _cpuinfo(field: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == field]


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource usage of a process tree at one moment.

    Attributes:
        cpu_seconds: user and system time of the process and all its descendants, including ended ones.
        resident_gb: resident memory, in 10⁹ bytes; shared pages count once per process.
        processes: ids of the living processes of the tree.
    """

    cpu_seconds: float
    resident_gb: float
    processes: frozenset[int] = frozenset()


def usage(pid: int | None = None) -> Usage:
    """Usage of a process, by default this one, and its descendants; 0 if it has ended."""
    for _ in range(_TRIES):
        found, complete = _read_tree(pid)
        if complete:
            break
    return found


def _read_tree(pid: int | None) -> tuple[Usage, bool]:
    """Usage of a process tree, and whether no process ended meanwhile: its CPU seconds may then be missing.

    A process is read after its parent, which has the time of a child only once the child has ended.
    """
    cpu, memory, complete = 0.0, 0.0, True
    tree = list(process_tree(pid))
    for process in tree:
        try:
            with process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
        except psutil.Error:
            complete = False
            continue
        # children_* is the time of ended descendants that were waited for, from the kernel.
        cpu += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return Usage(cpu, memory / 1e9, frozenset(process.pid for process in tree)), complete


def machine_cpu_seconds() -> float:
    """CPU seconds of all processes since boot; time that a hypervisor gave to other machines does not count."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def knows_machine() -> bool:
    """Whether `machine_cpu_seconds` is of the whole machine: some containers (LXC) have a `/proc/stat` of their own."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return True
    return not any(mount.split()[4] == "/proc/stat" for mount in mounts)


def process_tree(pid: int | None = None) -> Iterator[psutil.Process]:
    """A process, by default this one, then all its living descendants; nothing if it has ended."""
    try:
        this = psutil.Process(pid)
    except psutil.Error:
        return
    yield this
    if sys.platform != "linux" or not Path(f"/proc/{this.pid}/task/{this.pid}/children").exists():
        with contextlib.suppress(psutil.Error):
            yield from this.children(recursive=True)
        return
    # The kernel's own lists: psutil reads every process of the machine, which is slow on a large node.
    pending = [this.pid]
    while pending:
        for child in _children(pending.pop()):
            pending.append(child)
            try:
                yield psutil.Process(child)
            except psutil.Error:
                continue


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass  # the process has just ended
    return found
