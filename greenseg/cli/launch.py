"""`greenseg sweep` with workers: starts them, follows them, cancels them. Imports no torch."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from greenseg import yamlfile
from greenseg.batch_job import WORKER, job_id
from greenseg.errors import UserError
from greenseg.launchers import LAUNCHERS
from greenseg.launchers.launcher import Cause, NoAnswer, NotStarted, Phase, Submission, Worker
from greenseg.launchers.submissions import Submissions, states
from greenseg.sweep.file import Sweep

if TYPE_CHECKING:
    from greenseg.cli.sweep_view import JsonView, PlainView
    from greenseg.launch.executor import Job
    from greenseg.runs.directory import RunDirectory
    from greenseg.sweep.plan import Plan

_LOOK_SECONDS = 1.0  # between looks at the directories of runs
_ASK_SECONDS = 10.0  # between questions to a scheduler, at most; at first it is asked more often
_TICK_SECONDS = 0.1


class Launch:
    """The workers of a sweep.

    Args:
        planned: the sweep.
        out: folder of all runs.
        launcher: name of the launcher, as the user gave it; None for the last one.
        detach: whether the user wants workers in the background, also on this machine.
        cancel: whether the user wants to cancel them.
        only_look: whether the user only wants to see the plan: nothing is written, and no scheduler need answer.
        options: options of the command for every worker.

    Attributes:
        name: name of the launcher.
        is_elsewhere: whether workers are on other machines.
        is_used: whether there are workers to start or to follow; else this process trains the runs.
        away: hosts that may have workers in the background, which only they themselves can follow and cancel.
    """

    def __init__(
        self,
        planned: Sweep,
        out: Path,
        launcher: str | None,
        *,
        detach: bool,
        cancel: bool,
        only_look: bool,
        options: Sequence[str],
    ) -> None:
        self._planned, self._out, self._options = planned, out, options
        self._submissions = Submissions(out / planned.name)
        self._open: list[Submission] = []
        self._stopping: list[Submission] = []  # cancelled, and not known to have ended
        self._killed: list[str] = []
        # Workers, and jobs that the user has submitted, train.
        trains = not cancel and (WORKER in os.environ or (launcher is None and job_id() is not None))
        every = [] if trains else self._submissions.all()
        if any(not each.ended and launcher in (None, each.launcher) for each in every):
            if only_look:
                self._look(launcher)
            else:
                self._find_living(launcher, cancel)
        away = [] if trains else self._submissions.away()
        self.away = sorted({each.host for each in away if launcher in (None, each.launcher)})
        self.name = launcher or (every[-1].launcher if every else "local")
        self.is_elsewhere = self.name != "local"
        self.is_used = not trains and (self.is_elsewhere or detach or bool(self._open and launcher is None))

    def _look(self, launcher: str | None) -> None:
        """Find the submissions with living workers; if a scheduler does not answer, say so, and count all as living."""
        from greenseg.cli.view import warn

        try:
            found = [each for each in self._submissions.open(to_write=False) if launcher in (None, each.launcher)]
            living = {worker.name.rpartition("_")[0] for worker in states(found) if worker.phase != Phase.ENDED}
        except NoAnswer as error:
            warn(f"{error}; it is unknown which workers live")
            found = [each for each in self._submissions.all() if not each.ended and launcher in (None, each.launcher)]
            living = {each.name for each in found}
        self._open = self._not_cancelled(each for each in found if each.name in living)

    def _find_living(self, launcher: str | None, cancel: bool) -> None:
        """Find the submissions with living workers, and note which others have ended."""
        try:
            with self._submissions.alone():
                found = [each for each in self._submissions.open() if launcher in (None, each.launcher)]
            workers = states(found)
        except NoAnswer as error:
            instead = "" if cancel else ", or train here with --launcher local"
            raise UserError(f"{error}; try again later{instead}") from None
        self._killed = [worker.job for worker in workers if worker.cause == Cause.OUT_OF_MEMORY and worker.job]
        for submission in found:
            names = {submission.worker(number) for number in range(submission.workers)}
            if all(worker.phase == Phase.ENDED for worker in workers if worker.name in names):
                self._submissions.end(submission)
            elif self._submissions.is_cancelled(submission):
                self._stopping.append(submission)
            else:
                self._open.append(submission)

    def record_killed(self, runs: "Iterable[RunDirectory]") -> bool:
        """Record the failures of runs whose workers were killed, while nobody followed, because memory ran out.

        Returns:
            Whether there are any.
        """
        from greenseg.launch.watch import record_out_of_memory

        runs = list(runs)
        return bool([run for job in self._killed for run in record_out_of_memory(runs, job)])

    # ── starting

    def orders(self, plan: "Plan", to_come: int) -> list[Submission]:
        """What to submit for the runs to do: for each number of nodes, an array of workers. Nothing if workers live.

        Args:
            plan: the plan of the sweep.
            to_come: number of runs that a search may still draw.

        Raises:
            UserError: this launcher cannot be used here.
        """
        if any(each.launcher == self.name for each in self._open):
            return []
        launcher = LAUNCHERS[self.name]()
        if problems := launcher.problems():
            raise UserError(problems)
        options = self._planned.launching.get(self.name, {})
        by_nodes: dict[int, list[int]] = {}
        for run in plan.todo:
            by_nodes.setdefault(run.settings.nodes, []).append(run.settings.devices)
        if to_come:
            by_nodes.setdefault(1, []).extend([1] * to_come)
        found = []
        for nodes, devices in sorted(by_nodes.items()):
            workers = launcher.workers(len(devices), options)
            order = Submission(
                self.name, self._submissions.folder, self._planned.name, (), str(Path.cwd()), workers, nodes,
                max(devices), options,
            )  # fmt: skip
            found.append(replace(order, command=self._command(order)))
        return found

    def _command(self, order: Submission) -> list[str]:
        return [
            sys.executable, "-m", "greenseg", "sweep", str(order.file(".yaml")), "--out", str(self._out),
            "--launcher", "local", *self._options,
        ]  # fmt: skip

    def scripts(self, orders: Sequence[Submission]) -> list[str]:
        """The scripts that would be submitted."""
        return [LAUNCHERS[order.launcher]().script(order) for order in orders]

    def reopen(self, plan: "Plan") -> None:
        """Let failed runs be tried again, each by one worker, once."""
        from greenseg.runs.attempt import reopen

        for run in plan.todo:
            if run.status == "failed" and run.known:
                reopen(run.known)

    def submit(self, orders: Sequence[Submission], tell: Callable[[str], None]) -> list[Submission]:
        """Start workers, unless another process of this machine has just done so; returns what was submitted.

        Raises:
            UserError: they were not started.
        """
        new = []
        text = yamlfile.dump(dict(self._planned.resolved))
        if self._stopping:
            names = ", ".join(each.job or each.name for each in self._stopping)
            tell(f"Cancelled workers have not stopped yet ({names}); --cancel stops them")
        if not orders:
            return []
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._submissions.alone())
                self._open = self._not_cancelled(self._submissions.open())
            except NoAnswer as error:
                raise UserError(f"{error}; try again later") from None
            if any(each.launcher == self.name for each in self._open):
                orders = []
            for order in orders:
                try:
                    submitted = self._submissions.submit(order, text)
                except NotStarted as error:
                    raise UserError(f"launcher {self.name}: not started: {error}") from None
                except NoAnswer as error:
                    raise UserError(f"{error}; the same command finds out later whether workers were started") from None
                self._open.append(submitted)
                new.append(submitted)
                of_nodes = f" of {order.nodes} nodes" if order.nodes > 1 else ""
                workers = "1 worker" if order.workers == 1 else f"{order.workers} workers"
                name = f"job {submitted.job}" if self.is_elsewhere else submitted.name
                tell(f"Started {workers}{of_nodes}: {self.name}, {name}; output in {self._submissions.folder}")
        return new

    def _not_cancelled(self, submissions: Iterable[Submission]) -> list[Submission]:
        return [each for each in submissions if not self._submissions.is_cancelled(each)]

    def cancel(self, tell: Callable[[str], None]) -> None:
        """Cancel all workers, also those that an earlier call could not reach, and wait for their end.

        Args:
            tell: called with sentences for the user.

        Raises:
            UserError: a scheduler does not answer, or workers are on another host.
        """
        self._cancel_those_in_sight(tell)
        if self.away:
            hosts = ", ".join(self.away)
            raise UserError(f"workers in the background of {hosts} can be cancelled only there, by the same command")

    def _cancel_those_in_sight(self, tell: Callable[[str], None]) -> None:
        living = [*self._open, *self._stopping]
        if not living and self.away:
            return
        if not living:
            tell("No workers to cancel")
            return
        try:
            self._submissions.cancel(living)
            tell("Cancelled; waiting for the workers to stop")
            while any(worker.phase != Phase.ENDED for worker in states(living)):
                time.sleep(_LOOK_SECONDS)
        except NoAnswer as error:
            raise UserError(f"{error}; try again later") from None
        for submission in living:
            self._submissions.end(submission)
        tell("The workers have stopped; the same command without --cancel continues")

    # ── following

    def follow(
        self, jobs: "Sequence[Job]", drawn: bool, view: "JsonView | PlainView", tell: Callable[[str], None]
    ) -> bool:
        """Follow the workers until all have ended, or the user stops to; returns whether the user has.

        Args:
            jobs: all runs of the sweep.
            drawn: whether a search draws more runs.
            view: shows runs and workers.
            tell: called with sentences for the user.
        """
        from greenseg.launch.stop import Stop
        from greenseg.launch.watch import Watch

        if not self._open:
            return False
        watch = Watch(jobs, self._submissions.folder.parent, drawn, view)
        with Stop().installed() as stop, view:
            pause, asked, workers = _LOOK_SECONDS, -_ASK_SECONDS, list[Worker]()
            while not stop.requests:
                if time.monotonic() - asked >= pause:
                    asked, pause = time.monotonic(), min(2 * pause, _ASK_SECONDS)
                    workers = self._ask(watch.jobs, workers, tell)
                    view.workers(workers)
                over = bool(workers) and all(worker.phase == Phase.ENDED for worker in workers)
                watch.look(at_all=over)
                if over:
                    break
                end = time.monotonic() + _LOOK_SECONDS
                while time.monotonic() < end and not stop.requests:
                    time.sleep(_TICK_SECONDS)
            stopped = stop.requests > 0
        if stopped:
            tell("The workers go on. The same command follows them again; with --cancel, it stops them")
        else:
            for submission in self._open:
                self._submissions.end(submission)
        return stopped

    def _ask(self, jobs: "Sequence[Job]", before: Sequence[Worker], tell: Callable[[str], None]) -> list[Worker]:
        """The states of all workers; those before if a scheduler does not answer. Acts on those that have ended."""
        from greenseg.launch.watch import record_out_of_memory

        try:
            with self._submissions.alone(_ASK_SECONDS):
                known = {each.name for each in self._open}
                others = [each for each in self._submissions.open() if each.name not in known]
                self._open += self._not_cancelled(others)
                workers = states(self._open)
                if new := self._submissions.submit_left(self._open, workers, tell):
                    self._open += new
                    workers += states(new)
        except (NoAnswer, NotStarted) as error:
            tell(f"{error}; asking again")
            return list(before)
        over = {worker.name for worker in before if worker.phase == Phase.ENDED}
        for worker in workers:
            if worker.cause == Cause.OUT_OF_MEMORY and worker.job and worker.name not in over:
                record_out_of_memory([job.run for job in jobs], worker.job)
        return workers
