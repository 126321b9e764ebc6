"""Reads run directories for a report: each run once, all estimates with the same constants."""

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from greenseg.energy.reading import ESTIMATE
from greenseg.report.run import WRONG, Run, TrainedOn, check
from greenseg.report.units import count
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Record, Watts
from greenseg.runs.summary import add_late_joules, estimate_watts, has_all_epochs, restated, restated_lineage, summary
from greenseg.settings import NEUTRAL, Settings

_MOST_NAMED = 3

if TYPE_CHECKING:
    from greenseg.data.content import Content


class Reader:
    """Reads runs; further calls read only runs that changed.

    Attributes:
        notes: sentences for the report about runs that the last reading left out or converted.
    """

    def __init__(self) -> None:
        self._known: dict[RunDirectory, tuple[tuple[int, ...], Run]] = {}
        self._recomputed: dict[tuple[str, str], Content | None] = {}
        self.notes: list[str] = []

    def read(self, directories: Iterable[RunDirectory]) -> tuple[list[Run], list[str]]:
        """Read the runs that have begun; returns them and a message for each damaged run, which is left out.

        Of several copies of a run, the one with the most progress counts.
        """
        runs, damaged = list[Run](), list[str]()
        with _no_garbage_collection(freeze=not self._known):
            for directory in directories:
                try:
                    run = self._read(directory)
                except BadRecord as error:
                    damaged.append(str(error))
                except WRONG as error:  # the summary of an unfinished run comes from its epochs
                    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                    damaged.append(f"{directory.path}: damaged: run.json or epochs.jsonl: {what}")
                else:
                    runs += [run] if run else []
            distinct, left_out = _without_copies(runs)
            runs, restated = _in_equal_terms(_named_by_peers(distinct))
        self.notes = [note for note in (*left_out, restated) if note]
        return runs, damaged

    def _read(self, directory: RunDirectory) -> Run | None:
        found = directory.at_present
        stamp = _stamp(found)
        if directory in self._known and self._known[directory][0] == stamp:
            return self._known[directory][1]
        record = found.record()
        if record is None:
            return None
        check(directory, record)
        if record.energy is None:
            record.energy, record.metrics = summary(record, found.epochs())
        add_late_joules(found, record)
        run = Run(
            directory,
            directory.status_by(record),
            record,
            self._trained_on(directory, record),
            estimate_watts(record.attempts),
            attempts=tuple(attempt.identity for attempt in record.attempts),
            validation_slices=record.data.slices.get("validation") if record.data else None,
        )
        record.id = record.known_as
        record.data = None  # half of the record, unused by a report; thousands of records stay in memory
        # With one, the phases of the energy are the same.
        if len(record.attempts) < 2 and not any(attempt.slurm_node for attempt in record.attempts):
            record.attempts = []
        if run.status in ("finished", "failed"):  # others continue or die without a change in run.json
            self._known[directory] = stamp, run
        return run

    def _trained_on(self, directory: RunDirectory, record: Record) -> TrainedOn:
        found = TrainedOn.of(record)
        if found.digest or not found.slices:
            return found
        key = (found.slices, found.split)
        if key not in self._recomputed:  # for runs of earlier versions, once for all that are alike
            from greenseg.data.content import recomputed

            try:
                settings = Settings.model_validate(NEUTRAL | record.settings)
            except ValidationError:  # a value that this version does not have
                return found
            self._recomputed[key] = recomputed(directory.path / "split.csv", found.slices, settings)
        content = self._recomputed[key]
        return found.named(content) if content else found


