"""Runs read back, and repeats joined into one result for each configuration."""

import gc
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from pydantic import ValidationError

from greenseg.config import REPEATS as REPEATS_GROUP
from greenseg.config import Settings, group_of, neutral, repeated_anywhere, trained_anywhere
from greenseg.data import PREPROCESSING
from greenseg.energy import Energy
from greenseg.energy.reading import ESTIMATE
from greenseg.report.objectives import ENERGIES, OBJECTIVES, QUALITIES, Objective
from greenseg.report.statistics import Mean, mean_of
from greenseg.run_directory import BadRecord, RunDirectory
from greenseg.run_summary import Watts, estimate_watts, last_watts, restated, summary

if TYPE_CHECKING:
    from greenseg.data.content import Content

_NEUTRAL = {name: neutral(name) for name, field in Settings.model_fields.items() if not field.exclude}
_DIGITS = 8  # of a content, as a report shows it
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
class TrainedOn:
    """What a record says of the content that its run was trained on.

    Attributes:
        digest, files: as `Content` has them, with the version of the preprocessing; empty where they are unknown.
        slices, split: what records of earlier versions have instead: name of the slices, and hash of the split.
    """

    digest: str = ""
    files: str = ""
    slices: str = ""
    split: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """What this record says; nothing where it does not."""
        data = record.get("data") or {}
        slices, subjects = str(data.get("cache", "")), data.get("subjects", {})
        split = hash(tuple((name, *map(str, subjects[name])) for name in sorted(subjects)))
        if "content" not in record:
            return cls("", "", slices, split)
        version = record.get("preprocessing")
        return cls(f"{record['content']} {version}", f"{record['files']} {version}", slices, split)


