"""The plan of a sweep: the status of its runs, the runs to do, and the predicted time and energy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from greenseg.compress.refusals import refusals
from greenseg.data.content import Contents
from greenseg.errors import UserError
from greenseg.failures import Failure
from greenseg.machine import preflight
from greenseg.runs.costs import Costs, Range
from greenseg.runs.index import RunIndex
from greenseg.runs.lineage import ALIKE, lost_parents, resolve_teacher
from greenseg.runs.standing import STATUSES, PlannedRun, leave_alone, look
from greenseg.settings import Settings, parent_of, parents_first, violations
from greenseg.sweep.file import Sweep, find_place


@dataclass(frozen=True)
class Prediction:
    """Time and energy left, predicted from the time and joules per epoch of the sweep's finished runs.

    Attributes:
        seconds: time for all runs to do, one at a time.
        joules: energy of all runs to do.
        finished: number of finished runs that the prediction uses.
        by: number of runs predicted from their own repeats, from runs of similar cost (same network, size, batch,
            precision, devices), and from all runs.
    """

    seconds: Range
    joules: Range
    finished: int
    by: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """A sweep and the status of its runs.

    Attributes:
        sweep: the sweep.
        runs: all runs, in their order; a run that compresses another one comes after it.
        todo: the runs to train now, in their order.
        added: number of runs that the sweep does not name, but that its compressed runs come from.
        elsewhere: other machines than this one train the runs.
    """

    sweep: Sweep
    runs: Sequence[PlannedRun]
    todo: Sequence[PlannedRun]
    added: int = 0
    elsewhere: bool = False

    @cached_property
    def counts(self) -> dict[str, int]:
        """Status → number of runs, without zeros."""
        found = Counter(run.status for run in self.runs)
        return {status: found[status] for status in STATUSES if found[status]}

    @cached_property
    def joules(self) -> float:
        """Joules of all runs so far."""
        return sum(run.spent.joules for run in self.runs if run.spent)

    @cached_property
    def impossible(self) -> list[str]:
        """Why this machine cannot do some of the runs, with places in the file, and problems of the data.

        If they are trained elsewhere, only reasons that do not depend on the machine.
        """
        todo = [run.settings for run in self.todo]
        messages = [
            f"{find_place(self.sweep.places, run, constraint.settings) or self.sweep.name}: {message}"
            for run, constraint, message in violations(() if self.elsewhere else preflight.ALONE, todo)
        ]
        messages += [
            f"{find_place(self.sweep.places, run, ('prune', 'model')) or self.sweep.name}: {message}"
            for run, message in refusals(todo)
        ]
        messages += [
            f"{find_place(self.sweep.places, run, ('prune', 'quantize', 'runtime')) or self.sweep.name}: {message}"
            for run, message in lost_parents(self.runs, self.todo)
        ]
        return list(dict.fromkeys(messages)) + preflight.data_problems(todo)

    @cached_property
    def changed(self) -> list[PlannedRun]:
        """The runs to do that have an interrupted run on other content, which they would not continue."""
        return [run for run in self.todo if run.other_status in ("interrupted", "paused")]

    @cached_property
    def newer(self) -> list[str]:
        """Why runs from a later version of greenseg cannot be used, with the remedy; one message each."""
        return [leave_alone(run) for run in self.runs if run.status == "newer"]

    @cached_property
    def left(self) -> Prediction | None:
        """Predicted cost of the runs to do; None before a run has finished."""
        return _predict(self)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values; each run has only the varied settings."""
        varied = [name for name in self.sweep.varied if name != "model"]
        if len(varied) < len(self.sweep.varied):  # model is encoder and decoder
            varied = list(dict.fromkeys(["encoder", "decoder", *varied]))
        runs = self.runs[0].settings.resolved()
        left = self.left
        return {
            "sweep": self.sweep.name,
            "runs": len(self.runs),
            "counts": self.counts,
            "todo": len(self.todo),
            "excluded": [
                {"where": e.place, "rule": e.rule, "combinations": e.combinations} for e in self.sweep.excluded
            ],
            "duplicates": self.sweep.duplicates,
            "added": self.added,
            "impossible": self.impossible,
            "joules": self.joules,
            "max_energy": self.sweep.max_energy,
            "left": left
            and {f: r._asdict() for f, r in (("seconds", left.seconds), ("joules", left.joules))}
            | {"from": left.finished, "by": left.by},
            "settings": {name: value for name, value in runs.items() if name not in varied},
            "order": [
                {
                    "identity": run.settings.identity,
                    "status": run.status,
                    "directory": str(run.known.path) if run.known else f"{run.folder}/{run.name or run.settings.slug}",
                    "settings": {name: getattr(run.settings, name) for name in varied},
                }
                for run in self.runs
            ],
        }


