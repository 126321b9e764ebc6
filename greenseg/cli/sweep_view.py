"""Views of a running sweep: a live view on a terminal, plain lines elsewhere, or one JSON event per line."""

import json
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from greenseg.cli.launch_view import Changes, end_text, worker_json, workers_text
from greenseg.cli.view import name_of
from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.launchers.launcher import Worker
from greenseg.report.comparison import Comparison
from greenseg.report.objectives import ENERGIES, QUALITIES
from greenseg.report.reader import read_runs
from greenseg.report.results import Result, by_configuration
from greenseg.report.run import Run
from greenseg.report.units import count, duration, joules, number
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Metrics
from greenseg.settings import Settings, without_effect

if TYPE_CHECKING:
    from greenseg.search.rounds import Round

_MARKS = {"finished": ("done", "green"), "failed": ("failed", "red"), "paused": ("paused", "cyan")}
_REASONS = 3
_FRONT_ROWS = 4
_WATTS_SECONDS = 10.0


def round_text(now: "Round") -> str:
    """A line about a round of a search: its runs, how far they go, and the most frequent reasons."""
    untils = sorted({step.until for step in now.steps})
    until = f"epoch {untils[0]}" if len(untils) == 1 else f"epochs {untils[0]} to {untils[-1]}"
    reasons = Counter(_without_figures(step.why) for step in now.steps).most_common(_REASONS)
    return f"Round {now.number}: {count(len(now.steps), 'run')} to {until} ({', '.join(why for why, _ in reasons)})"


def _without_figures(why: str) -> str:
    return re.sub(r"\s*\b[\d.]+", "", why.split(",")[0])


