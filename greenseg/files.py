"""Writing files that matter, and where greenseg keeps what it can make again."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from greenseg import locks
from greenseg.errors import UserError
from greenseg.failures import Failure, kind_of

CACHE_REMEDY = "set GREENSEG_CACHE to a folder that can be written to, on a file system with locks"
OUT_REMEDY = "give --out a folder that can be written to, on a file system with locks"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a machine that dies now, sees the old content or the new, nothing else.

    Text is written as UTF-8; bytes of file names that are none stay what they are.

    Raises:
        OSError: the disk is full or the folder not writable; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """`write_atomically` of a value as JSON; NaN is refused, since JSON has none."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """The user's cache: `$GREENSEG_CACHE`, else the platform's (`~/.cache/greenseg` on Linux).

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
        raise UserError(f"{folder}: is a file; GREENSEG_CACHE names the folder of greenseg's cache")
    return folder


def recall(name: str) -> Any:
    """What `keep` kept in the cache under a name; None where there is nothing that can be read."""
    try:
        return json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, UserError):
        return None


def keep(name: str, value: Any) -> None:
    """Keep a value, as JSON, in the cache, so that it need not be made again; not where the cache cannot be written."""
    with contextlib.suppress(OSError, UserError):
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)


@contextlib.contextmanager
def locked(path: Path, remedy: str) -> Iterator[None]:
    """Hold a lock while the context lasts, after waiting for the process that holds it now.

    The lock is released when its process ends, however it ends.

    Raises:
        UserError: there can be none, as the folder cannot be written or the file system has no locks; with the remedy.
        OSError: no room for it.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.hold(path, patience=math.inf))
        except OSError as error:
            raise refusal(path.parent, error, remedy) from None
        yield


def refusal(folder: Path, error: OSError, remedy: str) -> Exception:
    """What to raise where a folder cannot be written to: a `UserError` with the remedy; an `OSError` if it is full."""
    if kind_of(error) == Failure.DISK_FULL:
        return OSError(error.errno, f"{error.strerror}; free some, or {remedy}", str(folder))
    what = "its file system has no locks (flock)" if locks.has_no_locks(error) else "cannot be written to"
    return UserError(f"{folder}: {what}: {error.strerror}; {remedy}")
