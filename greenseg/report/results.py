"""Runs read back, and repeats joined into one result for each configuration."""

import gc
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NoReturn

from greenseg.config import REPEATS as REPEATS_GROUP
from greenseg.config import Settings, group_of, neutral
from greenseg.energy import Energy
from greenseg.energy.reading import ESTIMATE
from greenseg.report.objectives import ENERGIES, OBJECTIVES, QUALITIES, Objective
from greenseg.report.statistics import Mean, mean_of
from greenseg.run_directory import BadRecord, RunDirectory
from greenseg.run_summary import summary

_NEUTRAL = {name: neutral(name) for name, field in Settings.model_fields.items() if not field.exclude}
REPEATS = tuple(name for name in _NEUTRAL if group_of(name) == REPEATS_GROUP)
"""Settings that tell repeats of a configuration apart."""

_WRONG = (KeyError, TypeError, ValueError, AttributeError)
"""What comes of a record whose parts are missing, or of another type."""

_FAILURES = {
    "out_of_gpu_memory": "out of GPU memory",
    "out_of_memory": "out of memory",
    "timeout": "timed out",
    "no_progress": "no progress",
    "crash": "crashed",
    "diverged": "diverged",
}
"""Kinds of failures, as people say them."""


@dataclass(frozen=True)
class Run:
    """One run, as its directory tells.

    Attributes:
        directory: of the run.
        status: as `RunDirectory.status`.
        record: content of run.json but for attempts and data, with a summary up to the last finished epoch where the
            run did not finish.
    """

    directory: RunDirectory
    status: str
    record: dict[str, Any] = field(repr=False)

    def check(self) -> None:
        """Look at everything that a report will look at.

        Raises:
            BadRecord: a part of the record is missing or of another type.
        """
        parts: dict[str, Callable[[], object]] = {
            "configuration": lambda: str.strip(self.configuration),
            "status": lambda: str.strip(self.status),
            "metrics": lambda: self.metrics,
            "energy": lambda: sum(reading.joules for reading in self.energy.readings),
            "energy_method": lambda: self.unmeasured,
            "error": lambda: self.failure,
            **{name: partial(getattr, self, name) for name in ("settings", "ran", "hardware", "versions")},
        }
        for name, read in parts.items():
            try:
                read()
            except _WRONG:
                self._damaged(f"'{name}' is missing, or not what greenseg writes")
        for name, value in self.metrics.items():
            if not isinstance(value, int | float | dict | None):
                self._damaged(f"metrics: {name} is {value!r}, not a number")
        for objective in OBJECTIVES.values():
            try:
                value = objective.read(self)
            except _WRONG:
                value = "not what greenseg writes"
            if not isinstance(value, int | float | None):
                self._damaged(f"{objective.describe}: {value!r} is not a number")

    def _damaged(self, what: str) -> NoReturn:
        raise BadRecord(f"{self.directory.path / 'run.json'}: damaged: {what}")

    @property
    def configuration(self) -> str:
        """The hash that repeats share."""
        return self.record["configuration"]  # type: ignore[no-any-return]

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for; settings that its greenseg did not know yet have the values that do what it did."""
        return MappingProxyType(_NEUTRAL | self.record["settings"])

    @property
    def ran(self) -> dict[str, Any]:
        """What happened, where it can differ from what was asked for: precision, accelerator, devices …"""
        return dict(self.record.get("ran", {}))

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Dice, IoU, joules, seconds …"""
        return MappingProxyType(dict(self.record.get("metrics", {})))

    @cached_property
    def energy(self) -> Energy:
        """Energy of all attempts."""
        return Energy.from_json(self.record["energy"]["total"]) if "energy" in self.record else Energy()

    @property
    def unmeasured(self) -> list[str]:
        """Components whose joules are not known."""
        return list(self.record.get("energy_method", {}).get("unmeasured", {}))

    @property
    def failure(self) -> str:
        """Why it failed, such as `out of GPU memory`; empty where it did not, or no reason is known."""
        error = dict(self.record.get("error", {}))
        return _FAILURES.get(str(error.get("kind")), str(error.get("type", "")))

    @property
    def versions(self) -> dict[str, Any]:
        """Package → version that it ran with."""
        return dict(self.record.get("versions", {}))

    @property
    def hardware(self) -> str:
        """The processors that it ran on."""
        hardware = dict(self.record.get("hardware", {}))
        gpus = list(hardware.get("gpus") or [])
        return ", ".join(
            [f"{hardware.get('cpu', 'unknown CPU')} ({hardware.get('cores', '?')} cores)", *map(str, gpus)]
        )

    def figure(self, objective: Objective) -> float | None:
        """The figure of an objective; None where it is not known, or is no finite number."""
        value = objective.read(self)
        return value if value is not None and math.isfinite(value) else None


