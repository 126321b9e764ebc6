"""The local launcher: runs on this machine, each a process of its own, side by side as far as there are slots."""

import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from greenseg.data.content import Content
from greenseg.errors import ExitCode
from greenseg.failures import TRANSIENT, Failure, kind_of, out_of_memory_kills
from greenseg.launch.slots import Slot, Slots
from greenseg.launch.workers import Process, ServerDied, Workers
from greenseg.machine import claims
from greenseg.machine.cool_down import CoolDown, Pause
from greenseg.runs.attempt import completed
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import make_directory
from greenseg.runs.record import BadRecord, Error, Record, Status
from greenseg.settings import Settings
from greenseg.training import events

NO_PROGRESS_SECONDS = 1800.0
"""A run that says nothing for so long is ended: no step, no epoch. Compilation and a slow first epoch fit well in."""

_GRACE_SECONDS = 30.0  # between asking a run to end and ending it
_TICK_SECONDS = 0.2


@dataclass(eq=False)
class Job:
    """A run to do.

    Attributes:
        settings: of the run.
        run: its directory; made if it is not there.
        start_over: discard the earlier attempts of the run.
        context: what surrounds it and belongs into its record: its place in the order, idle watts, pauses.
        content: what it is trained on; None where that is not known.
        tries: how often it was begun here.
    """

    settings: Settings
    run: RunDirectory
    start_over: bool = False
    context: dict[str, Any] = field(default_factory=dict)
    content: Content | None = None
    tries: int = 0


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a run ended.

    Attributes:
        status: of the run, or `busy` where another process trains it.
        reason: where it did not finish, in a line.
        kind: of its failure.
        again: it is tried once more.
    """

    status: Status | str
    reason: str = ""
    kind: Failure | None = None
    again: bool = False


@dataclass(frozen=True)
class Limits:
    """When to try again, and when to give up; `retries`, `timeout` and `max_energy` as in `Sweep`.

    Attributes:
        no_progress: seconds without an event after which a run is ended.
    """

    retries: int = 0
    timeout: float | None = None
    max_energy: float | None = None
    no_progress: float = NO_PROGRESS_SECONDS


class Listener(Protocol):
    """Follows runs."""

    def start(self, job: Job) -> None:
        """A run begins."""

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A run sent an event; see `greenseg.training.events`."""

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""


