"""The directory of a run. It is the only state: sweeps and reports read the progress of runs from it.

config.yaml      the resolved settings: `greenseg train --config config.yaml` repeats the run
content.json     its data: digests of the files of each subject, and the split
run.json         status, attempts, settings in effect, hardware, versions, energy, final metrics; written atomically
epochs.jsonl     one line per epoch and attempt: losses, metrics, joules, seconds
checkpoints/     best.ckpt; last.ckpt until the run has finished (`greenseg.runs.disk`); shape.json of a pruned network;
                 for other engines than torch network.onnx, or network.xml and network.bin
run.log          output of the run
takeovers/N/     run.json, epochs.jsonl and checkpoints/ since another host took the run over from a silent one, which
                 may still write to the earlier ones; the highest number counts (`greenseg.runs.owner`)
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from greenseg import yamlfile
from greenseg.compression import RUNTIMES
from greenseg.errors import UserError
from greenseg.files import write_atomically, write_json
from greenseg.runs.owner import Owner, last_takeover
from greenseg.runs.record import (
    BadRecord,
    Epoch,
    Head,
    NewerRecord,
    Record,
    Status,
    read_epoch,
    read_head,
    read_record,
)
from greenseg.settings import Settings

_T = TypeVar("_T")

_RECORDS = ("run.json", "epochs.jsonl")
_TAKEOVERS = "takeovers"


@dataclass(frozen=True)
class RunDirectory:
    """Reads and writes the files of a run.

    Attributes:
        path: its path.
        takeover: the takeover whose files it reads and writes, as its owner does; None for the last one.
    """

    path: Path
    takeover: int | None = field(default=None, compare=False)

    @property
    def files(self) -> Path:
        """The folder of run.json, epochs.jsonl and the checkpoints."""
        number = last_takeover(self.path) if self.takeover is None else self.takeover
        return self._files_of(number)

    @property
    def at_present(self) -> Self:
        """The same directory with the files that count now, for several reads that belong together."""
        return replace(self, takeover=last_takeover(self.path)) if self.takeover is None else self

    def _files_of(self, takeover: int) -> Path:
        return self.path / _TAKEOVERS / str(takeover) if takeover else self.path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.files / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint from which an interrupted run continues."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The network at its best validation Dice."""
        return self.checkpoints / "best.ckpt"

    def network(self, runtime: str) -> tuple[Path, ...]:
        """The files of its trained network for an engine; see `greenseg.compression.RUNTIMES`."""
        return tuple(self.checkpoints / name for name in RUNTIMES[runtime].files)

    @property
    def shape(self) -> Path:
        """The channels that a pruned network has kept."""
        return self.checkpoints / "shape.json"

    @property
    def log(self) -> Path:
        """Output of the run."""
        return self.path / "run.log"

    @property
    def content(self) -> Path:
        """The content of its data, as `greenseg.data.content` writes it."""
        return self.path / "content.json"

    def create(self, settings: Settings, content: Mapping[str, Any] | None = None) -> None:
        """Make the directory; write config.yaml and content.json if they change.

        Args:
            settings: settings of the run.
            content: content of its data, as plain values; None if unknown.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        files = {self.path / "config.yaml": yamlfile.dump(settings.resolved())}
        if content is not None:
            files[self.content] = json.dumps(content) + "\n"
        for file, text in files.items():
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                write_atomically(file, text)

    def clear(self) -> None:
        """Delete the record, the epochs and the checkpoints, so that the run starts over; config.yaml stays."""
        for folder in (self.files, *self._earlier_files()):
            for file in _RECORDS:
                (folder / file).unlink(missing_ok=True)
            for checkpoint in (folder / "checkpoints").glob("*"):
                checkpoint.unlink()
        if self.log.exists():
            os.truncate(self.log, 0)  # a process may still print to it

    # ── records

    def record(self) -> Record | None:
        """The content of run.json; None if it does not exist yet.

        Raises:
            NewerRecord: a later version of greenseg wrote it.
            BadRecord: it is damaged.
        """
        return self._read(read_record)

    def head(self) -> Head | None:
        """The part of run.json that a plan needs; None if the file does not exist yet.

        Raises:
            NewerRecord: a later version of greenseg wrote it.
            BadRecord: it is damaged.
        """
        return self._read(read_head)

    def _read(self, read: Callable[[bytes], _T]) -> _T | None:
        path = self.files / "run.json"
        try:
            with open(path, "rb") as file:  # noqa: PTH123  (a report opens thousands)
                return read(file.read())
        except FileNotFoundError:
            if path.with_name("epochs.jsonl").exists():  # the cost before it is unknown
                raise BadRecord(f"{path}: missing, though the run has finished epochs") from None
            return None
        except NewerRecord as error:
            raise NewerRecord(f"{path}: {error}") from None
        except (OSError, BadRecord) as error:
            raise BadRecord(f"{path}: {error}") from None

    def write_record(self, record: Record) -> None:
        """Replace run.json, atomically."""
        write_json(self.files / "run.json", record.to_json())

    def epochs(self) -> list[Epoch]:
        """The lines of epochs.jsonl, in the order of writing, without a last line that was cut short.

        Raises:
            BadRecord: another line is damaged.
        """
        path = self.files / "epochs.jsonl"
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        epochs = []
        for number, line in enumerate(lines[:-1], 1):  # text after the last newline is unfinished
            try:
                epochs.append(read_epoch(line))
            except BadRecord as error:
                raise BadRecord(f"{path}:{number}: {error}") from None
        return epochs

    def append_epoch(self, epoch: Epoch) -> None:
        """Append a line to epochs.jsonl; first remove an unfinished line of a killed process."""
        path = self.files / "epochs.jsonl"
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < end:
                file.truncate(whole)
            file.write(json.dumps(epoch.to_json(), allow_nan=False).encode() + b"\n")

    # ── status

    def status(self) -> Status:
        """The status of the run; see `status_by`.

        Raises:
            BadRecord: run.json is damaged.
        """
        return self.status_by(self.record())

    def recorded_status(self) -> Status:
        """The status in the record of the run, which says `running` if its process was killed.

        Raises:
            BadRecord: run.json is damaged.
        """
        record = self.record()
        return record.status if record else "new"

    def status_by(self, record: Head | None) -> Status:
        """The status of the run by its record. If its process was killed, it counts as interrupted."""
        if record is None:
            return "new"
        return "interrupted" if record.status == "running" and not self.in_use() else record.status

    def in_use(self) -> bool:
        """Whether a process trains this run, or may do so: one look cannot tell whether another host still lives."""
        return Owner(self.path).look() is not None

    def wait_for_start(self, launch: str | None, seconds: float) -> None:
        """Wait until rank 0 of the run, perhaps on another node, has begun.

        It decides whether the run starts over or continues from a checkpoint.

        Args:
            launch: identity of the launch of rank 0 and this process; None if it is unknown. Then the run must be
                running, which this host may be unable to tell.
            seconds: longest time to wait.

        Raises:
            UserError: it has not begun by then.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(BadRecord):  # rank 0 may then start over
                record = self.record()
                attempt = record.attempts[-1] if record and record.attempts else None
                if attempt and attempt.launch == launch if launch else self.status_by(record) == "running":
                    return
            time.sleep(0.2)
        raise UserError(f"{self.path}: rank 0 has not begun this run after {seconds:g} s")

    @contextlib.contextmanager
    def claim(self, owner: Owner | None = None, on_loss: Callable[[], None] | None = None) -> "Iterator[Self | None]":
        """Claim the run for this process while the context lasts.

        Args:
            owner: what is known about its owner; see `greenseg.runs.owner`.
            on_loss: see `Owner.claim`.

        Yields:
            The directory with the files of this owner; None if the run has another owner.

        Raises:
            OSError: the directory is not writable, or the disk is full.
        """
        with (owner or Owner(self.path)).claim(on_loss) as lease:
            if lease is None:
                yield None
                return
            mine = replace(self, takeover=lease.takeover)
            if mine.takeover and not mine.files.exists():
                mine._take_over()
            yield mine

    def _take_over(self) -> None:
        """Copy the files of the owner before this takeover, which may still write to them."""
        earlier = next(self._earlier_files())
        new = self.files.with_name(f".{self.files.name}.{os.getpid()}")
        shutil.rmtree(new, ignore_errors=True)
        try:
            while not _is_copied(earlier, new):  # its owner has woken up, and these files may not belong together
                shutil.rmtree(new)
            new.rename(self.files)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def earlier_owners(self) -> "list[Self]":
        """The directory with the files of each owner before the last takeover, from the latest."""
        return [replace(self, takeover=int(files.name) if files != self.path else 0) for files in self._earlier_files()]

    def _earlier_files(self) -> Iterator[Path]:
        """The folders with the files of owners before this takeover that are complete, from the latest."""
        last = last_takeover(self.path) if self.takeover is None else self.takeover
        for number in range(last - 1, 0, -1):
            if (files := self._files_of(number)).exists():
                yield files
        if last:
            yield self.path


