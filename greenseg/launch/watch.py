"""Watches runs that are carried out elsewhere, by their directories, and tells a listener as a queue does."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from greenseg.errors import UserError
from greenseg.failures import Failure
from greenseg.launch.executor import Job
from greenseg.launch.follow import Follower
from greenseg.launch.judge import Outcome
from greenseg.launch.queue import Listener
from greenseg.runs.attempt import completed
from greenseg.runs.directory import RunDirectory
from greenseg.runs.owner import Owner
from greenseg.runs.record import Attempt, BadRecord, Error, Record
from greenseg.settings import Settings, read_config

_RARELY_SECONDS = 30.0  # between looks at runs that have ended
_clock = time.monotonic

_Stamp = tuple[int, int, int] | None
"""Inode, size and time of a file: they change when it is written. None if it is missing."""


@dataclass(eq=False)
class _Seen:
    """The state of a run at the last look.

    Attributes:
        job: the run.
        stamp: that of its record.
        follower: follower of its present attempt; None if no attempt is running.
        epochs: stamp of its epochs.
        attempt: identity of its last attempt that the listener knows; None if there is none.
        status: the last status that the listener knows.
    """

    job: Job
    stamp: _Stamp = None
    follower: Follower | None = None
    epochs: _Stamp = None
    attempt: str | None = None
    status: str = ""


class Watch:
    """Watches runs.

    Args:
        jobs: the runs.
        folder: folder of the sweep; runs may get directories of other names there, and a search may draw more runs.
        drawn: whether a search draws runs.
        listener: gets the start, the epochs and the end of each run.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, drawn: bool, listener: Listener) -> None:
        self._folder, self._drawn, self._listener = folder, drawn, listener
        self._by_identity = {job.settings.identity: _Seen(job) for job in jobs}
        self._names = {job.run.path.name for job in jobs if job.run.path.exists()}
        self._looked_at_all = -_RARELY_SECONDS
        for seen in self._by_identity.values():  # what has ended before is not told
            seen.stamp = _stamp(seen.job.run.files / "run.json")
            if (record := _record(seen.job.run)) and record.attempts and record.status != "running":
                seen.status, seen.attempt = record.status, record.attempts[-1].identity
            else:
                seen.stamp = None

    @property
    def jobs(self) -> list[Job]:
        """All runs, with those that a search has drawn since."""
        return [seen.job for seen in self._by_identity.values()]

    def look(self, at_all: bool = False) -> None:
        """Tell the listener about everything since the last look.

        Args:
            at_all: also look at the runs that have finished or failed. Otherwise, that is done only now and then:
                a sweep may have thousands.
        """
        self._find_directories()
        at_all = at_all or _clock() - self._looked_at_all >= _RARELY_SECONDS
        if at_all:
            self._looked_at_all = _clock()
        for seen in self._by_identity.values():
            if seen.status in ("finished", "failed") and not at_all:
                continue
            stamp = _stamp(seen.job.run.files / "run.json")
            if stamp != seen.stamp and (record := _record(seen.job.run)) and record.attempts:
                seen.stamp = stamp
                self._tell(seen, record)
            elif seen.follower:
                self._tell_epochs(seen)

    def _tell(self, seen: _Seen, record: Record) -> None:
        attempt = record.attempts[-1].identity
        if attempt != seen.attempt:
            seen.attempt, seen.status, seen.epochs = attempt, "running", None
            seen.follower = Follower(seen.job.run, began=True)
            self._listener.start(seen.job)
        self._tell_epochs(seen)
        if record.status not in ("running", seen.status):
            seen.status, seen.follower = record.status, None
            self._listener.end(seen.job, _outcome(record))

    def _tell_epochs(self, seen: _Seen) -> None:
        stamp = _stamp(seen.job.run.files / "epochs.jsonl")
        if seen.follower and stamp != seen.epochs:
            seen.epochs = stamp
            for event in seen.follower.epochs():
                self._listener.event(seen.job, event)

    def _find_directories(self) -> None:
        try:
            names = set(os.listdir(self._folder)) - self._names  # noqa: PTH208  (a thousand, every second)
        except FileNotFoundError:
            return
        for name in names:
            run = RunDirectory(self._folder / name)
            if name.startswith(".") or not (run.path / "config.yaml").exists():
                continue
            self._names.add(name)
            try:
                settings = Settings.of(read_config(run.path / "config.yaml"))
            except UserError:
                continue
            seen = self._by_identity.get(settings.identity)
            if seen and not seen.job.run.path.exists():
                seen.job.run = run
            elif not seen and self._drawn:
                self._by_identity[settings.identity] = _Seen(Job(settings, run))


def record_out_of_memory(runs: Iterable[RunDirectory], batch_job: str) -> list[RunDirectory]:
    """Record the failure of the runs that were running in a batch job when it was killed because memory ran out.

    Otherwise, each next worker would try them again, and be killed.

    Args:
        runs: the runs to look at.
        batch_job: the job, as in the records of its runs.

    Returns:
        The runs that have failed.
    """
    found = []
    for run in runs:
        attempt = _running_in(batch_job, run)
        if attempt is None:
            continue
        with run.claim(Owner(run.path, dead=(attempt.host or "", attempt.pid or 0))) as mine:
            if mine is None or _running_in(batch_job, mine) is None:  # the next worker was faster
                continue
            try:
                record, epochs = mine.record(), mine.epochs()
            except BadRecord:  # it stays as it is: plans and reports name the damage
                continue
            assert record
            message = f"its job, {batch_job}, was killed because memory ran out"
            error = Error(kind=Failure.OUT_OF_MEMORY, type="Killed", message=message)
            mine.write_record(completed(record, epochs, Settings.of(record.settings), error))
            found.append(run)
    return found


def _running_in(batch_job: str, run: RunDirectory) -> Attempt | None:
    """The last attempt at a run if its record has it as running in this batch job; else None."""
    record = _record(run)
    if not (record and record.status == "running" and record.attempts):
        return None
    return record.attempts[-1] if record.attempts[-1].job == batch_job else None


def _outcome(record: Record) -> Outcome:
    error = record.error if record.status in ("failed", "interrupted") else None
    if error is None:
        return Outcome(record.status, joules=record.metrics.joules)
    kind = next((kind for kind in Failure if kind == error.kind), Failure.ERROR)
    return Outcome(record.status, f"{error.type}: {error.message}", kind, joules=record.metrics.joules)


def _record(run: RunDirectory) -> Record | None:
    try:
        return run.record()
    except BadRecord:
        return None


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