@dataclass(frozen=True)
class Run:
    """One run, as its directory tells.

    Attributes:
        directory: of the run.
        status: as `RunDirectory.status`.
        record: content of run.json but for data and a single attempt, with a summary up to the last finished epoch
            where the run did not finish.
        content: what it was trained on.
        watts: constants of its estimates; more than one where its attempts had several, none where they are unknown.
        restated: whether its estimates are restated with these constants; its files have them as they were made.
    """

    directory: RunDirectory
    status: str
    record: dict[str, Any] = field(repr=False)
    content: TrainedOn = field(default_factory=TrainedOn, repr=False)
    watts: frozenset[Watts] = field(default=frozenset(), repr=False)
    restated: bool = False

    def history(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Its attempts, and its lines of epochs.jsonl, with estimates by the constants of the report.

        Raises:
            BadRecord: a file is damaged.
        """
        epochs = self.directory.epochs()
        if self.restated:
            return restated(self.directory.record(), epochs, *self.watts)
        attempts = self.record.get("attempts") or [{"energy": self.record.get("energy", {}).get("phases", {})}]
        return attempts, epochs

    def check(self) -> None:
        """Look at everything that a report will look at.

        Raises:
            BadRecord: a part of the record is missing or of another type.
        """
        parts: dict[str, Callable[[], object]] = {
            "configuration": lambda: str.strip(self.record["configuration"]),
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
    """Reads runs, and, asked again, reads only those that changed.

    Attributes:
        notes: what the last reading left out or restated; sentences that belong to the report.
    """

    def __init__(self) -> None:
        self._known: dict[RunDirectory, tuple[tuple[int, ...], Run]] = {}
        self._recomputed: dict[tuple[str, int], Content | None] = {}
        self.notes: list[str] = []

    def read(self, directories: Iterable[RunDirectory]) -> tuple[list[Run], list[str]]:
        """The runs that have begun, and a message for each damaged one, which is left out.

        Of copies of one run, the one that got furthest counts.
        """
        runs, damaged = list[Run](), list[str]()
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
            distinct = _without_copies(runs)
            copies = len(runs) - len(distinct)
            runs, restated = _in_equal_terms(_named_by_peers(distinct))
        left_out = f"{copies} of the run directories are copies of others, and left out." if copies else ""
        self.notes = [note for note in (left_out, restated) if note]
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
        trained_on, watts = self._trained_on(directory, record), estimate_watts(record)
        first = (record.get("attempts") or [{}])[0]
        record.pop("data", None)  # half of it, and of no use to a report: thousands are kept
        if len(record.get("attempts") or ()) < 2:  # the phases of the energy say the same
            record.pop("attempts", None)
        run = Run(directory, status, record, trained_on, watts)
        run.check()
        record.setdefault("id", _id(record, first))
        if status in ("finished", "failed"):  # others go on, or die, without a word in run.json
            self._known[directory] = stamp, run
        return run

    def _trained_on(self, directory: RunDirectory, record: Mapping[str, Any]) -> TrainedOn:
        found = TrainedOn.of(record)
        if found.digest or not found.slices:
            return found
        key = (found.slices, found.split)
        if key not in self._recomputed:  # of a run of an earlier version, by the first of those that are alike
            from greenseg.data.content import recomputed

            try:
                settings = Settings.model_validate(_NEUTRAL | record["settings"])
            except ValidationError:  # a value that this version does not know
                return found
            self._recomputed[key] = recomputed(directory.path / "split.csv", found.slices, settings)
        content = self._recomputed[key]
        return TrainedOn.of({**record, **content.names}) if content else found


def _id(record: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """What copies of a run of an earlier version have in common; empty where nothing tells them from other runs."""
    if "pid" not in first or "host" not in first or "started" not in first:
        return ""
    return f"{first['started']} {first['host']} {first['pid']} {trained_anywhere(record['settings'])}"


def _without_copies(runs: Sequence[Run]) -> list[Run]:
    """Each run once, where directories were copied or are reached by several paths: the copy that got furthest."""
    furthest: dict[str, tuple[tuple[Any, ...], int]] = {}
    for i, run in enumerate(runs):
        key = run.record.get("id") or os.path.realpath(run.directory.path)
        progress = (run.status == "finished", run.metrics.get("epochs", 0), str(run.record.get("ended", "")))
        if key not in furthest or progress > furthest[key][0]:
            furthest[key] = progress, i
    return [runs[i] for i in sorted(i for _, i in furthest.values())]


def _named_by_peers(runs: Sequence[Run]) -> list[Run]:
    """Runs of earlier versions with the content of those that were trained on the same slices, with the same split."""
    known = {(run.content.slices, run.content.split): run.content for run in runs if run.content.digest}
    named = []
    for run in runs:
        of_peer = known.get((run.content.slices, run.content.split)) if run.content.slices else None
        named.append(replace(run, content=of_peer) if of_peer and not run.content.digest else run)
    return named


def _in_equal_terms(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """Runs with their estimates by the same constants, those of the latest run on the same CPU; and what was done.

    An estimate is CPU seconds and memory times constants, so that others can be put in without loss.
    """
    by_cpu: dict[str, list[Run]] = {}
    for run in runs:
        if run.watts and any(reading.source == ESTIMATE for reading in run.energy.readings):
            by_cpu.setdefault(str(run.record.get("hardware", {}).get("cpu")), []).append(run)
    changed: dict[int, Run] = {}
    used: set[Watts] = set()
    for group in by_cpu.values():
        if len({run.watts for run in group}) > 1 or len(group[0].watts) > 1:
            latest = max(group, key=lambda run: str(run.record.get("ended", "")))
            watts = last_watts(latest.record)
            if watts is None:
                continue
            odd = [run for run in group if run.watts != {watts}]
            changed |= {id(run): _restated(run, watts) for run in odd}
            used.add(watts)
    if not changed:
        return list(runs), ""
    constants = " and ".join(f"{core[0]:g} W per busy core, {gb[0]:g} W per GB" for core, gb in sorted(used))
    said = (
        f"Estimates of {len(changed)} of {len(runs)} runs were made with other constants; they are restated with those "
        f"of the latest run ({constants})."
    )
    return [changed.get(id(run), run) for run in runs], said


def _restated(run: Run, watts: Watts) -> Run:
    record = run.directory.record()
    attempts, epochs = restated(record, run.directory.epochs(), watts)
    changed = summary(record | {"attempts": attempts}, epochs)
    return replace(run, record={**run.record, **changed}, watts=frozenset({watts}), restated=True)


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
        where: where its data lie, and `content` where that tells configurations apart.
    """

    runs: tuple[Run, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    _figures: dict[str, Mean | None] = field(default_factory=dict, repr=False)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What was asked for, without what tells repeats apart."""
        settings = {name: value for name, value in self.runs[0].settings.items() if name not in REPEATS}
        return {**settings, **self.where}

    @cached_property
    def configuration(self) -> str:
        """Hex digits that name the configuration."""
        text = f"{repeated_anywhere(self.runs[0].settings)} {self.where.get(CONTENT, '')}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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
    def watts(self) -> frozenset[Watts]:
        """Constants of the estimates of all finished repeats, where they are known."""
        return frozenset(watts for run in self.finished for watts in run.watts)

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


CONTENT = "content"
"""Stands beside the settings where the same path held different data."""

UNKNOWN = "unknown"
_SPLIT = ("validation_share", "split_seed", "folds")


def by_configuration(runs: Sequence[Run]) -> list[Result]:
    """Join repeats: one result for each configuration, best Dice first, those without result last.

    Repeats train the same settings on the same content. A data set that moved is the same content; different content
    under one path gets the setting `content`, the first digits of its digest.
    """
    contents = _contents(runs)
    groups: dict[tuple[str, str], list[Run]] = {}
    paths: dict[str, tuple[Any, Any]] = {}  # of a data set that moved, the last
    held: dict[tuple[Any, ...], set[str]] = {}
    for run, content in zip(runs, contents, strict=True):
        groups.setdefault((repeated_anywhere(run.settings), content), []).append(run)
        settings = run.settings
        paths[content] = settings["data"], settings["layout"]
        held.setdefault((*paths[content], *(settings[name] for name in _SPLIT)), set()).add(content)
    several = any(len(found) > 1 for found in held.values())
    results = []
    for (_, content), group in groups.items():
        data, layout = paths[content]
        where = {"data": data, "layout": layout} | ({CONTENT: _shown(content)} if several else {})
        results.append(Result(tuple(group), where))
    return best_first(results, QUALITIES["dice"], ENERGIES["total"])


def _shown(content: str) -> str:
    if content.startswith(UNKNOWN):
        return content.partition("/")[0]
    digest, _, version = content.partition(" ")
    return digest[:_DIGITS] + ("" if version == str(PREPROCESSING) else f" v{version}")


def _contents(runs: Sequence[Run]) -> list[str]:
    """A name for the content of each run; folds of one cross-validation share it.

    Where a record does not tell, the path stands for the content, and with it the name of the slices, if runs that
    prepare slices alike were trained on different ones.
    """
    slices: dict[tuple[Any, ...], dict[str, set[str]]] = {}

    def place(run: Run) -> tuple[Any, ...]:
        folds = run.settings["folds"]
        return run.settings["data"], folds, 0 if folds else run.content.split

    def preparation(run: Run) -> str:
        return f"{run.settings['image_size']} {run.settings['spacing']} {run.settings['labels']}"

    unknown = [run for run in runs if not run.content.digest]
    for run in unknown:
        slices.setdefault(place(run), {}).setdefault(preparation(run), set()).add(run.content.slices)
    ambiguous = {at for at, found in slices.items() if any(len(names) > 1 for names in found.values())}
    named = []
    for run in runs:
        if run.content.digest:
            named.append(run.content.files if run.settings["folds"] else run.content.digest)
        else:
            at = place(run)
            which = f" {run.content.slices[:_DIGITS]}".rstrip() if at in ambiguous else ""
            named.append(f"{UNKNOWN}{which}/{'/'.join(map(str, at))}")
    return named


def best_first(results: Iterable[Result], *objectives: Objective) -> list[Result]:
    """By the first objective, ties by the next; those without figure last."""

    def key(result: Result) -> list[tuple[bool, float]]:
        means = [result.figure(objective) for objective in objectives]
        return [
            (mean is None, 0.0 if mean is None else -mean.value if objective.more_is_better else mean.value)
            for objective, mean in zip(objectives, means, strict=True)
        ]

    return sorted(results, key=key)
