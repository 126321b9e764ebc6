"""The submissions of a sweep, in files below its folder: workers are found again after any end of this process.

.launch/slurm-3f2a9c10.json      the record; without `job` from before the start of the workers until after it
.launch/slurm-3f2a9c10.yaml      the sweep file that its workers read: changes to the user's file do not reach them
.launch/slurm-3f2a9c10.sh        the script
.launch/slurm-3f2a9c10_0.log     output of worker 0; .end, .left: how it ended
.launch/slurm-3f2a9c10.cancelled the user has cancelled it: no part of it is submitted again
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from greenseg.errors import UserError
from greenseg.files import OUT_REMEDY, locked, write_atomically
from greenseg.launchers import LAUNCHERS
from greenseg.launchers.launcher import NotStarted, Phase, Submission, Worker


class Submissions:
    """The submissions of a sweep.

    Args:
        folder: folder of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute() / ".launch"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process of this host submit while the context lasts."""
        with locked(self.folder / ".lock", OUT_REMEDY):
            yield

    def all(self) -> list[Submission]:
        """All submissions, oldest first.

        Raises:
            UserError: a record is damaged.
        """
        found = []
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            try:
                found.append(Submission.from_json(self.folder, path.read_text(encoding="utf-8")))
            except FileNotFoundError:  # withdrawn just now
                continue
            except ValueError as error:
                raise UserError(f"{path}: damaged ({error}); delete it once its workers have ended") from None
        return sorted(found, key=lambda each: (each.started, each.token))

    def open(self) -> list[Submission]:
        """The submissions with workers that may live. Those whose start was cut off are completed, or withdrawn.

        Raises:
            NoAnswer: it is unknown for now whether a start has succeeded.
        """
        found = []
        for submission in self.all():
            if submission.ended:
                continue
            if submission.job is None:
                job = LAUNCHERS[submission.launcher]().find(submission)
                if job is None:
                    self._withdraw(submission)
                    continue
                submission = self._write(replace(submission, job=job))
            found.append(submission)
        return found

    def submit(self, submission: Submission, sweep: str) -> Submission:
        """Start workers.

        Its record is written before, so that a process that dies meanwhile submits nothing twice.

        Args:
            submission: the submission.
            sweep: text of the sweep file for its workers.

        Raises:
            NotStarted: none was started.
            NoAnswer: it is unknown for now whether they were.
        """
        launcher = LAUNCHERS[submission.launcher]()
        submission = replace(submission, started=datetime.now(UTC).isoformat(timespec="milliseconds"))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(submission.file(".yaml"), sweep)
        write_atomically(submission.file(".sh"), launcher.script(submission))
        self._write(submission)
        try:
            job = launcher.start(submission)
        except NotStarted:
            self._withdraw(submission)
            raise
        return self._write(replace(submission, job=job))

    def submit_left(self, submissions: Sequence[Submission], workers: Iterable[Worker]) -> list[Submission]:
        """Submit again what workers have left that could not put their jobs into the queue again; returns the new ones.

        Raises:
            NotStarted: it was not submitted.
            NoAnswer: it is unknown for now whether it was.
        """
        continued = {name for submission in self.all() for name in submission.replaces}
        over = {worker.name for worker in workers if worker.phase == Phase.ENDED}
        new = []
        for submission in submissions:
            if self.is_cancelled(submission):
                continue
            names = [
                name
                for number in range(submission.workers)
                if (name := submission.worker(number)) in over - continued and submission.file(".left", number).exists()
            ]
            if names:
                text = submission.file(".yaml").read_text(encoding="utf-8")
                again = renewed(submission, workers=len(names), replaces=names)
                new.append(self.submit(again, text))
        return new

    def end(self, submission: Submission) -> None:
        """Note that all workers of a submission have ended for good."""
        self._write(replace(submission, ended=True))

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Cancel all workers of submissions.

        Raises:
            NoAnswer: the scheduler does not answer.
        """
        for submission in submissions:
            submission.file(".cancelled").touch()
        for name, launcher in LAUNCHERS.items():
            if of_launcher := [each for each in submissions if each.launcher == name]:
                launcher().cancel(of_launcher)

    def is_cancelled(self, submission: Submission) -> bool:
        """Whether the user has cancelled a submission."""
        return submission.file(".cancelled").exists()

    def _write(self, submission: Submission) -> Submission:
        write_atomically(submission.file(".json"), submission.to_json())
        return submission

    def _withdraw(self, submission: Submission) -> None:
        for suffix in (".json", ".yaml", ".sh"):
            submission.file(suffix).unlink(missing_ok=True)


def states(submissions: Sequence[Submission]) -> list[Worker]:
    """The states of all workers of submissions, in their order.

    Raises:
        NoAnswer: a scheduler does not answer.
    """
    found: dict[str, list[Worker]] = {}
    for name, launcher in LAUNCHERS.items():
        of_launcher = [each for each in submissions if each.launcher == name]
        for worker in launcher().states(of_launcher) if of_launcher else ():
            found.setdefault(worker.name.rpartition("_")[0], []).append(worker)
    return [worker for submission in submissions for worker in found[submission.name]]


def renewed(submission: Submission, *, workers: int, replaces: Sequence[str]) -> Submission:
    """A submission with the same command and options, and a name of its own."""
    fresh = Submission(
        submission.launcher, submission.folder, submission.sweep, (), submission.directory, workers, submission.nodes,
        submission.tasks, submission.options, replaces,
    )  # fmt: skip
    earlier, new = (str(each.file(".yaml")) for each in (submission, fresh))
    return replace(fresh, command=[new if part == earlier else part for part in submission.command])
