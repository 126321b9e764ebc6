"""`greenseg report`: the Pareto table."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenseg.errors import ExitCode, UserError

if TYPE_CHECKING:
    from greenseg.run_directory import RunDirectory


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH…", help="Run directories, or folders of them. [default: runs]"),
    ] = None,
) -> None:
    """Print accuracy against energy: one row a configuration, the Pareto front marked."""
    from greenseg.run_directory import find_runs

    paths = paths or [Path("runs")]
    missing = [f"{path}: no such folder" for path in paths if not path.is_dir()]
    if missing:
        raise UserError(missing)
    directories = find_runs(paths)
    if not directories:
        raise UserError(f"{', '.join(map(str, paths))}: no runs here; `greenseg train` or `greenseg sweep` makes some")
    if not print_report(directories):
        raise typer.Exit(ExitCode.FAILED)


def print_report(directories: "Iterable[RunDirectory]") -> bool:
    """Print the table of these runs; False if a record was damaged and left out."""
    from greenseg.cli.view import console, say, warn
    from greenseg.report.results import by_configuration, read_runs
    from greenseg.report.table import pareto_table

    runs, damaged = read_runs(directories)
    for message in damaged:
        warn(f"left out: {message}")
    if runs:
        console.print(pareto_table(by_configuration(runs)))
    else:
        say("No run has begun yet.")
    return not damaged
