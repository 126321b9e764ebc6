"""The plan of a sweep: where each of its runs stands, what is to do, and what that will take."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from greenseg.data.content import Contents
from greenseg.machine import preflight
from greenseg.runs.index import RunIndex
from greenseg.runs.standing import STATUSES, PlannedRun, Spent, leave_alone, look
from greenseg.settings import ACCOUNTING, group_of, values_of, violations
from greenseg.sweep.file import Sweep, find_place


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
