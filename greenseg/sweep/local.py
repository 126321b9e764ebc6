"""The local launcher: runs on this machine, one after the other, each a process of its own."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from greenseg.config import Settings
from greenseg.errors import ExitCode
from greenseg.run_directory import SCHEMA, BadRecord, RunDirectory, Status
from greenseg.run_summary import account_for_attempts, summary
from greenseg.training import events

Listener = Callable[[dict[str, Any]], None]

# glibc returns large blocks to the kernel at once and faults them in again, page by page, at every step of a network
# on a CPU. Keeping them took a step at 256², batch 16 from 2.8 s to 1.5 s.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA then counts GPUs as NVML does, which measures them
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its status, or `busy` where another process trains it, and why where it did not finish."""

    status: Status | str
    reason: str = ""


class Stop:
    """Asks the running run to stop: once gently, twice at once. Set by Ctrl-C and SIGTERM while it is installed."""

    def __init__(self) -> None:
        self.requests = 0
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator["Stop"]:
        """Take over SIGINT and SIGTERM while the context lasts."""
        before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def watch(self, process: subprocess.Popen[bytes] | None) -> None:
        """The process to stop, which leads a process group of its own."""
        self._process = process
        if process and self.requests:
            self._pass_on()

    def _request(self, number: int, frame: Any) -> None:
        self.requests += 1
        self._pass_on()

    def _pass_on(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGINT if self.requests == 1 else signal.SIGKILL)


def execute(
    run: RunDirectory,
    settings: Settings,
    stop: Stop,
    listen: Listener,
    context: dict[str, Any] | None = None,
    anew: bool = False,
) -> Outcome:
    """Train one run in a process of its own, and wait for it.

    Args:
        run: its directory; made if it is not there.
        settings: of the run.
        stop: who may ask it to stop.
        listen: is called with every event that the run sends.
        context: what surrounds the run and belongs into its record: idle watts, its place in the order, pauses.
        anew: forget what the run did before.

    Raises:
        OSError: the run's directory cannot be written.
    """
    run.create(settings)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    environment = _ENVIRONMENT | os.environ | {events.VARIABLE: str(writing), "PYTHONUNBUFFERED": "1"}
    environment[events.CONTEXT] = json.dumps(context or {})
    if anew:
        environment[events.ANEW] = "1"
    with run.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "greenseg.training", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(writing,),
            start_new_session=True,  # Ctrl-C reaches it through us, once; and its ranks and workers can be found
        )
    os.close(writing)
    stop.watch(process)
    try:
        _relay(reading, process, listen)
        code = process.wait()
    finally:
        os.close(reading)
        stop.watch(None)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # ranks or workers that outlived their run
    return _outcome(run, settings, process.pid, code, stop)


def _relay(reading: int, process: subprocess.Popen[bytes], listen: Listener) -> None:
    """Pass events on until the pipe closes or the process ends (a stray child may keep the pipe open)."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            if selector.select(timeout=0 if ended else 0.5):
                chunk = os.read(reading, 65536)
                if not chunk:
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    with contextlib.suppress(ValueError):  # an event that was cut short
                        listen(json.loads(line))
            elif ended:
                return


def _outcome(run: RunDirectory, settings: Settings, pid: int, code: int, stop: Stop) -> Outcome:
    if code == events.BUSY:
        return Outcome("busy", "another process trains it")
    try:
        record = run.record()
    except BadRecord as error:
        return Outcome("failed", str(error))
    status = record.get("status", "new")
    if status == "finished":
        return Outcome("finished")
    # What an earlier attempt left behind says nothing about this one.
    ours = bool(record.get("attempts")) and record["attempts"][-1].get("pid") == pid
    if (ours and status == "interrupted") or (stop.requests and (code < 0 or code == ExitCode.INTERRUPTED)):
        return Outcome("interrupted")
    if ours and status == "failed":
        why = record.get("error", {})
        return Outcome("failed", f"{why.get('type')}: {why.get('message')}")
    # It could not write its record itself: killed, out of memory, a crash in native code.
    reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    tail = last_lines(run)
    why = {"type": "Killed" if code < 0 else "Crashed", "message": f"{reason}; end of run.log:\n{tail}"}
    if not record:
        names = {"identity": settings.identity, "configuration": settings.configuration}
        record = {"schema": SCHEMA, **names, "settings": settings.resolved(), "attempts": []}
    try:
        epochs = run.epochs()
    except BadRecord as error:
        return Outcome("failed", f"{reason}; {error}")
    record |= {"status": "failed", "error": why, "attempts": account_for_attempts(record["attempts"], epochs)}
    run.write_record(record | summary(record, epochs))
    return Outcome("failed", reason if code < 0 else f"{reason}: {tail.splitlines()[-1] if tail else 'no output'}")


def last_lines(run: RunDirectory, count: int = 20) -> str:
    """The end of what the run printed."""
    try:
        return "\n".join(run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    except OSError:
        return ""
