"""A search in figures: its cost against that of the grid, and the verdict on each run that has not ended."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from greenseg.energy.reading import Energy
from greenseg.report.labels import value_text
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Record
from greenseg.runs.summary import RESUMPTION, account_for_attempts, training_joules
from greenseg.search.curves import Bounds, Curve
from greenseg.search.halving import AUDIT, Audit, Candidate, Options, Prediction, audit_of, predicted, stand
from greenseg.search.of_run import curve_of
from greenseg.search.rounds import candidates_of, options_of
from greenseg.settings import NEUTRAL


class Verdict(NamedTuple):
    """A run that a search has begun, and that has not ended.

    Attributes:
        name: its settings that differ between the runs.
        dice: the Dice of its epochs so far.
        epochs: number of epochs of its settings.
        ends_at: Dice at its end, as projected.
        joules: joules at its end, as projected.
        by: name of the run that costs less and is better beyond all bounds; empty if there is none: the run is
            undecided.
    """

    name: str
    dice: tuple[float, ...]
    epochs: int
    ends_at: Bounds
    joules: float
    by: str


@dataclass(frozen=True)
class Account:
    """A search in figures.

    Attributes:
        name: name of the sweep.
        runs: number of runs of the grid.
        begun: number of runs that have begun.
        finished: number of runs that have finished.
        failed: number of runs that have failed.
        verdicts: the runs that have not ended.
        joules: joules of all runs so far, with those of `resumptions`.
        resumptions: joules of the further start-ups after pauses.
        grid: joules that the whole grid is predicted to cost; None before the first epoch, and if there is no grid.
        audit: how many given-up runs may have been on the front.
    """

    name: str
    runs: int
    begun: int
    finished: int
    failed: int
    verdicts: tuple[Verdict, ...]
    joules: float
    resumptions: float
    grid: Prediction | None
    audit: Audit

    @property
    def saved(self) -> tuple[float, float, float] | None:
        """Share of the joules of the grid that the search has saved so far: mean, low, high; None if unknown."""
        if self.grid is None or not self.grid.low:
            return None
        mean, low, high = (1 - self.joules / joules for joules in (self.grid.mean, self.grid.low, self.grid.high))
        return mean, low, high


class _Run(NamedTuple):
    directory: RunDirectory
    record: Record
    curve: Curve | None


def accounts(directories: Iterable[RunDirectory]) -> list[Account]:
    """The accounts of all searches among these runs, one per folder. Damaged runs are left out."""
    folders = defaultdict[Path, list[_Run]](list)
    for run in _read(directories):
        folders[run.directory.path.parent].append(run)
    return [
        _account(folder.name, runs)
        for folder, runs in sorted(folders.items())
        if any(run.record.context.search for run in runs)
    ]


def account_of(name: str, directories: Iterable[RunDirectory]) -> Account | None:
    """The account of the search of a sweep, from the directories of its runs, in any folder; None before the first."""
    runs = [*_read(directories)]
    return _account(name, runs) if any(run.record.context.search for run in runs) else None


def _read(directories: Iterable[RunDirectory]) -> Iterator[_Run]:
    for directory in directories:
        try:
            record = directory.record()
            epochs = directory.epochs() if record else []
        except BadRecord:
            continue
        if record and record.settings.keys() >= {"encoder", "decoder"}:
            record.attempts = account_for_attempts(record.attempts, epochs)
            yield _Run(directory, record, curve_of(record, epochs))


def _account(name: str, runs: Sequence[_Run]) -> Account:
    searched = next(run.record.context.search for run in runs if run.record.context.search)
    by_key = {run.record.identity or run.directory.path.name: run for run in runs}
    candidates = candidates_of(
        (key, NEUTRAL | run.record.settings, run.record.context.search) for key, run in by_key.items()
    )
    curves = {key: run.curve for key, run in by_key.items() if run.curve and run.record.status != "failed"}
    options = options_of(searched)
    compares = not searched.sampler  # drawn configurations have no grid to compare with, and all train to their end
    audited = {
        key for key, run in by_key.items() if run.record.context.search and run.record.context.search.why == AUDIT
    }
    spent = {key: _joules(run) for key, run in by_key.items()}
    again = sum(resumed for _, resumed in spent.values())
    grid = predicted([*candidates, *_missing(candidates, searched.runs)], curves) if compares else None
    ended = [key for key, curve in curves.items() if curve.ended]
    # Curves lack the joules between epochs and after the last one.
    more = sum(spent[key][0] for key in ended) / sum(curves[key].joules[-1] for key in ended) if ended else 1.0
    alive = [each for each in candidates if each.key in curves]
    return Account(
        name=name,
        runs=searched.runs,
        begun=len(runs),
        finished=sum(run.record.status == "finished" for run in runs),
        failed=sum(run.record.status == "failed" for run in runs),
        verdicts=tuple(_verdicts(alive, curves, options, by_key)) if compares else (),
        joules=sum(own + resumed for own, resumed in spent.values()),
        resumptions=again,
        grid=grid and Prediction(*(joules * more for joules in grid)),
        audit=audit_of(alive, curves, options, audited) if compares else Audit(0, 0, 0, None),
    )


def _joules(run: _Run) -> tuple[float, float]:
    """Joules of a run, and of its further start-ups after pauses."""
    energies = [attempt.energy or {} for attempt in run.record.attempts]
    resumed = sum(Energy.from_json(energy[RESUMPTION]).joules for energy in energies if RESUMPTION in energy)
    return sum(map(training_joules, energies)), resumed


def _missing(candidates: Sequence[Candidate], runs: int) -> Iterator[Candidate]:
    """Stand-ins for the runs of the grid that have not begun: further repeats of the configurations with the fewest."""
    repeats = Counter(each.configuration for each in candidates)
    models = {each.configuration: each for each in candidates}
    for number in range(runs - len(candidates)):
        configuration = min(repeats, key=lambda name: (repeats[name], name))
        yield replace(models[configuration], key=f"missing {number}", repeat=repeats[configuration])
        repeats[configuration] += 1


def _verdicts(
    candidates: Sequence[Candidate], curves: Mapping[str, Curve], options: Options, runs: Mapping[str, _Run]
) -> Iterable[Verdict]:
    standing = stand(candidates, curves, options)
    names = _names({key: run.record.settings for key, run in runs.items()})
    for candidate in candidates:
        key = candidate.key
        if not curves[key].ended:
            yield Verdict(
                names[key],
                curves[key].dice,
                candidate.epochs,
                standing.bounds[key],
                standing.joules[key],
                names[standing.given_up[key]] if key in standing.given_up else "",
            )


def _names(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Run → its settings that differ between the runs."""
    values = [{**NEUTRAL, **each} for each in settings.values()]
    differ = [name for name in values[0] if len({repr(each.get(name)) for each in values}) > 1]
    return {
        key: ", ".join(f"{name} {value_text(each[name])}" for name in differ if name in each)
        for key, each in settings.items()
    }
