"""Starts workers as an array of a Slurm cluster, with `sbatch`."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from greenseg import quantity
from greenseg.batch_job import STOP_SECONDS
from greenseg.launchers import script
from greenseg.launchers.launcher import (
    Cause,
    NoAnswer,
    NotStarted,
    Option,
    Phase,
    Submission,
    Worker,
    ended,
)

_WARNING_SECONDS = round(STOP_SECONDS)  # Slurm may warn up to 60 s earlier
_LEAST_SECONDS = 300  # of a job: below, the warning would come soon after its start
_WORKERS = 4
_ANSWER_SECONDS = 60.0

_STARTS = "greenseg: a worker starts"
"""A line in the output of a worker, which has all its starts."""

_BEGIN = (
    'unset "${!SLURM_STEP@}"   # of the step that submitted: a worker would take itself for its task',
    f'echo "{_STARTS} on $SLURMD_NODENAME"',
)

_END = """\
# A worker that was warned before it could handle signals has ended by SIGTERM.
[ -z "$warned" ] || [ "$code" != 143 ] || code={requeue}
if [ "$code" = {requeue} ] && [ -z "$stopped" ]; then
    # The name of the array task: its plain number may be that of the whole array.
    if scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; then
        sleep 60   # Slurm ends this script
        exit
    fi
    touch "$files.left"   # `greenseg sweep` submits this part again
