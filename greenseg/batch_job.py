"""The batch job of a scheduler that this process belongs to. Imports nothing heavy."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

WORKER = "GREENSEG_WORKER"
"""Environment variable that the script of a job sets for its `greenseg sweep`: it requeues the job on request."""

STOP_SECONDS = 120.0
"""Seconds before the time limit of a job for which its script orders a warning, and asks the worker to stop."""

_EARLY_SECONDS = 60.0  # by which Slurm may warn earlier (`--signal` in the manual of sbatch)

_ASK_SECONDS = 20.0  # for an answer of the scheduler
_SPECIAL_STEPS = 4_294_967_000  # steps from here on are the job script or an interactive shell, not a task of srun


def job_id() -> str | None:
    """The job of this process, such as `slurm 17_3` (job 17, task 3 of its array); None outside of a job."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"slurm {array}_{os.environ.get('SLURM_ARRAY_TASK_ID', 0)}"
    job = os.environ.get("SLURM_JOB_ID")
    return f"slurm {job}" if job else None


def restarts() -> int:
    """How often the scheduler has started this job again; 0 in its first start, and outside of a job."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def is_worker() -> bool:
    """Whether this process is the worker of a job, whose script understands a request to be requeued."""
    return bool(os.environ.get(WORKER)) and job_id() is not None


def stop_seconds() -> float:
    """Most seconds before the end of its job when this process is asked to stop; 0 if only the end itself stops it."""
    return STOP_SECONDS + _EARLY_SECONDS if is_worker() else 0.0


def nodes() -> int:
    """Number of nodes that this process can use: all of its job, or its own one if srun started it; 1 outside."""
    return 1 if in_step() else int(os.environ.get("SLURM_JOB_NUM_NODES") or 1)


def in_step() -> bool:
    """Whether srun started this process, alone or beside others."""
    step = os.environ.get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < _SPECIAL_STEPS


@dataclass(frozen=True)
class Limit:
    """The time limit of a job.

    Attributes:
        end: time of its end, in seconds on the monotonic clock of this process.
        seconds: its length, from the start of the job.
    """

    end: float
    seconds: float

    @property
    def left(self) -> float:
        """Seconds until its end."""
        return self.end - time.monotonic()


@cache
def limit() -> Limit | None:
    """The time limit of the job of this process; None without a limit, or if nobody knows it.

    Newer versions of Slurm give it in the environment. Others are asked, once: so a later change of the limit does not
    count.
    """
    if job_id() is None:
        return None
    return _limit_given(os.environ) or _limit_asked(os.environ["SLURM_JOB_ID"])


def _limit_given(variables: Mapping[str, str]) -> Limit | None:
    start, end = (variables.get(f"SLURM_JOB_{name}_TIME", "") for name in ("START", "END"))
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        return None
    return Limit(time.monotonic() + int(end) - time.time(), int(end) - int(start))


def _limit_asked(job: str) -> Limit | None:
    asked = ["squeue", "--noheader", "--jobs", job, "--format", "%L|%l"]  # time left, time limit
    try:
        said = subprocess.run(
            asked, capture_output=True, encoding="utf-8", timeout=_ASK_SECONDS, check=False, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.TimeoutExpired):  # not in this container; no answer
        return None
    left, _, whole = said.strip().partition("|")
    if (seconds_left := seconds(left)) is None or (length := seconds(whole)) is None:
        return None
    return Limit(time.monotonic() + seconds_left, length)


def seconds(duration: str) -> float | None:
    """A duration of Slurm, `[[days-]hours:]minutes:seconds`, in seconds; None for words such as `UNLIMITED`."""
    days, _, clock = duration.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in (days or "0", *parts)) or not 2 <= len(parts) <= 3:
        return None
    hours, minutes, rest = (0, *map(int, parts))[-3:]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
