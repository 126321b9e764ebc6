"""The choice of runs from a sweep: one to use, or those that others beat."""

from collections.abc import Callable, Iterable
from pathlib import Path

from greenseg.errors import UserError, did_you_mean
from greenseg.report.answer import NEAR
from greenseg.report.comparison import Comparison
from greenseg.report.hardware import by_hardware
from greenseg.report.objectives import ENERGIES, QUALITIES
from greenseg.report.reader import read_runs
from greenseg.report.results import Result, by_configuration
from greenseg.report.run import Run
from greenseg.report.select import Query
from greenseg.runs.directory import RunDirectory, find_runs

CHOICES: dict[str, Callable[[Comparison], Result | None]] = {
    "best": lambda comparison: comparison.best,
    "knee": lambda comparison: comparison.knee(),
    "cheapest": lambda comparison: comparison.cheapest_within(NEAR),
}
"""Name → a configuration, as the answer of `greenseg report` names it: `cheapest` is the cheapest near the best."""


def pick(folder: Path, choice: str) -> tuple[Run, str]:
    """A run of the runs in a folder: of the chosen configuration, the repeat with the best validation Dice.

    Args:
        folder: folder of a sweep, or any folder with runs.
        choice: a key of `CHOICES`.

    Returns:
        The run, and the choice in words.

    Raises:
        UserError: there is no such choice, no such folder, or no finished run; or the front has no knee.
    """
    if choice not in CHOICES:
        raise UserError(f"--pick: no '{choice}'{did_you_mean(choice, list(CHOICES))}; valid: {', '.join(CHOICES)}")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    runs, damaged = read_runs(find_runs([folder]))
    finished = [run for run in runs if run.status == "finished" and run.metrics.dice is not None]
    if not finished:
        raise UserError([*damaged, f"{folder}: no finished run to pick"])
    comparison = Comparison(by_hardware(by_configuration(finished)), QUALITIES["dice"], ENERGIES["total"])
    result = CHOICES[choice](comparison)
    if result is None:
        raise UserError(
            f"{folder}: the front has no knee, which needs three configurations; use --pick best or cheapest"
        )
    run = max(result.finished, key=lambda each: each.metrics.dice or 0.0)
    others = f", the best of {len(result.finished)} repeats" if len(result.finished) > 1 else ""
    label = comparison.label(result) if len(comparison.results) > 1 else "the only configuration"
    return run, f"{choice}: {label}{others}"


def beaten(directories: Iterable[RunDirectory], allow_mixed_sources: bool = False) -> list[RunDirectory]:
    """The runs of all configurations that another one beats, in the table that a sweep prints.

    Configurations without a rank, for instance with joules of different sources, are not among them.

    Args:
        directories: directories of the runs.
        allow_mixed_sources: rank measured and estimated joules against each other.
    """
    runs, _ = read_runs(directories)
    if not runs:
        return []
    comparison = Query(allow_mixed_sources=allow_mixed_sources).compare(by_configuration(runs))
    return [run.directory for row in comparison.rows if row.rank and not row.on_front for run in row.result.runs]