def make_plan(sweep: Sweep, out: Path, retry_failed: bool = False) -> Plan:
    """Find the status of every run of a sweep.

    Args:
        sweep: the sweep.
        out: folder of all runs, including those of other sweeps.
        retry_failed: whether failed runs are to do.
    """
    index, contents, folder = RunIndex(out), Contents(), str(out / sweep.name)
    settings = parents_first(_with_teachers(sweep, out))
    if index.is_empty:
        runs = [PlannedRun(each, folder, content=contents.of(each)) for each in settings]
    else:
        runs = [look(each, contents.of(each), index, folder) for each in settings]
    wanted = {"new", "interrupted", "paused", "damaged"} | ({"failed"} if retry_failed else set())
    failed = set() if retry_failed else {run.settings.identity for run in runs if run.status == "failed"}
    todo = [run for run in runs if run.status in wanted or _parent_may_finish(run, failed)]
    return Plan(sweep, runs, todo, len(settings) - len(sweep.runs))


def _with_teachers(sweep: Sweep, out: Path) -> Sequence[Settings]:
    """The runs of a sweep, with the directory of each teacher.

    Raises:
        UserError: teachers that do not exist or do not fit, each with its place in the file.
    """
    problems: list[str] = []
    known: dict[tuple[str, ...], str] = {}
    runs: list[Settings] = []
    for run in sweep.runs:
        if not run.teacher:
            runs.append(run)
            continue
        asked = (run.teacher, *(str(getattr(run, name)) for name in ALIKE))
        if asked not in known:
            try:
                known[asked] = resolve_teacher(run, out).teacher
            except UserError as error:
                place = find_place(sweep.places, run, ["teacher"]) or sweep.name
                problems += [f"{place}: {problem}" for problem in error.problems]
                known[asked] = ""
        runs.append(run.changed(teacher=known[asked]))
    if problems:
        raise UserError(problems)
    return runs


def _parent_may_finish(run: PlannedRun, failed: set[str]) -> bool:
    """Whether a run failed only because its parent did, which is no longer among the failed: then it is tried again."""
    parent = parent_of(run.settings) if run.status == "failed" else None
    if parent is None or run.known is None or parent.identity in failed:
        return False
    record = run.known.record()
    return bool(record and record.error and record.error.kind == Failure.PARENT)


# ── what is left


def _predict(plan: Plan) -> Prediction | None:
    """Predict the runs to do from the finished runs."""
    costs, finished = costs_of(plan)
    if not finished:
        return None
    by: Counter[str] = Counter()
    totals = [[0.0] * 3, [0.0] * 3]
    for run in plan.todo:
        done = run.spent.epochs if run.spent and run.status in ("interrupted", "paused") else 0
        left = max(run.settings.own_epochs - done, 0)
        cost = costs.of(run.settings)
        assert cost
        by[cost.by] += 1
        for total, rate in zip(totals, (cost.seconds, cost.joules), strict=True):
            for i, value in enumerate(rate):
                total[i] += value * left
    seconds, joules = (Range(*total) for total in totals)
    return Prediction(seconds, joules, finished, dict(by))


def costs_of(plan: Plan) -> tuple[Costs, int]:
    """The cost per epoch of the runs of a plan, and the number of finished runs that it comes from."""
    costs, finished = Costs(plan.sweep.varied), 0
    for run in plan.runs:
        if run.status == "finished" and run.spent and run.spent.epochs:
            costs.add(run.settings, run.spent)
            finished += 1
    return costs, finished
