"""The plan of a sweep: where each of its runs stands, what is to do, and what that will take."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from greenseg.config import ACCOUNTING, Settings, group_of, trained, values_of, violations
from greenseg.run_directory import BadRecord, RunDirectory, runs_by_identity
from greenseg.run_summary import accounted_otherwise, summary
from greenseg.sweep import machine
from greenseg.sweep.file import Sweep, find_place

STATUSES = ("finished", "failed", "interrupted", "running", "damaged", "new")


class Spent(NamedTuple):
    """What a run took so far."""

    seconds: float
    joules: float
    epochs: int


class PlannedRun(NamedTuple):
    """A run and where it stands.

    Attributes:
        known: its directory, where it has one already.
        status: one of `STATUSES`; `damaged`: its record cannot be read, it starts anew.
        spent: so far, where its record tells.
        outdated: it has finished, and was accounted for with other settings.
        problem: what is wrong with its record.
    """

    settings: Settings
    folder: str
    known: RunDirectory | None = None
    status: str = "new"
    spent: Spent | None = None
    outdated: bool = False
    problem: str = ""

    @property
    def directory(self) -> RunDirectory:
        """Its directory, or the one that it will have."""
        return self.known or RunDirectory(Path(self.folder, self.settings.slug))


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
            for run, constraint, message in violations(machine.ALONE, todo)
        ]
        return list(dict.fromkeys(messages)) + machine.data_problems(todo)

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
                    "directory": str(run.known.path) if run.known else f"{run.folder}/{run.settings.slug}",
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
    known = runs_by_identity(out)
    folder = str(out / sweep.name)
    if known:
        runs = [_look(settings, known.get(settings.identity), folder) for settings in sweep.runs]
    else:
        runs = [PlannedRun(settings, folder) for settings in sweep.runs]
    wanted = {"new", "interrupted", "damaged"} | ({"failed"} if retry_failed else set())
    return Plan(sweep, runs, [run for run in runs if run.status in wanted])


def _look(settings: Settings, directory: RunDirectory | None, folder: str) -> PlannedRun:
    if directory is None:
        return PlannedRun(settings, folder)
    try:
        record = directory.record()
        status = directory.status(record)
    except BadRecord as error:
        return PlannedRun(settings, folder, directory, "damaged", problem=str(error))
    if not record:
        return PlannedRun(settings, folder, directory, status)
    if not record["settings"].keys() >= {"encoder", "decoder"} or trained(record["settings"]) != settings.trained:
        own = RunDirectory(Path(folder, settings.slug))
        if own != directory:  # eight digits of an identity may coincide; the directories' names do not
            return _look(settings, own if own.path.is_dir() else None, folder)
        problem = f"{directory.path / 'run.json'}: these settings are another run's"
        return PlannedRun(settings, folder, directory, "damaged", problem=problem)
    outdated = status == "finished" and accounted_otherwise(record, settings)
    return PlannedRun(settings, folder, directory, status, _spent(directory, record), outdated)


def _spent(directory: RunDirectory, record: dict[str, Any]) -> Spent | None:
    try:
        # Of one that was killed, what it had finished stands in its epochs.
        metrics = (summary(record, directory.epochs()) if record["status"] == "running" else record)["metrics"]
        return Spent(float(metrics["seconds"]), float(metrics["joules"]), int(metrics["epochs"]))
    except (BadRecord, KeyError, TypeError, ValueError):
        return None


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
