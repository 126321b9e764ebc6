"""The plan of a sweep: where each of its runs stands, what is to do, and what that will take."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from greenseg.data.content import Content, Contents
from greenseg.machine import preflight
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import RunIndex, entry_of
from greenseg.runs.record import BadRecord, Record
from greenseg.runs.summary import accounted_otherwise, summary
from greenseg.settings import ACCOUNTING, Settings, group_of, values_of, violations
from greenseg.sweep.file import Sweep, find_place

STATUSES = ("finished", "failed", "interrupted", "running", "damaged", "newer", "new")


class Spent(NamedTuple):
    """What a run took so far."""

    seconds: float
    joules: float
    epochs: int


class PlannedRun(NamedTuple):
    """A run and where it stands.

    Attributes:
        known: its directory, where it has one already.
        status: one of `STATUSES`; `damaged`: its record cannot be read, it starts over; `newer`: a later version of
            greenseg wrote it, it is left alone.
        spent: so far, where its record tells.
        outdated: it has finished, and was accounted for with other settings.
        problem: what is wrong with its record.
        content: what it would be trained on now; None where the data are not here.
        by_path: settings and path alone say that `known` is its directory.
        contents: that these were trained on; where there are several, they do not decide.
        name: that its directory will have, where it has none yet.
        other: a run of the same settings that was trained on other content; see `Found`.
        other_status: where that one stands.
    """

    settings: Settings
    folder: str
    known: RunDirectory | None = None
    status: str = "new"
    spent: Spent | None = None
    outdated: bool = False
    problem: str = ""
    content: Content | None = None
    by_path: bool = False
    contents: int = 1
    name: str = ""
    other: RunDirectory | None = None
    other_status: str = ""

    @property
    def directory(self) -> RunDirectory:
        """Its directory, or the one that it will have."""
        return self.known or RunDirectory(Path(self.folder, self.name or self.settings.slug))


@dataclass(frozen=True)
class Range:
    """A prediction: the mean of what was seen, the lowest and the highest."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """What is left, as predicted from runs of the sweep that have finished, by their time and joules an epoch.

    Attributes:
        seconds: of all runs to do, one at a time.
        joules: of all runs to do.
        finished: number of runs that it is predicted from.
        by: how many runs are predicted from their own repeats, from runs that are alike in what decides about cost
            (network, size, batch, precision, devices), and from all.
    """

    seconds: Range
    joules: Range
    finished: int
    by: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """A sweep, and where it stands.

    Attributes:
        runs: in the order to run them.
        todo: those to train now, in that order.
    """

    sweep: Sweep
    runs: Sequence[PlannedRun]
    todo: Sequence[PlannedRun]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Status → number of runs; without those of which there are none."""
        found = Counter(run.status for run in self.runs)
        return {status: found[status] for status in STATUSES if found[status]}

    @cached_property
    def joules(self) -> float:
        """Joules that all runs have taken so far."""
        return sum(run.spent.joules for run in self.runs if run.spent)

    @cached_property
    def impossible(self) -> list[str]:
        """What of the runs to do this machine cannot run, and where the file says so; and what data it lacks."""
        todo = [run.settings for run in self.todo]
        messages = [
            f"{find_place(self.sweep.places, run, constraint.settings) or self.sweep.name}: {message}"
            for run, constraint, message in violations(preflight.ALONE, todo)
        ]
        return list(dict.fromkeys(messages)) + preflight.data_problems(todo)

    @cached_property
    def changed(self) -> list[PlannedRun]:
        """The runs to do in place of which one on other content was interrupted: starting would not continue that."""
        return [run for run in self.todo if run.other_status == "interrupted"]

    @cached_property
    def newer(self) -> list[str]:
        """Why runs that a later version of greenseg has written cannot be used, and what to do; one message each."""
        return [leave_alone(run) for run in self.runs if run.status == "newer"]

    @cached_property
    def left(self) -> Prediction | None:
        """What the runs to do will take; None where none has finished yet."""
        return _predict(self)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values; of each run only the settings that vary."""
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
            "impossible": self.impossible,
            "joules": self.joules,
            "max_energy": self.sweep.max_energy,
            "left": left
            and {"seconds": vars(left.seconds), "joules": vars(left.joules), "from": left.finished, "by": left.by},
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
    """Look where every run of a sweep stands.

    Args:
        sweep: as its file says.
        out: folder of all runs; those of all sweeps are looked at.
        retry_failed: runs that failed are to do again.
    """
    index, contents, folder = RunIndex(out), Contents(), str(out / sweep.name)
    if index.is_empty:
        runs = [PlannedRun(settings, folder, content=contents.of(settings)) for settings in sweep.runs]
    else:
        runs = [look(settings, contents.of(settings), index, folder) for settings in sweep.runs]
    wanted = {"new", "interrupted", "damaged"} | ({"failed"} if retry_failed else set())
    return Plan(sweep, runs, [run for run in runs if run.status in wanted])


def look(settings: Settings, content: Content | None, index: RunIndex, folder: str) -> PlannedRun:
    """Where a run stands.

    Args:
        settings: of the run.
        content: what it would be trained on now; None where that is not known.
        index: the directories that there are.
        folder: of the sweep, in which the run gets a directory where it has none.
    """
    found = index.find(settings, content, folder)
    other, other_status = (found.other.directory, found.other.status()) if found.other else (None, "")
    run = PlannedRun(
        settings, folder, content=content, by_path=found.by_path, contents=found.contents, other=other,
        other_status=other_status,
    )  # fmt: skip
    if found.entry is None:
        return run._replace(name=index.free_name(settings, folder)) if found.other else run
    directory, record = found.entry.directory, found.entry.record
    if found.entry.problem:
        status = "newer" if found.entry.newer else "damaged"
        return run._replace(known=directory, status=status, problem=found.entry.problem)
    status = found.entry.status()
    if record is None:
        return run._replace(known=directory, status=status)
    outdated = status == "finished" and accounted_otherwise(record, settings)
    return run._replace(known=directory, status=status, spent=_spent(directory, record), outdated=outdated)


def leave_alone(run: PlannedRun) -> str:
    """Why a run that a later version of greenseg has written is not touched, and what to do."""
    return f"{run.problem}, or keep today's runs in another folder with --out"


def refusal(run: PlannedRun) -> str:
    """Why a run does not start in place of one that was interrupted on other content, and what to do."""
    return (
        f"{run.other and run.other.path}: this run was interrupted, and {run.settings.data} gives other slices now"
        f"{difference(run)}. Bring back the earlier data, or the greenseg that prepared them, to continue it, or start "
        f"over with --again"
    )


def difference(run: PlannedRun) -> str:
    """How the content of a run differs from that of the other one, in brackets; empty where that is not known."""
    if not (run.other and run.content):
        return ""
    then = entry_of(run.other).content_then(run.settings, run.content)
    found = run.content.difference(then) if then else ""
    return f" ({found})" if found else ""


def _spent(directory: RunDirectory, record: Record) -> Spent | None:
    metrics = record.metrics
    if record.status == "running":  # of one that was killed, what it had finished stands in its epochs
        try:
            metrics = summary(record, directory.epochs()).metrics
        except (BadRecord, TypeError, ValueError):
            return None
    if metrics.seconds is None or metrics.joules is None or metrics.epochs is None:
        return None
    return Spent(metrics.seconds, metrics.joules, metrics.epochs)


# ── what is left

_COST = (
    "encoder", "decoder", "image_size", "batch_size", "precision", "accelerator", "devices", "power_limit", "gpu_clock",
)  # fmt: skip
"""Settings that decide most about the time and joules of an epoch."""


def _predict(plan: Plan) -> Prediction | None:
    """Each run to do takes, per epoch, what finished runs took: its repeats, else runs of like cost, else all."""
    finished = [run for run in plan.runs if run.status == "finished" and run.spent and run.spent.epochs]
    if not finished:
        return None
    varied = [n for n in plan.sweep.varied if group_of(n) != ACCOUNTING and n not in ("seed", "epochs")]
    kinds = {
        "repeats": values_of(varied),
        "alike": values_of([name for name in varied if name in _COST or name == "model"]),
        "all": values_of([]),
    }
    seen: dict[str, dict[Any, list[Spent]]] = {kind: defaultdict(list) for kind in kinds}
    for run in finished:
        assert run.spent
        for kind, key in kinds.items():
            seen[kind][key(run.settings)].append(run.spent)
    rates = {kind: {key: _rates(group) for key, group in groups.items()} for kind, groups in seen.items()}
    by: Counter[str] = Counter()
    totals = [[0.0] * 3, [0.0] * 3]
    for run in plan.todo:
        done = run.spent.epochs if run.spent and run.status == "interrupted" else 0
        left = max(run.settings.epochs - done, 0)
        for kind, key in kinds.items():
            found = rates[kind].get(key(run.settings))
            if found:
                by[kind] += 1
                for total, rate in zip(totals, found, strict=True):
                    for i, value in enumerate(rate):
                        total[i] += value * left
                break
    seconds, joules = (Range(*total) for total in totals)
    return Prediction(seconds, joules, len(finished), dict(by))


def _rates(group: Sequence[Spent]) -> tuple[tuple[float, float, float], ...]:
    """Mean, lowest and highest seconds an epoch, then joules an epoch."""
    rates = ([spent.seconds / spent.epochs for spent in group], [spent.joules / spent.epochs for spent in group])
    return tuple((fmean(values), min(values), max(values)) for values in rates)
