"""The interface of a launcher, and the workers that it starts."""

import json
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self


@dataclass(frozen=True)
class Option:
    """A key of a launcher in a sweep file.

    Attributes:
        read: the value in canonical form, as plain values; raises ValueError with the valid values.
        description: what it is for, in one sentence.
        schema: JSON Schema of its values; None for a key that is never valid.
    """

    read: Callable[[Any], Any]
    description: str = ""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Submission:
    """Workers that are started together: one array of a scheduler, for instance.

    Its files are in one folder, and their names start with its `name`: the record of the submission (`.json`), the
    sweep file that its workers read (`.yaml`), their script (`.sh`), and for each worker its output (`_N.log`) and,
    after its end, its exit code (`_N.end`) or a note that it has to be started again (`_N.left`).

    Attributes:
        launcher: name of its launcher.
        folder: folder of its files; absolute.
        sweep: name of the sweep.
        command: command of a worker.
        directory: working directory of the workers; absolute.
        workers: number of workers.
        nodes: number of nodes of each worker.
        tasks: largest number of processes that a run has on one node.
        options: options of the launcher, in canonical form.
        replaces: workers of earlier submissions that it continues, by name.
        token: random name that no other submission has.
        host: host on which it was made.
        started: time in UTC, ISO 8601.
        job: its name at the scheduler; None while it is unknown whether it was started.
        ended: all its workers have ended for good.
    """

    launcher: str
    folder: Path
    sweep: str
    command: Sequence[str]
    directory: str
    workers: int
    nodes: int = 1
    tasks: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    replaces: Sequence[str] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    host: str = field(default_factory=socket.gethostname)
    started: str = ""
    job: str | None = None
    ended: bool = False

    @property
    def name(self) -> str:
        """Unique name, such as `slurm-3f2a9c10`."""
        return f"{self.launcher}-{self.token}"

    def worker(self, number: int) -> str:
        """Unique name of a worker, counted from 0."""
        return f"{self.name}_{number}"

    def file(self, suffix: str, number: int | None = None) -> Path:
        """A file of the submission, or of one of its workers."""
        return self.folder / f"{self.name if number is None else self.worker(number)}{suffix}"

    def exit_code(self, number: int) -> int | None:
        """The exit code of a worker that has ended by itself; None if it has not, or is to be started again."""
        try:
            return int(self.file(".end", number).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def to_json(self) -> str:
        """JSON for `from_json`."""
        values = asdict(self)
        del values["folder"]
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, folder: Path, text: str) -> Self:
        """The submission that `to_json` wrote.

        Raises:
            ValueError: it did not write this text.
        """
        try:
            return cls(folder=folder, **json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from None


class Phase(StrEnum):
    """The phase of a worker."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


class Cause(StrEnum):
    """Why a worker has ended, in words."""

    DONE = "done"
    EXITED = "exited"  # with another exit code than 0
    TIME_LIMIT = "time limit"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node failure"
    OUT_OF_MEMORY = "out of memory"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Worker:
    """The state of a worker.

    Attributes:
        name: its unique name.
        number: its number in its submission, from 0.
        job: its batch job, as `greenseg.batch_job.job_id` names it in the record of a run; None if it has none.
        phase: its phase.
        reason: why it is pending, in words.
        host: the host or hosts it runs or ran on; empty if unknown.
        cause: why it has ended; None if it has not.
        code: its exit code; None if unknown.
        log: its output.
    """

    name: str
    number: int
    job: str | None
    phase: Phase
    reason: str = ""
    host: str = ""
    cause: Cause | None = None
    code: int | None = None
    log: Path = Path()


class NotStarted(Exception):
    """The workers were not started; says why."""


class NoAnswer(Exception):
    """The scheduler does not answer for now; says why."""


class Launcher(Protocol):
    """Starts workers, tells their states, and cancels them."""

    OPTIONS: ClassVar[Mapping[str, Option]]
    """The keys of the launcher in a sweep file; empty if it has none."""

    NODES: ClassVar[bool]
    """Whether a worker may have several nodes."""

    def problems(self) -> list[str]:
        """Reasons why this launcher cannot be used on this machine; one message each."""

    def workers(self, runs: int, options: Mapping[str, Any]) -> int:
        """The number of workers for so many runs, 1 or more."""

    def script(self, submission: Submission) -> str:
        """The script that starts the workers of a submission."""

    def sees(self, submission: Submission) -> bool:
        """Whether this host can ask about the workers of a submission, and cancel them."""

    def start(self, submission: Submission) -> str:
        """Start the workers of a submission, whose script is in its folder.

        Returns:
            The name of the submission at the scheduler.

        Raises:
            NotStarted: none was started.
            NoAnswer: it is unknown whether they were; `find` tells later.
        """

    def find(self, submission: Submission) -> str | None:
        """The name at the scheduler of a submission whose `start` was cut off; None if nothing was started.

        Raises:
            NoAnswer: it is unknown for now.
        """

    def states(self, submissions: Sequence[Submission]) -> list[Worker]:
        """The states of all workers of submissions that were started. Those that are out of sight count as running.

        Raises:
            NoAnswer: they are unknown for now.
        """

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Cancel all workers: they stop their runs so that these can continue later.

        Raises:
            NoAnswer: the scheduler does not answer.
        """


def ended(submission: Submission, number: int, job: str | None, **known: Any) -> Worker:
    """The state of a worker that has ended, as its own script tells it, unless more is known.

    Args:
        submission: its submission.
        number: its number.
        job: its batch job.
        known: more fields of `Worker`; they override those from the script.
    """
    code = submission.exit_code(number)
    cause = Cause.UNKNOWN if code is None else Cause.EXITED if code else Cause.DONE
    values = {"cause": cause, "code": code} | known
    return Worker(submission.worker(number), number, job, Phase.ENDED, log=submission.file(".log", number), **values)
