"""What has been predicted into a folder: `predictions.jsonl`. It is the only state: the same command goes on from it.

The first line names the network and the options. Every other line is a finished mask with its input and cost, or a
phase of a session with its energy. Lines are appended; a last line that was cut short does not count.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from greenseg import __version__
from greenseg.data.fingerprint import digest
from greenseg.errors import UserError
from greenseg.files import write_atomically
from greenseg.inference.inputs import Input

NAME = "predictions.jsonl"
_FORMAT = 1


def stamps(paths: Iterable[Path]) -> list[list[Any]]:
    """Path, size in bytes and time of change in ns of all files of an image; of a folder, those of its files.

    A missing file has size -1: its reader reports it.
    """
    found: list[list[Any]] = []
    for path in paths:
        files = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path, *_beside(path)]
        for file in files:
            try:
                about = file.stat()
                found.append([str(file.absolute()), about.st_size, about.st_mtime_ns])
            except OSError:
                found.append([str(file.absolute()), -1, 0])
    return found


def _beside(path: Path) -> list[Path]:
    """The file of the values beside a header."""
    from greenseg.data import detached, nifti

    try:
        if path.suffix.lower() in detached.SUFFIXES:
            return detached.data_files(path)
        return [file for file in nifti.files_of(path) if file != path]
    except OSError:
        return []


def digest_of(images: Sequence[Input]) -> str:
    """A digest of all files of a subject: they have one scale of intensities, so a change of one changes all masks.

    Folders do not count: data that was moved has not changed.
    """
    return digest(
        [[image.name, [[Path(name).name, *stamp] for name, *stamp in stamps(image.paths)]] for image in images]
    )


def network_digest(*weights: Path) -> str:
    """Sixteen hex digits of the content of the files with the weights."""
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


class Ledger:
    """The file `predictions.jsonl` of a folder.

    Args:
        folder: folder of the masks.

    Attributes:
        head: network and options; None if the folder has no predictions.
        lines: all other lines.

    Raises:
        UserError: the file is damaged or unreadable.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.head: dict[str, Any] | None = None
        self.lines: list[dict[str, Any]] = []
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from None
        whole = content.split(b"\n")[:-1]  # what follows the last newline is unfinished
        for number, line in enumerate(whole, 1):
            try:
                value = json.loads(line)
                if not isinstance(value, dict) or (number == 1 and not isinstance(value.get("options"), dict)):
                    raise ValueError("not a line that greenseg writes")
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{self.path}:{number}: damaged ({error}); choose another folder, or remove its masks and this file"
                ) from None
            if number == 1:
                self.head = value
            else:
                self.lines.append(value)
        if self.head and self.head.get("format", 0) > _FORMAT:
            raise UserError(f"{self.path}: written by a later version of greenseg; update it, or choose another folder")

    @property
    def masks(self) -> dict[str, dict[str, Any]]:
        """Name of a mask → its last line."""
        return {line["mask"]: line for line in self.lines if isinstance(line.get("mask"), str)}

    def difference(self, network: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """The difference of the recorded network and options from these, in words; empty if there is none."""
        if self.head is None:
            return ""
        before = self.head.get("network", {})
        if before.get("weights") != network["weights"]:
            name = before.get("name", "unknown")
            return "other weights of the same network" if name == network["name"] else f"another network ({name})"
        recorded = self.head["options"]
        other = [f"{name} {_said(recorded.get(name))}" for name in options if recorded.get(name) != options[name]]
        return f"other options ({', '.join(other)})" if other else ""

    def begin(self, network: Mapping[str, Any], options: Mapping[str, Any], without: Iterable[str] = ()) -> None:
        """Rewrite the file, atomically, with these network and options.

        The lines and files of some masks are removed, and all of them if network or options differ.
        """
        dropped = set(self.masks if self.difference(network, options) else without)
        for name in dropped:
            for file in (name, *self.masks[name].get("probabilities", [])):
                (self.path.parent / file).unlink(missing_ok=True)
        if self.difference(network, options):
            self.lines = []
        self.lines = [line for line in self.lines if line.get("mask") not in dropped]
        self.head = {
            "format": _FORMAT, "greenseg": __version__, "network": dict(network), "options": dict(options),
        }  # fmt: skip
        write_atomically(self.path, "".join(f"{json.dumps(line)}\n" for line in (self.head, *self.lines)))

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append lines; first remove an unfinished line of a killed process."""
        with self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
            file.write(b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines))
        self.lines += [dict(line) for line in lines]


def _said(value: Any) -> str:
    return {None: "unknown", True: "on", False: "off", "": "none"}.get(value, str(value))
