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
        list[Path] | None, typer.Argument(metavar="PATH…", help="Run directories, or folders of them. [default: runs]")
    ] = None,
    allow_mixed_sources: Annotated[
        bool, typer.Option("--allow-mixed-sources", help="Rank measured and estimated joules against each other.")
    ] = False,
    emissions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the runs as CodeCarbon's emissions.csv.")
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
    if not print_report(directories, allow_mixed_sources, emissions):
        raise typer.Exit(ExitCode.FAILED)


def print_report(
    directories: "Iterable[RunDirectory]", allow_mixed_sources: bool = False, emissions: Path | None = None
) -> bool:
    """Print the table of these runs; False if a record was damaged and left out."""
    from greenseg.cli.view import console, say, warn
    from greenseg.files import write_atomically
    from greenseg.report.emissions import emissions_csv
    from greenseg.report.results import by_configuration, read_runs
    from greenseg.report.table import pareto_table

    runs, damaged = read_runs(directories)
    for message in damaged:
        warn(f"left out: {message}")
    if runs:
        console.print(pareto_table(by_configuration(runs), allow_mixed_sources))
    else:
        say("No run has begun yet.")
    if emissions:
        write_atomically(emissions, emissions_csv(runs))
        say(f"Wrote {emissions}")
    return not damaged
