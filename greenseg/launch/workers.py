"""Starts the processes of runs: forks of a warm server if possible, else separate Python programs."""

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
from greenseg.launch import step
from greenseg.launch.executor import Force, NotStarted
from greenseg.launch.server import PACKET
from greenseg.settings import Settings
from greenseg.training.events import PARENT, VARIABLE

# glibc returns large blocks to the kernel at once. On a CPU, every step of a network then faults them in again, page by
# page. Keeping them reduced a step at 256², batch 16, from 2.8 s to 1.5 s.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA then numbers GPUs like NVML, which measures them
    "PYTHONUNBUFFERED": "1",
}

# The log of a run is UTF-8, regardless of the terminal.
_LOG = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}

_LOSSES = 5  # servers that may die, for any reason, without an ended run between them; then no other starts
_START_SECONDS = 600.0  # for the imports of a server

# A process with several threads cannot be forked safely. numpy's BLAS starts threads on import; torch has its own.
_SERVER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1"}


_SIGNALS = {
    Force.ASK: (signal.SIGINT,),
    Force.WAKE: (signal.SIGTERM, signal.SIGCONT),
    Force.KILL: (signal.SIGKILL,),
}
# srun passes SIGUSR1 on. It answers SIGINT with a report, and SIGTERM by killing all tasks.
_STEP_SIGNALS = {Force.ASK: signal.SIGUSR1, Force.WAKE: signal.SIGUSR1, Force.KILL: signal.SIGTERM}


class Process:
    """The process of a run. It leads a process group with its ranks and workers."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        """Exit code after its end; below 0, the signal that ended it."""
        self.orphaned = False
        """Whether its server has died, which ends the run, too."""
        self.lost_rank = False
        """Whether one of several processes of the run was killed."""

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, if it still exists."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self, force: Force) -> None:
        """Stop the run."""
        for number in _SIGNALS[force]:
            self.signal(number)

    def ended(self, code: int) -> None:
        """Its program has ended: kill remaining ranks or workers of the run."""
        self.signal(signal.SIGKILL)
        self.code = code


class Step(Process):
    """The srun of a run on several nodes, which passes signals on to all its tasks."""

    def stop(self, force: Force) -> None:
        """Stop the run."""
        if self.code is None:
            # Not its group: a helper in it kills the tasks if srun dies.
            os.kill(self.pid, _STEP_SIGNALS[force])

    def ended(self, code: int) -> None:
        """srun has ended, and so have its tasks."""
        self.code = step.exit_code(code)
        self.lost_rank = self.code < 0 and self.code != -signal.SIGTERM


class Workers:
    """Starts runs and reports their ends.

    Args:
        warm: import torch and the rest once, and fork runs from that process. If this is impossible (not Linux, or the
            server dies repeatedly), each run is still a separate program.
        selector: selects, without data, when a message of the server arrives.

    Attributes:
        imports: energy of the imports, as JSON; None if each run imports everything itself.
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
        """Kill all runs that are left."""
        for process in [*self._forked.values(), *self._programs]:
            process.stop(Force.KILL)
        for program in self._programs.values():
            program.wait()
        if self._control:
            self._control.close()
        if self._server:
            self._server.wait()

    # ── the server

    def prepare(self, wanted: Callable[[], bool]) -> bool:
        """Start the server if needed, and wait for it; returns False if it was cancelled meanwhile.

        Args:
            wanted: called during the imports; returns whether the server is still wanted.
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
                packet, self._losses = b"", _LOSSES  # another server would hang, too
            except OSError:
                packet = b""
            energy = meter.lap().to_json()
            meter.close()
            ours.settimeout(None)
            said = json.loads(packet) if packet else {}
            if said.get("threads") == 1:
                self.imports = energy
                return True
            if said:  # a package started threads during its import
                self._warm = False
                self._end_server()
            else:
                self._lose_server()
            return self.prepare(wanted)
        meter.close()
        self._end_server()
        return False

    def _lose_server(self) -> None:
        """Handle the death of the server; after several deaths, no other server starts."""
        reason = self._end_server()
        self._losses += 1
        if self._losses >= _LOSSES:
            self._warm = False
            said = (
                f"The process that runs are forked from died repeatedly ({reason}). Each run is now a separate program."
            )
            print(said, file=sys.stderr, flush=True)

    def _end_server(self) -> str:
        """End the server if it is alive, and return the last line of its output.

        Its runs end, too; from now on, they are watched without it.
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

    def start(
        self,
        run: Path,
        environment: dict[str, str],
        events: int,
        log: int,
        alone: bool,
        over_nodes: Settings | None = None,
    ) -> Process:
        """Start a run.

        Args:
            run: its directory.
            environment: environment variables for the run; override those of this process.
            events: file descriptor for its events.
            log: file descriptor for its output.
            alone: it must be a separate program, since it executes itself again, or srun does.
            over_nodes: settings of a run that srun starts on the nodes of this job; None for a run on this one.
        """
        variables = _ENVIRONMENT | os.environ | _LOG | environment
        if self._control and not alone:
            # Only the differences: an environment may exceed the limit of a message, about 200 kB.
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
        command = [sys.executable, "-m", "greenseg.training", str(run)]
        if over_nodes:  # its tasks have neither our pipe nor our process ID; the queue follows its directory
            command, variables = step.command(over_nodes, command), variables | step.environment()
        else:
            variables |= {VARIABLE: str(events), PARENT: str(os.getpid())}
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
            pass_fds=() if over_nodes else (events,),
            start_new_session=True,  # we pass on Ctrl-C, once; its ranks and workers can be found
        )
        process = Step(program.pid) if over_nodes else Process(program.pid)
        self._programs[process] = program
        return process

    def update(self) -> None:
        """Update the `code` of each process."""
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
                process.ended(program.returncode)
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
            process.signal(signal.SIGKILL)  # as the server does while it lives
        else:
            self._losses = 0
        process.code = code


def become(run: Path) -> NoReturn:
    """Turn this process into a rank above 0 of a run."""
    os.execve(sys.executable, [sys.executable, "-m", "greenseg.training", str(run)], _ENVIRONMENT | os.environ)


class ServerDied(NotStarted):
    """The server died during a request for a run; try again."""


def _alive(pid: int) -> bool:
    """Whether a process, which need not be our child, runs. A zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  (a name in /proc)
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
