"""The judgement of an attempt at a run that is over, by what it wrote, and its last lines in the record."""

import signal
from dataclasses import dataclass
from typing import Any

from greenseg.errors import ExitCode
from greenseg.failures import Failure, kind_of
from greenseg.launch.executor import Ended, Job
from greenseg.launch.follow import Follower
from greenseg.runs.directory import SCHEMA, BadRecord, RunDirectory, Status
from greenseg.runs.summary import account_for_attempts, summary
from greenseg.training import events


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a run ended.

    Attributes:
        status: of the run, or `busy` where another process trains it.
        reason: where it did not finish, in a line.
        kind: of its failure.
        again: it is tried once more.
        joules: of all attempts at the run, where its record says so.
    """

    status: Status | str
    reason: str = ""
    kind: Failure | None = None
    again: bool = False
    joules: float | None = None


@dataclass(frozen=True)
class Overdue:
    """Why the queue asked a run to end.

    Attributes:
        kind: of the failure that this is.
        reason: in a few words.
        since: when it was asked, in seconds on the monotonic clock.
    """

    kind: Failure
    reason: str
    since: float


@dataclass(frozen=True)
class Attempt:
    """An attempt at a run that is over, with all that is known of it beside its directory.

    Attributes:
        job: the run.
        ended: its end, as its executor reports it.
        follower: of the attempt.
        overdue: why the queue asked it to end; None where it did not.
        stopping: the user asked all runs to stop.
    """

    job: Job
    ended: Ended
    follower: Follower
    overdue: Overdue | None
    stopping: bool


def conclude(attempt: Attempt) -> Outcome:
    """Judge an attempt, and write into the record of the run what the run could not write itself.

    Raises:
        OSError: the record cannot be written, for another reason than a full disk.
    """
    job = attempt.job
    if attempt.ended.code == events.BUSY:
        return Outcome("busy", "another process trains it")
    with job.run.lock() as claimed:
        if not claimed:
            return Outcome("busy", "another process took it over")
        try:
            record, epochs = job.run.record(), job.run.epochs()
        except BadRecord as error:
            return Outcome("failed", str(error), Failure.ERROR)
        outcome, changes = judge(attempt, record)
        if attempt.ended.unrestored:
            changes["unrestored"] = list(attempt.ended.unrestored)
        if changes:
            try:
                record = _write(job, record, epochs, changes)
            except OSError as error:
                if kind_of(error) != Failure.DISK_FULL:
                    raise
                outcome = Outcome("interrupted", f"{job.run.path}: {error.strerror}", Failure.DISK_FULL)
    joules = record.get("metrics", {}).get("joules")
    return Outcome(outcome.status, outcome.reason, outcome.kind, outcome.again, joules)


def _write(job: Job, record: dict[str, Any], epochs: list[dict[str, Any]], changes: dict[str, Any]) -> dict[str, Any]:
    """Write a record with changes, its attempts accounted for; returns it."""
    if not record:
        names = {"identity": job.settings.identity, "configuration": job.settings.configuration}
        record = {"schema": SCHEMA, **names, "settings": job.settings.resolved(), "attempts": []}
    record = record | changes | {"attempts": account_for_attempts(record["attempts"], epochs)}
    record |= summary(record, epochs)
    job.run.write_record(record)
    return record


def judge(attempt: Attempt, record: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """The outcome of an attempt, and changes of the record that belong to it.

    Args:
        attempt: is over.
        record: of the run; empty where there is none.
    """
    run, ended, status = attempt.job.run, attempt.ended, record.get("status", "new")
    if status == "finished":
        return Outcome("finished"), {}
    began = attempt.follower.began(record)
    why = record.get("error", {}) if began else {}
    log = last_lines(run)
    if not attempt.overdue:
        if began and status == "interrupted" and why:
            return Outcome("interrupted", f"{run.path}: {why['message']}", Failure(why["kind"])), {}
        by_signal = ended.code is None or ended.code < 0 or ended.code == ExitCode.INTERRUPTED
        if (began and status == "interrupted") or (attempt.stopping and by_signal) or ended.lost:
            return Outcome("interrupted", again=ended.lost), {}
        if began and status == "failed":
            outcome = Outcome("failed", f"{why['type']}: {why['message']}", Failure(why["kind"]))
            return outcome, {"error": why | {"log": log}}
    kind, name, reason = _cause(attempt)
    error = {"kind": kind, "type": name, "message": reason, "log": log}
    if kind == Failure.ERROR:
        reason = f"{reason}: {log.splitlines()[-1] if log else 'no output'}"
    return Outcome("failed", reason, kind), {"status": "failed", "error": error}


def _cause(attempt: Attempt) -> tuple[Failure, str, str]:
    """Kind, name and reason of a failure that the run could not record itself."""
    ended, overdue = attempt.ended, attempt.overdue
    if overdue:
        return overdue.kind, "Ended", overdue.reason
    if ended.out_of_memory:
        return Failure.OUT_OF_MEMORY, "Killed", "killed by the kernel for want of memory"
    if ended.code is None:
        return Failure.CRASH, "Killed", "ended without a word"
    if ended.code < 0:
        return Failure.CRASH, "Killed", f"killed by {signal.Signals(-ended.code).name}"
    return Failure.ERROR, "Crashed", f"ended with exit code {ended.code}"


def last_lines(run: RunDirectory, count: int = 20) -> str:
    """The end of what the run printed."""
    try:
        return "\n".join(run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    except OSError:
        return ""
