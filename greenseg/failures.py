"""Kinds of failure, which a report can group by. Errors are recognised by name, so that imports stay light."""

import errno
import os
from enum import StrEnum
from pathlib import Path

from greenseg import cgroups


class Failure(StrEnum):
    """The kinds of failure, as `error.kind` in run.json."""

    OUT_OF_GPU_MEMORY = "out_of_gpu_memory"
    OUT_OF_MEMORY = "out_of_memory"  # of the host
    DIVERGED = "diverged"  # the loss is no longer finite
    TIMEOUT = "timeout"  # longer than the sweep allows
    NO_PROGRESS = "no_progress"  # no event for a long time
    DISK_FULL = "disk_full"  # ends as interrupted: the run continues once there is space
    PARENT = "parent"  # the run that it would compress failed
    CRASH = "crash"  # by a signal, or without an exception
    ERROR = "error"  # by an exception


TRANSIENT = frozenset({Failure.CRASH, Failure.ERROR, Failure.NO_PROGRESS})
"""Kinds that `retries` tries again. With the others, the same run on the same machine would fail again."""


class Diverged(Exception):
    """The loss is no longer finite; to continue would cost joules and change nothing."""


_GPU_MEMORY = (
    "cuda out of memory",
    "cuda error: out of memory",
    "hip out of memory",
    "mps backend out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
_HOST_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "unable to mmap")


def kind_of(error: BaseException) -> Failure:
    """The kind of failure of an exception, or of the exception that it was raised from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        kind = _own_kind(error)
        if kind != Failure.ERROR:
            return kind
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return Failure.ERROR


def _own_kind(error: BaseException) -> Failure:
    text = str(error).lower()
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, Diverged):
        return Failure.DIVERGED
    if "OutOfMemoryError" in names or any(sign in text for sign in _GPU_MEMORY):
        return Failure.OUT_OF_GPU_MEMORY
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(sign in text for sign in _HOST_MEMORY):
        return Failure.OUT_OF_MEMORY
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failure.DISK_FULL
    return Failure.ERROR


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """Number of processes that the kernel has killed for lack of memory so far; 0 if unknown.

    Those in the cgroup of this process, such as its container; in a job of Slurm, those of the whole job on this node.
    Only without such a cgroup, those of the whole machine, which other users share.

    Args:
        root: folder with `proc` and the mount points of cgroups.
    """
    chain = list(cgroups.folders("memory", root))
    job = [folder for folder in chain if folder.name == f"job_{os.environ.get('SLURM_JOB_ID')}"]
    events = [
        folder / name
        for folder in [*job, *reversed(chain)]
        for name in ("memory.events", "memory.oom_control")  # versions 2 and 1
    ]
    counts = (_count(file, "oom_kill") for file in [*events, root / "proc/vmstat"])
    return next((count for count in counts if count is not None), 0)


def _count(file: Path, name: str) -> int | None:
    """A counter in a file of lines `name number`; None if it is not there."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), None)
