"""`greenseg report`: from runs to a decision."""

import importlib.util
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenseg.errors import ExitCode, UserError, did_you_mean
from greenseg.report.formats import FORMATS
from greenseg.report.objectives import COSTS, ENERGIES, QUALITIES

if TYPE_CHECKING:
    from greenseg.report.comparison import Comparison, Row
    from greenseg.report.run import Run
    from greenseg.report.select import Query
    from greenseg.report.view import ReportView
    from greenseg.runs.directory import RunDirectory
    from greenseg.search.account import Account

SUFFIXES = {"table": ".txt"} | {name: known.suffix for name, known in FORMATS.items()}
"""Format → the suffix of its files."""

PICTURES = (".png", ".svg", ".pdf")
_WATCH_SECONDS = 2.0
_WORDS = 12  # lines of a watched report besides its rows
_WIDTH = 100  # of sentences in a file, in characters


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH…", help="Run directories, or folders that contain them. Default: runs."),
    ] = None,
    quality: Annotated[
        str, typer.Option(metavar="NAME", help=f"Quality objective: {', '.join(QUALITIES)}; dice:CLASS for one class.")
    ] = "dice",
    energy: Annotated[str, typer.Option(metavar="NAME", help=f"Energy objective: {', '.join(ENERGIES)}.")] = "total",
    third: Annotated[
        str, typer.Option("--and", metavar="NAME", help=f"Third objective of the front: {', '.join(COSTS)}.")
    ] = "",
    baseline: Annotated[
        str,
        typer.Option(
            metavar="KEY=VALUE,…",
            help="Baseline of savings and effects: the best configuration with these settings. Default: the best.",
        ),
    ] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help="Keep configurations such as encoder=resnet18,resnet34 or dice>=0.8; repeatable."
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Sort by this column, best first; -COLUMN: worst first.")
    ] = "",
    top: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Keep the first N rows. Without it, a table shows 40 rows and the front."
        ),
    ] = None,
    columns: Annotated[str, typer.Option(metavar="NAME,…", help="Show these columns: settings and objectives.")] = "",
    classes: Annotated[bool, typer.Option("--classes", help="Also show the quality of each class.")] = False,
    front_only: Annotated[bool, typer.Option("--front-only", help="Keep the front only.")] = False,
    format: Annotated[str, typer.Option(metavar="NAME", help=f"Format: {', '.join(SUFFIXES)}.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write to this file; .md, .csv, .json, .tex and .html set the format."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the front as .png, .svg or .pdf; needs the extra 'plots'.")
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw Dice against the joules spent so far, as .png, .svg or .pdf."),
    ] = None,
    emissions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the runs as an emissions.csv of CodeCarbon.")
    ] = None,
    suggest_seeds: Annotated[
        bool,
        typer.Option("--suggest-seeds", help="Print a sweep file with the fewest further seeds that settle the front."),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow a running sweep until Ctrl-C.")] = False,
    allow_mixed_sources: Annotated[
        bool, typer.Option("--allow-mixed-sources", help="Rank measured and estimated joules together.")
    ] = False,
    allow_mixed_hardware: Annotated[
        bool, typer.Option("--allow-mixed-hardware", help="Rank joules of different hardware together.")
    ] = False,
    relative_to: Annotated[
        str,
        typer.Option(
            metavar="KEY=VALUE,…",
            help="Add the energy relative to this configuration on the same hardware, which may differ between rows.",
        ),
    ] = "",
) -> None:
    """Compare accuracy with energy: a row per configuration, the Pareto front, and the answer in words."""
    kind = _format(format, None if suggest_seeds else output)
    pictures = {path: draw for path, draw in ((plot, "front"), (curves, "curves")) if path}
    _check_files({"--output": output, "--plot": plot, "--curves": curves, "--emissions": emissions})
    if suggest_seeds and (watch or kind != "table" or pictures or emissions):
        raise UserError("--suggest-seeds prints a sweep file; it has no other format, picture or --watch")
    if watch and (kind != "table" or output or not sys.stdout.isatty()):
        raise UserError("--watch shows the table on a terminal; it has no other format and no --output")

    from greenseg.runs.directory import find_runs

    paths = paths or [Path("runs")]
    missing = [f"{path}: no such folder" for path in paths if not path.is_dir()]
    if missing:
        raise UserError(missing)
    directories = find_runs(paths)
    if not directories and not watch:
        raise UserError(
            f"{', '.join(map(str, paths))}: no runs here; start some with `greenseg train` or `greenseg sweep`"
        )

    # Imported late: an empty folder needs no numpy.
    from greenseg.report.select import Query

    query = Query(
        quality,
        energy,
        third,
        baseline,
        tuple(where or ()),
        sort,
        top,
        columns,
        front_only,
        allow_mixed_sources,
        classes,
        allow_mixed_hardware,
        relative_to,
    )
    if watch:
        _watch(paths, query)
        return
    if suggest_seeds:
        if not _suggest(directories, query, output):
            raise typer.Exit(ExitCode.FAILED)
        return
    if not _report(directories, query, kind, output, pictures, emissions):
        raise typer.Exit(ExitCode.FAILED)


