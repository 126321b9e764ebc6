"""One name for the content of many files, without reading them every time."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from greenseg.data import detached
from greenseg.files import cache_folder, write_json


def fingerprint(paths: Iterable[Path], also: Any = None) -> str:
    """Sixteen hex digits that name the content of these files, in this order, and of `also`.

    A file is read again only when its size, its times of change or its place on the disk differ from the last time; so
    a data set that was copied or touched costs one reading, and keeps its name.

    Args:
        paths: files, or folders (then all files in them count); what a header keeps in files beside it counts, too.
        also: whatever JSON can hold.

    Raises:
        OSError: a file cannot be read.
    """
    files = [part for path in paths for part in _parts(path)]
    names = [str(file.absolute()) for file in files]
    memo = cache_folder() / "fingerprints" / f"{_digest(names)}.json"
    try:
        kept = json.loads(memo.read_text(encoding="utf-8"))
        known: dict[str, tuple[list[int], str]] = {name: (stamp, content) for name, (stamp, content) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        known = {}
    stamps = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in (file.stat() for file in files)]
    stale = [i for i, name in enumerate(names) if known.get(name, [None])[0] != stamps[i]]
    if stale:
        with ThreadPoolExecutor(4) as readers:  # hashlib lets others run while it digests
            for i, content in zip(stale, readers.map(_content, (files[i] for i in stale)), strict=True):
                known[names[i]] = (stamps[i], content)
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_json(memo, known)
    return _digest([[known[name][1] for name in names], also])


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(path: Path) -> Iterator[Path]:
    """The files that an image consists of."""
    if path.is_dir():
        yield from sorted(part for part in path.iterdir() if part.is_file())
        return
    yield path
    if path.suffix.lower() in detached.SUFFIXES:
        yield from detached.data_files(path)
    elif path.suffix.lower() == ".hdr":  # NIfTI or Analyze
        yield from (beside for beside in (path.with_suffix(".img"),) if beside.is_file())
