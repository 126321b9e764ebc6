"""The interface between the queue and the place where runs are carried out, such as `greenseg.launch.local`.

The queue decides which run starts, and when. An executor starts it, reports its end, and stops it on request. The queue
reads everything else from the directory of the run (`greenseg.launch.follow`, `greenseg.launch.judge`). So an executor
without pipes, for instance on another host, needs to report only ends.
"""

import contextlib
import json
import socket
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, Self

from greenseg import batch_job
from greenseg.data.content import Content
from greenseg.launch.slots import Slot, Slots
from greenseg.runs.directory import RunDirectory
from greenseg.runs.owner import Owner
from greenseg.runs.record import BadRecord
from greenseg.runs.standing import PlannedRun
from greenseg.settings import Settings, parent_of
from greenseg.training import events


@dataclass(eq=False)
class Job:
    """A run to carry out.

    Attributes:
        settings: settings of the run.
        run: its directory; made if missing.
        start_over: discard the earlier attempts of the run.
        context: context for its record: position in the order, idle watts, pauses.
        content: content of its data; None if unknown.
        tries: number of its starts here.
        until: number of epochs after which it pauses; None to finish it.
        parent: the run whose network it compresses, which has to finish first; None if it needs none.
        failed: it had failed before it was planned, and is tried again.
    """

    settings: Settings
    run: RunDirectory
    start_over: bool = False
    context: dict[str, Any] = field(default_factory=dict)
    content: Content | None = None
    tries: int = 0
    until: int | None = None
    parent: "Job | None" = None
    failed: bool = False
    watched: Owner | None = None

    @property
    def owner(self) -> Owner:
        """The watch on the owner of the run."""
        if self.watched is None or self.watched.run != self.run.path:  # another sweep may have made another directory
            self.watched = Owner(self.run.path, dead=_before_requeue(self.run))
        return self.watched

    def environment(self, **context: Any) -> dict[str, str]:
        """Environment variables for the program of the run.

        Args:
            context: additions of the executor to the context.
        """
        variables = {events.CONTEXT: json.dumps(self.context | context)}
        variables |= {events.START_OVER: "1"} if self.start_over else {}
        variables |= {events.OWNER: self.watched.knowledge} if self.watched else {}
        variables |= {} if self.failed or self.tries else {events.UNLESS_FAILED: "1"}
        return variables | ({} if self.until is None else {events.UNTIL: str(self.until)})


def _before_requeue(run: RunDirectory) -> tuple[str, int] | None:
    """The process that trained a run on another host in an earlier start of this job: its scheduler has ended it."""
    if not (batch_job.is_worker() and batch_job.restarts()):
        return None
    with contextlib.suppress(BadRecord):
        record = run.record()
        attempt = record.attempts[-1] if record and record.attempts else None
        if attempt and attempt.host and attempt.pid and attempt.job == batch_job.job_id():
            return None if attempt.host == socket.gethostname() else (attempt.host, attempt.pid)
    return None


def jobs_of(runs: Sequence[PlannedRun]) -> list[Job]:
    """The jobs of planned runs, in their order; a run and its parent are linked if both are among them."""
    jobs = [
        Job(run.settings, run.directory, run.status == "damaged", content=run.content, failed=run.status == "failed")
        for run in runs
    ]
    if any(job.settings.prune or job.settings.converts for job in jobs):
        by_identity = {job.settings.identity: job for job in jobs}
        for job in jobs:
            if parent := parent_of(job.settings):
                job.parent = by_identity.get(parent.identity)
    return jobs


class Force(Enum):
    """The way in which an executor stops a run."""

    ASK = auto()
    """Ask it to stop after critical work, so that it can continue later."""
    WAKE = auto()
    """Ask it to stop, and wake it if it is suspended. For overdue runs."""
    KILL = auto()
    """End it at once."""


Handle = Hashable
"""An attempt at a run that an executor has started."""


@dataclass(frozen=True)
class Said:
    """An event from a run; see `greenseg.training.events`. Some executors have no events."""

    handle: Handle
    event: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """The end of an attempt at a run; none of its processes is left.

    Attributes:
        handle: handle of the attempt.
        code: exit code of its program; below 0, the signal that ended it; None if unknown.
        lost: its environment ended it through no fault of its own, so it is tried again.
        out_of_memory: the kernel killed it because memory ran out.
        lost_rank: one of its processes was killed, so the others were asked to stop.
        unrestored: a message for each GPU limit of the run that was not restored.
    """

    handle: Handle
    code: int | None = None
    lost: bool = False
    out_of_memory: bool = False
    lost_rank: bool = False
    unrestored: Sequence[str] = ()


class NotStarted(Exception):
    """The run did not start; try again."""


class Executor(Protocol):
    """Starts, watches and stops runs while its context lasts; its exit kills runs that are left."""

    @property
    def slots(self) -> Slots:
        """Slots for runs. The queue takes one per run and gives it back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def problems(self, runs: Sequence[Settings]) -> list[str]:
        """Reasons why these runs cannot run here now, besides constraints between settings; one message each."""

    def prepare(self, job: Job, wanted: Callable[[], bool]) -> bool:
        """Prepare the start of a run, which may take seconds.

        Args:
            job: the run.
            wanted: called meanwhile; returns whether the run is still wanted.

        Returns:
            False if the run was cancelled during the preparation.
        """

    def start(self, job: Job, slot: Slot) -> Handle:
        """Start a run with an existing directory.

        Raises:
            NotStarted: it did not start; prepare it again.
            OSError: its directory is not writable.
        """

    def wait(self, seconds: float) -> Iterable[Said | Ended]:
        """Wait for at least one event or end, or until the time is up; returns all since the last call."""

    def stop(self, handle: Handle, force: Force) -> None:
        """Stop a run; `wait` reports its end. More calls with more force may follow. The run may already have ended."""
