"""The directory of a run: the only state there is. What is done, failed or left to do, and every report, is read here.

config.yaml      the resolved configuration: `greenseg train --config config.yaml` repeats it
content.json     what it is trained on: digests of the files of each subject, and its split
run.json         status, attempts, what ran, hardware, versions, energy, final metrics; written atomically
epochs.jsonl     one line an epoch and attempt: losses, metrics, joules, seconds
checkpoints/     best.ckpt, last.ckpt
run.log          everything the run printed
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from greenseg import locks, yamlfile
from greenseg.errors import UserError
from greenseg.files import write_atomically, write_json
from greenseg.settings import Settings

Status = Literal["new", "running", "finished", "failed", "interrupted"]
_STATUSES = get_args(Status)
SCHEMA = 1


class BadRecord(Exception):
    """A run's record is damaged; the message names the file and what is wrong."""


class NewerRecord(BadRecord):
    """A later version of greenseg wrote the record; it is whole, and must not be written over."""


_SETTINGS = frozenset(Settings.model_fields)


@dataclass(frozen=True)
class RunDirectory:
    """Reads and writes the files of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """From here an interrupted run goes on."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The network at its best validation Dice."""
        return self.checkpoints / "best.ckpt"

    @property
    def log(self) -> Path:
        """Everything the run printed."""
        return self.path / "run.log"

    @property
    def content(self) -> Path:
        """What the run is trained on, as `greenseg.data.content` writes it."""
        return self.path / "content.json"

    def create(self, settings: Settings, content: Mapping[str, Any] | None = None) -> None:
        """Make the directory; write config.yaml and content.json, unless they say the same already.

        Args:
            settings: of the run.
            content: what it is trained on, as plain values; None where that is not known.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        files = {self.path / "config.yaml": yamlfile.dump(settings.resolved())}
        if content is not None:
            files[self.content] = json.dumps(content) + "\n"
        for file, text in files.items():
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                write_atomically(file, text)

    def clear(self) -> None:
        """Discard the record, the epochs and the checkpoints, so that the run starts over; config.yaml stays."""
        for file in ("run.json", "epochs.jsonl"):
            (self.path / file).unlink(missing_ok=True)
        if self.log.exists():
            os.truncate(self.log, 0)  # a process that prints into it goes on doing so
        for checkpoint in self.checkpoints.glob("*"):
            checkpoint.unlink()

    # ── records

    def record(self) -> dict[str, Any]:
        """The content of run.json; empty where there is none yet.

        Raises:
            NewerRecord: a later version of greenseg wrote it.
            BadRecord: it is not what greenseg writes.
        """
        path = self.path / "run.json"
        try:
            with open(path, "rb") as file:  # noqa: PTH123  (a report opens thousands)
                record = json.loads(file.read())
        except FileNotFoundError:
            if (self.path / "epochs.jsonl").exists():  # what came before it cannot be accounted for
                raise BadRecord(f"{path}: missing, though the run has finished epochs") from None
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise BadRecord(f"{path}: {error}") from None
        if isinstance(record, dict) and (why := _newer(record)):
            raise NewerRecord(
                f"{path}: a later version of greenseg{_version(record)} wrote it ({why}). Update greenseg to read it"
            )
        if not isinstance(record, dict) or not isinstance(record.get("settings"), dict) or "status" not in record:
            raise BadRecord(f"{path}: not a record of a run")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace run.json, atomically."""
        write_json(self.path / "run.json", record)

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of epochs.jsonl, in the order of writing; a last line that was cut short is left out.

        Raises:
            BadRecord: another line is damaged.
        """
        path = self.path / "epochs.jsonl"
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        epochs = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline was never finished
            try:
                epochs.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise BadRecord(f"{path}:{number}: {error}") from None
        return epochs

    def append_epoch(self, epoch: dict[str, Any]) -> None:
        """Append a line to epochs.jsonl, after cutting off one that a killed process left unfinished."""
        path = self.path / "epochs.jsonl"
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < end:
                file.truncate(whole)
            file.write(json.dumps(epoch, allow_nan=False).encode() + b"\n")

    # ── status

    def status(self, record: dict[str, Any] | None = None) -> Status:
        """Where the run stands. A run whose process is gone without a word counts as interrupted.

        Args:
            record: content of run.json, where it has been read already.

        Raises:
            BadRecord: run.json is damaged.
        """
        status = (self.record() if record is None else record).get("status", "new")
        if status == "running" and not self.in_use():
            return "interrupted"
        return status  # type: ignore[no-any-return]

    def in_use(self) -> bool:
        """Whether a living process trains this run; asked of the lock, which dies with its process."""
        return locks.is_held(self.path / ".lock")

    def wait_for_start(self, seconds: float) -> None:
        """Wait until the process that leads the run, on another node perhaps, has begun.

        Only then is it decided whether it starts over or goes on from a checkpoint.

        Raises:
            UserError: it has not after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(BadRecord):  # it may start over because of that
                if self.status() == "running":
                    return
            time.sleep(0.2)
        raise UserError(f"{self.path}: rank 0 has not begun this run after {seconds:g} s")

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Claim the run for this process while the context lasts; yields whether the claim succeeded."""
        with locks.hold(self.path / ".lock") as file:
            yield file is not None


def _newer(record: dict[str, Any]) -> str:
    """By what a record is known to be of a later version; empty where it is not."""
    schema, settings = record.get("schema", SCHEMA), record.get("settings")
    if schema != SCHEMA and not (isinstance(schema, int) and schema < SCHEMA):
        return f"schema {schema}; this version reads {SCHEMA}"
    if record.get("status", "new") not in _STATUSES:
        return f"unknown status {record['status']!r}"
    if isinstance(settings, dict) and not settings.keys() <= _SETTINGS:
        return f"unknown setting {', '.join(sorted(settings.keys() - _SETTINGS))}"
    return ""


def _version(record: dict[str, Any]) -> str:
    versions = record.get("versions")
    return f", {versions['greenseg']}," if isinstance(versions, dict) and "greenseg" in versions else ""


def find_runs(paths: Iterable[Path]) -> list[RunDirectory]:
    """Every run directory at or below the paths, sorted; a directory is one if it holds a config.yaml.

    Links to folders are followed, each folder that is linked to once.
    """
    found: set[str] = set()
    linked: set[str] = set()
    folders = [os.fspath(path) for path in paths]
    while folders:
        folder = folders.pop()
        if os.path.exists(os.path.join(folder, "config.yaml")):  # noqa: PTH110, PTH118  (there may be thousands)
            found.add(folder)  # nothing below a run is a run
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink() and entry.is_dir():
                    target = os.path.realpath(entry.path)
                    if target not in linked:  # a link may lead to a folder that holds it
                        linked.add(target)
                        folders.append(entry.path)
    return [RunDirectory(Path(path)) for path in sorted(found)]
