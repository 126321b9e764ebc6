"""A search that draws configurations from a space, round by round, and trains each of them to its end.

A round is a function of the results of earlier rounds, in the order of draw, and of the seed. It is drawn once all runs
of the rounds before have ended. A run that failed counts as failed for all rounds up to the one in which it was tried
again, which its record names; so a second try changes no round that was drawn before it.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from greenseg.errors import UserError
from greenseg.launch.executor import Job, jobs_of
from greenseg.runs.record import BadRecord, Searched
from greenseg.runs.standing import PlannedRun
from greenseg.search.curves import Curve
from greenseg.search.drawing import Result, Sample, Trial, reason, samples
from greenseg.search.halving import Candidate, Step
from greenseg.search.rounds import Round, Rounds
from greenseg.settings import CONSTRAINTS, Settings, violations
from greenseg.sweep.file import Sweep
from greenseg.sweep.grid import Values
from greenseg.sweep.plan import Plan, make_plan

ROUND = 8
"""Number of configurations of a round, independent of the number of processes."""

_ATTEMPTS = 100
"""Number of draws in a row without a new and valid configuration, after which a round ends."""


@dataclass(frozen=True)
class Draw:
    """A configuration that was drawn.

    Attributes:
        number: its number in the order of draw, from 0.
        sample: the proposal of the sampler.
        key: identifies the configuration.
        runs: its runs, one per seed.
        why: the reason of the draw.
    """

    number: int
    sample: Sample
    key: str
    runs: tuple[PlannedRun, ...]
    why: str

    @property
    def values(self) -> Values:
        """The value of every setting of every axis."""
        return self.sample.values


@dataclass(frozen=True)
class DrawnRound(Round):
    """A round that draws configurations.

    Attributes:
        draws: its configurations, in the order of draw.
    """

    draws: Sequence[Draw] = ()


class Draws(Rounds):
    """A search that draws configurations.

    Args:
        sweep: a sweep with a space.
        out: folder of all runs, including those of other sweeps.
        retry_failed: whether failed runs are tried again.

    Attributes:
        space: what is drawn from.
        done: why there is no further round; empty as long as runs are left.

    Raises:
        UserError: no valid configuration was drawn.
    """

    def __init__(self, sweep: Sweep, out: Path, retry_failed: bool = False) -> None:
        assert sweep.search
        assert sweep.space
        super().__init__(sweep.search)
        self.space, self.done = sweep.space, ""
        self._sweep, self._folder, self._out, self._retry_failed = sweep, out / sweep.name, out, retry_failed
        self._again: set[str] = set()
        self._turn: dict[str, int] = {}
        """Run → the round that it was drawn in, or in which it was tried again."""
        self._known: dict[int, tuple[tuple[int, Sequence[Trial]], Sequence[Draw]]] = {}

    @property
    def total(self) -> int:
        return self.how.configurations * self._repeats

    @property
    def _repeats(self) -> int:
        return max(len(self.space.seeds), 1)

    def plan(self) -> Plan:
        """The plan of the runs drawn so far, with those of the present round."""
        drawn = [run.settings for now in self.rounds() for draw in now.draws for run in draw.runs]
        return make_plan(replace(self._sweep, runs=tuple(drawn)), self._out, self._retry_failed)

    def rounds(self) -> Iterator[DrawnRound]:
        drawn: list[Draw] = []
        following, number = self._draw(drawn, 0), 0
        while draws := following:
            curves = self._finished(drawn, number)
            earlier = [step for draw in drawn for step in _steps(draw) if self._turn[step.candidate.key] == number]
            drawn = [*drawn, *draws]
            steps = [*earlier, *(step for draw in draws for step in _steps(draw))]
            left = [step for step in steps if self._is_left(step.candidate.key, number)]
            following = [] if left else self._draw(drawn, number + 1)
            if not following:  # the present round: what failed is tried again in it
                again = [step for draw in drawn for step in _steps(draw) if step.candidate.key in self._again]
                steps += [step for step in again if step not in steps]
                left += again
                self.done = "" if left else self.done
            yield DrawnRound(number, steps, left, curves, draws)
            if left:
                return
            number += 1

    def result(self, draw: Draw, before: int | None = None) -> tuple[Result | None, int]:
        """Mean Dice and joules of a configuration over its finished runs, and their number; None without any.

        Args:
            draw: the configuration.
            before: only runs that had finished before this round count; None for all.
        """
        curves = [*self._finished([draw], before).values()]
        if not curves:
            return None, 0
        dice, joules = (fmean(values) for values in zip(*((c.best, c.joules[-1]) for c in curves), strict=True))
        return (dice, joules), len(curves)

    def _finished(self, draws: Iterable[Draw], before: int | None) -> dict[str, Curve]:
        """Run → curve of those that had finished before a round."""
        keys = [run.settings.identity for draw in draws for run in draw.runs]
        return {
            key: self._curves[key]
            for key in keys
            if key in self._curves and self._curves[key].ended and (before is None or self._turn[key] < before)
        }

    def _is_left(self, key: str, number: int) -> bool:
        ended = key in self._failed or (key in self._curves and self._curves[key].ended)
        return not ended and self._turn[key] == number

    def _draw(self, drawn: Sequence[Draw], number: int) -> Sequence[Draw]:
        """The configurations of a round; empty if the search is done."""
        room = self._room(drawn, number)
        trials = [Trial(d.sample.params, d.sample.attributes, self.result(d, number)[0]) for d in drawn]
        if not room:
            return ()
        if number in self._known and self._known[number][0] == (room, trials):
            return self._known[number][1]
        taken, found, problem = {draw.key for draw in drawn}, list[tuple[Sample, tuple[Settings, ...]]](), ""
        proposals = samples(self.space, trials, self.how.sampler, self.how.seed, number)
        for _ in range(_ATTEMPTS * room):
            sample = next(proposals)
            runs = self.space.runs(sample.values)
            wrong = next((message for _, _, message in violations(CONSTRAINTS, runs)), "")
            if wrong or runs[0].identity in taken:
                problem = wrong or problem
                sample.drop()
                continue
            taken.add(runs[0].identity)
            found.append((sample, runs))
            if len(found) == room:
                break
        if not found:
            self.done = f"of {_ATTEMPTS} draws per configuration, none was valid and new"
            if not drawn:
                raise UserError(f"{self._sweep.name}: search: of {_ATTEMPTS * room} draws, none is valid: {problem}")
        draws = self._planned(found, len(drawn), reason(self.how.sampler, trials), number)
        self._known[number] = (room, trials), draws
        return draws

    def _room(self, drawn: Sequence[Draw], number: int) -> int:
        """Number of configurations that the next round may have.

        A round with fewer than `ROUND` is the last one. So it can be completed later, with a larger budget.
        """
        left, size = self.how.configurations - len(drawn), self.space.size
        curves = self._finished(drawn, number).values()
        affordable = left
        if self.how.joules is not None and curves:
            spent = sum(curve.joules[-1] for curve in curves)
            each = spent / len(curves) * self._repeats
            affordable = int((self.how.joules - spent) / each) if each else left
        reasons = {
            "all configurations are drawn": left <= 0,
            "every combination is drawn": size is not None and len(drawn) >= size,
            "the budget has no room for a further round": affordable < (ROUND if len(drawn) % ROUND else 1),
            f"of {_ATTEMPTS} draws per configuration, none was valid and new": len(drawn) % ROUND != 0,
        }
        self.done = next((reason for reason, holds in reasons.items() if holds), "")
        return 0 if self.done else min(ROUND, left, affordable)

    def _planned(
        self, found: Sequence[tuple[Sample, tuple[Settings, ...]]], first: int, why: str, number: int
    ) -> Sequence[Draw]:
        """The draws of a round, with the directories of their runs."""
        if not found:
            return ()
        wanted = tuple(run for _, runs in found for run in runs)
        plan = make_plan(replace(self._sweep, runs=wanted), self._out, self._retry_failed)
        for run in plan.runs:
            key = run.settings.identity
            self._turn[key] = number
            if run.known and run.status != "damaged" and key not in self._runs:
                self._runs[key] = run.directory
                self._read(key)
                if self._retry_failed and key in self._failed:
                    self._again.add(key)
        planned = iter(plan.runs)
        return [
            Draw(first + i, sample, runs[0].identity, tuple(next(planned) for _ in runs), why)
            for i, (sample, runs) in enumerate(found)
        ]

    # ── runs

    def next(self) -> Round | None:
        for key in [*self._failed]:  # another process may have tried them again
            self._failed.remove(key)
            self._read(key)
        return super().next()

    def _by_key(self, jobs: list[Job], now: Round) -> dict[str, Job]:
        assert isinstance(now, DrawnRound)
        known = super()._by_key(jobs, now)
        jobs += jobs_of([run for draw in now.draws for run in draw.runs if run.settings.identity not in known])
        self._again -= {step.candidate.key for step in now.left}
        return super()._by_key(jobs, now)

    def _read(self, key: str) -> None:
        super()._read(key)
        run = self._runs[key]
        with contextlib.suppress(BadRecord):
            record = run.record()
            if record is None:
                return
            if record.status == "failed":
                self._failed.add(key)
            searched = record.context.search
            if searched and run.path.parent == self._folder and self._is_own(searched):
                self._turn[key] = max(self._turn[key], searched.round)

    def _is_own(self, searched: Searched) -> bool:
        how = self.how
        return (searched.method, searched.sampler, searched.seed) == (how.method, how.sampler, how.seed)


def _steps(draw: Draw) -> list[Step]:
    """The runs of a configuration, each to its end."""
    return [
        Step(
            Candidate(run.settings.identity, draw.key, i, (), run.settings.own_epochs, run.settings.identity),
            run.settings.own_epochs,
            draw.why,
        )
        for i, run in enumerate(draw.runs)
    ]
