"""Hosts that are apart, for tests: as far as their processes can tell, each runs on a host of its own.

A host has its own name, processes, network and `/dev/shm`. It shares all files with the others, but its `flock` on the
shared folders only counts among its own processes, as on Lustre with `localflock`. Hosts have the same boot ID, and
clocks that agree.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.slurm import unavailable, wait_for

_HERE = Path(__file__).parent
_CLONE_NEWPID = 0x20000000  # sched.h
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A host; `with` it, it runs, and all its processes are killed at the end.

    Args:
        name: host name.
        number: number of the host, different for each, from 0 on.
        shared: folders in which hosts do not see each other's locks.
    """

    def __init__(self, name: str, number: int, shared: Sequence[Path]) -> None:
        require_hosts()
        self.name = name
        self._started: list[subprocess.Popen[Any]] = []
        self._variables = {
            "LD_PRELOAD": str(_preload()),
            "GREENSEG_TEST_HOST": str(number),
            "GREENSEG_TEST_SHARED": ":".join(str(folder.resolve()) for folder in shared),
        }

    def __enter__(self) -> "Host":
        namespaces = ("--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        own = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        self._starter = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "sh", "-c", own, "sh",
             sys.executable, "-S", _HERE / "init.py", self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self._starter.stdout
        if (answer := self._starter.stdout.readline()) != "up\n":
            raise RuntimeError(f"host {self.name} did not start: {answer}")
        pid = self._starter.pid
        self._init = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def run(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a program on this host; `options` are those of `subprocess.Popen`.

        Its process ID is the one that it has here; on the host, it has another one.
        """
        folder = Path(options.pop("cwd", None) or Path.cwd()).resolve()
        variables: Mapping[str, str] = options.pop("env", None) or os.environ
        enter = ["nsenter", f"--target={self._init}", "--mount", "--net", "--uts"]
        # A process gets its process IDs when it is made: it must be made there.
        with _children_in(self._init):
            process = subprocess.Popen(
                [*enter, "/bin/sh", "-c", 'cd "$0" && exec "$@"', folder, *command],
                env={**variables, **self._variables}, **options,
            )  # fmt: skip
        self._started.append(process)
        return process

    def enter(self) -> list[str]:
        """Words to put in front of a command in a script, so that it runs on this host."""
        variables = [f"{name}={value}" for name, value in self._variables.items()]
        return ["nsenter", f"--target={self._init}", "--mount", "--net", "--uts", "--pid", "env", *variables]

    def call(self, command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end; returns its exit status and output."""
        with self.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def pause(self) -> None:
        """Stop all processes of this host until `resume`; its clocks go on."""
        self._signal(signal.SIGSTOP, lambda pid: _state(pid) not in "TZX")

    def resume(self) -> None:
        """Let all processes of this host go on."""
        self._signal(signal.SIGCONT, lambda pid: _state(pid) == "T")

    def kill(self) -> None:
        """Kill all processes of this host at once, as a loss of power does; nothing can run on it any more."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)  # the kernel kills the others of this namespace
        for process in self._started:  # it ends only after all others are waited for
            process.wait()
        self._starter.wait()
        if self._starter.stdout:
            self._starter.stdout.close()

    def processes(self) -> list[int]:
        """The IDs that its processes have here, without the first process, which only waits."""
        return [pid for pid in _pids() if pid != self._init and _namespace(pid) == _namespace(self._init) != ""]

    def _signal(self, number: int, needs: Callable[[int], bool]) -> None:
        """Send a signal to all processes that need it, until no new one does."""

        def none_is_left() -> bool:
            left = [pid for pid in self.processes() if needs(pid)]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return not left

        assert wait_for(none_is_left, seconds=10)


def require_hosts() -> None:
    """Skip the test where hosts cannot be made, with the reason; fail it where `GREENSEG_REQUIRE_SLURM` is 1."""
    missing = [name for name in ("unshare", "nsenter", "setpriv", "cc") if not shutil.which(name)]
    if sys.platform != "linux" or os.getuid() != 0:
        unavailable("hosts for tests need Linux, and root")
    if missing:
        unavailable(f"hosts for tests need {', '.join(missing)} (Debian: apt-get install util-linux gcc libc6-dev)")
    tried = subprocess.run(["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "true"], capture_output=True)
    if tried.returncode:
        unavailable(f"hosts for tests need namespaces: {tried.stderr.decode().strip()}")


Hosts = Callable[[str], Host]


@pytest.fixture
def hosts(tmp_path: Path, cache: Path) -> Iterator[Hosts]:
    """Starts a host with a name; `tmp_path` and the cache are shared by all, without locks between them."""
    with contextlib.ExitStack() as stack:
        names: list[str] = []

        def start(name: str) -> Host:
            names.append(name)
            return stack.enter_context(Host(name, len(names) - 1, [tmp_path, cache]))

        yield start


@cache
def _preload() -> Path:
    """The library with our `flock`."""
    library = Path(tempfile.mkdtemp(prefix="greenseg-hosts-")) / "flock.so"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _HERE / "flock.c"], check=True)
    return library


@contextlib.contextmanager
def _children_in(pid: int) -> Iterator[None]:
    """New children of this thread are in the pid namespace of a process; the thread itself stays where it is."""
    with Path(f"/proc/{pid}/ns/pid").open("rb") as there, Path("/proc/self/ns/pid_for_children").open("rb") as here:
        _set_namespace(there.fileno())
        try:
            yield
        finally:
            _set_namespace(here.fileno())


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "setns")


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # it has ended
        return ""


def _state(pid: int) -> str:
    """The state of a process as a letter, see proc(5); X if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"
