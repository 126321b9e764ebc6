"""The queue of runs and its policy: order, retries, budget, timeouts, pauses. An executor carries the runs out."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from greenseg.failures import TRANSIENT, Failure, kind_of
from greenseg.launch.deadline import Deadline
from greenseg.launch.executor import Ended, Executor, Force, Handle, Job, NotStarted
from greenseg.launch.follow import Follower
from greenseg.launch.judge import Attempt, Outcome, Overdue, conclude, fail_with_parent
from greenseg.launch.slots import Slot
from greenseg.launch.stop import Stop
from greenseg.machine.cool_down import CoolDown, Pause
from greenseg.runs.index import make_directory
from greenseg.runs.record import BadRecord

NO_PROGRESS_SECONDS = 1800.0
"""A run without a step or an epoch for this long is ended. Compilation and a slow first epoch take less."""

_GRACE_SECONDS = 30.0  # between asking a run to end and ending it
_TICK_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # between looks at the directory of a silent run


@dataclass(frozen=True)
class Policy:
    """When to start a run, when to retry it, and when to give up. See `Sweep` for `retries`, `timeout`, `max_energy`.

    Attributes:
        no_progress: seconds without an event after which a run is ended.
        cool_down: the pause before every run but the first.
        deadline: the end of the present job; None without one.
    """

    retries: int = 0
    timeout: float | None = None
    max_energy: float | None = None
    no_progress: float = NO_PROGRESS_SECONDS
    cool_down: CoolDown | None = None
    deadline: Deadline | None = None


class Listener(Protocol):
    """Follows runs."""

    def start(self, job: Job) -> None:
        """A run begins."""

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A run sent an event; see `greenseg.training.events`."""

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""


@dataclass(eq=False)
class _Running:
    job: Job
    slot: Slot
    follower: Follower
    started: float
    heard: float
    looked: float
    overdue: Overdue | None = None
    stops: int = 0  # requests of the user that were passed on