def print_report(
    directories: "Iterable[RunDirectory]",
    allow_mixed_sources: bool = False,
    searches: "Sequence[Account] | None" = None,
) -> bool:
    """Print the table of runs and the answer in words; returns False if a damaged record was left out.

    Args:
        directories: directories of the runs.
        allow_mixed_sources: rank joules of different sources together.
        searches: the accounts to show; by default, those of all searches that the runs are part of.
    """
    from greenseg.report.select import Query

    return _report(directories, Query(allow_mixed_sources=allow_mixed_sources), searches=searches)


def _report(
    directories: "Iterable[RunDirectory]",
    query: "Query",
    kind: str = "table",
    output: Path | None = None,
    pictures: Mapping[Path, str] | None = None,
    emissions: Path | None = None,
    searches: "Sequence[Account] | None" = None,
) -> bool:
    """Print or write the report; returns False if a damaged record was left out."""
    from greenseg.cli.streams import write_data
    from greenseg.cli.view import console, print_uncut, say, warn
    from greenseg.files import write_atomically
    from greenseg.report.reader import Reader
    from greenseg.report.results import by_configuration

    reader = Reader()
    runs, damaged = reader.read(directories)
    for message in damaged:
        warn(f"left out: {message}")
    files: dict[Path, str | bytes] = {}
    if runs:
        searches = _searches(runs) if searches is None else searches
        notes = [sentence for each in searches for sentence in _sentences(each)]
        comparison = query.compare(by_configuration(runs), [*reader.notes, *notes])
        rows, names = query.rows(comparison), query.names(comparison)
        if output:
            files[output] = _text(query, comparison, rows, names, kind)
        elif kind == "table":
            # Without a terminal, no width limits the table.
            wide = not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit()
            # Not cropped: a terminal wraps longer lines.
            console.print(_view(query, comparison, rows, names, wide), crop=False)
            for each in searches:
                if each.verdicts:
                    from greenseg.cli.search_view import verdict_table

                    print_uncut(verdict_table(each))
        else:
            write_data(_text(query, comparison, rows, names, kind))
        for path, what in (pictures or {}).items():
            from greenseg.report import picture

            files[path] = picture.PICTURES[what](comparison, path.suffix.lstrip("."))
    elif kind == "table":
        say("No run has begun yet.")
    else:
        warn("No run has begun yet.")
    if emissions:
        from greenseg.report.emissions import emissions_csv

        files[emissions] = emissions_csv(runs)
    for path, content in files.items():
        write_atomically(path, content)
        warn(f"Wrote {path}")
    return not damaged


def _searches(runs: "Sequence[Run]") -> "list[Account]":
    """The accounts of the searches that these runs are part of."""
    folders = {run.directory.path.parent for run in runs if run.record.context.search}
    if not folders:
        return []
    from greenseg.search.account import accounts

    return accounts(run.directory for run in runs if run.directory.path.parent in folders)


def _sentences(account: "Account") -> list[str]:
    from greenseg.cli.search_view import sentences

    return sentences(account)


def _suggest(directories: "Iterable[RunDirectory]", query: "Query", output: Path | None) -> bool:
    """Print or write a sweep file of further seeds; returns False if a damaged record was left out."""
    from greenseg.cli.streams import write_data
    from greenseg.cli.view import warn
    from greenseg.files import write_atomically
    from greenseg.report.reader import Reader
    from greenseg.report.results import by_configuration
    from greenseg.report.suggestion import as_sweep, suggest

    reader = Reader()
    runs, damaged = reader.read(directories)
    for message in damaged:
        warn(f"left out: {message}")
    if runs:
        comparison = query.compare(by_configuration(runs), reader.notes)
        text = as_sweep(comparison, suggest(comparison))
        if output:
            write_atomically(output, text)
            warn(f"Wrote {output}")
        else:
            write_data(text)
    else:
        warn("No run has begun yet.")
    return not damaged


