"""Writing files that matter, and where greenseg keeps what it can make again."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from greenseg.errors import UserError


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
        UserError: it is a file.
    """
    folder = Path(os.environ.get("GREENSEG_CACHE") or platformdirs.user_cache_dir("greenseg"))
    if folder.is_file():
        raise UserError(f"{folder}: is a file; GREENSEG_CACHE names the folder of greenseg's cache")
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file while the context lasts; waits for whoever holds it. It dies with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
