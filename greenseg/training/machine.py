"""What this machine is, as far as a run must know. Imports no torch."""

import os


def usable_cores() -> int:
    """CPU cores that this process may use (affinity, as set by taskset, a container or Slurm)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
