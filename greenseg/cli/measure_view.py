"""The output of `greenseg measure`: progress, and a panel per run."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from greenseg.cli.view import console, warn
from greenseg.energy import Energy
from greenseg.report.panel import reading_text
from greenseg.report.units import duration, joules, number, size
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Measured, Window

_WARNING = "warning: "


class MeasureView:
    """The present step: a live line on a terminal, else a line per step.

    Args:
        total: number of runs to measure.
        silent: print only warnings.
    """

    def __init__(self, total: int, silent: bool = False) -> None:
        self._total, self._silent = total, silent
        self._numbers: dict[RunDirectory, int] = {}
        self._status = Status("", console=console) if console.is_terminal and not silent else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def step(self, run: RunDirectory, text: str) -> None:
        """A run is at this step, or has a warning."""
        number = self._numbers.setdefault(run, len(self._numbers) + 1)
        line = f"[{number}/{self._total}] {run.path.name}: {text.removeprefix(_WARNING)}"
        if text.startswith(_WARNING):
            warn(line)
        elif self._status:
            self._status.update(Text(line))
            self._status.start()
        elif not self._silent:
            console.print(line, soft_wrap=True, highlight=False)


def measured_panel(name: str, found: Measured) -> Panel:
    """The result of a measurement."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    if found.batch_1 and found.best:
        for heading, window in (("slice by slice", found.batch_1), (f"batches of {found.best.batch_size}", found.best)):
            grid.add_row(heading, ", ".join(_window(window)))
        for reading in Energy.from_json(found.best.energy).readings:
            grid.add_row(f"{reading.component} energy", f"{reading_text(reading)}  in {duration(found.best.seconds)}")
    for component, why in found.energy_method.unmeasured.items():
        grid.add_row(f"{component} energy", f"unknown: {why}")
    if found.joules_per_volume is not None and found.slices_per_volume is not None:
        slices = f"{number(found.slices_per_volume)} slices, the mean of the validation volumes"
        grid.add_row("per volume", f"{joules(found.joules_per_volume)}  for {slices}")
    if found.bytes is not None:
        grid.add_row("network", f"{size(found.bytes)} on disk")
    grid.add_row("engine", f"{found.runtime} {found.version or ''}, {found.precision} on {found.device}")
    if found.marks:
        grid.add_row("marks", ", ".join(found.marks))
    return Panel(grid, title=Text(name), title_align="left", border_style="green")


def _window(window: Window) -> Iterator[str]:
    yield f"{joules(window.joules_per_slice)} and {number(window.cpu_seconds / window.slices)} CPU s per slice"
    yield f"{number(window.slices / window.seconds)} slices/s"
    yield f"{number(window.p50_ms)} ms per batch (95 %: {number(window.p95_ms)} ms)"
