"""The submissions of a sweep, in files below its folder: workers are found again after any end of this process.

.launch/slurm-3f2a9c10.json      the record; without `job` from before the start of the workers until after it
.launch/slurm-3f2a9c10.yaml      the sweep file that its workers read: changes to the user's file do not reach them
.launch/slurm-3f2a9c10.sh        the script
.launch/slurm-3f2a9c10_0.log     output of worker 0; .end, .left: how it ended; .again: token of its next submission
.launch/slurm-3f2a9c10.cancelled the user has cancelled it: no part of it is submitted again
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from greenseg import locks
from greenseg.errors import UserError
from greenseg.files import OUT_REMEDY, refusal, write_atomically
from greenseg.launchers import LAUNCHERS
from greenseg.launchers.launcher import NoAnswer, NotStarted, Phase, Submission, Worker
from greenseg.leases import Folder

_CUT_OFF = timedelta(minutes=10)
"""A start that took longer was cut off. It is longer than schedulers are waited for, and clocks of hosts may differ."""

_PATIENCE_SECONDS = 180.0  # for another process that submits


class Submissions:
    """The submissions of a sweep.

    Args:
        folder: folder of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute() / ".launch"
        self._has_locks = True

    @contextlib.contextmanager
    def alone(self, patience: float = _PATIENCE_SECONDS) -> Iterator[None]:
        """Let no other process of this host submit while the context lasts, unless the file system has no locks.

        Args:
            patience: longest time to wait for another process, in seconds.

        Raises:
            NoAnswer: another process is submitting for longer than that.
            UserError: the folder is not writable.
            OSError: the disk is full.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(locks.hold(self.folder / ".lock", patience=patience))
            except OSError as error:
                if not locks.has_no_locks(error):
                    raise refusal(self.folder, error, OUT_REMEDY) from None
                self._has_locks = False
            else:
                if held is None:
                    raise NoAnswer(f"another process of this host has been submitting workers for {patience:g} s")
            yield

    def all(self) -> list[Submission]:
        """All submissions, oldest first.

        Raises:
            UserError: a record is damaged, or has a launcher that this version lacks.
        """
        found = []
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            try:
                submission = Submission.from_json(self.folder, path.read_text(encoding="utf-8"))
            except FileNotFoundError:  # withdrawn just now
                continue
            except ValueError as error:
                raise UserError(f"{path}: damaged ({error}); delete it once its workers have ended") from None
            if submission.launcher not in LAUNCHERS:
                raise UserError(
                    f"{path}: launcher '{submission.launcher}' is unknown to this version of greenseg; valid: "
                    f"{', '.join(LAUNCHERS)}; delete it once its workers have ended"
                )
            found.append(submission)
        return sorted(found, key=lambda each: (each.started, each.token))

    def away(self) -> list[Submission]:
        """The submissions with workers that may live, out of sight of this host."""
        unseen = [each for each in self.all() if not (each.ended or LAUNCHERS[each.launcher]().sees(each))]
        return [each for each in unseen if None in map(each.exit_code, range(each.workers))]

    def open(self, to_write: bool = True) -> list[Submission]:
        """The submissions that this host can ask about and whose workers may live.

        Those whose start was cut off are completed, or withdrawn. Those whose start another process may be in are left
        out.

        Args:
            to_write: write down what is found out.

        Raises:
            NoAnswer: it is unknown for now whether a start has succeeded.
        """
        found = []
        for submission in self.all():
            if submission.ended or not LAUNCHERS[submission.launcher]().sees(submission):
                continue
            if submission.job is None:
                job = LAUNCHERS[submission.launcher]().find(submission)
                if job is None:
                    if to_write and self._was_cut_off(submission):
                        self._withdraw(submission)
                    continue
                submission = replace(submission, job=job)
                if to_write:
                    self._write(submission)
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

    def submit_left(
        self, submissions: Sequence[Submission], workers: Iterable[Worker], tell: Callable[[str], None]
    ) -> list[Submission]:
        """Submit again what workers have left that could not put their jobs into the queue again; returns the new ones.

        Of several processes, also on several hosts, one does so.

        Args:
            submissions: the submissions.
            workers: the states of all their workers.
            tell: called with sentences for the user.

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
            if not names:
                continue
            try:
                text = submission.file(".yaml").read_text(encoding="utf-8")
            except OSError as error:
                tell(f"{submission.file('.yaml')}: {error.strerror}; its workers are not submitted again")
                continue
            again = renewed(submission, workers=len(names), replaces=names)
            if mine := [name for name in names if self._take(name, again.token)]:
                new.append(self.submit(replace(again, workers=len(mine), replaces=mine), text))
        return new

    def _take(self, worker: str, token: str) -> bool:
        """Make sure that only the submission with this token continues a worker; returns whether it may."""
        files, name = Folder(self.folder), f"{worker}.again"
        try:
            files.create(name, token.encode())
        except FileExistsError:
            return files.read(name) == token.encode()  # the reply was lost
        return True

    def _was_cut_off(self, submission: Submission) -> bool:
        """Whether a submission that no scheduler knows is none that another process is making right now.

        A process of this host that makes one holds the lock.
        """
        if submission.host == socket.gethostname() and self._has_locks:
            return True
        return not submission.started or datetime.now(UTC) - datetime.fromisoformat(submission.started) > _CUT_OFF

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
        for name in submission.replaces:
            path = self.folder / f"{name}.again"
            with contextlib.suppress(FileNotFoundError):
                if path.read_text(encoding="ascii") == submission.token:
                    path.unlink()
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
