"""CPU cores and node ranks for a run. Imports no torch."""

import os
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from greenseg import cgroups
from greenseg.batch_job import in_step, restarts
from greenseg.settings import Settings

LAUNCH = "GREENSEG_LAUNCH"
"""Environment variable with the identity of a launch, for all processes of a run."""


def usable_cores() -> int:
    """Number of CPU cores that this process may use: its affinity (taskset, Slurm), or its CPU quota if it is lower.

    A cgroup quota (`docker --cpus`, Kubernetes limits) is CPU time, not cores. It is rounded up, since one thread too
    many costs less than an idle fraction of a core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


@cache
def cpu_quota(root: Path = Path("/")) -> int | None:
    """The lowest CPU quota of this process's cgroup and all above it, in cores rounded up; None without a quota.

    It is read once, since it rarely changes during a process.

    Args:
        root: folder with `proc/self` and the mount points of cgroups.
    """
    quotas = [quota for folder in cgroups.folders("cpu", root) for quota in _quotas(folder)]
    return max(1, min(quotas)) if quotas else None


def _quotas(folder: Path) -> Iterator[int]:
    """CPU quota of one cgroup, in cores rounded up; yields nothing if it has none."""
    # Version 2: "max 100000", or quota and period in one file; version 1: two files, with a quota of -1 for none.
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            yield -(-quota // period)


def node_rank() -> int | None:
    """Rank of this node among the nodes of a run, from the user, torchrun or Slurm; None if it is not set."""
    return _first_of("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")


def ranks(settings: Settings) -> tuple[int, int]:
    """Rank of this process among all processes of the run, and among those of its node; both 0 for one process."""
    if settings.processes == 1:
        return 0, 0
    # A job of Slurm sets its variables for every process in it, also for one that trains on its own node alone.
    local = _first_of("LOCAL_RANK", *(["SLURM_LOCALID"] if started_by_srun(settings) else [])) or 0
    node = (node_rank() or 0) if settings.nodes > 1 else 0
    return node * settings.devices + local, local


def started_by_srun(settings: Settings) -> bool:
    """Whether srun started this process as one of all processes of a run on several nodes, one task for each."""
    tasks = _first_of("SLURM_STEP_NUM_TASKS")
    return settings.nodes > 1 and in_step() and not started_by_torchrun() and tasks == settings.processes


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch_of(settings: Settings) -> str | None:
    """An identity of this launch of a run that all its processes know, and no other launch has.

    None if there is no sound one: processes that were started by hand on each node have only the address of the first.
    """
    if given := os.environ.get(LAUNCH):
        return given
    job, step, torchrun = (os.environ.get(f"{name}_ID", "") for name in ("SLURM_JOB", "SLURM_STEP", "TORCHELASTIC_RUN"))
    if torchrun not in ("", "none"):  # what torchrun calls all launches to which the user gave no name
        return f"torchrun {torchrun}.{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    if started_by_srun(settings):
        return f"slurm {job}.{step}.{restarts()}"
    if settings.nodes == 1 and ranks(settings)[0] == 0:
        return os.environ.setdefault(LAUNCH, uuid.uuid4().hex)  # it starts the other processes
    return None


def _first_of(*names: str) -> int | None:
    return next((int(os.environ[name]) for name in names if name in os.environ), None)
