"""The estimate of CPU and DRAM energy, for machines that cannot measure it.

The model is that of Green Algorithms (Lannelongue, Grealey & Inouye 2021, doi:10.1002/advs.202100707), fed with what
the run itself used instead of what was reserved for it:

    CPU joules  = CPU seconds of the process tree × watts of a busy core
    DRAM joules = seconds × resident memory of the process tree in GB × watts of a GB

It leaves out mainboard, fans, disks, power supply and whatever the machine draws when idle. Such models disagree with
each other several times over: compare estimated joules only with estimated joules of the same machine.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

WATTS_PER_CORE = 12.0
"""A busy core, whatever the CPU: the default of Green Algorithms (thermal design power / core of "any" CPU)."""

WATTS_PER_GB = 0.3725
"""A GB of DRAM: Green Algorithms, after Karyakin & Salem 2017, doi:10.1145/3076113.3076117."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process tree had used by some moment.

    Attributes:
        cpu_seconds: user and system time of the process and all its descendants, ended ones too.
        resident_gb: memory resident now, in 10⁹ bytes; pages that processes share count once for each.
    """

    cpu_seconds: float
    resident_gb: float


def usage() -> Usage:
    """Usage of this process and its descendants."""
    cpu, memory = 0.0, 0.0
    for process in process_tree():
        try:
            with process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
        except psutil.Error:
            continue  # it ended just now; its parent has its time, or will have
        # children_* is the time of descendants that ended and were waited for: the kernel's own account.
        cpu += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return Usage(cpu, memory / 1e9)


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
