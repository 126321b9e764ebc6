"""A run on several nodes of a Slurm job: one task of srun for each of its processes.

`python -m greenseg.launch.step PARENT COMMAND...` becomes srun's COMMAND, and ends with its PARENT: Slurm itself ends a
step only with its srun or its job.
"""

import os
import signal
import socket
import sys
import uuid

from greenseg.machine.cores import LAUNCH
from greenseg.machine.signals import end_with_parent
from greenseg.settings import Settings

_KILLED = 128  # srun's exit code of a task that a signal has ended, minus the signal
_INTERRUPTED = 130  # a run's own exit code; see `greenseg.errors.ExitCode`


def command(settings: Settings, program: list[str]) -> list[str]:
    """The command that starts all processes of a run as one step of the present job, and reports their end.

    Args:
        settings: settings of the run.
        program: the program of one process.
    """
    options = [
        f"--nodes={settings.nodes}", f"--ntasks={settings.processes}", f"--ntasks-per-node={settings.devices}",
        "--export=ALL",
        "--overcommit", "--cpu-bind=none",  # each process chooses its threads from all cores of the job on its node
        "--overlap",  # beside other steps, and the shell of an interactive job
        "--kill-on-bad-exit=1", "--wait=0",  # ranks wait for a failed rank for ever, but may outlive finished ones
        "--input=none", "--unbuffered",
    ]  # fmt: skip
    return [sys.executable, "-m", "greenseg.launch.step", str(os.getpid()), "srun", *options, *program]


def environment() -> dict[str, str]:
    """Variables for all processes of the next run: where they meet, on the first node, which is this one."""
    port = {} if "MASTER_PORT" in os.environ else {"MASTER_PORT": str(_free_port())}
    return {LAUNCH: uuid.uuid4().hex} | port


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def exit_code(code: int) -> int:
    """The exit code of a run from that of srun, which has the highest of all tasks; below 0, a signal."""
    killed = code > _KILLED and code != _INTERRUPTED
    return _KILLED - code if killed and code - _KILLED in set(signal.Signals) else code


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
