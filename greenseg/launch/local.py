"""The executor for this machine: each run is a process in a slot, and its events come over a pipe."""

import contextlib
import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from greenseg import batch_job
from greenseg.errors import UserError
from greenseg.failures import out_of_memory_kills
from greenseg.launch.executor import Ended, Force, Handle, Job, Said
from greenseg.launch.slots import Slot, Slots
from greenseg.launch.workers import Process, Workers
from greenseg.machine import claims, gpus, preflight
from greenseg.settings import Settings


@dataclass(eq=False)
class _Attempt:
    """The process of a run.

    Attributes:
        pipe: file descriptor that its events come from.
        kills_before: number of processes that the kernel had killed for lack of memory before its start.
        pending: the beginning of an incomplete event.
    """

    process: Process
    pipe: int
    kills_before: int
    pending: bytes = b""


class Local:
    """Runs on this machine. Each is a separate process; as many run in parallel as there are slots.

    Args:
        slots: slots for runs.
        warm: fork runs from a process with all imports, instead of starting a new program per run.
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
        """Reasons why these runs cannot use the GPUs: other runs hold them, or runs would share limits."""
        runs = [run for run in runs if run.accelerator in ("auto", "gpu")]
        if not runs:
            return []
        # If its slot has no GPU, a run takes the first ones that it sees.
        names = self.slots.gpus or gpus.choose()[: max(run.devices for run in runs)]
        try:
            preflight.check_gpus(runs, names, self.slots.each)
        except UserError as error:
            return error.problems
        return []

    def prepare(self, job: Job, wanted: Callable[[], bool]) -> bool:
        """Prepare the process that the run is forked from."""
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
                process = self._workers.start(
                    job.run.path, environment, writing, log.fileno(), alone, job.settings if _is_step(job) else None
                )
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
                pass  # its last events
            happened.append(self._end(attempt))
        return happened

    def stop(self, handle: Handle, force: Force) -> None:
        """Send signals to all processes of the run."""
        assert isinstance(handle, _Attempt)
        handle.process.stop(force)

    def _end(self, attempt: _Attempt) -> Ended:
        with contextlib.suppress(KeyError):
            self._selector.unregister(attempt.pipe)
        os.close(attempt.pipe)
        self._attempts.remove(attempt)
        process = attempt.process
        killed = process.code == -signal.SIGKILL and out_of_memory_kills() > attempt.kills_before
        unrestored = _put_limits_back(process.pid)  # of a killed run, before the next one starts
        return Ended(attempt, process.code, process.orphaned, killed, process.lost_rank, unrestored)


def _is_alone(job: Job) -> bool:
    """Whether the run must be a separate program, because Lightning executes it again for the other ranks."""
    return job.settings.processes > 1


def _is_step(job: Job) -> bool:
    """Whether srun starts the run on all nodes of this job."""
    return 1 < job.settings.nodes == batch_job.nodes()


def _listen(attempt: _Attempt, happened: list[Said | Ended]) -> bool:
    """Add new events of a run; returns False if there are no more for now, or at all."""
    try:
        chunk = os.read(attempt.pipe, 65536)
    except BlockingIOError:
        return False
    *lines, attempt.pending = (attempt.pending + chunk).split(b"\n")
    for line in lines:
        with contextlib.suppress(ValueError):  # a truncated event
            happened.append(Said(attempt, json.loads(line)))
    return bool(chunk)


def _put_limits_back(pid: int | None = None) -> list[str]:
    """Restore the GPU limits of dead runs, or of one process; prints and returns a message for each failure."""
    unrestored = claims.restore(pid)
    for message in unrestored:
        print(message, file=sys.stderr, flush=True)
    return unrestored
