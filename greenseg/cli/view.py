"""What a user sees while runs train: a live line on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from greenseg.config import Settings
from greenseg.report.units import duration, joules
from greenseg.sweep.local import Outcome

console = Console()
errors = Console(stderr=True, soft_wrap=True)


class _Figures(ProgressColumn):
    """Loss, Dice and joules so far."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"])


class TrainingView:
    """Follows runs, one after the other.

    Args:
        total: number of runs that will be shown; with more than one, each has a number and a line when it ends.
        echo: print a line after every epoch where there is no terminal.
    """

    def __init__(self, total: int, echo: bool) -> None:
        self._total, self._echo, self._number = total, echo, 0
        self._progress = Progress(
            # On a narrow terminal the name gives way, never a figure.
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=34)),
            BarColumn(bar_width=10),
            _Figures(table_column=Column(no_wrap=True, min_width=49)),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=total > 1,
        )
        self._task = self._progress.add_task("", total=1, figures="", visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, settings: Settings) -> None:
        """A run begins."""
        self._number += 1
        self._settings = settings
        self._loss: float | None = None
        self._dice: float | None = None
        self._best: float | None = None
        self._joules: float | None = None
        name = f"{settings.model} {settings.precision} seed {settings.seed}"
        self._label = f"[{self._number}/{self._total}] {name}" if self._total > 1 else name
        self._progress.reset(
            self._task,
            total=settings.epochs,
            description=self._label,
            figures="starting (loading torch)",
            visible=True,
        )

    def event(self, event: dict[str, Any]) -> None:
        """The run sent an event."""
        kind, epochs = event.get("event"), self._settings.epochs
        if kind == "step":
            self._loss, self._joules = event["loss"], event["joules"]
            self._show(event["epoch"] + event["step"] / max(event["steps"], 1), event["epoch"])
        elif kind == "epoch":
            self._loss, self._dice, self._joules = event["train_loss"], event["dice"], event["joules"]
            self._best = max((dice for dice in (self._best, self._dice) if dice is not None), default=None)
            self._show(event["epoch"] + 1, event["epoch"])
            if self._echo and not console.is_terminal:
                print(
                    f"epoch {event['epoch'] + 1}/{epochs}: {self._figures()}, {duration(event['seconds'])}",
                    flush=True,
                )

    def end(self, outcome: Outcome) -> None:
        """The run ended."""
        if self._total == 1:
            return
        self._dice = self._best  # as in the table
        mark = {"finished": "[green]done[/]", "failed": "[red]failed[/]"}.get(
            outcome.status, f"[yellow]{outcome.status}[/]"
        )
        detail = (
            self._figures()
            if outcome.status == "finished"
            else outcome.reason.splitlines()[0]
            if outcome.reason
            else ""
        )
        console.print(f"{mark} ", Text(f"{self._label}  {detail}"), sep="", soft_wrap=True)

    def _show(self, completed: float, epoch: int) -> None:
        figures = f"epoch {epoch + 1}/{self._settings.epochs}, {self._figures()}"
        self._progress.update(self._task, completed=completed, figures=figures)

    def _figures(self) -> str:
        loss = "–" if self._loss is None else f"{self._loss:.3f}"
        dice = "–" if self._dice is None else f"{self._dice:.3f}"
        return f"loss {loss}, Dice {dice}, {joules(self._joules)}"


class FilesView:
    """Shows that many files are being read, if that takes time at all."""

    def __init__(self, what: str = "preparing slices", disable: bool = False) -> None:
        self._progress = Progress(
            TextColumn(what), BarColumn(bar_width=20), TextColumn("{task.completed}/{task.total} files"),
            TimeRemainingColumn(), console=console, disable=disable or not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, total: int) -> None:
        """`done` of `total` files have been read."""
        self._progress.start()
        self._progress.update(self._task, completed=done, total=total)


def say(text: str) -> None:
    """A sentence for the user."""
    console.print(text, soft_wrap=True, highlight=False)


def warn(text: str) -> None:
    """A sentence for the user that is not part of the result."""
    errors.print(Text(text), style="yellow")
    sys.stderr.flush()
