"""The rounds of a search over the runs of a sweep.

The directories of the runs are the only state: every call goes through all rounds from the first. A round sees each
curve only up to the epoch that earlier rounds have asked for, so its decisions do not depend on the order in which runs
end, nor on the number of processes, nor on kills.
"""

import contextlib
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Searched
from greenseg.runs.standing import PlannedRun
from greenseg.runs.summary import add_late_joules
from greenseg.search.curves import Curve
from greenseg.search.halving import Candidate, Options, Step, next_round
from greenseg.search.of_run import curve_of
from greenseg.settings import ACCOUNTING, REPEATS, group_of, repeated_anywhere
from greenseg.sweep.file import Searching

_KIND = ("optimizer", "schedule", "lr", "encoder_weights")
"""The settings on which the shape of a learning curve depends most."""

_NETWORK = ("encoder", "decoder", "width", "decoder_width")

_JOULES_ONLY = frozenset({"workers", "power_limit", "gpu_clock"})
"""The settings that change joules, but no bit of the result."""

_LOOK_SECONDS = 0.5  # between looks at runs of another process


def options_of(how: Searching | Searched) -> Options:
    """The options of the decisions, with the budget and the seed of a sweep file or of a record."""
    return Options(budget=how.joules, share=how.share, seed=how.seed)


def candidates_of(runs: Iterable[tuple[str, Mapping[str, Any], Searched | None]]) -> list[Candidate]:
    """The candidates for the runs of a grid; runs that differ only in seed and fold are repeats, in their order.

    Args:
        runs: identity, resolved settings, and part in a search of each run; None if that is unknown.
    """
    runs = list(runs)
    repeats = Counter[str]()
    found = []
    values = [settings for _, settings, _ in runs]
    differ = [name for name in values[0] if len({str(each.get(name)) for each in values}) > 1] if values else []
    alone = [name for name in differ if group_of(name) not in (ACCOUNTING, REPEATS) and name not in (*_NETWORK, "lr")]
    for identity, settings, searched in runs:
        network, kind = (tuple(str(settings.get(name)) for name in names) for names in (_NETWORK, _KIND))
        configuration = repeated_anywhere(settings) + settings["data"]
        # Probes of `auto` measure the machine, so their choice may depend on these settings.
        free = frozenset() if "auto" in (settings["batch_size"], settings["lr"]) else _JOULES_ONLY
        found.append(
            Candidate(
                key=identity,
                configuration=configuration,
                repeat=searched.repeat if searched else repeats[configuration],
                kind=kind,
                epochs=settings["epochs"],
                results=repeated_anywhere(settings, free) + settings["data"],
                traits=(network, *(str(settings.get(name)) for name in alone), kind),
            )
        )
        repeats[configuration] += 1
    return found


@dataclass(frozen=True)
class Round:
    """A round of a search.

    Attributes:
        number: its number, from 0.
        steps: its steps, in their order.
        left: the steps that are still to be taken.
        curves: run → its curve at the end of the round before.
    """

    number: int
    steps: Sequence[Step]
    left: Sequence[Step]
    curves: Mapping[str, Curve]


