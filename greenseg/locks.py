"""Locks between the processes of a host. A lock ends with its process, however the process ends.

`flock` works only within a host, and some network file systems lack it.
"""

import contextlib
import errno
import fcntl
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of `flock` on some NFS, Lustre and FUSE file systems."""

_TICK_SECONDS = 0.05


@contextlib.contextmanager
def hold(path: Path, *, shared: bool = False, patience: float = 0.0) -> Iterator[IO[Any] | None]:
    """Hold a lock while the context lasts; yields None if another process has it for longer than `patience`.

    Args:
        path: path of the lock file; made if missing.
        shared: share the lock with other processes that share it.
        patience: longest time to wait, in seconds; may be infinite.

    Raises:
        OSError: the file cannot be made, or its file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        if not _locked(file, kind, patience):
            yield None
            return
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a forked process has the file, too


def _locked(file: IO[Any], kind: int, patience: float) -> bool:
    if patience == math.inf:
        fcntl.flock(file, kind)  # the kernel wakes this process and keeps the order
        return True
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_TICK_SECONDS)
        else:
            return True


def share(file: IO[Any]) -> None:
    """Turn an exclusive lock into a shared one."""
    fcntl.flock(file, fcntl.LOCK_SH)


def is_held(path: Path) -> bool | None:
    """Whether a living process of this host holds a lock exclusively; None if the file system has no locks.

    Makes no file, and needs only permission to read it.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if not has_no_locks(error):
            raise
        return None
    return False


def has_no_locks(error: OSError) -> bool:
    """Whether an error means that the file system has no locks."""
    return error.errno in _NO_LOCKS
