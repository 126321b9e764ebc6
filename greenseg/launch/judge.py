"""Judges an ended attempt at a run by its files, and completes its record."""

import signal
from dataclasses import dataclass, replace

from greenseg.errors import ExitCode
from greenseg.failures import Failure, kind_of
from greenseg.launch.executor import Ended, Job
from greenseg.launch.follow import Follower
from greenseg.runs.attempt import completed
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import make_directory
from greenseg.runs.record import BadRecord, Error, Record, Status
from greenseg.training import events


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attempt at a run.

    Attributes:
        status: status of the run, or `busy` if another process trains it.
        reason: reason in one line if it did not finish.
        kind: kind of its failure.
        again: it is tried again.
        joules: joules of all attempts at the run, if its record has them; without those of its ancestors.
    """

    status: Status | str
    reason: str = ""
    kind: Failure | None = None
    again: bool = False
    joules: float | None = None


@dataclass(frozen=True)
class Overdue:
    """The reason why the queue asked a run to end.

    Attributes:
        kind: kind of failure.
        reason: reason in a few words.
        since: time of the request, in seconds on the monotonic clock.
    """

    kind: Failure
    reason: str
    since: float


@dataclass(frozen=True)
class Attempt:
    """An ended attempt at a run, with all information from outside its directory.

    Attributes:
        job: the run.
        ended: its end, from its executor.
        follower: follower of the attempt.
        overdue: why the queue asked it to end; None if it did not.
        stopping: the user asked all runs to stop.
    """

    job: Job
    ended: Ended
    follower: Follower
    overdue: Overdue | None
    stopping: bool


def conclude(attempt: Attempt) -> Outcome:
    """Judge an attempt, and complete the record with the parts that the run did not write.

    Raises:
        OSError: the record is not writable, for another reason than a full disk.
    """
    job = attempt.job
    if attempt.ended.code == events.BUSY:
        return Outcome("busy", "another process is training it")
    try:
        record = job.run.record()
        outcome, error = judge(attempt, record)
        if error or attempt.ended.unrestored:
            with job.run.claim() as mine:
                if mine is None:
                    return Outcome("busy", "another process has taken it over")
                record = mine.record()
                outcome, error = judge(attempt, record)
                record = completed(record, mine.epochs(), job.settings, error, attempt.ended.unrestored)
                mine.write_record(record)
    except BadRecord as damage:
        return Outcome("failed", str(damage), Failure.ERROR)
    except OSError as full:
        if kind_of(full) != Failure.DISK_FULL:
            raise
        return Outcome("interrupted", f"{job.run.path}: {full.strerror}", Failure.DISK_FULL)
    return replace(outcome, joules=record.metrics.own[0] if record else None)


def fail_with_parent(job: Job, reason: str) -> Outcome:
    """Record the failure of a run whose parent failed, and which therefore does not start.

    Args:
        job: the run.
        reason: why the parent failed; empty if only its record knows.

    Raises:
        OSError: the record is not writable, for another reason than a full disk.
    """
    assert job.parent is not None
    message = f"its parent failed: {job.parent.run.path}{f' ({reason})' if reason else ''}"
    error = Error(kind=Failure.PARENT, type="ParentFailed", message=message)
    try:
        job.run = make_directory(job.run, job.settings, job.content)
        with job.run.claim() as mine:
            if mine is None:
                return Outcome("busy", "another process is training it")
            mine.write_record(completed(mine.record(), mine.epochs(), job.settings, error))
    except BadRecord as damage:  # it stays as it is: a later attempt starts over, once the parent has finished
        return Outcome("failed", f"{message}; {damage}", Failure.PARENT)
    except OSError as full:
        if kind_of(full) != Failure.DISK_FULL:
            raise
        return Outcome("interrupted", f"{job.run.path}: {full.strerror}", Failure.DISK_FULL)
    return Outcome("failed", message, Failure.PARENT)


def judge(attempt: Attempt, record: Record | None) -> tuple[Outcome, Error | None]:
    """The outcome of an attempt, and the error for the record.

    Args:
        attempt: the ended attempt.
        record: record of the run; None if there is none.
    """
    run, ended = attempt.job.run, attempt.ended
    if record and record.status == "finished":
        return Outcome("finished"), None
    if record and record.status == "paused" and ended.code == ExitCode.OK:  # by another process, after planning
        return Outcome("paused"), None
    began = record if record and attempt.follower.began(record) else None
    status, why = (began.status, began.error) if began else ("", None)
    if status == "paused":
        return Outcome("paused"), None
    if record and record.status == "failed" and not began and not attempt.job.failed and attempt.job.tries <= 1:
        return Outcome("failed", "by another process"), None
    log = last_lines(run)
    if not attempt.overdue:
        if why and status == "interrupted":
            return Outcome("interrupted", f"{run.path}: {why.message}", Failure(why.kind or Failure.ERROR)), None
        by_signal = ended.code is None or ended.code < 0 or ended.code == ExitCode.INTERRUPTED
        asked = status == "interrupted" and (attempt.stopping or not ended.lost_rank)
        if asked or (attempt.stopping and by_signal) or ended.lost:
            return Outcome("interrupted", again=ended.lost), None
        if why and status == "failed":
            outcome = Outcome("failed", f"{why.type}: {why.message}", Failure(why.kind or Failure.ERROR))
            return outcome, why.model_copy(update={"log": log})
    kind, name, reason = _cause(attempt)
    error = Error(kind=kind, type=name, message=reason, log=log)
    if kind == Failure.ERROR:
        reason = f"{reason}: {log.splitlines()[-1] if log else 'no output'}"
    return Outcome("failed", reason, kind), error


def _cause(attempt: Attempt) -> tuple[Failure, str, str]:
    """Kind, name and reason of a failure that the run did not record."""
    ended, overdue = attempt.ended, attempt.overdue
    if overdue:
        return overdue.kind, "Ended", overdue.reason
    if ended.out_of_memory:
        return Failure.OUT_OF_MEMORY, "Killed", "killed by the kernel because memory ran out"
    if ended.code is None:
        return Failure.CRASH, "Killed", "ended with an unknown exit code"
    if ended.code < 0:
        return Failure.CRASH, "Killed", f"killed by {signal.Signals(-ended.code).name}"
    return Failure.ERROR, "Crashed", f"ended with exit code {ended.code}"


def last_lines(run: RunDirectory, count: int = 20) -> str:
    """The last lines of the run's log."""
    try:
        return "\n".join(run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    except OSError:
        return ""