fi
"""


# ── options


def _text(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s#'\"\\]+", value):
        raise ValueError(f"{value!r} is not a name")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a whole number of 1 or more")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


_CLOCK = r"(?:([0-9]+)-)?([0-9]{1,2}):([0-9]{2}):([0-9]{2})"
_GPUS = r"([A-Za-z][\w.-]*:)?[1-9][0-9]*"
_MEMORY = r"[1-9][0-9]*[KMGT]"


def _time(value: Any) -> str:
    """The time in the form of Slurm, such as 1-04:00:00."""
    valid = "a time with a unit such as 4h or 1h 30min, or as in Slurm, 04:00:00 or 1-00:00:00"
    clock = re.fullmatch(_CLOCK, value) if isinstance(value, str) else None
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    elif isinstance(value, str) and re.search("[A-Za-z]", value):
        total = round(quantity.seconds(value))
    else:  # a plain number is seconds elsewhere in a sweep file, and minutes in Slurm
        raise ValueError(f"{value!r} is not {valid}")
    if total < _LEAST_SECONDS:
        raise ValueError(
            f"{value!r} is too short: workers stop {_WARNING_SECONDS} s before the limit; at least {_LEAST_SECONDS} s"
        )
    return f"{total // 86400}-{total // 3600 % 24:02}:{total // 60 % 60:02}:{total % 60:02}"


def _gpus(value: Any) -> str:
    if isinstance(value, bool) or not re.fullmatch(_GPUS, str(value)):
        raise ValueError(f"{value!r} is not a number of GPUs such as 1, or with their type, a100:2")
    return str(value)


def _memory(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(_MEMORY, value):
        raise ValueError(f"{value!r} is not a size such as 16G or 800M")
    return value


def _lines(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise ValueError("must be a list of commands, such as [module load cuda]")
    return list(value)


def _no_nodes(value: Any) -> int:
    raise ValueError(
        "not a key of slurm: a worker has as many nodes as its runs; set `nodes` of the runs under 'base' or 'grid'"
    )


_COUNT = {"type": "integer", "minimum": 1}
_NAME = {"type": "string", "pattern": r"^[^\s#'\"\\]+$"}


@dataclass(frozen=True)
class _SlurmOption(Option):
    """An option whose value becomes part of the script.

    Attributes:
        flag: option of sbatch, with a place for the value; empty if it is no option of sbatch.
    """

    flag: str = ""


_OPTIONS: dict[str, _SlurmOption] = {
    "partition": _SlurmOption(_text, "Partition.", _NAME, "--partition={}"),
    "account": _SlurmOption(_text, "Account.", _NAME, "--account={}"),
    "qos": _SlurmOption(_text, "Quality of service.", _NAME, "--qos={}"),
    "time": _SlurmOption(
        _time,
        "Time limit of a worker, such as 4h or 04:00:00.",
        {"type": "string", "anyOf": [{"pattern": f"^{_CLOCK}$"}, {"pattern": quantity.TIME}]},
        "--time={}",
    ),
    "gpus_per_node": _SlurmOption(
        _gpus,
        "GPUs of a node: a number, or a type and a number, such as a100:2.",
        {"anyOf": [_COUNT, {"type": "string", "pattern": f"^{_GPUS}$"}]},
        "--gpus-per-node={}",
    ),
    "cpus_per_task": _SlurmOption(_whole, "CPU cores of a worker.", _COUNT, "--cpus-per-task={}"),
    "mem": _SlurmOption(
        _memory, "Memory of a node, such as 16G.", {"type": "string", "pattern": f"^{_MEMORY}$"}, "--mem={}"
    ),
    "constraint": _SlurmOption(_text, "Features that the nodes must have.", _NAME, "--constraint={}"),
    "exclusive": _SlurmOption(
        _flag, "Whole nodes, without other jobs; default: false.", {"type": "boolean"}, "--exclusive"
    ),
    "setup": _SlurmOption(
        _lines,
        "Commands before a worker starts, such as module load cuda.",
        {"type": "array", "items": {"type": "string"}},
    ),
    "array": _SlurmOption(_whole, f"Number of workers; default: {_WORKERS}. Never more than runs are to do.", _COUNT),
    "max_parallel": _SlurmOption(_whole, "Largest number of workers at a time; default: all.", _COUNT),
    "nodes": _SlurmOption(_no_nodes),
}


# ── states

_PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
_CAUSES = {
    "COMPLETED": Cause.DONE,
    "FAILED": Cause.EXITED,
    "TIMEOUT": Cause.TIME_LIMIT,
    "DEADLINE": Cause.TIME_LIMIT,
    "PREEMPTED": Cause.PREEMPTED,
    "NODE_FAIL": Cause.NODE_FAILURE,
    "BOOT_FAIL": Cause.NODE_FAILURE,
    "OUT_OF_MEMORY": Cause.OUT_OF_MEMORY,
    "CANCELLED": Cause.CANCELLED,
    "REVOKED": Cause.CANCELLED,
}
"""State of a job that has ended → cause."""

_REASONS = (
    ("Resources", "waits for free nodes"),
    ("Priority", "waits behind jobs with a higher priority"),
    ("JobArrayTaskLimit", "waits for another worker, by max_parallel"),
    ("BeginTime", "was requeued, and starts again soon"),
    ("Dependency", "waits for another job"),
    ("Licenses", "waits for a licence"),
    ("Reservation", "waits for its reservation"),
    ("JobHeld|JobLaunchFailure|launch failed", "is held; `scontrol release` lets it go on"),
    ("ReqNodeNotAvail|PartitionDown|PartitionInactive|NodeDown", "waits for nodes that are down or reserved"),
    ("PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints", "cannot start in this partition as it is"),
    ("QOS|Assoc|MaxJobs|MaxCpu|MaxGRES|MaxMem|MaxTRES|MaxWall", "waits for a limit of your account or its qos"),
)
"""Reasons of Slurm, as a regular expression for their beginning, and in words."""


def pending(reason: str) -> str:
    """Why a job is pending, in words, with Slurm's reason in brackets."""
    if not reason or reason == "None":
        return "waits to be scheduled"
    words = next((words for pattern, words in _REASONS if re.match(pattern, reason)), "waits")
    return f"{words} ({reason})"


@dataclass(frozen=True)
class _Task:
    """A line of squeue or sacct about a task of an array: state, reason and node in the words of Slurm."""

    state: str
    reason: str = ""
    node: str = ""


