"""What this machine is, as far as a run must know. Imports no torch."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from greenseg.settings import Settings


def usable_cores() -> int:
    """CPU cores that this process may use: those of its affinity (taskset, Slurm), or its CPU quota if that is less.

    A quota of a cgroup (`docker --cpus`, Kubernetes' limits) gives CPU time, not cores. It is rounded up: a thread too
    many costs less than an idle share of a core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


@cache
def cpu_quota(root: Path = Path("/")) -> int | None:
    """CPU quota of this process's cgroup and of all above it, the least of them, in cores rounded up; None without one.

    Read once: it hardly ever changes while a process runs.

    Args:
        root: where `proc/self` and the mount points of cgroups are looked for.
    """
    quotas = [quota for folder in _cgroups(root) for quota in _quotas(folder)]
    return max(1, min(quotas)) if quotas else None


def _cgroups(root: Path) -> Iterator[Path]:
    """Folders of the cgroups that may limit the CPU time of this process, with all that are above; versions 1 and 2."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return
    paths: dict[str, str] = {}  # by type of file system, of the hierarchy that has the controller "cpu"
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        mount, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split(" ", 2)
        if kind in paths and (kind == "cgroup2" or "cpu" in options.split(" ")[-1].split(",")):
            shown, point = (_unescaped(field) for field in mount.split(" ")[3:5])
            top = root / point.lstrip("/")
            yield top
            inside = _inside(paths[kind], shown)
            yield from (top.joinpath(*inside[: depth + 1]) for depth in range(len(inside)))


def _inside(path: str, shown: str) -> tuple[str, ...]:
    """Names of the folders from a mount point down to a cgroup.

    Args:
        path: the cgroup's, in its hierarchy.
        shown: the cgroup that is mounted there. A container may see its own as the top, and yet know its path outside.
    """
    try:
        parts = PurePosixPath(path).relative_to(shown).parts
    except ValueError:
        return ()
    return () if ".." in parts else parts  # of a process that was moved out of the namespace of cgroups


def _quotas(folder: Path) -> Iterator[int]:
    """CPU quota of one cgroup, in cores rounded up; nothing where it has none."""
    # Version 2: "max 100000", or quota and period in one file; version 1: a file each, and a quota of -1.
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            yield -(-quota // period)


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def node_rank() -> int | None:
    """Number of this node among those that train together, as the user, torchrun or Slurm says; None if nobody does."""
    return _first_of("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")


def ranks(settings: Settings) -> tuple[int, int]:
    """Number of this process among all that train the run, and among those of its node; both 0 where it is alone."""
    if settings.processes == 1:
        return 0, 0
    local = _first_of("LOCAL_RANK", "SLURM_LOCALID") or 0
    return (node_rank() or 0) * settings.devices + local, local


def _first_of(*names: str) -> int | None:
    return next((int(os.environ[name]) for name in names if name in os.environ), None)
