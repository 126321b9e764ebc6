"""Publication of exported files: all of them, or none."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greenseg.errors import UserError
from greenseg.export.formats import Format


def check_out(kind: Format, out: Path, again: bool) -> None:
    """Check that an export can be published.

    Args:
        kind: format of the export.
        out: file or folder that the user gets.
        again: replace an earlier export.

    Raises:
        UserError: its folder is missing, or something is there that may not be replaced; lists all problems.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out}: no such folder: {out.parent}")
    problems = []
    for path in kind.paths(out):
        if not path.exists() and not path.is_symlink():
            continue
        is_folder = path.is_dir()
        if is_folder and kind.suffix:
            problems.append(f"{path}: this is a folder; choose another name")
        elif not is_folder and not kind.suffix:
            problems.append(f"{path}: this is a file; name a folder")
        elif is_folder and any(path.iterdir()) and not (path / kind.marker).is_file():
            problems.append(f"{path}: this folder is no earlier export (it has no {kind.marker}); choose another name")
        elif path != out and not out.exists():  # of another export, or of the user
            problems.append(f"{path}: is there, but {out} is not, so it belongs to another file; choose another name")
        elif not again:
            problems.append(f"{path}: exists already; --again replaces it")
    if problems:
        raise UserError(problems)


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """A path to write to, with the name of `out` in an empty folder. What is there in the end moves beside `out`.

    Each file and folder is replaced as a whole, `out` last. After an exception, nothing is published.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        made = folder / out.name
        yield made
        others = sorted(path for path in folder.iterdir() if path != made)
        for path in (*others, made):
            _sync(path)
        for path in (*others, made):
            target = out.with_name(path.name)
            if target.is_dir() and not target.is_symlink():
                target.rename(folder / f".{target.name}.old")  # a folder cannot be replaced in one step
            path.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file, or all files of a folder, to the disk."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
