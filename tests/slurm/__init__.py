"""A real Slurm for tests: its daemons run on this host, on loopback, as root, from Debian's packages.

Each process of pytest has a Slurm of its own, started by the first test that asks for it: the fixture `slurm`, or
`slurm_with_accounting`, where `sacct` works. Without root or the packages, these tests skip, unless the variable
`GREENSEG_REQUIRE_SLURM` is 1, as in `.ci/run`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

_HERE = Path(__file__).parent

REQUIRED = "GREENSEG_REQUIRE_SLURM"
"""Variable: 1 makes what is missing for a Slurm, or for hosts that are apart, a failure."""

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_PROGRAMS_OF_ACCOUNTING = ("slurmdbd", "mariadbd", "sacct")

_PORTS = 64
"""Ports that one Slurm may use."""


class Slurm:
    """A Slurm that runs on this host.

    Attributes:
        home: the folder of all its files; logs are in `log/`.
        nodes: names of its nodes, such as `n1`. They have the host name of this host.
        environment: variables with which its commands, and greenseg, find it.
    """

    def __init__(self, home: Path, port: int, nodes: int, knobs: Mapping[str, str]) -> None:
        self.home, self.nodes = home, tuple(f"n{number + 1}" for number in range(nodes))
        self.environment = {"SLURM_CONF": str(home / "slurm.conf")}
        self._knobs = {"SLURM_HOME": str(home), "BASE_PORT": str(port), "NODES": str(nodes), **knobs}

    def up(self) -> None:
        """Start the daemons that do not run.

        Raises:
            RuntimeError: they do not come up; with their logs.
        """
        done = subprocess.run(
            [_HERE / "up.sh"], env=_outside() | self._knobs, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"Slurm did not start:\n{done.stdout}{done.stderr}")

    def run(self, *command: str | Path, check: bool = True, **variables: str) -> str:
        """The output of a command of this Slurm, such as `squeue`, without the white space around it."""
        done = subprocess.run(
            [*map(str, command)], env=_outside() | self.environment | variables, cwd=self.home,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout.strip()

    def submit(self, script: str, *options: str) -> str:
        """Submit a shell script; returns the ID of its job. Its output is in `slurm-<job>.out` of `home`."""
        return self.run("sbatch", "--parsable", *options, f"--wrap={script}").partition(";")[0]

    def squeue(self, job: str = "") -> dict[str, str]:
        """Job → state, such as `RUNNING`, of all jobs or one, also ended ones; tasks of arrays are `<job>_<task>`."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i %T", *(["-j", job] if job else []), check=False)
        return dict(line.split(maxsplit=1) for line in lines.splitlines())

    def show(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self.run("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 60) -> str:
        """Wait until a job, or all tasks of an array, are in one of these states, by default an end; returns it.

        Raises:
            AssertionError: it is in none of them for that long.
        """
        ends = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "DEADLINE")
        found = wait_for(lambda: (now := set(self.squeue(job).values())) and now <= set(ends) and now, seconds)
        assert found, f"job {job} is not in {ends} but {self.squeue(job)}"
        return " ".join(sorted(found))

    def idle(self, seconds: float = 60) -> None:
        """Cancel all jobs, and wait until every node is idle and up."""
        self.run("scancel", f"--user={os.getuid()}", check=False)
        assert wait_for(lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, seconds)

    def pid(self, daemon: str) -> int:
        """The process of `slurmctld`, `slurmdbd`, or of `slurmd` with the name of a node, such as `slurmd.n1`."""
        return int((self.home / f"{daemon}.pid").read_text())

    def saved(self) -> None:
        """Wait until the controller has saved the jobs, as it does every 5 s: one that is killed forgets later ones."""
        now, state = time.time(), self.home / "state" / "job_state"
        assert wait_for(lambda: state.exists() and state.stat().st_mtime > now, seconds=30)

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a daemon, and wait for its end. `up` starts it again."""
        pid = self.pid(daemon)
        os.kill(pid, number)
        assert wait_for(lambda: not _alive(pid), seconds=30)


def wait_for(ask: Callable[[], T], seconds: float = 60) -> T:
    """Ask until the answer is true, or for that long; returns the last answer."""
    end = time.monotonic() + seconds
    while not (answer := ask()) and time.monotonic() < end:
        time.sleep(0.05)
    return answer


@contextlib.contextmanager
def running(nodes: int = 2, *, accounting: bool = False, **knobs: str | int) -> Iterator[Slurm]:
    """A Slurm of its own, which stops at the end, and with this process however that ends.

    Args:
        nodes: number of nodes.
        accounting: whether it has a database, so that `sacct` works.
        knobs: variables of `up.sh`.
    """
    require_slurm(accounting)
    home = Path(tempfile.mkdtemp(prefix="gs-slurm-", dir="/tmp"))  # not in TMPDIR: paths of sockets must be short
    given = {"WITH_DBD": str(int(accounting))} | {name: str(value) for name, value in knobs.items()}
    # It waits for the end of its input. All that is left of this process then is the end of a pipe.
    keeper = subprocess.Popen(
        ["/bin/bash", "-c", f"cat; exec {_HERE / 'down.sh'} --purge"], env=_outside() | {"SLURM_HOME": str(home)},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert keeper.stdin
    try:
        slurm = Slurm(home, _free_ports(), nodes, given)
        slurm.up()
        yield slurm
    finally:
        keeper.stdin.close()
        keeper.wait(60)


def require_slurm(accounting: bool = False) -> None:
    """Skip the test where no Slurm can run, with the reason; fail it where `GREENSEG_REQUIRE_SLURM` is 1."""
    programs = _PROGRAMS + _PROGRAMS_OF_ACCOUNTING * accounting
    missing = [name for name in programs if not shutil.which(name, path=_outside()["PATH"])]
    if sys.platform != "linux" or os.getuid() != 0:
        unavailable("a Slurm for tests runs on Linux, as root")
    if missing:
        packages = "slurmctld slurmd slurm-client munge" + " slurmdbd mariadb-server" * accounting
        unavailable(f"a Slurm for tests needs {', '.join(missing)} (Debian: apt-get install {packages})")


def unavailable(reason: str) -> None:
    """Skip the test; fail it where `GREENSEG_REQUIRE_SLURM` is 1."""
    (pytest.fail if os.environ.get(REQUIRED) == "1" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Two nodes with 4 CPUs and 2 GPUs each; jobs in the partition `urgent` preempt those in `main`; no accounting."""
    with running(2, CPUS=4, GPUS=2, PREEMPTION=1) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def slurm_with_accounting() -> Iterator[Slurm]:
    """The same with accounting: `sacct` works."""
    with running(2, accounting=True, CPUS=4, GPUS=2, PREEMPTION=1) as slurm:
        yield slurm


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def _outside() -> dict[str, str]:
    """This process's environment, without a job that it may be in, and with the daemons on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    return kept | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def _free_ports() -> int:
    """The first of so many ports in a row that nobody listens on, different in each process."""
    first, last = 12_000, 32_000  # below those that the kernel gives to clients
    places = (last - first) // _PORTS
    for attempt in range(places):
        port = first + (os.getpid() * 7 + attempt) % places * _PORTS
        with contextlib.ExitStack() as stack:
            try:
                for number in (*range(9), 40, 41):
                    stack.enter_context(socket.create_server(("127.0.0.1", port + number)))
            except OSError:
                continue
            return port
    raise RuntimeError("no free ports")