class _Progress:
    """Progress of one run."""

    def __init__(self, job: Job) -> None:
        self.epochs = job.settings.own_epochs
        self.until = job.until or self.epochs
        self.loss: float | None = None
        self.dice: float | None = None
        self.joules: float | None = None
        self.done: float | None = None
        """Number of epochs done, fractions included."""
        self._first: tuple[float, float] | None = None
        self._spent: deque[tuple[float, float]] = deque()

    def update(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event["event"] == "step":
            self.loss = event["loss"]
            self.done = event["epoch"] + event["step"] / max(event["steps"], 1)
        elif event["event"] == "epoch":
            self.loss, self.dice, self.done = event["train_loss"], event["dice"], event["epoch"] + 1.0
        else:
            return
        self._first = self._first or (now, self.done)
        if event["joules"] != self.joules:
            self.joules = event["joules"]
            self._spent.append((now, event["joules"]))
            while len(self._spent) > 2 and now - self._spent[1][0] > _WATTS_SECONDS:
                self._spent.popleft()

    @property
    def watts(self) -> float | None:
        """Mean power over the last seconds, in W; None before two readings."""
        if len(self._spent) < 2:
            return None
        (start, before), (end, after) = self._spent[0], self._spent[-1]
        return (after - before) / (end - start) if end > start else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far; None if unknown."""
        if self._first is None or self.done is None or self.done <= self._first[1]:
            return None
        pace = (time.monotonic() - self._first[0]) / (self.done - self._first[1])
        return pace * (self.until - self.done)


class PlainView:
    """Prints a line for every run that has ended.

    Args:
        console: console to print on.
        planned: settings of every run of the sweep; settings that differ become part of a run's name.
        total: number of runs to do.
    """

    def __init__(self, console: Console, planned: Sequence[Settings], total: int) -> None:
        self._console, self._total = console, total
        self._numbers: dict[Job, int] = {}
        self._runs: dict[Job, _Progress] = {}
        self._changes, self._workers = Changes(), ""
        named = ("encoder", "decoder", "precision", "seed")
        values = [settings.resolved() for settings in planned]
        self._axes = [n for n in values[0] if n not in named and len({repr(v[n]) for v in values}) > 1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def round(self, now: "Round", jobs: Sequence[Job]) -> None:
        """A round of a search begins."""
        self._console.print(Text(round_text(now), "bold"), soft_wrap=True, highlight=False)

    def workers(self, workers: Sequence[Worker]) -> None:
        """The present states of the workers of the sweep."""
        for text in filter(None, map(end_text, self._changes.of(workers))):
            self._console.print(Text(text, "yellow"), soft_wrap=True, highlight=False)
        if (text := workers_text(workers)) != self._workers:
            self._workers = text
            self._console.print(Text(text), soft_wrap=True, highlight=False)

    def start(self, job: Job) -> None:
        """A run begins."""
        self._numbers.setdefault(job, len(self._numbers) + 1)
        self._runs[job] = _Progress(job)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A run sent an event."""
        if event["event"] == "warning":
            self._console.print(Text(f"{self._label(job)}: {event['message']}"), soft_wrap=True, highlight=False)
        self._runs[job].update(event)

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""
        self._numbers.setdefault(job, len(self._numbers) + 1)
        self._runs.pop(job, None)
        metrics = _recorded(job)
        word, colour = _MARKS.get(outcome.status, (outcome.status, "yellow"))
        numbers = f"Dice {_dice(metrics.dice)}, {joules(metrics.joules)}"
        detail = outcome.reason.splitlines()[0] if outcome.reason else numbers
        if outcome.again:
            detail = f"{detail + '; ' if outcome.reason else ''}trying again"
        self._console.print(
            Text.assemble((word, colour), f" {self._label(job)}  {detail}"), soft_wrap=True, highlight=False
        )

    def _label(self, job: Job) -> str:
        return f"[{self._numbers[job]}/{self._total}] {self._name(job.settings)}"

    def _name(self, settings: Settings) -> str:
        values, idle = settings.resolved(), without_effect(vars(settings))
        return " ".join([name_of(settings), *(f"{name}={values[name]}" for name in self._axes if name not in idle)])


class QuietView(PlainView):
    """Prints a line for every run that has failed."""

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""
        if outcome.status == "failed":
            super().end(job, outcome)

    def round(self, now: "Round", jobs: Sequence[Job]) -> None:
        """A round of a search begins."""

    def workers(self, workers: Sequence[Worker]) -> None:
        """The present states of the workers of the sweep."""
        self._workers = workers_text(workers)
        super().workers(workers)


class LiveView(PlainView):
    """Adds a live part on a terminal: every running run, totals, and the front so far.

    Args:
        done: runs of the sweep that finished before this call.
    """

    def __init__(
        self, console: Console, planned: Sequence[Settings], total: int, done: Sequence[RunDirectory] = ()
    ) -> None:
        super().__init__(console, planned, total)
        self._counts: Counter[str] = Counter()
        self._spent: dict[Job, float] = {}
        self._epochs = {settings.identity: settings.own_epochs for settings in planned}
        self._behind = 0.0
        self._round: tuple[int, int] | None = None
        self._started = time.monotonic()
        self._earlier, self._finished = list(done), list[Run]()
        self._front: list[Result] = []
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def round(self, now: "Round", jobs: Sequence[Job]) -> None:
        """A round of a search begins; the totals are those of the round."""
        super().round(now, jobs)
        self._round = now.number, len(jobs)
        self._counts.clear()

    def workers(self, workers: Sequence[Worker]) -> None:
        """The present states of the workers of the sweep; a line of the live part."""
        self._workers = workers_text(workers)
        super().workers(workers)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A run sent an event."""
        super().event(job, event)
        if "joules" in event:
            self._spent[job] = event["joules"]

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""
        super().end(job, outcome)
        if outcome.again or outcome.status == "interrupted":
            return
        self._counts[outcome.status] += 1
        self._behind += job.settings.own_epochs
        if outcome.status == "finished":
            runs, _ = read_runs([*self._earlier, job.run])
            self._earlier = []
            self._finished += runs
            compared = Comparison(by_configuration(self._finished), QUALITIES["dice"], ENERGIES["total"])
            self._front = compared.front_of(compared.groups[0])[::-1] if compared.groups else []

    def render(self) -> RenderableType:
        """The present view."""
        running = Table.grid(padding=(0, 1), expand=True)
        for column in range(6):
            # On a narrow terminal, the name is shortened, never a number.
            running.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if column == 0 else None)
            running.columns[column].justify = "left" if column == 0 else "right"
        for job, progress in list(self._runs.items()):
            running.add_row(*self._row(job, progress))
        workers = [Text(self._workers, style="dim")] if self._workers else []
        return Group(self._totals(), *workers, running, *self._front_so_far())

    def _row(self, job: Job, progress: _Progress) -> list[str]:
        label = self._label(job)
        if progress.done is None:
            return [label, "starting", "", "", "", ""]
        epoch = min(int(progress.done) + 1, progress.epochs)
        watts = "– W" if progress.watts is None else f"{number(progress.watts, 2)} W"
        numbers = [f"Dice {_dice(progress.dice)}", joules(progress.joules), watts]
        return [label, f"epoch {epoch}/{progress.epochs}", *numbers, f"{duration(progress.seconds_left)} left"]

    def _totals(self) -> RenderableType:
        ended = sum(self._counts.values())
        if self._round:
            return self._totals_of_round(*self._round, ended)
        behind = self._behind + sum(progress.done or 0 for progress in list(self._runs.values()))
        elapsed = time.monotonic() - self._started
        ahead = max(self._total - ended, 0)
        average = sum(self._epochs.values()) / len(self._epochs)
        left = elapsed * (self._total * average - behind) / behind if behind else None
        parts = [f"{self._counts['finished']}/{self._total} done"]
        if failed := self._counts["failed"]:
            parts.append(f"[red]{failed} failed[/]")
        parts += [f"{ahead} left", joules(sum(self._spent.values())), f"about {duration(left)} left"]
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(self._total, 1), completed=ended, width=16)
        line.add_row(bar, Text.from_markup("  ".join(parts)))
        return line

    def _totals_of_round(self, number: int, total: int, ended: int) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        parts = f"round {number}: {ended}/{total} runs  {joules(sum(self._spent.values()))}"
        line.add_row(ProgressBar(total=max(total, 1), completed=ended, width=16), Text(parts))
        return line

    def _front_so_far(self) -> list[RenderableType]:
        if not self._front:
            return []
        table = Table.grid(padding=(0, 1))
        for result in self._front[:_FRONT_ROWS]:
            settings = Settings.model_validate(dict(result.runs[0].settings))
            name = self._name(settings).replace(f" seed {settings.seed}", "")
            dice, spent = (Comparison.value(result, o) for o in (QUALITIES["dice"], ENERGIES["total"]))
            table.add_row(Text("●", "green"), f"Dice {_dice(dice)}", joules(spent), Text(name, style="dim"))
        more = len(self._front) - _FRONT_ROWS
        rest = [Text(f"  and {count(more, 'configuration')} more", style="dim")] if more > 0 else []
        return [Text("Front so far", style="bold"), table, *rest]


class JsonView:
    """Prints one JSON object per line on standard output: `start`, `epoch` and `end` of every run."""

    def __init__(self) -> None:
        self._changes = Changes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def round(self, now: "Round", jobs: Sequence[Job]) -> None:
        """A round of a search begins."""
        self.tell("round", number=now.number, runs=len(jobs))

    def workers(self, workers: Sequence[Worker]) -> None:
        """The present states of the workers of the sweep; those that have changed are printed."""
        for worker in self._changes.of(workers):
            self.tell("worker", **worker_json(worker))

    def start(self, job: Job) -> None:
        """A run begins."""
        self.tell("start", job, settings=job.settings.resolved())

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A run sent an event; steps are not printed."""
        if event["event"] in ("epoch", "warning"):
            self.tell(job=job, **event)

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""
        metrics = _recorded(job)
        values: dict[str, Any] = {"status": outcome.status, "kind": outcome.kind, "reason": outcome.reason or None}
        values |= {name: getattr(metrics, name) for name in ("dice", "joules", "seconds", "epochs")}
        self.tell("end", job, again=outcome.again, **values)

    def tell(self, event: str, job: Job | None = None, **values: Any) -> None:
        """Print an event."""
        named = {"run": job.settings.identity, "directory": str(job.run.path)} if job else {}
        print(json.dumps({"event": event, **named, **values}), flush=True)


def _recorded(job: Job) -> Metrics:
    """Metrics from the record of a run: they include all joules until its end, which no event has."""
    runs, _ = read_runs([job.run])
    return runs[0].metrics if runs else Metrics()


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
