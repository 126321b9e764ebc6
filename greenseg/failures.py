"""Kinds of failure, which a report can group by. Errors are recognised by name, so that imports stay light."""

import errno
from enum import StrEnum
from pathlib import Path


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


def out_of_memory_kills() -> int:
    """Number of processes that the kernel has killed for lack of memory since boot; 0 if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
