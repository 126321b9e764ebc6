"""Atomic writes, locks, and greenseg's cache folder."""

import contextlib
import json
import math
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from greenseg import locks
from greenseg.errors import UserError
from greenseg.failures import Failure, kind_of

CACHE_REMEDY = "set GREENSEG_CACHE to a writable folder on a file system with locks"
OUT_REMEDY = "set --out to a writable folder"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, even if the machine dies.

    Text is written as UTF-8; undecodable bytes of file names stay unchanged.

    Raises:
        OSError: the disk is full or the folder is not writable; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")  # hosts may share the folder
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically. NaN is refused, since JSON has none."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """The cache folder: `$GREENSEG_CACHE`, else the platform's default (`~/.cache/greenseg` on Linux).

    Raises:
        UserError: it is a file, or this user has no home folder.
    """
    try:
        folder = Path(os.environ.get("GREENSEG_CACHE") or platformdirs.user_cache_dir("greenseg")).expanduser()
    except RuntimeError:
        raise UserError(
            "no home folder for greenseg's cache (HOME is not set); set GREENSEG_CACHE to a folder"
        ) from None
    if folder.is_file():
        raise UserError(f"{folder}: is a file; GREENSEG_CACHE must name the folder of greenseg's cache")
    return folder


def recall(name: str) -> Any:
    """The value that `keep` stored in the cache under a name; None if it is missing or unreadable."""
    try:
        return json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, UserError):
        return None


def keep(name: str, value: Any) -> None:
    """Store a value in the cache as JSON. Does nothing if the cache is not writable."""
    with contextlib.suppress(OSError, UserError):
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)


@contextlib.contextmanager
def locked(path: Path, remedy: str) -> Iterator[None]:
    """Wait for a lock, then hold it while the context lasts.

    The lock is released when its process ends, however it ends.

    Raises:
        UserError: the folder is not writable or the file system has no locks; the message has the remedy.
        OSError: the disk is full.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.hold(path, patience=math.inf))
        except OSError as error:
            raise refusal(path.parent, error, remedy) from None
        yield


def refusal(folder: Path, error: OSError, remedy: str) -> Exception:
    """The exception for a folder that is not writable: a `UserError` with the remedy, or an `OSError` if it is full."""
    if kind_of(error) == Failure.DISK_FULL:
        return OSError(error.errno, f"{error.strerror}; free some space, or {remedy}", str(folder))
    what = "its file system has no locks (flock)" if locks.has_no_locks(error) else "cannot be written to"
    return UserError(f"{folder}: {what}: {error.strerror}; {remedy}")