class Reader:
    """Reads runs, and, asked again, reads only those that changed."""

    def __init__(self) -> None:
        self._known: dict[RunDirectory, tuple[tuple[int, ...], Run]] = {}

    def read(self, directories: Iterable[RunDirectory]) -> tuple[list[Run], list[str]]:
        """The runs that have begun, and a message for each damaged one, which is left out."""
        runs, damaged = [], []
        with _no_garbage_collection(freeze=not self._known):
            for directory in directories:
                try:
                    run = self._read(directory)
                except BadRecord as error:
                    damaged.append(str(error))
                except _WRONG as error:  # of a run that did not finish: all is told anew, from its epochs
                    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                    damaged.append(f"{directory.path}: damaged: run.json or epochs.jsonl: {what}")
                else:
                    runs += [run] if run else []
        return runs, damaged

    def _read(self, directory: RunDirectory) -> Run | None:
        stamp = _stamp(directory)
        if directory in self._known and self._known[directory][0] == stamp:
            return self._known[directory][1]
        record = directory.record()
        if not record:
            return None
        status = directory.status(record)
        if "energy" not in record:
            record = record | summary(record, directory.epochs())
        for name in ("attempts", "data"):  # half of it, and of no use to a report: thousands are kept
            record.pop(name, None)
        run = Run(directory, status, record)
        run.check()
        if status in ("finished", "failed"):  # others go on, or die, without a word in run.json
            self._known[directory] = stamp, run
        return run


def read_runs(directories: Iterable[RunDirectory]) -> tuple[list[Run], list[str]]:
    """The runs that have begun, and a message for each damaged one, which is left out."""
    return Reader().read(directories)


def _stamp(directory: RunDirectory) -> tuple[int, ...]:
    try:
        found = os.stat(f"{directory.path}/run.json")  # noqa: PTH116  (a report asks thousands)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _no_garbage_collection(freeze: bool) -> Iterator[None]:
    """Reading makes millions of objects and no cycles: looking for garbage among them takes as long as reading.

    Args:
        freeze: nor look among them later on; they go when nobody refers to them any more.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, eq=False)
class Result:
    """A configuration: all of its repeats.

    Attributes:
        runs: the repeats, finished or not.
    """

    runs: tuple[Run, ...]
    _figures: dict[str, Mean | None] = field(default_factory=dict, repr=False)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What was asked for, without what tells repeats apart."""
        return {name: value for name, value in self.runs[0].settings.items() if name not in REPEATS}

    @cached_property
    def finished(self) -> list[Run]:
        """The repeats that finished."""
        return [run for run in self.runs if run.status == "finished"]

    def figure(self, objective: Objective) -> Mean | None:
        """Mean over the finished repeats; None where one of them lacks the figure.

        A mean over some of them would be one over the lucky ones: those that reached the target, say.
        """
        if objective.name not in self._figures:
            values = [run.figure(objective) for run in self.finished]
            known = [value for value in values if value is not None]
            self._figures[objective.name] = mean_of(known) if known and len(known) == len(values) else None
        return self._figures[objective.name]

    def values(self, *objectives: Objective) -> list[tuple[float, ...]]:
        """The figures of each finished repeat, those left out that lack one."""
        rows = [tuple(run.figure(objective) for objective in objectives) for run in self.finished]
        return [row for row in rows if None not in row]  # type: ignore[misc]

    @cached_property
    def sources(self) -> dict[str, str]:
        """Component → source of its joules, over all finished repeats."""
        sources: dict[str, str] = {}
        for component, name in sorted({(r.component, r.source) for run in self.finished for r in run.energy.readings}):
            sources[component] = f"{sources[component]}+{name}" if component in sources else name
        return sources

    @cached_property
    def unmeasured(self) -> list[str]:
        """Components whose joules are not known."""
        return sorted({component for run in self.finished for component in run.unmeasured})

    @cached_property
    def marks(self) -> frozenset[str]:
        """What must be known of its readings: approximate, shared, apportioned."""
        return frozenset(mark for run in self.finished for mark in run.energy.marks)

    @cached_property
    def estimated(self) -> frozenset[str]:
        """Components whose joules were estimated, at least in part."""
        return frozenset(component for component, source in self.sources.items() if ESTIMATE in source)

    @property
    def status(self) -> str:
        """What became of its runs: `finished`, `2 of 3 finished`, or why none did."""
        if len(self.finished) == len(self.runs):
            return "finished"
        if self.finished:
            return f"{len(self.finished)} of {len(self.runs)} finished"
        statuses = sorted({run.status for run in self.runs})
        reasons = sorted({run.failure for run in self.runs} - {""})
        return ", ".join(statuses) + (f": {', '.join(reasons)}" if reasons else "")


def by_configuration(runs: Sequence[Run]) -> list[Result]:
    """Join repeats: one result for each configuration, best Dice first, those without result last."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.configuration, []).append(run)
    results = [Result(tuple(group)) for group in groups.values()]
    return best_first(results, QUALITIES["dice"], ENERGIES["total"])


def best_first(results: Iterable[Result], *objectives: Objective) -> list[Result]:
    """By the first objective, ties by the next; those without figure last."""

    def key(result: Result) -> list[tuple[bool, float]]:
        means = [result.figure(objective) for objective in objectives]
        return [
            (mean is None, 0.0 if mean is None else -mean.value if objective.more_is_better else mean.value)
            for objective, mean in zip(objectives, means, strict=True)
        ]

    return sorted(results, key=key)