class Slurm:
    """Workers that are the tasks of an array of a Slurm cluster."""

    OPTIONS: ClassVar[Mapping[str, Option]] = _OPTIONS
    NODES: ClassVar[bool] = True

    def problems(self) -> list[str]:
        """Reasons why this launcher cannot be used on this machine."""
        missing = [name for name in ("sbatch", "squeue", "scancel") if not shutil.which(name)]
        if not missing:
            return []
        return [f"launcher slurm: needs {', '.join(missing)}; use it on a login node of a Slurm cluster"]

    def workers(self, runs: int, options: Mapping[str, Any]) -> int:
        """The size of the array."""
        most: int = options.get("array", _WORKERS)
        return max(1, min(runs, most))

    def script(self, submission: Submission) -> str:
        """The job script."""
        options = submission.options
        most = f"%{options['max_parallel']}" if "max_parallel" in options else ""
        header = [
            f"--job-name={_job_name(submission)}",
            f"--array=0-{submission.workers - 1}{most}",
            f"--nodes={submission.nodes}",
            f"--ntasks-per-node={submission.tasks if submission.nodes > 1 else 1}",
            *(
                option.flag.format(options[key])
                for key, option in _OPTIONS.items()
                if option.flag and options.get(key) not in (None, False)
            ),
            f"--signal=B:USR1@{_WARNING_SECONDS}",
            "--requeue",
            "--open-mode=append",
            f'--output="{str(submission.folder / submission.name).replace("%", "%%")}_%a.log"',  # %% is a %
        ]
        top = [*(f"#SBATCH {line}" for line in header), *_BEGIN]
        return script.write(submission, "${SLURM_ARRAY_TASK_ID}", top, options.get("setup", ()), _END)

    def sees(self, submission: Submission) -> bool:
        """Every host of the cluster sees all."""
        return True

    def start(self, submission: Submission) -> str:
        """Submit the array; returns its job id."""
        try:
            said = _ask("sbatch", "--parsable", str(submission.file(".sh")))
        except NoAnswer as error:
            # The controller may have accepted the job although its answer got lost.
            if job := self.find(submission):
                return job
            raise NotStarted(str(error)) from None
        return said.strip().splitlines()[-1].split(";")[0]

    def find(self, submission: Submission) -> str | None:
        """The job id of an array by its name, which has the token."""
        name = _job_name(submission)
        found = _ask("squeue", "--noheader", "--all", "--states=all", f"--name={name}", "--format=%F").split()
        if not found:  # ended and forgotten by squeue
            with_accounts = _accounts(f"--name={name}", f"--starttime={_day_before(submission)}", fields=("JobID",))
            found = [job.partition("_")[0] for (job,) in with_accounts]
        return found[0] if found else None

    def states(self, submissions: Sequence[Submission]) -> list[Worker]:
        """The states of all workers: from squeue if they live, else from sacct if it works, else from squeue."""
        tasks = _of_squeue([each.job for each in submissions if each.job])
        over = {
            each.job
            for each in submissions
            if each.job and any(_is_over(tasks.get((each.job, n))) for n in range(each.workers))
        }
        for key, task in _of_sacct(sorted(over)).items():
            if _is_over(task) and _is_over(tasks.get(key)):
                tasks[key] = task
        return [
            _worker(submission, number, tasks.get((submission.job or "", number)))
            for submission in submissions
            for number in range(submission.workers)
        ]

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Cancel all tasks. Slurm sends SIGTERM to their processes, and kills those that are left after `KillWait`."""
        if jobs := [each.job for each in submissions if each.job]:
            _ask("scancel", *jobs, unless="Invalid job id")


def _day_before(submission: Submission) -> str:
    """A day that lies before a submission in every time zone: sacct expects local time, and finds nothing otherwise."""
    if not submission.started:
        return "1970-01-01"
    return (datetime.fromisoformat(submission.started) - timedelta(days=1)).date().isoformat()


def _job_name(submission: Submission) -> str:
    return f"greenseg-{submission.sweep}-{submission.token}"


def _ask(*command: str, unless: str = "") -> str:
    """The output of a command of Slurm.

    Args:
        command: the command.
        unless: an error with this text counts as no output.

    Raises:
        NoAnswer: the command failed.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise NoAnswer(f"{command[0]}: no such command") from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]}: no answer for {_ANSWER_SECONDS:g} s") from None
    if done.returncode and not (unless and unless in done.stderr):
        raise NoAnswer(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return "" if done.returncode else done.stdout


def _of_squeue(jobs: Sequence[str]) -> dict[tuple[str, int], _Task]:
    """(job, number) → task, for all tasks that squeue still knows."""
    if not jobs:
        return {}
    said = _ask(
        "squeue", "--noheader", "--all", "--array", "--states=all", f"--jobs={','.join(jobs)}",
        "--format=%F|%K|%T|%N|%r", unless="Invalid job id",
    )  # fmt: skip
    found = {}
    for line in said.splitlines():
        job, number, state, node, reason = line.split("|", 4)
        if number.isdecimal():
            found[job, int(number)] = _Task(state, reason, node)
    return found


def _of_sacct(jobs: Sequence[str]) -> dict[tuple[str, int], _Task]:
    """(job, number) → task, for all single tasks in the accounts; empty where Slurm keeps none."""
    found = {}
    for name, state, node in (
        _accounts(f"--jobs={','.join(jobs)}", fields=("JobID", "State", "NodeList")) if jobs else ()
    ):
        job, _, number = name.partition("_")
        if number.isdecimal():
            found[job, int(number)] = _Task(state.split()[0] if state else "", node=node)
    return found


def _accounts(*selection: str, fields: Sequence[str]) -> list[list[str]]:
    """Rows of sacct; none where Slurm keeps no accounts or the database is down."""
    try:
        said = _ask("sacct", "--noheader", "--allocations", "--parsable2", *selection, f"--format={','.join(fields)}")
    except NoAnswer:
        return []
    return [line.split("|") for line in said.splitlines()]


def _is_over(task: _Task | None) -> bool:
    """Whether a task has ended, or squeue has forgotten it."""
    return task is None or task.state in _CAUSES


def _worker(submission: Submission, number: int, task: _Task | None) -> Worker:
    """The state of a worker from the line about its task; None if Slurm has forgotten it."""
    job = f"slurm {submission.job}_{number}"
    if task is None:
        return ended(submission, number, job)
    node = task.node if task.node not in ("(null)", "None assigned") else ""
    if cause := _CAUSES.get(task.state):
        known: dict[str, Any] = {"host": node}
        code = submission.exit_code(number)
        if cause == Cause.EXITED and _ran_out_of_memory(submission.file(".log", number)):
            cause = Cause.OUT_OF_MEMORY
        if cause == Cause.OUT_OF_MEMORY and code not in (None, _KILLED):
            cause = Cause.EXITED  # a run was killed, and its worker went on to an end of its own
        if cause not in (Cause.DONE, Cause.EXITED):
            known["cause"] = cause
        elif code is None:
            known |= {"cause": cause, "code": 0 if cause == Cause.DONE else None}
        return ended(submission, number, job, **known)
    phase, reason = (Phase.PENDING, pending(task.reason)) if task.state in _PENDING else (Phase.RUNNING, "")
    log = submission.file(".log", number)
    return Worker(submission.worker(number), number, job, phase, reason, node, log=log)


_NO_MEMORY = re.compile(r"^slurmstepd.*(exceeded .*memory limit|oom[-_ ]kill)", re.IGNORECASE | re.MULTILINE)
"""Line of Slurm's daemon in the output of a job. Where it looks at memory only now and then, no state tells it."""

_END_BYTES = 10_000
_KILLED = 128 + signal.SIGKILL  # the exit code of a killed worker


def _ran_out_of_memory(log: Path) -> bool:
    """Whether the end of a worker's output tells that it was killed, since its last start, because memory ran out."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            end = file.read().decode(errors="replace")
    except OSError:
        return False
    return bool(_NO_MEMORY.search(end.rpartition(_STARTS)[2]))