class Rounds(ABC):
    """A search in rounds.

    Args:
        how: how to search.

    Attributes:
        how: how to search.
    """

    def __init__(self, how: Searching) -> None:
        self.how = how
        self._runs: dict[str, RunDirectory] = {}
        self._failed: set[str] = set()
        self._curves: dict[str, Curve] = {}

    @property
    @abstractmethod
    def total(self) -> int:
        """Number of runs that the search could train."""

    @abstractmethod
    def rounds(self) -> Iterator[Round]:
        """All rounds so far, from the first; only the last one may have steps that are left."""

    def next(self) -> Round | None:
        """The first round with steps that are left; None if the search is done."""
        found = [*self.rounds()]
        return found[-1] if found and found[-1].left else None

    def jobs(
        self,
        jobs: list[Job],
        outcomes: dict[Job, Outcome],
        begin: Callable[[Round, Sequence[Job]], None],
        stopped: Callable[[], bool],
    ) -> Iterator[Job | None]:
        """The jobs of all rounds that are left, for a queue; None as long as runs of the present round are left.

        Runs of the present round that another process trains are waited for.

        Args:
            jobs: the jobs of the runs so far; those of further runs are appended.
            outcomes: those of the queue; the earlier outcome of a run that goes on is taken out.
            begin: called at the beginning of a round with the jobs that are left.
            stopped: whether the user wants no further run.
        """
        before: Round | None = None
        while now := self.next():
            if before and (before.number, before.left) == (now.number, now.left):
                return  # no progress: the record of a run is unreadable, or does not keep its epochs
            by_key = self._by_key(jobs, now)
            current = [self._ready(by_key[step.candidate.key], step, now.number) for step in now.left]
            begin(now, current)
            for job in current:
                outcomes.pop(job, None)
                yield job
            while any(job not in outcomes or outcomes[job].again for job in current):
                yield None
            before = now if all(outcomes[job].status != "busy" for job in current) else None
            for job in current:
                self._wait_for(job, outcomes[job], stopped)
            if stopped() or any(outcomes[job].status == "interrupted" for job in current):
                return
            for job in current:
                self._runs[job.settings.identity] = job.run
                self._failed -= {job.settings.identity}
                if outcomes[job].status == "failed":
                    self._failed.add(job.settings.identity)
                self._read(job.settings.identity)

    def _by_key(self, jobs: list[Job], now: Round) -> dict[str, Job]:
        """Run → its job. The jobs of the round that are missing are appended."""
        return {job.settings.identity: job for job in jobs}

    def _ready(self, job: Job, step: Step, number: int) -> Job:
        """The job of a run, ready for a step."""
        job.until = None if step.until >= step.candidate.epochs else step.until
        searched = Searched(
            method=self.how.method, round=number, until=step.until, why=step.why, runs=self.total,
            repeat=step.candidate.repeat, joules=self.how.joules, share=self.how.share, seed=self.how.seed,
            sampler=self.how.sampler,
        )  # fmt: skip
        job.context["search"] = searched.to_json()
        return job

    def _wait_for(self, job: Job, outcome: Outcome, stopped: Callable[[], bool]) -> None:
        while outcome.status == "busy" and job.owner.look() is not None and not stopped():
            time.sleep(_LOOK_SECONDS)

    def _read(self, key: str) -> None:
        """Read the curve of a run, and whether it has failed. A damaged run counts as new: it starts over."""
        self._curves.pop(key, None)
        run = self._runs[key]
        with contextlib.suppress(BadRecord):
            record = run.record()
            if record:
                add_late_joules(run, record)
            if record and (curve := curve_of(record, run.epochs())):
                self._curves[key] = curve


class Search(Rounds):
    """A search over the runs of a sweep.

    Args:
        runs: all runs of the grid.
        how: how to search.
        retry_failed: whether failed runs are tried again; else they take no part.
    """

    def __init__(self, runs: Sequence[PlannedRun], how: Searching, retry_failed: bool = False) -> None:
        super().__init__(how)
        self.options = options_of(how)
        self.candidates = candidates_of((run.settings.identity, run.settings.resolved(), None) for run in runs)
        self._runs = {run.settings.identity: run.directory for run in runs if run.known and run.status != "damaged"}
        self._failed = {run.settings.identity for run in runs if run.status == "failed" and not retry_failed}
        self._ended: list[Round] = []
        self._seen: dict[str, Curve] = {}  # at the end of these rounds
        self._gone: set[str] = set()  # failed in these rounds
        self._steps: list[Step] | None = None
        for key in self._runs:
            self._read(key)

    @property
    def total(self) -> int:
        return len(self.candidates)

    def rounds(self) -> Iterator[Round]:
        yield from self._ended
        while now := self._begin():
            yield now
            if now.left:
                return
            self._end(now)

    def _begin(self) -> Round | None:
        """The round after those that have ended; None if the search is done."""
        number = len(self._ended)
        if self._steps is None:  # decided once per process: it depends on the rounds before, which do not change
            self._steps = next_round(self.candidates, self._seen, self.options, number, frozenset(self._gone))
        left = [step for step in self._steps if not self._is_taken(step) and step.candidate.key not in self._failed]
        return Round(number, self._steps, left, dict(self._seen)) if self._steps else None

    def _is_taken(self, step: Step) -> bool:
        curve = self._curves.get(step.candidate.key)
        return curve is not None and (curve.ended or len(curve.dice) >= step.until < step.candidate.epochs)

    def _end(self, now: Round) -> None:
        for step in now.steps:
            key, curve = step.candidate.key, self._curves.get(step.candidate.key)
            if not self._is_taken(step):
                self._gone.add(key)
            if curve:
                self._seen[key] = curve.until(step.until)
        self._ended.append(now)
        self._steps = None
