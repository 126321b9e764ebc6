"""The estimate of CPU and DRAM energy, for machines that cannot measure it.

The model is that of Green Algorithms (Lannelongue, Grealey & Inouye 2021, doi:10.1002/advs.202100707), fed with what
the run itself used instead of what was reserved for it:

    CPU joules  = CPU seconds of the process tree × watts of a busy core
    DRAM joules = seconds × resident memory of the process tree in GB × watts of a GB

It leaves out mainboard, fans, disks, power supply and whatever the machine draws when idle. Such models disagree with
each other several times over (on one idle machine, codecarbon and carbontracker by 4.6 times): every estimate has a
range, and estimated joules should be compared only with estimated joules of the same machine.
"""

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
"""A busy core of whatever CPU: thermal design power / core of "any" CPU in Green Algorithms."""

LEAST_CORE_WATTS = 3.5
"""A busy virtual core in a cloud: the average at full load that Cloud Carbon Footprint gives for AWS
(https://www.cloudcarbonfootprint.org/docs/methodology). The low end of the range where the CPU is not known."""

MOST_CORE_WATTS = 24.0
"""The high end where the CPU is not known: twice the default. An assumption: few cores may share a whole package."""

RATED_RANGE = (0.5, 1.25)
"""Range around a CPU's rated power: many loads stay at half of it, short turbo exceeds it. An assumption."""

DEFAULT_GB_WATTS = 0.3725
"""A GB of DRAM: Green Algorithms, after Karyakin & Salem 2017, doi:10.1145/3076113.3076117."""

GB_RANGE = (0.5, 2.0)
"""Range around it, for kinds of DRAM and what is installed but not used. An assumption."""


@dataclass(frozen=True, slots=True)
class Model:
    """The constants of an estimate, and where they come from.

    Attributes:
        core_watts: of one CPU second, in watts; then its low and high end.
        gb_watts: of one GB of resident memory, in watts; then its low and high end.
        basis: in words.
    """

    core_watts: tuple[float, float, float]
    gb_watts: tuple[float, float, float]
    basis: str

    @classmethod
    def of_this_machine(cls, cpu_watts: float = 0.0, dram_watts: float = 0.0) -> "Model":
        """The model for this machine.

        Args:
            cpu_watts: watts of a busy core, where the user knows them; 0 to look the CPU up.
            dram_watts: watts of a GB, where the user knows them; 0 for the default.
        """
        low, high = GB_RANGE
        gb = (dram_watts, dram_watts, dram_watts) if dram_watts else (DEFAULT_GB_WATTS,) * 3
        gb_watts = gb if dram_watts else (gb[0], gb[0] * low, gb[0] * high)
        dram = f"{gb[0]:g} W a GB ({'given' if dram_watts else 'Green Algorithms'})"
        if cpu_watts:
            return cls((cpu_watts,) * 3, gb_watts, f"{cpu_watts:g} W a busy core (given); {dram}")
        rated, why = rated_core_watts()
        if rated:
            low, high = RATED_RANGE
            return cls((rated, rated * low, rated * high), gb_watts, f"{rated:.2f} W a busy core ({why}); {dram}")
        core = (DEFAULT_CORE_WATTS, LEAST_CORE_WATTS, MOST_CORE_WATTS)
        return cls(core, gb_watts, f"{DEFAULT_CORE_WATTS:g} W a busy core (Green Algorithms' default: {why}); {dram}")


def cpu_name() -> str:
    """Model of the CPU, as the kernel names it."""
    names = _cpuinfo("model name")
    return names[0] if names else ""


def is_virtual_machine() -> bool:
    """Whether the kernel sees a hypervisor above it."""
    return "hypervisor" in (_cpuinfo("flags") or [""])[0].split()


@cache
def rated_core_watts() -> tuple[float, str]:
    """Rated power of this CPU for each of its hardware threads, in watts, or 0; and why.

    The rated power is looked up in codecarbon's table of CPUs, which the extra `carbon` installs; read as a file, since
    importing codecarbon takes long.
    """
    name = cpu_name()
    if not name:
        return 0.0, "the CPU has no name"
    if is_virtual_machine():
        return 0.0, f"'{name}' is a virtual machine's"
    spec = importlib.util.find_spec("codecarbon")
    if spec is None or not spec.submodule_search_locations:
        return 0.0, "its rated power is not known without the extra: pip install 'greenseg[carbon]'"
    table = Path(spec.submodule_search_locations[0], "data", "hardware", "cpu_power.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rated = next((row["TDP"] for row in csv.DictReader(file) if _plain(row["Name"]) == _plain(name)), "")
    try:
        watts, threads = float(rated), int(_cpuinfo("siblings")[0])
    except (ValueError, IndexError):  # some rows of the table hold no number
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
    """What a process tree had used by some moment.

    Attributes:
        cpu_seconds: user and system time of the process and all its descendants, ended ones too.
        resident_gb: memory resident now, in 10⁹ bytes; pages that processes share count once for each.
        processes: the tree, those living now.
    """

    cpu_seconds: float
    resident_gb: float
    processes: frozenset[int] = frozenset()


def usage() -> Usage:
    """Usage of this process and its descendants."""
    cpu, memory = 0.0, 0.0
    tree = list(process_tree())
    for process in tree:
        try:
            with process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
        except psutil.Error:
            continue  # it ended just now; its parent has its time, or will have
        # children_* is the time of descendants that ended and were waited for: the kernel's own account.
        cpu += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return Usage(cpu, memory / 1e9, frozenset(process.pid for process in tree))


def process_tree() -> Iterator[psutil.Process]:
    """This process, then all its living descendants."""
    this = psutil.Process()
    yield this
    if sys.platform != "linux" or not Path(f"/proc/{this.pid}/task/{this.pid}/children").exists():
        yield from this.children(recursive=True)
        return
    # The kernel's own lists: psutil looks at every process of the machine, which takes long on a large node.
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
        pass  # the process ended just now
    return found