class Queue:
    """Starts runs in their order and follows them to their end.

    Args:
        executor: carries them out.
        stop: requests of the user to stop.
        listener: gets their events.
        policy: of starts, retries and timeouts.
        spent: directory → joules spent before; they count towards `max_energy`.

    Attributes:
        outcomes: run → outcome of its last attempt.
        halted: why no new run was started; empty if all were.
        late: the runs that were not started, since they do not fit into the remaining time of this job.
    """

    def __init__(
        self,
        executor: Executor,
        stop: Stop,
        listener: Listener,
        policy: Policy | None = None,
        spent: dict[str, float] | None = None,
    ) -> None:
        self._executor, self._stop, self._listener = executor, stop, listener
        self._policy = policy or Policy()
        self._spent = dict(spent or {})
        self._source: Iterator[Job | None] = iter(())
        self._asks = False
        self._waiting: deque[Job] = deque()  # from the source, or not started through no fault of their own
        self._again: deque[Job] = deque()
        self._pausing: list[tuple[Job, Slot, Pause]] = []
        self._running: dict[Handle, _Running] = {}
        self._begun = 0
        self.outcomes: dict[Job, Outcome] = {}
        self.halted = ""
        self.late: list[Job] = []

    def carry_out(self, source: Iterable[Job | None]) -> None:
        """Run all jobs and wait for them.

        Runs that another process trains are left to it, and checked again at the end: if they are unfinished and that
        process is gone, they are taken over.

        Args:
            source: is asked for the next job whenever there is room. None means none for now: it is asked again after
                the next run has ended, and counts as exhausted if no run is left.

        Raises:
            OSError: a run's directory cannot be written.
        """
        with self._executor:
            self._work(source)
            busy = [job for job, outcome in self.outcomes.items() if outcome.status == "busy"]
            self._work(self._abandoned(busy))

    def _abandoned(self, jobs: list[Job]) -> list[Job]:
        """Those of some busy runs whose owner is gone."""
        return [job for job in jobs if not job.owner.wait(lambda: self._closed)]

    def _work(self, source: Iterable[Job | None]) -> None:
        self._source, self._asks = iter(source), True
        while True:
            spent, most = sum(self._spent.values()), self._policy.max_energy
            if most and spent >= most and not self.halted:
                self.halted = f"its runs have used {spent:.4g} J, max_energy is {most:g} J; raise it to continue"
            if self._closed:
                self._asks = False
                self._waiting.clear()
                self._again.clear()
                for _, slot, _ in self._pausing:
                    self._executor.slots.give_back(slot)
                self._pausing.clear()
            self._fill()
            if self._running or self._pausing:
                self._wait()
            elif not (self._waiting or self._again or self._asks):
                return

    @property
    def _closed(self) -> bool:
        """Whether no new run starts."""
        return bool(self._stop.requests or self.halted)

    # ── starting

    def _fill(self) -> None:
        """Start, or pause before, every run for which there is a slot."""
        slots, cool_down, deadline = self._executor.slots, self._policy.cool_down, self._policy.deadline
        for jobs, job in self._candidates():
            ready, problem = (False, None) if job.parent in self.late else self._parent_of(job)
            if problem:
                jobs.remove(job)
                self._conclude(job, problem)
                continue
            if job.parent in self.late or (deadline and ready and not deadline.fits(job, first=not self._begun)):
                jobs.remove(job)
                self.late += [job] if self._is_to_do(job) else []
                continue
            slot = slots.take(job.settings) if ready else None
            if not slot:
                continue
            jobs.remove(job)
            if not self._is_to_do(job):
                slots.give_back(slot)
                continue
            if cool_down and self._begun:
                self._pausing.append((job, slot, cool_down.begin(slot.gpus)))
            else:
                self._start(job, slot)
            self._begun += 1
        for job, slot, pause in [entry for entry in self._pausing if entry[2].over()]:
            self._pausing.remove((job, slot, pause))
            job.context["cool_down"] = pause.to_json()
            self._start(job, slot)

    def _candidates(self) -> Iterator[tuple[deque[Job], Job]]:
        """Waiting runs with their deque, while there is room; new runs of the source come before retries."""

        def room() -> bool:
            return not (self._executor.slots.full or self._closed)

        for job in list(self._waiting):
            if room():
                yield self._waiting, job
        while room() and self._asks:
            drawn = next(self._source, None)
            if drawn is None:
                self._asks = False
                break
            self._waiting.append(drawn)
            yield self._waiting, drawn
        for job in list(self._again):
            if room():
                yield self._again, job

    def _parent_of(self, job: Job) -> tuple[bool, Outcome | None]:
        """Whether the parent of a run has finished; if it never will, the outcome of the run."""
        parent = job.parent
        if parent is None:
            return True, None
        outcome = self.outcomes.get(parent)
        if outcome is None and not self._is_ahead(parent):
            try:
                outcome = Outcome(parent.run.status())
            except BadRecord as damage:
                outcome = Outcome("failed", str(damage))
        if outcome is None or outcome.again:
            return False, None
        if outcome.status == "finished":
            return True, None
        if outcome.status == "failed":
            return False, fail_with_parent(job, outcome.reason)
        trained = "trained by another process" if outcome.status in ("busy", "running") else outcome.status
        return False, Outcome("interrupted", f"its parent is {trained}: {parent.run.path}; run the same command again")

    def _is_ahead(self, job: Job) -> bool:
        """Whether a run is still to end here."""
        here = [*self._waiting, *self._again, *(entry[0] for entry in self._pausing)]
        return job in here or any(running.job is job for running in self._running.values())

    def _is_to_do(self, job: Job) -> bool:
        """Whether no other process has started or ended this run since it was planned."""
        try:
            status = job.run.recorded_status()
        except BadRecord:
            return True
        if status == "running" and job.owner.look() is None:
            status = "interrupted"
        failed_since = status == "failed" and not (job.failed or job.tries)
        if job.start_over or not (failed_since or status in ("finished", "running")):
            return True
        busy = Outcome("busy", "another process is training it")
        self._conclude(job, busy if status == "running" else Outcome(status, "by another process"))
        return False

    def _start(self, job: Job, slot: Slot) -> None:
        self._listener.start(job)
        try:
            if not self._executor.prepare(job, lambda: not self._stop.requests):
                self._executor.slots.give_back(slot)
                self._conclude(job, Outcome("interrupted"))
                return
            if not self._is_to_do(job):  # the preparation may have taken long
                self._executor.slots.give_back(slot)
                return
            job.run = make_directory(job.run, job.settings, job.content)
            follower = Follower(job.run)
            handle = self._executor.start(job, slot)
        except NotStarted:
            self._executor.slots.give_back(slot)
            self._waiting.appendleft(job)
        except OSError as error:
            if kind_of(error) != Failure.DISK_FULL:
                raise
            self._executor.slots.give_back(slot)
            self._conclude(job, Outcome("interrupted", f"{error.filename}: {error.strerror}", Failure.DISK_FULL))
        else:
            job.tries += 1
            now = time.monotonic()
            self._running[handle] = _Running(job, slot, follower, now, now, now)

    # ── waiting

    def _wait(self) -> None:
        """Stop runs on request, wait for events, pass them on, and conclude the runs that have ended."""
        for handle, running in self._running.items():
            self._enforce(handle, running)
        ends = list[Ended]()
        for happened in self._executor.wait(_TICK_SECONDS):
            if isinstance(happened, Ended):
                ends.append(happened)
            else:
                self._hear(self._running[happened.handle], happened.event)
        for end in ends:
            running = self._running.pop(end.handle)
            self._look(running)  # its last lines
            self._executor.slots.give_back(running.slot)
            self._asks = True
            attempt = Attempt(running.job, end, running.follower, running.overdue, bool(self._stop.requests))
            outcome = conclude(attempt)
            running.job.tries -= outcome.status == "busy"  # that of another process is no attempt of this one
            self._conclude(running.job, outcome)
        for running in self._running.values():
            if time.monotonic() - running.looked > _LOOK_SECONDS:
                self._look(running)

    def _enforce(self, handle: Handle, running: _Running) -> None:
        """Stop a run on request of the user, or if it is overdue; first gently, then at once."""
        if (force := self._stop.force) and running.stops < self._stop.requests:
            running.stops = self._stop.requests
            self._executor.stop(handle, force)
        now, policy = time.monotonic(), self._policy
        if running.overdue:
            if now - running.overdue.since > _GRACE_SECONDS:
                self._executor.stop(handle, Force.KILL)
            return
        if policy.timeout and now - running.started > policy.timeout:
            running.overdue = Overdue(Failure.TIMEOUT, f"took longer than {policy.timeout:g} s", now)
        elif now - running.heard > policy.no_progress:
            running.overdue = Overdue(Failure.NO_PROGRESS, f"no progress for {policy.no_progress:g} s", now)
        if running.overdue:
            self._executor.stop(handle, Force.WAKE)

    def _hear(self, running: _Running, event: dict[str, Any]) -> None:
        """Pass on an event of a run. The event of an epoch only announces a new line in its directory."""
        running.heard = time.monotonic()
        if event["event"] == "epoch":
            self._look(running)
        else:
            self._pass_on(running.job, event)

    def _look(self, running: _Running) -> None:
        """Pass on the epochs in the directory of a run: unlike a full pipe, it loses none."""
        running.looked = time.monotonic()
        for event in running.follower.epochs():
            running.heard = running.looked
            self._pass_on(running.job, event)

    def _pass_on(self, job: Job, event: dict[str, Any]) -> None:
        if "joules" in event:
            self._spent[str(job.run.path)] = event["joules"]
        self._listener.event(job, event)

    # ── ending

    def _conclude(self, job: Job, outcome: Outcome) -> None:
        job.start_over = job.start_over and outcome.status == "busy"
        job.tries -= outcome.again  # a lost attempt does not count
        if outcome.joules:
            self._spent[str(job.run.path)] = outcome.joules
        if outcome.status == "finished" and self._policy.deadline:
            self._policy.deadline.finished(job)
        retry = outcome.kind in TRANSIENT and job.tries <= self._policy.retries
        outcome = replace(outcome, again=(retry or outcome.again) and not self._closed)
        if outcome.again:
            self._again.append(job)
        if outcome.kind == Failure.DISK_FULL and not self.halted:
            self.halted = f"{outcome.reason}; the same command continues once there is space"
        self.outcomes[job] = outcome
        self._listener.end(job, outcome)