def _is_copied(earlier: Path, new: Path) -> bool:
    """Copy record, epochs and checkpoints to a new folder; returns whether they stayed the same meanwhile."""
    before = _stamps(earlier)
    (new / "checkpoints").mkdir(parents=True)
    try:
        for path in before:
            shutil.copyfile(path, new / path.relative_to(earlier))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False
    return _stamps(earlier) == before


def _stamps(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """File → inode, size and time of the record, the epochs and the checkpoints in a folder."""
    paths = [*(folder / name for name in _RECORDS), *sorted((folder / "checkpoints").glob("[!.]*"))]
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found[path] = stat.st_ino, stat.st_size, stat.st_mtime_ns
    return found


def find_runs(paths: Iterable[Path]) -> list[RunDirectory]:
    """All run directories at or below the paths, sorted. A run directory has a config.yaml.

    Links to folders are followed, once per target.
    """
    found: set[str] = set()
    linked: set[str] = set()
    folders = [os.fspath(path) for path in paths]
    while folders:
        folder = folders.pop()
        if os.path.exists(os.path.join(folder, "config.yaml")):  # noqa: PTH110, PTH118  (there may be thousands)
            found.add(folder)  # no run is below another
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink() and entry.is_dir():
                    target = os.path.realpath(entry.path)
                    if target not in linked:  # a link may lead to a folder above it
                        linked.add(target)
                        folders.append(entry.path)
    return [RunDirectory(Path(path)) for path in sorted(found)]
