"""Digests of the content of files, without reading them every time."""

import errno
import hashlib
import json
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from greenseg.data import detached, nifti
from greenseg.files import keep, recall


def digests(paths: Iterable[Path]) -> list[list[str]]:
    """The SHA-256 of the content of files, as 64 hex digits.

    A file is read again only if its size, times or inode differ from the last time. So a data set that was copied or
    touched is read once more, and keeps its digests.

    Args:
        paths: files, or folders, for all files in them. Files with the values beside a header count, too.

    Returns:
        For each path, the digests of its files.

    Raises:
        OSError: a file cannot be read, or is a device or a pipe, which have no end.
    """
    parts = [list(_parts(path)) for path in paths]
    files = [part for of_path in parts for part in of_path]
    names = [str(file.absolute()) for file in files]
    memo = f"fingerprints/{digest(names)}.json"
    try:
        known: dict[str, tuple[list[int], str]] = {
            name: (stamp, content) for name, (stamp, content) in recall(memo).items()
        }
    except (ValueError, TypeError, AttributeError):
        known = {}
    stamps = [_stamp(file) for file in files]
    stale = [i for i, name in enumerate(names) if known.get(name, [None])[0] != stamps[i]]
    if stale:
        with ThreadPoolExecutor(4) as readers:  # hashlib releases the GIL
            for i, content in zip(stale, readers.map(_content, (files[i] for i in stale)), strict=True):
                known[names[i]] = (stamps[i], content)
        keep(memo, known)
    found = iter(names)
    return [[known[next(found)][1] for _ in of_path] for of_path in parts]


def digest(what: Any) -> str:
    """Sixteen hex digits of a digest of a JSON value."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(path: Path) -> Iterator[Path]:
    """The files of an image."""
    if path.is_dir():
        yield from sorted(part for part in path.iterdir() if part.is_file())
        return
    yield path
    beside = detached.data_files(path) if path.suffix.lower() in detached.SUFFIXES else nifti.files_of(path)
    yield from (file for file in beside if file != path and file.is_file())
