"""Measures runs one after the other, each in a process of its own. Imports no torch."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from select import select
from typing import Literal

from greenseg.energy.estimate import cpu_name
from greenseg.errors import ExitCode
from greenseg.machine.cores import usable_cores
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Measured, Record
from greenseg.training import events

ABOUT_SECONDS = 60.0
"""Rough duration of a measurement: two windows, two warm-ups, the trials, the imports."""

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """The end of a measurement.

    Attributes:
        run: directory of the run.
        status: `measured`; `wrong`: the run or its data cannot be measured; `failed`: by an error or a crash; `busy`:
            another process of greenseg works here; `interrupted`: by the user.
        reason: why there is no measurement, in words; empty if there is one.
    """

    run: RunDirectory
    status: Literal["measured", "wrong", "failed", "busy", "interrupted"]
    reason: str = ""


_STATUSES: dict[int, Literal["measured", "wrong", "failed", "busy", "interrupted"]] = {
    ExitCode.OK: "measured",
    ExitCode.USAGE: "wrong",
    ExitCode.INCOMPLETE: "busy",
}


def measured_here(record: Record | None) -> bool:
    """Whether a run has a measurement from a machine with this CPU and this number of cores."""
    found = record.measured if record else None
    return found is not None and (found.hardware.cpu, found.hardware.cores) == (cpu_name(), usable_cores())


def left(runs: Iterable[RunDirectory]) -> list[RunDirectory]:
    """The finished runs without a measurement on this machine."""
    found = []
    for run in runs:
        with contextlib.suppress(BadRecord):  # a report names it
            record = run.record()
            if record and record.status == "finished" and not measured_here(record):
                found.append(run)
    return found


def about(runs: Iterable[RunDirectory]) -> float:
    """Seconds that a measurement takes, about: the mean of those that these runs already have, else a rough value."""
    took = [found.seconds for run in runs if (found := measured(run)) and found.seconds]
    return sum(took) / len(took) if took else ABOUT_SECONDS


def measured(run: RunDirectory) -> Measured | None:
    """The measurement of a run, if it has one."""
    try:
        record = run.record()
    except BadRecord:
        return None
    return record.measured if record else None


def measure_all(
    runs: Iterable[RunDirectory],
    seconds: float,
    accelerator: str,
    step: Callable[[RunDirectory, str], None],
    stopped: Callable[[], bool],
) -> Iterator[Outcome]:
    """Measure runs one after the other; yields each outcome as it ends. Ends after a request to stop.

    Args:
        runs: directories of finished runs.
        seconds: length of a window.
        accelerator: auto, cpu or gpu.
        step: called with the present step of a run, in words.
        stopped: whether the user wants to stop.
    """
    for run in runs:
        if stopped():
            return
        yield _measure(run, seconds, accelerator, lambda text, run=run: step(run, text), stopped)  # type: ignore[misc]


def _measure(
    run: RunDirectory, seconds: float, accelerator: str, step: Callable[[str], None], stopped: Callable[[], bool]
) -> Outcome:
    reading, writing = os.pipe()
    problems: list[str] = []
    with contextlib.ExitStack() as last, tempfile.TemporaryFile() as said:
        last.callback(os.close, reading)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "greenseg.measurement", str(run.path), f"{seconds:g}", accelerator],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | {events.VARIABLE: str(writing), events.PARENT: str(os.getpid())},
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )
        finally:
            os.close(writing)
        try:
            for event in _events(reading, process, stopped):
                if event["event"] == "problem":
                    problems.append(event["text"])
                else:
                    step(event["text"])
        finally:
            _end(process)
        if stopped() and process.returncode:
            return Outcome(run, "interrupted", "interrupted")
        status = _STATUSES.get(process.returncode, "failed")
        if status == "failed" and not problems:
            said.seek(0)
            ending = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
            problems.append(f"{run.path}: its process ended with {how}" + (f": {ending}" if ending else ""))
        return Outcome(run, status, "; ".join(problems))


def _events(pipe: int, process: "subprocess.Popen[bytes]", stopped: Callable[[], bool]) -> Iterator[dict[str, str]]:
    """The events of a process until its end, which a request of the user brings about."""
    pending, asked, ended = b"", False, False
    while not ended:
        ended = process.poll() is not None  # then the pipe has its last events
        if stopped() and not asked:
            process.terminate()
            asked = True
        if select([pipe], [], [], 0 if ended else _TICK_SECONDS)[0]:
            chunk = os.read(pipe, 65536)
            *lines, pending = (pending + chunk).split(b"\n")
            yield from map(json.loads, lines)
            if not chunk:
                process.wait()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of a process and its helpers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
