"""This machine as an executor: every run is a process here, in a slot; its events come over a pipe."""

import contextlib
import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from greenseg.errors import UserError
from greenseg.failures import out_of_memory_kills
from greenseg.launch.executor import Ended, Force, Handle, Job, Said
from greenseg.launch.slots import Slot, Slots
from greenseg.launch.workers import Process, Workers
from greenseg.machine import claims, gpus, preflight
from greenseg.settings import Settings

_SIGNALS = {
    Force.ASK: (signal.SIGINT,),
    Force.WAKE: (signal.SIGTERM, signal.SIGCONT),
    Force.KILL: (signal.SIGKILL,),
}


@dataclass(eq=False)
class _Attempt:
    """The process of a run.

    Attributes:
        pipe: what it says.
        kills_before: processes that the kernel had killed for want of memory when it started.
        pending: the beginning of an event whose end is not here yet.
    """

    process: Process
    pipe: int
    kills_before: int
    pending: bytes = b""


class Local:
    """Runs on this machine, each a process of its own, side by side as far as there are slots.

    Args:
        slots: where runs may run.
        warm: fork runs from a process that has imported everything, instead of starting a new program for each.
    """

    def __init__(self, slots: Slots, warm: bool = False) -> None:
        self.slots = slots
        self._warm = warm
        self._attempts: list[_Attempt] = []

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        self._workers = Workers(self._warm, self._selector)
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.ExitStack() as last:
            last.callback(_put_limits_back)
            last.callback(self._selector.close)
            for attempt in self._attempts:
                last.callback(os.close, attempt.pipe)
            self._workers.__exit__(*error)

    def problems(self, runs: Sequence[Settings]) -> list[str]:
        """Why these runs cannot have the GPUs: other runs hold them, or limits would be shared."""
        runs = [run for run in runs if run.accelerator in ("auto", "gpu")]
        if not runs:
            return []
        # Without one in its slot, a run takes the first ones that it sees.
        names = self.slots.gpus or gpus.choose()[: max(run.devices for run in runs)]
        try:
            preflight.check_gpus(runs, names, self.slots.each)
        except UserError as error:
            return error.problems
        return []

    def prepare(self, job: Job, wanted: Callable[[], bool]) -> bool:
        """Have the process ready that the run is forked from."""
        return _is_alone(job) or self._workers.prepare(wanted)

    def start(self, job: Job, slot: Slot) -> _Attempt:
        """Start the process of a run."""
        alone = _is_alone(job)
        context = {"imports": self._workers.imports} if self._workers.imports and not alone else {}
        environment = slot.environment | job.environment(**context)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        try:
            with job.run.log.open("ab") as log:
                process = self._workers.start(job.run.path, environment, writing, log.fileno(), alone)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        attempt = _Attempt(process, reading, out_of_memory_kills())
        self._attempts.append(attempt)
        self._selector.register(reading, selectors.EVENT_READ, attempt)
        return attempt

    def wait(self, seconds: float) -> Iterable[Said | Ended]:
        """Wait for events and ends."""
        happened = list[Said | Ended]()
        for key, _ in self._selector.select(seconds):
            if key.data and not _listen(key.data, happened):
                self._selector.unregister(key.fileobj)
        self._workers.update()
        for attempt in [attempt for attempt in self._attempts if attempt.process.code is not None]:
            while _listen(attempt, happened):
                pass  # what it said last
            happened.append(self._end(attempt))
        return happened

    def stop(self, handle: Handle, force: Force) -> None:
        """Send the run, and all processes of it, the signals for that."""
        assert isinstance(handle, _Attempt)
        for number in _SIGNALS[force]:
            handle.process.signal(number)

    def _end(self, attempt: _Attempt) -> Ended:
        with contextlib.suppress(KeyError):
            self._selector.unregister(attempt.pipe)
        os.close(attempt.pipe)
        self._attempts.remove(attempt)
        process = attempt.process
        killed = process.code == -signal.SIGKILL and out_of_memory_kills() > attempt.kills_before
        unrestored = _put_limits_back(process.pid)  # of one that was killed, before the next one starts
        return Ended(attempt, process.code, process.orphaned, killed, unrestored)


def _is_alone(job: Job) -> bool:
    """Whether the run must be a program of its own: Lightning executes it again, for the other ranks."""
    return job.settings.processes > 1


def _listen(attempt: _Attempt, happened: list[Said | Ended]) -> bool:
    """Add what a run has said; returns False where there is no more, now or ever."""
    try:
        chunk = os.read(attempt.pipe, 65536)
    except BlockingIOError:
        return False
    *lines, attempt.pending = (attempt.pending + chunk).split(b"\n")
    for line in lines:
        with contextlib.suppress(ValueError):  # it was cut short
            happened.append(Said(attempt, json.loads(line)))
    return bool(chunk)


def _put_limits_back(pid: int | None = None) -> list[str]:
    """Put back what dead runs, or that of one process, set of GPUs; says, and returns, what could not be put back."""
    unrestored = claims.restore(pid)
    for message in unrestored:
        print(message, file=sys.stderr, flush=True)
    return unrestored
