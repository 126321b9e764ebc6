"""The directory of a run: the only state there is. What is done, failed or left to do, and every report, is read here.

config.yaml      the resolved configuration: `greenseg train --config config.yaml` repeats it
run.json         status, attempts, what ran, hardware, versions, energy, final metrics; written atomically
epochs.jsonl     one line an epoch and attempt: losses, metrics, joules, seconds
checkpoints/     best.ckpt, last.ckpt
run.log          everything the run printed
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from greenseg import yamlfile
from greenseg.config import Settings
from greenseg.errors import UserError
from greenseg.files import write_atomically, write_json

Status = Literal["new", "running", "finished", "failed", "interrupted"]
SCHEMA = 1


class BadRecord(Exception):
    """A run's record is damaged; the message names the file and what is wrong."""


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

    def create(self, settings: Settings) -> None:
        """Make the directory and write config.yaml, unless it says the same already."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        config, text = self.path / "config.yaml", yamlfile.dump(settings.resolved())
        if not config.exists() or config.read_text(encoding="utf-8") != text:
            write_atomically(config, text)

    def clear(self) -> None:
        """Forget what the run did, so that it starts anew; config.yaml stays."""
        for file in ("run.json", "epochs.jsonl"):
            (self.path / file).unlink(missing_ok=True)
        if self.log.exists():
            os.truncate(self.log, 0)  # whoever prints into it goes on doing so
        for checkpoint in self.checkpoints.glob("*"):
            checkpoint.unlink()

    # ── records

    def record(self) -> dict[str, Any]:
        """The content of run.json; empty where there is none yet.

        Raises:
            BadRecord: it is not what greenseg writes.
        """
        path = self.path / "run.json"
        try:
            with open(path, "rb") as file:  # noqa: PTH123  (a report opens thousands)
                record = json.loads(file.read())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadRecord(f"{path}: {error}") from None
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
            except ValueError as error:
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
        try:
            with (self.path / ".lock").open("rb") as file:  # readable is enough: the run may be somebody else's
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def wait_for_start(self, seconds: float) -> None:
        """Wait until the process that leads the run, on another node perhaps, has begun.

        Only then is it decided whether it starts anew or goes on from a checkpoint.

        Raises:
            UserError: it has not after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(BadRecord):  # it may start anew because of that
                if self.status() == "running":
                    return
            time.sleep(0.2)
        raise UserError(f"{self.path}: rank 0 has not begun this run after {seconds:g} s")

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Claim the run for this process while the context lasts; yields whether the claim succeeded."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def make_directory(run: RunDirectory, settings: Settings) -> RunDirectory:
    """Make the directory of a run, `root/<sweep>/<slug>`, unless another sweep below that root has made one since.

    Args:
        run: the directory to make.
        settings: of the run.

    Returns:
        The one directory for these settings.
    """
    root = run.path.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:  # two sweeps may begin the same run at the same moment
        fcntl.flock(file, fcntl.LOCK_EX)
        if not run.path.exists():
            run = next((RunDirectory(path) for path in root.glob(f"*/*-{settings.identity}")), run)
        run.create(settings)
    return run


def find_runs(paths: Iterable[Path]) -> list[RunDirectory]:
    """Every run directory at or below the paths, sorted, each once; a directory is one if it holds a config.yaml."""
    found: set[str] = set()
    folders = [os.fspath(path) for path in paths]
    while folders:
        folder = folders.pop()
        if os.path.exists(os.path.join(folder, "config.yaml")):  # noqa: PTH110, PTH118  (there may be thousands)
            found.add(folder)  # nothing below a run is a run
        else:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [RunDirectory(Path(path)) for path in sorted(found)]


def runs_by_identity(root: Path) -> dict[str, RunDirectory]:
    """Identity → run directory, for every run in `root/<sweep>/`."""
    if not root.is_dir():
        return {}
    return {
        entry.name.rpartition("-")[2]: RunDirectory(Path(entry.path))
        for sweep in os.scandir(root)
        if sweep.is_dir()
        for entry in os.scandir(sweep)
        if entry.is_dir()
    }
