"""Starting the processes of runs: forked from a warm server where that works, else each a Python program of its own."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from greenseg.energy import EnergyMeter
from greenseg.energy.reading import EnergyJson
from greenseg.launch.executor import NotStarted
from greenseg.launch.server import PACKET
from greenseg.training.events import PARENT, VARIABLE

# glibc returns large blocks to the kernel at once and faults them in again, page by page, at every step of a network
# on a CPU. Keeping them took a step at 256², batch 16 from 2.8 s to 1.5 s.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA then counts GPUs as NVML does, which measures them
    "PYTHONUNBUFFERED": "1",
}

# A run's log is UTF-8, whatever the terminal takes.
_LOG = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}

_LOSSES = 5  # servers that may die before a run has ended, whatever they die of; then there is no further one
_START_SECONDS = 600.0  # for the imports of a server

# A process with more than one thread cannot be forked safely. numpy's BLAS starts some on import; torch has its own.
_SERVER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1"}


class Process:
    """The process of a run; it leads a process group, in which its ranks and workers are."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        """Exit code once it has ended; below 0, the signal that ended it."""
        self.orphaned = False
        """Whether what it was forked from has died, and asked it to end."""

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, if it is there."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class Workers:
    """Starts runs and notices how they end.

    Args:
        warm: import torch and the rest once, and fork runs from that; where this is not to be had (not Linux, the
            server dies again and again), each run is a program of its own all the same.
        selector: is woken, with no data, when the server has something to say.

    Attributes:
        imports: what the imports cost, as JSON of an energy; None where every run pays for its own.
    """

    def __init__(self, warm: bool, selector: selectors.BaseSelector) -> None:
        self.imports: EnergyJson | None = None
        self._warm, self._selector = warm and sys.platform == "linux", selector
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._given: dict[str, str] = {}  # the server's environment
        self._losses = 0
        self._forked: dict[int, Process] = {}
        self._programs: dict[Process, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        """End what still runs, at once."""
        for process in [*self._forked.values(), *self._programs]:
            process.signal(signal.SIGKILL)
        for program in self._programs.values():
            program.wait()
        if self._control:
            self._control.close()
        if self._server:
            self._server.wait()

    # ── the server

    def prepare(self, wanted: Callable[[], bool]) -> bool:
        """Have the server ready, if there is to be one; returns False if it was no longer wanted before it was.

        Args:
            wanted: asked while the server imports.
        """
        self.imports = self.imports if self._control else None
        if not self._warm or self._control:
            return True
        meter = EnergyMeter()
        self._given = _ENVIRONMENT | os.environ | _LOG | _SERVER_ENVIRONMENT
        self._words = os.fdopen(os.memfd_create("greenseg-server"), "r+b")
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "greenseg.launch.server", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                env=self._given,
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
        self._control = ours
        self._selector.register(ours, selectors.EVENT_READ)
        ours.settimeout(0.2)
        patience = time.monotonic() + _START_SECONDS
        while wanted():
            try:
                packet = ours.recv(PACKET)
            except TimeoutError:
                if time.monotonic() < patience:
                    continue
                packet, self._losses = b"", _LOSSES  # the next one would hang as well
            except OSError:
                packet = b""
            energy = meter.lap().to_json()
            meter.close()
            ours.settimeout(None)
            said = json.loads(packet) if packet else {}
            if said.get("threads") == 1:
                self.imports = energy
                return True
            if said:  # some package starts threads when it is imported
                self._warm = False
                self._end_server()
            else:
                self._lose_server()
            return self.prepare(wanted)
        meter.close()
        self._end_server()
        return False

    def _lose_server(self) -> None:
        """Note that the server has died of something; where that is the rule, there is no further one."""
        reason = self._end_server()
        self._losses += 1
        if self._losses >= _LOSSES:
            self._warm = False
            said = (
                f"The process that runs are forked from died again and again ({reason}); each run now starts by itself."
            )
            print(said, file=sys.stderr, flush=True)

    def _end_server(self) -> str:
        """End the server, if it has not died, and return the last line that it printed.

        Its runs end as well; from now on they are watched without it.
        """
        assert self._control is not None
        assert self._server is not None
        self._selector.unregister(self._control)
        self._control.close()
        self._server.kill()
        code = self._server.wait()
        self._control = self._server = None
        for process in self._forked.values():
            process.orphaned = True
        with self._words:
            self._words.seek(0)
            *_, last = [f"exit code {code}", *self._words.read().decode(errors="replace").strip().splitlines()]
        return last

    # ── runs

    def start(self, run: Path, environment: dict[str, str], events: int, log: int, alone: bool) -> Process:
        """Start a run.

        Args:
            run: its directory.
            environment: variables to set for it, over those of this process.
            events: file descriptor that it sends its events to.
            log: file descriptor for what it prints.
            alone: it must be a program of its own, since it will execute itself again.
        """
        variables = _ENVIRONMENT | os.environ | _LOG | environment
        if self._control and not alone:
            # Only what differs: a message has some 200 kB at most, which an environment may exceed.
            changed = {name: value for name, value in variables.items() if self._given.get(name) != value}
            request = {"run": str(run.absolute()), "set": changed, "unset": [*(self._given.keys() - variables.keys())]}
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [events, log])
                while self._control:
                    said = self._hear()
                    if said and "started" in said:
                        process = self._forked[said["started"]] = Process(said["started"])
                        return process
            except OSError:  # the server died just now
                self._lose_server()
            raise ServerDied
        program = subprocess.Popen(
            [sys.executable, "-m", "greenseg.training", str(run)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables | {VARIABLE: str(events), PARENT: str(os.getpid())},
            pass_fds=(events,),
            start_new_session=True,  # Ctrl-C reaches it through us, once; and its ranks and workers can be found
        )
        process = Process(program.pid)
        self._programs[process] = program
        return process

    def update(self) -> None:
        """Take note of what has ended since; afterwards the `code` of each process is right."""
        if self._control:
            self._control.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while self._control:
                    self._hear()
            if self._control:
                self._control.setblocking(True)
        for process in [process for process in self._forked.values() if process.orphaned]:
            if not _alive(process.pid):
                self._ended(process.pid, -signal.SIGTERM)
        for process, program in list(self._programs.items()):
            if program.poll() is not None:
                process.signal(signal.SIGKILL)  # ranks or workers that outlived their run
                process.code = program.returncode
                del self._programs[process]

    def _hear(self) -> dict[str, Any] | None:
        assert self._control is not None
        try:
            packet = self._control.recv(PACKET)
        except BlockingIOError:
            raise
        except OSError:
            packet = b""
        if not packet:
            self._lose_server()
            return None
        said: dict[str, Any] = json.loads(packet)
        if "ended" in said:
            self._ended(said["ended"], said["code"])
        return said

    def _ended(self, pid: int, code: int) -> None:
        process = self._forked.pop(pid)
        if process.orphaned:
            process.signal(signal.SIGKILL)  # the server did so while it lived
        else:
            self._losses = 0
        process.code = code


def become(run: Path) -> NoReturn:
    """Turn this process into a rank, not the first, of a run that another process leads."""
    os.execve(sys.executable, [sys.executable, "-m", "greenseg.training", str(run)], _ENVIRONMENT | os.environ)


class ServerDied(NotStarted):
    """The server died while it was asked for a run; ask again."""


def _alive(pid: int) -> bool:
    """Whether a process that is not our child runs; one that ended and that nobody waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - a name, not a path of a file that matters
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
