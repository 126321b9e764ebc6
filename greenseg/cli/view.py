"""Views of a running training: a live line on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.report.units import duration, joules
from greenseg.settings import Settings

console = Console(markup=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)
"""Consoles for people. They print plain text: a path such as `exp[v2]` is not markup."""


_FOLDED = 16  # least width that a long word may be folded to


class _Numbers(ProgressColumn):
    """Loss, Dice and joules so far."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["numbers"])


class TrainingView:
    """Shows one run: a live line on a terminal, else a line after every epoch."""

    def __init__(self) -> None:
        self._progress = Progress(
            # On a narrow terminal, the name is shortened, never a number.
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", max_width=34)
            ),
            BarColumn(bar_width=10),
            _Numbers(table_column=Column(no_wrap=True, min_width=49)),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1, numbers="", visible=False)
        self._dice: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, job: Job) -> None:
        """The run begins."""
        self._progress.reset(
            self._task,
            total=job.settings.own_epochs,
            description=name_of(job.settings),
            numbers="starting (loading torch)",
            visible=True,
        )

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """The run sent an event."""
        epochs = job.settings.own_epochs
        if event["event"] == "warning":
            warn(event["message"])
            return
        if event["event"] == "step":
            completed = event["epoch"] + event["step"] / max(event["steps"], 1)
            numbers = _numbers(event["loss"], self._dice, event["joules"])
        elif event["event"] == "epoch":
            self._dice, completed = event["dice"], event["epoch"] + 1
            numbers = _numbers(event["train_loss"], self._dice, event["joules"])
            if not console.is_terminal:
                took = duration(event["seconds"])
                print(f"epoch {event['epoch'] + 1}/{epochs}: {numbers} so far, {took} this epoch", flush=True)
        else:
            return
        text = f"epoch {event['epoch'] + 1}/{epochs}, {numbers}"
        self._progress.update(self._task, completed=completed, numbers=text)

    def end(self, job: Job, outcome: Outcome) -> None:
        """The run ended; the command prints the result."""


def name_of(settings: Settings) -> str:
    """A run in a few words."""
    return f"{settings.model} {settings.precision} seed {settings.seed}"


def _numbers(loss: float | None, dice: float | None, energy: float | None) -> str:
    shown = ["–" if value is None else f"{value:.3f}" for value in (loss, dice)]
    return f"loss {shown[0]}, Dice {shown[1]}, {joules(energy)}"


class FilesView:
    """Shows a progress bar while files are read."""

    def __init__(self, what: str = "preparing slices", disable: bool = False) -> None:
        self._progress = Progress(
            TextColumn(what, markup=False), BarColumn(bar_width=20), TextColumn("{task.completed}/{task.total} files"),
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
    """Print a sentence for the user."""
    console.print(text, soft_wrap=True, highlight=False)


def print_uncut(what: Table | Panel) -> None:
    """Print a table, or a panel with a table. Lines may be longer than the terminal, so that no number is cut."""
    table, border = (what, 0) if isinstance(what, Table) else (what.renderable, 4)
    assert isinstance(table, Table)
    needed = border
    for column in table.columns:
        texts = [str(cell) for cell in (column.header, *column.cells)]
        words = [word for text in texts for word in (text.splitlines() if column.no_wrap else text.split())]
        longest = max(map(cell_len, words), default=0)
        needed += (longest if column.no_wrap else min(longest, _FOLDED)) + 2 + bool(table.box)
    paper = console if console.width >= needed else Console(width=needed, markup=False, emoji=False)
    paper.print(what)


def warn(text: str) -> None:
    """Print a sentence for the user on stderr, because it is not part of the result."""
    errors.print(Text(text), style="yellow")
    sys.stderr.flush()
