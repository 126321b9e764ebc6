"""What Slurm knows about the node of this process: whether other jobs may use it, and the joules of its own sensors."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

SLURM_NODE = "slurm-node"
"""Source: Slurm's sensors of whole nodes. Never part of a total, and never compared with other sources."""

_NOBODY, _OTHER_CPUS = "NO", "OK"
"""Values of `OverSubscribe`: nobody else may use the nodes (`--exclusive`); others may use CPUs that the job lacks."""

_SPECIAL_STEPS = {"4294967291": "batch", "4294967290": "interactive"}
"""Numbers that newer versions of Slurm give to the job script and to the shell of `salloc` (`slurm/slurm.h`)."""

_PATIENCE_SECONDS = 10.0  # for a busy controller


def shares_node() -> bool:
    """Whether this process is in a Slurm job, and other jobs may use CPUs of its node meanwhile."""
    job = os.environ.get("SLURM_JOB_ID")
    return bool(job) and _shares_node(str(job))


@cache
def _shares_node(job: str) -> bool:
    words = (_answer(["scontrol", "--oneliner", "show", "job", job]) or "").split()
    sharing = next((word.partition("=")[2] for word in words if word.startswith("OverSubscribe=")), _OTHER_CPUS)
    if sharing == _OTHER_CPUS:  # or scontrol is missing, as in many containers
        cpus = os.environ.get("SLURM_CPUS_ON_NODE", "")
        return not (cpus.isdecimal() and int(cpus) >= (os.cpu_count() or 1))
    return sharing != _NOBODY


@dataclass(frozen=True)
class NodeJoules:
    """Joules of all nodes of a Slurm step over a window, with everything else on them.

    Attributes:
        joules: more than 0.
        seconds: length of the window. Slurm's sensors may lag behind it by their own period (`AcctGatherNodeFreq`).
        step: the step, such as `17.batch`.
    """

    joules: float
    seconds: float
    step: str


class NodeCounter:
    """Slurm's own count of the joules of this process's nodes, from the creation on."""

    def __init__(self) -> None:
        self._step = _step()
        self._start, self._before = time.monotonic(), _consumed(self._step) if self._step else None

    def read(self) -> NodeJoules | None:
        """Joules since the creation; None outside of a job, and if Slurm has no sensor."""
        if self._before is None or (now := _consumed(self._step)) is None:
            return None
        joules = now - self._before
        # Without a sensor, Slurm answers with 0 or nothing. No node runs without joules.
        return NodeJoules(joules, time.monotonic() - self._start, self._step) if joules > 0 else None


def _step() -> str:
    """The Slurm step of this process; empty if there is none, or if Slurm accounts no energy."""
    job = os.environ.get("SLURM_JOB_ID")
    step = os.environ.get("SLURM_STEP_ID", "batch")
    return f"{job}.{_SPECIAL_STEPS.get(step, step)}" if job and _accounts_energy() else ""


@cache
def _accounts_energy() -> bool:
    lines = (_answer(["scontrol", "show", "config"]) or "").splitlines()
    kinds = [line.partition("=")[2].strip() for line in lines if line.startswith("AcctGatherEnergyType")]
    return bool(kinds) and not kinds[0].endswith(("/none", "(null)"))


def _consumed(step: str) -> float | None:
    """Joules since the start of the step, 0 if Slurm knows none; None if it does not answer."""
    answer = _answer(["sstat", "--noheader", "--parsable2", "--jobs", step, "--format", "ConsumedEnergyRaw"])
    if answer is None:
        return None
    values = [float(word) for word in answer.split() if word.isdecimal()]
    return max(values, default=0.0)


def _answer(command: Sequence[str]) -> str | None:
    """The output of a command of Slurm; None if it is not here (as in many containers), fails, or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=_PATIENCE_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
