"""What `greenseg predict` shows: progress, remarks and the panel at the end."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from greenseg.cli.view import console
from greenseg.data.listing import some
from greenseg.energy import EnergyMeter
from greenseg.inference.batching import BatchSize
from greenseg.inference.ledger import Ledger
from greenseg.inference.predictor import Predictor
from greenseg.inference.recipe import Recipe
from greenseg.inference.session import INFERENCE, Todo, Totals, recorded
from greenseg.report.panel import reading_text
from greenseg.report.units import count, duration, joules, number

_LINE_SECONDS = 5.0  # between lines where there is no terminal


class PredictView:
    """A progress bar over images; without a terminal, a line every few seconds."""

    def __init__(self, todo: Todo) -> None:
        self._total = sum(map(len, todo.subjects))
        self._progress = Progress(
            TextColumn("predicting", markup=False), BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total} images, {task.fields[numbers]}", markup=False),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=self._total, numbers="starting")
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, totals: Totals) -> None:
        """`done` images are predicted, or have failed."""
        numbers = f"{count(totals.slices, 'slice')}, {joules(totals.energy.joules)}"
        self._progress.update(self._task, completed=done, numbers=numbers)
        if not console.is_terminal and time.monotonic() - self._shown > _LINE_SECONDS:
            self._shown = time.monotonic()
            print(f"{done}/{self._total} images, {numbers}", flush=True)


def remarks(totals: Totals, sizes: BatchSize, recipe: Recipe, tile: bool) -> Iterator[str]:
    """Sentences about what was predicted."""
    if totals.beyond:
        side = f"{recipe.image_size * recipe.spacing:g} mm"
        what = f"{count(len(totals.beyond), 'image')}: up to {max(totals.beyond):.3g} mm of a side lie outside the"
        treated = "predicted in tiles" if tile else "background there; --tile predicts it, too"
        yield f"{what} square of {side} that the network sees: {treated}"
    if totals.without_size:
        names = some([path.name for path in totals.without_size])
        yield f"{names}: no pixel size in the file; taken as 1 mm"
    yield from sizes.notes


def prediction_panel(
    totals: Totals, todo: Todo, sizes: BatchSize, predictor: Predictor, meter: EnergyMeter, ledger: Ledger, out: Path
) -> Panel:
    """The numbers of a session and their cost."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    inference = totals.phases[INFERENCE]
    files = f" in {count(totals.images, 'image')}" if totals.images != totals.volumes else ""
    grid.add_row("predicted", f"{count(totals.volumes, 'volume')}{files}, {count(totals.slices, 'slice')}")
    if totals.failed:
        grid.add_row("failed", count(totals.failed, "image"))
    grid.add_row("speed", f"{number(totals.slices / inference.seconds)} slices/s, reading and writing included")
    energy = totals.energy
    for reading in energy.readings:
        grid.add_row(f"{reading.component} energy", reading_text(reading))
    for component in meter.unmeasured:
        grid.add_row(f"{component} energy", f"unknown: {meter.unmeasured[component]}")
    shares = ", ".join(f"{name} {joules(phase.joules)}" for name, phase in totals.phases.items())
    grid.add_row("total energy", f"{joules(energy.joules)}  ({shares})")
    grid.add_row("per slice", f"{joules(inference.joules / totals.slices)}  without startup")
    grid.add_row("per volume", f"{joules(inference.joules / totals.volumes)}  without startup")
    if todo.finished:
        grid.add_row("all sessions", joules(recorded(ledger).joules))
    grid.add_row("time", f"{duration(energy.seconds)}  ({duration(inference.seconds)} without startup)")
    grid.add_row("precision", f"{predictor.precision} on {predictor.device}, batches of {sizes.chosen}")
    grid.add_row("masks", str(out))
    return Panel(grid, title=Text(predictor.name), title_align="left", border_style="green")
