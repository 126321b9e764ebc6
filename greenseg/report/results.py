"""Joins repeats into one result per configuration."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from greenseg.data import PREPROCESSING
from greenseg.energy.reading import ESTIMATE
from greenseg.report.objectives import ENERGIES, OBJECTIVES, QUALITIES, Objective, of_class
from greenseg.report.run import Run, Way
from greenseg.report.statistics import Mean, Moments, mean_of, moments_of, moments_over_folds, overlap_of
from greenseg.runs.record import Watts
from greenseg.settings import NEUTRAL, group_of, repeated_anywhere, without_effect
from greenseg.settings import REPEATS as REPEATS_GROUP

_DIGITS = 8  # of a content, in reports
REPEATS = tuple(name for name in NEUTRAL if group_of(name) == REPEATS_GROUP)
"""Settings that differ between repeats of a configuration."""


@dataclass(frozen=True, eq=False)
class Result:
    """A configuration with all of its repeats.

    Attributes:
        runs: the repeats, finished or not.
        where: location and layout of its data and of its split; `content` and `hardware` if they distinguish rows.
        content: full name of the content of its data.
    """

    runs: tuple[Run, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""
    _values: dict[str, Sequence[float | None]] = field(default_factory=dict, repr=False)
    _figures: dict[str, Moments | None] = field(default_factory=dict, repr=False)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The requested settings, without those that differ between repeats; None for what has no effect there."""
        of_first = self.runs[0].settings
        settings = {name: value for name, value in of_first.items() if name not in REPEATS}
        return {**settings, **dict.fromkeys(without_effect(of_first)), **self.where}

    @property
    def trained(self) -> str:
        """Its settings and its content: equal on all hardware."""
        return f"{repeated_anywhere(self.runs[0].settings)} {self.content}"

    @cached_property
    def configuration(self) -> str:
        """Hex digits that name the configuration: its settings and its content, regardless of the data path."""
        text = f"{self.trained} {self.where.get(HARDWARE, '')}".rstrip(" ")
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def finished(self) -> list[Run]:
        """The repeats that finished."""
        return [run for run in self.runs if run.status == "finished"]

    @cached_property
    def repeats(self) -> list[list[Run]]:
        """The finished runs, grouped by seed and fold: a duplicate is not another repeat."""
        repeats: dict[tuple[str, ...], list[Run]] = {}
        for run in self.finished:
            repeats.setdefault(tuple(str(run.settings[name]) for name in REPEATS), []).append(run)
        return list(repeats.values())

    @cached_property
    def by_fold(self) -> bool:
        """Whether its finished repeats differ by fold; if they differ by seed, too, folds have the mean over seeds."""
        return len({runs[0].settings["fold"] for runs in self.repeats}) > 1

    def figure(self, objective: Objective) -> Moments | None:
        """Mean over the finished repeats; None if one lacks the value, or if they computed it differently.

        `Comparison.figure` has its interval, which needs the spread of the other configurations.

        A mean over some of them would be biased, for instance towards those that reached the target.
        """
        if objective.name not in self._figures:
            known: list[float] = []
            for runs in self.repeats:
                if (value := mean_figure(objective, runs)) is None:
                    break
                known.append(value)
            whole = known and len(known) == len(self.repeats)
            if whole:
                self._values[objective.name] = known
            whole = whole and (not objective.reckoned or len(self.terms(objective)) == 1)
            self._figures[objective.name] = self._moments(objective, known) if whole else None
        return self._figures[objective.name]

    def _moments(self, objective: Objective, values: Sequence[float]) -> Moments:
        if not self.by_fold:
            return moments_of(values)
        folds: dict[Any, list[float]] = {}
        for runs, value in zip(self.repeats, values, strict=True):
            folds.setdefault(runs[0].settings["fold"], []).append(value)
        overlap = overlap_of(int(self.settings["folds"])) if objective.learned else 0.0
        return moments_over_folds([*folds.values()], overlap)

    def over_subjects(self, objective: Objective) -> Mean | None:
        """The mean over repeats with an interval over subjects; None if there is none, or if it has another one."""
        moments = self.figure(objective)
        if moments is None or not objective.over_subjects:
            return None
        scores = [*self.of_each_subject(objective).values()]
        spread = mean_of(scores) if scores else Mean(0, None, 0)
        return Mean(moments.value, spread.half, spread.n)

    def of_each_subject(self, objective: Objective) -> dict[str, float]:
        """Subject → mean over the finished repeats that have a value of it; empty for what has no subjects."""
        if objective.of_subjects is None:
            return {}
        found: dict[str, list[float]] = {}
        for runs in self.repeats:
            if len(runs) == 1:
                for subject, score in objective.of_subjects(runs[0]).items():
                    if score is not None:
                        found.setdefault(subject, []).append(score)
                continue
            for subject in dict.fromkeys(name for run in runs for name in objective.of_subjects(run)):
                scores = [score for run in runs if (score := objective.of_subjects(run).get(subject)) is not None]
                if scores:
                    found.setdefault(subject, []).append(fmean(scores))
        return {subject: fmean(scores) for subject, scores in found.items()}

    def terms(self, objective: Objective) -> set[Any]:
        """The settings that the finished repeats computed an objective with; see `Objective.terms`."""
        return {objective.terms(run) for run in self.finished}

    def values(self, objective: Objective) -> Sequence[float | None]:
        """The value of each finished repeat; None for those that lack it."""
        if objective.name not in self._values:
            self._values[objective.name] = [mean_figure(objective, runs) for runs in self.repeats]
        return self._values[objective.name]

    @cached_property
    def watts(self) -> frozenset[Watts]:
        """Known constants of the estimates of all finished repeats."""
        return frozenset(watts for run in self.finished for watts in run.watts)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Component → source of its joules, over all finished repeats."""
        sources: dict[str, str] = {}
        for component, name in sorted({(r.component, r.source) for run in self.finished for r in run.energy.readings}):
            sources[component] = f"{sources[component]}+{name}" if component in sources else name
        return sources

    @cached_property
    def ways(self) -> dict[str, frozenset[Way]]:
        """Component → ways of its joules in the finished repeats; an empty way if a repeat lacks it."""
        components = {component for run in self.finished for component in run.ways}
        return {
            component: frozenset(run.ways.get(component, frozenset()) for run in self.finished)
            for component in components
        }

    @cached_property
    def mixed(self) -> frozenset[str]:
        """Components whose joules are known in different ways in different repeats: their mean would mix them."""
        return frozenset(component for component, ways in self.ways.items() if len(ways) > 1)

    @cached_property
    def partly(self) -> frozenset[str]:
        """Components whose joules are known in several ways within a repeat, for instance in its attempts."""
        return frozenset(component for component, ways in self.ways.items() if any(len(way) > 1 for way in ways))

    @cached_property
    def unmeasured(self) -> list[str]:
        """Components with unknown joules."""
        return sorted({component for run in self.finished for component in run.unmeasured})

    @cached_property
    def marks(self) -> frozenset[str]:
        """Marks of its readings: approximate, shared, apportioned."""
        return frozenset(mark for run in self.finished for mark in run.energy.marks)

    @cached_property
    def estimated(self) -> frozenset[str]:
        """Components whose joules are estimated, at least in part."""
        return frozenset(component for component, source in self.sources.items() if ESTIMATE in source)

    @cached_property
    def on_grid(self) -> bool:
        """Whether the quality of a finished repeat is that on the training grid; see `Metrics.on_grid`."""
        return any(run.metrics.on_grid for run in self.finished if run.metrics.dice is not None)

    @cached_property
    def tested(self) -> bool:
        """Whether all finished repeats have a test part."""
        return bool(self.finished) and all(run.record.test.dice is not None for run in self.finished)

    @property
    def status(self) -> str:
        """The status of its runs: `finished`, `2 of 3 finished`, or the reason if none finished."""
        if len(self.finished) == len(self.runs):
            return "finished"
        if self.finished:
            return f"{len(self.finished)} of {len(self.runs)} finished"
        statuses = sorted({run.status for run in self.runs})
        reasons = sorted({run.failure for run in self.runs} - {""})
        return ", ".join(statuses) + (f": {', '.join(reasons)}" if reasons else "")


def classes_of(results: Iterable[Result]) -> list[str]:
    """Names of the classes of all runs with several classes, in their order."""
    return list(dict.fromkeys(name for result in results for run in result.runs for name in run.metrics.classes))


def objectives_of(results: Iterable[Result]) -> dict[str, Objective]:
    """Name → objective, for all objectives, also those of each class."""
    of_classes = [of_class(quality, name) for name in classes_of(results) for quality in QUALITIES]
    return OBJECTIVES | {objective.name: objective for objective in of_classes}


def mean_figure(objective: Objective, runs: Sequence[Run]) -> float | None:
    """Mean value of duplicate runs; None if one of them lacks it."""
    if len(runs) == 1:
        return objective.of(runs[0])
    values = [value for value in map(objective.of, runs) if value is not None]
    return fmean(values) if values and len(values) == len(runs) else None


CONTENT = "content"
"""Shown with the settings if the same path had different data."""

HARDWARE = "hardware"
"""Shown with the settings if runs are from different hardware; see `hardware.by_hardware`."""

UNKNOWN = "unknown"
_WHERE = ("data", "layout", "split_from")
_SPLIT = ("validation_share", "test_share", "split_seed", "folds")


def by_configuration(runs: Sequence[Run]) -> list[Result]:
    """Join repeats: one result per configuration, best Dice first; those without a Dice come last.

    Repeats have the same settings and the same content. A data set that moved keeps its content. If one path had
    different files, or one rule split them differently, all get the setting `content`: first digits of a digest.
    """
    contents = _contents(runs)
    groups: dict[tuple[str, str], list[Run]] = {}
    paths: dict[str, dict[str, Any]] = {}  # the last one of a data set that moved
    held: dict[tuple[Any, ...], set[str]] = {}
    place = _places(str(run.settings["data"]) for run in runs)
    for run, content in zip(runs, contents, strict=True):
        groups.setdefault((repeated_anywhere(run.settings), content), []).append(run)
        settings = run.settings
        paths[content] = {name: settings[name] for name in _WHERE}
        held.setdefault(tuple(settings[name] for name in (*_WHERE, *_SPLIT)), set()).add(content)
        if run.content.files:  # regardless of layout, split and notation of the path
            held.setdefault((place[str(settings["data"])],), set()).add(run.content.files)
    several = any(len(found) > 1 for found in held.values())
    results = []
    for (_, content), group in groups.items():
        where = paths[content] | ({CONTENT: _shown(content)} if several else {})
        results.append(Result(tuple(_named_alike(group)), where, content))
    return best_first(results, QUALITIES["dice"], ENERGIES["total"])


def _named_alike(repeats: list[Run]) -> list[Run]:
    """Repeats with the names of the newest one for their classes, which the order identifies: names may change."""
    named = [run for run in repeats if run.metrics.classes]
    if len({tuple(run.metrics.classes) for run in named}) < 2:
        return repeats
    names = list(max(named, key=lambda run: run.record.started or "").metrics.classes)

    def renamed(run: Run) -> Run:
        scores = run.metrics.classes.values()
        if len(scores) != len(names):
            return run
        metrics = run.metrics.model_copy(update={"classes": dict(zip(names, scores, strict=True))})
        return replace(run, record=run.record.model_copy(update={"metrics": metrics}))

    return [renamed(run) for run in repeats]


def _places(paths: Iterable[str]) -> dict[str, str]:
    """Path → name that all its notations share. A relative path may be any absolute path that ends with it."""
    normal = {path: os.path.normpath(path) for path in set(paths)}
    absolute = {found for found in normal.values() if found.startswith(os.sep)}
    relative = sorted(set(normal.values()) - absolute)
    return {
        path: next((end for end in relative if found.endswith(f"{os.sep}{end}")), os.path.realpath(found))
        if found in absolute
        else found
        for path, found in normal.items()
    }


def _shown(content: str) -> str:
    if content.startswith(UNKNOWN):
        return content.partition("/")[0]
    digest, _, version = content.partition(" ")
    return digest[:_DIGITS] + ("" if version == str(PREPROCESSING) else f" v{version}")


def _contents(runs: Sequence[Run]) -> list[str]:
    """A name for the content of each run; folds of one cross-validation share it.

    If a record has no content, the path replaces it, with the name of the slices if runs with the same preparation have
    different slices, and with the name of the split if there are several.
    """
    slices: dict[tuple[Any, ...], dict[str, set[str]]] = {}
    splits: dict[tuple[Any, ...], set[str]] = {}

    def place(run: Run) -> tuple[Any, ...]:
        folds = run.settings["folds"]
        return run.settings["data"], folds, "" if folds else run.content.split

    def preparation(run: Run) -> str:
        return f"{run.settings['image_size']} {run.settings['spacing']} {run.settings['labels']}"

    unknown = [run for run in runs if not run.content.digest]
    for run in unknown:
        data, folds, split = at = place(run)
        slices.setdefault(at, {}).setdefault(preparation(run), set()).add(run.content.slices)
        splits.setdefault((data, folds), set()).add(split)
    ambiguous = {at for at, found in slices.items() if any(len(names) > 1 for names in found.values())}
    named = []
    for run in runs:
        if run.content.digest:
            named.append(run.content.files if run.settings["folds"] else run.content.digest)
        else:
            data, folds, split = at = place(run)
            which = [run.content.slices[:_DIGITS]] if at in ambiguous else []
            which += [split[:_DIGITS]] if len(splits[data, folds]) > 1 else []
            named.append(f"{' '.join(filter(None, [UNKNOWN, *which]))}/{'/'.join(map(str, at))}")
    return named


def best_first(results: Iterable[Result], *objectives: Objective) -> list[Result]:
    """Sorted by the first objective, ties by the next; results without a value come last."""

    def key(result: Result) -> list[tuple[bool, float]]:
        means = [result.figure(objective) for objective in objectives]
        return [
            (mean is None, 0.0 if mean is None else -mean.value if objective.more_is_better else mean.value)
            for objective, mean in zip(objectives, means, strict=True)
        ]

    return sorted(results, key=key)