def _without_copies(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Each run once, even if directories were copied or have several paths: the copy with the most progress.

    Also returns notes: one on copies, and one on branches, which are copies that continued separately.
    """
    same: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        same.setdefault(run.record.id or os.path.realpath(run.directory.path), []).append(i)
    kept, branches, copies = list[int](), list[str](), 0
    for found in same.values():
        furthest = max(found, key=lambda i: _progress(runs[i]))
        kept.append(furthest)
        others = {os.path.realpath(runs[i].directory.path): runs[i] for i in found if i != furthest}
        apart = [str(run.directory.path) for run in others.values() if not _is_beginning(run, runs[furthest])]
        copies += len(found) - 1 - len(apart)
        if apart:
            branches.append(f"{runs[furthest].directory.path} rather than {', '.join(apart)}")
    said = [f"{copies} of the run directories are copies of others and left out."] if copies else []
    if branches:
        named = "; ".join(branches[:_MOST_NAMED]) + ("; and others" if len(branches) > _MOST_NAMED else "")
        said.append(
            f"Copies of {count(len(branches), 'run')} continued separately. The one with the most progress counts "
            f"({named}); sums lack the joules of the others."
        )
    return [runs[i] for i in sorted(kept)], said


def _progress(run: Run) -> tuple[bool, int, str]:
    return run.status == "finished", run.metrics.epochs or 0, run.record.ended or ""


def _is_beginning(copy: Run, run: Run) -> bool:
    """Whether a run has all attempts of its copy, and possibly later ones."""
    mine, others = copy.attempts, run.attempts
    return all(one == other for one, other in zip(mine, others, strict=False)) and len(mine) <= len(others)


def _named_by_peers(runs: Sequence[Run]) -> list[Run]:
    """Runs of earlier versions with the content of runs that have the same slices and the same split."""
    known = {(run.content.slices, run.content.split): run.content for run in runs if run.content.digest}
    named = []
    for run in runs:
        of_peer = known.get((run.content.slices, run.content.split)) if run.content.slices else None
        named.append(replace(run, content=of_peer) if of_peer and not run.content.digest else run)
    return named


def _in_equal_terms(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """Runs with the same constants in all estimates per CPU, those of its latest attempt; and a note for the report.

    An estimate is CPU seconds and memory times constants, so it converts to other constants without loss.
    """
    estimates = {
        id(run): attempts
        for run in runs
        if any(reading.source == ESTIMATE for reading in run.energy.readings) and (attempts := _estimates(run))
    }
    latest: dict[str, _Estimate] = {}
    for attempts in estimates.values():
        for attempt in attempts:
            if attempt.cpu not in latest or attempt.when > latest[attempt.cpu].when:
                latest[attempt.cpu] = attempt
    changed: dict[int, Run] = {}
    used: set[Watts] = set()
    by_cpu = {cpu: estimate.watts for cpu, estimate in latest.items()}
    for run in runs:
        attempts = estimates.get(id(run), ())
        watts = tuple(latest[attempt.cpu].watts for attempt in attempts)
        odd = {now for attempt, now in zip(attempts, watts, strict=True) if attempt.watts != now}
        if attempts:  # the total has the joules of the ancestors, too
            for each in run.record.lineage.ancestors:
                made_with = each.estimate.watts if each.estimate else None
                if made_with and (now := by_cpu.get(each.cpu or "")) and now != made_with:
                    odd.add(now)
        if odd and (made := _restated(run, watts, by_cpu)):
            changed[id(run)] = made
            used |= odd
    if not changed:
        return list(runs), ""
    constants = " and ".join(f"{core[0]:g} W per busy core, {gb[0]:g} W per GB" for core, gb in sorted(used))
    said = (
        f"Estimates of {len(changed)} of {len(runs)} runs were made with other constants; they are converted to those "
        f"of the latest run on the same CPU ({constants})."
    )
    return [changed.get(id(run), run) for run in runs], said


class _Estimate(NamedTuple):
    """The estimate of an attempt: CPU, constants, and time."""

    cpu: str
    watts: Watts
    when: str


def _estimates(run: Run) -> Sequence[_Estimate]:
    """The estimates of all attempts; empty if the constants or the CPU of one are unknown."""
    if not run.watts:
        return ()
    record = run.record
    if not record.attempts:  # only one
        (watts,) = run.watts
        return (_Estimate(record.hardware.cpu or "", watts, record.ended or ""),)
    found = []
    for attempt in record.attempts:
        if not (attempt.cpu and attempt.estimate and attempt.estimate.watts):
            return ()
        ended = record.ended if attempt is record.attempts[-1] else attempt.ended or attempt.started
        found.append(_Estimate(attempt.cpu, attempt.estimate.watts, ended or ""))
    return found


def _restated(run: Run, watts: tuple[Watts, ...], by_cpu: Mapping[str, Watts]) -> Run | None:
    """The run with its estimates converted to other constants; None if its epochs.jsonl lacks epochs."""
    whole, lines = run.directory.record(), run.directory.epochs()
    if whole is None or (whole.energy and not has_all_epochs(whole, lines)):
        return None
    whole.attempts, epochs = restated(whole, lines, watts)
    whole.lineage = restated_lineage(whole.lineage, by_cpu)
    record = run.record.model_copy()
    record.lineage = whole.lineage
    record.energy, record.metrics = summary(whole, epochs)
    return replace(run, record=record, watts=frozenset(watts), restated=watts)


def read_runs(directories: Iterable[RunDirectory]) -> tuple[list[Run], list[str]]:
    """Read the runs that have begun; returns them and a message for each damaged run, which is left out."""
    return Reader().read(directories)


def _stamp(directory: RunDirectory) -> tuple[int, ...]:
    try:
        found = os.stat(f"{directory.files}/run.json")  # noqa: PTH116  (a report asks thousands)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _no_garbage_collection(freeze: bool) -> Iterator[None]:
    """Disable garbage collection while the context lasts.

    Reading makes millions of objects and no cycles; a search for garbage among them takes as long as reading.

    Args:
        freeze: exclude the objects from later collections, too; they still end with their last reference.
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
