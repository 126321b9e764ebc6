"""What this machine is, as far as a run must know. Imports no torch."""

import os

from greenseg.config import Settings


def usable_cores() -> int:
    """CPU cores that this process may use (affinity, as set by taskset, a container or Slurm)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