def _view(
    query: "Query", comparison: "Comparison", rows: "Sequence[Row]", names: list[str] | None, wide: bool
) -> "ReportView":
    from greenseg.report.view import ReportView

    return ReportView(comparison, rows, names, query.top is not None, wide, query.classes)


def _text(query: "Query", comparison: "Comparison", rows: "Sequence[Row]", names: list[str] | None, kind: str) -> str:
    """The report in a format, as text for a file."""
    if kind == "table":
        from rich.console import Console

        text = io.StringIO()
        paper = Console(file=text, width=_WIDTH, markup=False, emoji=False)
        paper.print(_view(query, comparison, rows, names, wide=True), crop=False)
        return text.getvalue()
    if query.classes and not names and kind != "csv":  # which has them without a choice of columns
        from greenseg.report.columns import columns_with_classes

        names = columns_with_classes(comparison)
    return FORMATS[kind].write(comparison, rows, names)


def _watch(paths: Sequence[Path], query: "Query") -> None:
    """Show the table and update it as runs progress, until Ctrl-C."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from greenseg.cli.view import console
    from greenseg.report.reader import Reader
    from greenseg.report.results import by_configuration
    from greenseg.report.units import joules
    from greenseg.runs.directory import find_runs

    reader = Reader()

    def now() -> Group:
        runs, damaged = reader.read(find_runs(paths))
        states = Counter(run.status for run in runs)
        counts = ", ".join(f"{number} {status}" for status, number in sorted(states.items()))
        spent = joules(sum(run.own_joules for run in runs))
        head = Text(f"{time.strftime('%H:%M:%S')}  {counts or 'no run has begun yet'}, {spent}. Ctrl-C ends.", "bold")
        lines = [head, *(Text(said, "yellow") for said in [*(f"left out: {d}" for d in damaged), *reader.notes])]
        if not runs:
            return Group(*lines)
        comparison = query.compare(by_configuration(runs), reader.notes)
        rows = query.rows(comparison)[: max(console.height - _WORDS, 5)]
        return Group(*lines, ParetoTable(comparison, rows, query.names(comparison)), *map(Text, decision(comparison)))

    from greenseg.report.answer import decision
    from greenseg.report.table import ParetoTable

    with suppress(KeyboardInterrupt), Live(now(), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_SECONDS)
            live.update(now(), refresh=True)


def _format(name: str, output: Path | None) -> str:
    """The requested format, by its name or by the suffix of the output file.

    Raises:
        UserError: the format is unknown, the suffix has no format, or both contradict each other.
    """
    if name:
        if name not in SUFFIXES:
            raise UserError(
                f"--format: no '{name}'{did_you_mean(name, list(SUFFIXES))}; there are: {', '.join(SUFFIXES)}"
            )
        others = {*SUFFIXES.values(), *PICTURES} - {SUFFIXES[name], ".txt"}  # any text may be a .txt
        if output and output.suffix in others:
            raise UserError(f"--format {name} --output {output}: the suffix belongs to another format")
        return name
    if output is None:
        return "table"
    by_suffix = {suffix: kind for kind, suffix in SUFFIXES.items()}
    if output.suffix not in by_suffix:
        hint = " (--plot draws the front)" if output.suffix in PICTURES else ""
        valid = ", ".join(by_suffix)
        raise UserError(f"--output {output}: its suffix has no format{hint}; set --format, or use one of {valid}")
    return by_suffix[output.suffix]


def _check_files(files: Mapping[str, Path | None]) -> None:
    """Check that the files of options can be written, before anything is read.

    Raises:
        UserError: a folder is missing, the suffix is not one of a picture, or matplotlib is missing; all problems.
    """
    named = {option: path for option, path in files.items() if path}
    problems = [f"{option} {path}: no such folder" for option, path in named.items() if not path.parent.is_dir()]
    problems += [f"{option} {path}: this is a folder" for option, path in named.items() if path.is_dir()]
    pictures = [named[option] for option in ("--plot", "--curves") if option in named]
    problems += [
        f"{path}: a picture is one of {', '.join(PICTURES)}" for path in pictures if path.suffix not in PICTURES
    ]
    if pictures and importlib.util.find_spec("matplotlib") is None:
        problems.append("pictures need matplotlib, the extra 'plots': pip install 'greenseg[plots]'")
    if len(set(named.values())) < len(named):
        problems.append(f"{', '.join(named)}: use a different file for each")
    if problems:
        raise UserError(problems)