class Stop:
    """Asks all running runs to stop: once gently, twice at once.

    Set by Ctrl-C and SIGTERM while it is installed, and by SIGHUP (a terminal that was closed, a connection that was
    lost), which is always gentle, since it may come more than once; unless it is ignored, as under `nohup`.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._processes: set[Process] = set()

    @contextlib.contextmanager
    def installed(self) -> Iterator["Stop"]:
        """Take over the signals while the context lasts."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._request) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def watch(self, process: Process) -> None:
        """A process to stop."""
        self._processes.add(process)
        if self.requests:
            process.signal(self._signal)

    def forget(self, process: Process) -> None:
        """A process has ended."""
        self._processes.discard(process)

    @property
    def _signal(self) -> int:
        return signal.SIGINT if self.requests == 1 else signal.SIGKILL

    def _request(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP and self.requests:
            return
        self.requests += 1
        for process in list(self._processes):
            process.signal(self._signal)


class _Unwanted(Exception):
    """Asked to stop before the run had begun."""


@dataclass(eq=False)
class _Running:
    job: Job
    slot: Slot
    process: Process
    pipe: int
    started: float
    heard: float
    kills_before: int
    pending: bytes = b""
    asked: tuple[Failure, float] | None = None  # why it was asked to end, and when


class Launcher:
    """Carries runs out.

    Args:
        slots: where runs may run.
        stop: who may ask them to stop.
        listener: follows them.
        limits: when to try again, and when to give up.
        cool_down: the pause before every run but the first.
        warm: fork runs from a process that has imported everything, instead of starting a new program for each.
        spent: joules by directory, of runs that count towards `max_energy` and have been paid already.

    Attributes:
        outcomes: how the last attempt at each run ended.
        halted: why no new run was started, where that was so.
    """

    def __init__(
        self,
        slots: Slots,
        stop: Stop,
        listener: Listener,
        limits: Limits | None = None,
        cool_down: CoolDown | None = None,
        warm: bool = False,
        spent: dict[str, float] | None = None,
    ) -> None:
        self._slots, self._stop, self._listener = slots, stop, listener
        self._limits, self._cool_down = limits or Limits(), cool_down
        self._warm = warm
        self._spent = dict(spent or {})
        self._waiting: deque[Job] = deque()
        self._pausing: list[tuple[Job, Slot, Pause]] = []
        self._running: list[_Running] = []
        self._begun = 0
        self.outcomes: dict[Job, Outcome] = {}
        self.halted = ""

    def carry_out(self, jobs: Sequence[Job]) -> None:
        """Run all jobs that may be run, and wait for them.

        Runs that another process trains are left to it. They are looked at again when all else is done: what it left
        unfinished by then is taken over.

        Raises:
            OSError: a run's directory cannot be written.
        """
        self._waiting.extend(jobs)
        try:
            with selectors.DefaultSelector() as self._selector, Workers(self._warm, self._selector) as self._workers:
                self._work()
                busy = [job for job in jobs if self.outcomes.get(job, Outcome("")).status == "busy"]
                self._waiting.extend(job for job in busy if not job.run.in_use())
                self._work()
        finally:
            _put_limits_back()  # an error ends running runs at once

    def _work(self) -> None:
        while self._waiting or self._pausing or self._running:
            spent, most = sum(self._spent.values()), self._limits.max_energy
            if most and spent >= most and not self.halted:
                self.halted = f"its runs have used {spent:.4g} J, max_energy is {most:g} J; raise it to go on"
            if self._stop.requests or self.halted:
                self._waiting.clear()
                for _, slot, _ in self._pausing:
                    self._slots.give_back(slot)
                self._pausing.clear()
            self._fill()
            if self._running or self._pausing:
                self._wait()

    # ── starting

    def _fill(self) -> None:
        """Start, or pause before, every waiting run for which there is a slot."""
        for job in list(self._waiting):
            if self._slots.full or self._stop.requests:
                break
            slot = self._slots.take(job.settings)
            if not slot:
                continue
            self._waiting.remove(job)
            if not self._is_to_do(job):
                self._slots.give_back(slot)
                continue
            if self._cool_down and self._begun:
                self._pausing.append((job, slot, self._cool_down.begin(slot.gpus)))
            else:
                self._start(job, slot)
            self._begun += 1
        for job, slot, pause in [entry for entry in self._pausing if entry[2].over()]:
            self._pausing.remove((job, slot, pause))
            job.context["cool_down"] = pause.to_json()
            self._start(job, slot)

    def _is_to_do(self, job: Job) -> bool:
        """Whether nobody else does, or did, this run since it was planned."""
        try:
            status = job.run.status()
        except BadRecord:
            return True
        if job.start_over or status not in ("finished", "running"):
            return True
        finished = Outcome("finished", "by another process")
        self._conclude(job, finished if status == "finished" else Outcome("busy", "another process trains it"))
        return False

    def _start(self, job: Job, slot: Slot) -> None:
        self._listener.start(job)
        try:
            process, reading = self._begin(job, slot)
        except (ServerDied, OSError, _Unwanted) as error:
            self._slots.give_back(slot)
            if isinstance(error, ServerDied):
                self._waiting.appendleft(job)
            elif isinstance(error, _Unwanted):
                self._conclude(job, Outcome("interrupted"))
            elif kind_of(error) == Failure.DISK_FULL:
                self._conclude(job, Outcome("interrupted", f"{error.filename}: {error.strerror}", Failure.DISK_FULL))
            else:
                raise
            return
        job.tries += 1
        now = time.monotonic()
        running = _Running(job, slot, process, reading, now, now, out_of_memory_kills())
        self._running.append(running)
        self._stop.watch(process)
        self._selector.register(reading, selectors.EVENT_READ, running)

    def _begin(self, job: Job, slot: Slot) -> tuple[Process, int]:
        """Make the run's directory and start its process; returns that, and the pipe of its events."""
        alone = job.settings.processes > 1  # Lightning then executes the program again, for the other ranks
        if not alone and not self._workers.prepare(lambda: not self._stop.requests):
            raise _Unwanted
        job.run = make_directory(job.run, job.settings, job.content)
        context = job.context | ({"imports": self._workers.imports} if self._workers.imports and not alone else {})
        environment = slot.environment | {events.CONTEXT: json.dumps(context)}
        if job.start_over:
            environment[events.START_OVER] = "1"
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        try:
            with job.run.log.open("ab") as log:
                return self._workers.start(job.run.path, environment, writing, log.fileno(), alone), reading
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)

    # ── waiting

    def _wait(self) -> None:
        """Wait for something to happen, pass events on, and conclude the runs that have ended."""
        for key, _ in self._selector.select(_TICK_SECONDS):
            if key.data and not self._relay(key.data):
                self._selector.unregister(key.fileobj)
        self._workers.update()
        for running in list(self._running):
            if running.process.code is None:
                self._enforce(running)
                continue
            while self._relay(running):
                pass  # what it said last
            with contextlib.suppress(KeyError):
                self._selector.unregister(running.pipe)
            os.close(running.pipe)
            self._running.remove(running)
            self._stop.forget(running.process)
            unrestored = _put_limits_back(running.process.pid)  # of one that was killed, before the next one starts
            self._slots.give_back(running.slot)
            self._conclude(running.job, self._outcome(running, unrestored))

    def _relay(self, running: _Running) -> bool:
        """Pass on what a run has said; returns False where there is no more, now or ever."""
        try:
            chunk = os.read(running.pipe, 65536)
        except BlockingIOError:
            return False
        *lines, running.pending = (running.pending + chunk).split(b"\n")
        for line in lines:
            running.heard = time.monotonic()
            try:
                event = json.loads(line)
            except ValueError:  # it was cut short
                continue
            if "joules" in event:
                self._spent[str(running.job.run.path)] = event["joules"]
            self._listener.event(running.job, event)
        return bool(chunk)

    def _enforce(self, running: _Running) -> None:
        """Ask a run to end that takes too long or says nothing, and end it if it does not."""
        now = time.monotonic()
        if running.asked:
            if now - running.asked[1] > _GRACE_SECONDS:
                running.process.signal(signal.SIGKILL)
        elif self._limits.timeout and now - running.started > self._limits.timeout:
            running.asked = (Failure.TIMEOUT, now)
        elif now - running.heard > self._limits.no_progress:
            running.asked = (Failure.NO_PROGRESS, now)
        if running.asked and running.asked[1] == now:
            running.process.signal(signal.SIGTERM)
            running.process.signal(signal.SIGCONT)

    # ── ending

    def _conclude(self, job: Job, outcome: Outcome) -> None:
        job.start_over = job.start_over and outcome.status == "busy"
        job.tries -= outcome.again  # that it was begun in vain was not its own doing
        retry = outcome.kind in TRANSIENT and job.tries <= self._limits.retries
        if (retry or outcome.again) and not self._stop.requests and not self.halted:
            outcome = Outcome(outcome.status, outcome.reason, outcome.kind, again=True)
            self._waiting.append(job)
        if outcome.kind == Failure.DISK_FULL and not self.halted:
            self.halted = f"{outcome.reason}; the same command goes on once there is room"
        self.outcomes[job] = outcome
        self._listener.end(job, outcome)

    def _outcome(self, running: _Running, unrestored: list[str]) -> Outcome:
        """What became of a run whose process has ended; writes into its record what it could not write itself."""
        run = running.job.run
        if running.process.code == events.BUSY:
            return Outcome("busy", "another process trains it")
        with run.lock() as claimed:
            if not claimed:
                return Outcome("busy", "another process took it over")
            try:
                record, epochs = run.record(), run.epochs()
            except BadRecord as damage:
                return Outcome("failed", str(damage), Failure.ERROR)
            outcome, error = self._judge(running, record)
            if error or unrestored:
                record = completed(record, epochs, running.job.settings, error, unrestored)
                try:
                    run.write_record(record)
                except OSError as full:
                    if kind_of(full) != Failure.DISK_FULL:
                        raise
                    outcome = Outcome("interrupted", f"{run.path}: {full.strerror}", Failure.DISK_FULL)
            if record and record.metrics.joules:
                self._spent[str(running.job.run.path)] = record.metrics.joules
        return outcome

    def _judge(self, running: _Running, record: Record | None) -> tuple[Outcome, Error | None]:
        """The outcome by exit code and record, and the error that belongs into the record."""
        run, code = running.job.run, running.process.code
        assert code is not None
        if record and record.status == "finished":
            return Outcome("finished"), None
        # What an earlier attempt left behind says nothing about this one.
        ours = record if record and record.attempts and record.attempts[-1].pid == running.process.pid else None
        status, why = (ours.status, ours.error) if ours else ("", None)
        log = last_lines(run)
        if not running.asked:
            if why and status == "interrupted":
                return Outcome("interrupted", f"{run.path}: {why.message}", Failure(why.kind or Failure.ERROR)), None
            stopped = self._stop.requests and (code < 0 or code == ExitCode.INTERRUPTED)
            if status == "interrupted" or stopped or running.process.orphaned:
                return Outcome("interrupted", again=running.process.orphaned), None
            if why and status == "failed":
                outcome = Outcome("failed", f"{why.type}: {why.message}", Failure(why.kind or Failure.ERROR))
                return outcome, why.model_copy(update={"log": log})
        kind, name, reason = self._cause(running, code)
        error = Error(kind=kind, type=name, message=reason, log=log)
        if kind == Failure.ERROR:
            reason = f"{reason}: {log.splitlines()[-1] if log else 'no output'}"
        return Outcome("failed", reason, kind), error

    def _cause(self, running: _Running, code: int) -> tuple[Failure, str, str]:
        """Kind, name and reason of a failure that the run could not record itself."""
        if running.asked:
            kind = running.asked[0]
            seconds = self._limits.timeout if kind == Failure.TIMEOUT else self._limits.no_progress
            text = "took longer than" if kind == Failure.TIMEOUT else "said nothing for"
            return kind, "Ended", f"{text} {seconds:g} s"
        if code == -signal.SIGKILL and out_of_memory_kills() > running.kills_before:
            return Failure.OUT_OF_MEMORY, "Killed", "killed by the kernel for want of memory"
        if code < 0:
            return Failure.CRASH, "Killed", f"killed by {signal.Signals(-code).name}"
        return Failure.ERROR, "Crashed", f"ended with exit code {code}"


def _put_limits_back(pid: int | None = None) -> list[str]:
    """Put back what dead runs, or that of one process, set of GPUs; says, and returns, what could not be put back."""
    unrestored = claims.restore(pid)
    for message in unrestored:
        print(message, file=sys.stderr, flush=True)
    return unrestored


def last_lines(run: RunDirectory, count: int = 20) -> str:
    """The end of what the run printed."""
    try:
        return "\n".join(run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    except OSError:
        return ""
