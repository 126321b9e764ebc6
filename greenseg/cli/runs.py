"""`greenseg runs`: the disk space of runs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenseg.errors import ExitCode, UserError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from greenseg.runs.directory import RunDirectory
    from greenseg.runs.disk import Freed, Usage

app = typer.Typer(help="List runs with their size on disk, and free space.", no_args_is_help=True)

KEEP = ("best", "none")

_Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="DIR…", help="Run directories, or folders that contain them. Default: runs."),
]


@app.command("list")
def list_runs(
    folders: _Folders = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List runs with status, Dice and size on disk, in one table per sweep. The column last.ckpt has the size of files
    that `greenseg runs prune` would delete. Exit codes: 1 a record is damaged, 2 there are no runs.
    """
    found = _runs(folders)

    from greenseg.cli.view import print_uncut, say, warn
    from greenseg.report.units import count, size
    from greenseg.runs.disk import usage_of

    usages = [usage_of(run) for run in found]
    total, last = sum(usage.bytes for usage in usages), sum(usage.last for usage in usages)
    if as_json:
        runs = [_plain(usage) for usage in usages]
        print(json.dumps({"runs": runs, "bytes": total, "reclaimable_bytes": last}))
    else:
        for folder in dict.fromkeys(usage.run.path.parent for usage in usages):
            say(str(folder))
            print_uncut(_table([usage for usage in usages if usage.run.path.parent == folder]))
            say("")
        prune = f", of which `greenseg runs prune` frees {size(last)}" if last else ""
        say(f"{count(len(usages), 'run')}, {size(total)}{prune}")
    for usage in usages:
        if usage.problem:
            warn(usage.problem)
    if any(usage.status == "damaged" for usage in usages):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def prune(
    folders: _Folders = None,
    keep: Annotated[
        str,
        typer.Option(
            metavar="best|none",
            help="best: delete last.ckpt of finished runs. none: also delete their networks, but not those of teachers "
            "and of parents of unfinished runs.",
        ),
    ] = "best",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the files that would be deleted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Delete files that finished runs do not need, and say how much space that frees. Only an unfinished run continues
    from its last.ckpt. Runs that have not finished keep all their files. Runs that another process trains or measures
    are skipped and named. Exit codes: 1 a file could not be deleted or a record is damaged, 2 there are no runs, 3 a
    run was skipped.
    """
    if keep not in KEEP:
        raise UserError(f"--keep: no '{keep}'{did_you_mean(keep, KEEP)}; valid: {', '.join(KEEP)}")
    found = _runs(folders)

    from greenseg.cli.view import print_uncut, say, warn
    from greenseg.report.units import count, size
    from greenseg.runs.disk import free, free_networks

    if keep == "none":
        freed = free_networks(found, "greenseg runs prune --keep none", dry_run)
    else:
        freed = {run.path: free(run, dry_run=dry_run) for run in found}
    bytes_freed = sum(each.bytes for each in freed.values())
    deleted = {path: each for path, each in freed.items() if each.bytes}
    if as_json:
        runs = [{"run": str(path), "bytes": each.bytes, "network": each.network} for path, each in deleted.items()]
        print(json.dumps({"runs": runs, "bytes": bytes_freed, "dry_run": dry_run}))
    else:
        if dry_run and deleted:
            print_uncut(_deletions(deleted))
        verb = "Would free" if dry_run else "Freed"
        networks = sum(each.network for each in deleted.values())
        of = f", {count(networks, 'network')}" if networks else ""
        say(f"{verb} {size(bytes_freed)}: files of {count(len(deleted), 'finished run')}{of}")
        for path, each in freed.items():
            if each.needed_by:
                say(f"Kept the network of {path}, which {each.needed_by} needs")
    for each in freed.values():
        if each.kept:
            warn(f"not deleted: {each.kept}")
    if kept := [each for each in freed.values() if each.kept]:
        raise typer.Exit(ExitCode.INCOMPLETE if all(each.busy for each in kept) else ExitCode.FAILED)


def _runs(folders: Sequence[Path] | None) -> "list[RunDirectory]":
    """The runs at or below the folders.

    Raises:
        UserError: a folder does not exist, or there is no run.
    """
    from greenseg.runs.directory import find_runs

    folders = folders or [Path("runs")]
    if missing := [f"{folder}: no such folder" for folder in folders if not folder.is_dir()]:
        raise UserError(missing)
    if found := find_runs(folders):
        return found
    raise UserError(f"{', '.join(map(str, folders))}: no runs here")


def _table(usages: "Iterable[Usage]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from greenseg.cli.plan import COLOURS
    from greenseg.report.units import number, size

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "status", "Dice", "size", "last.ckpt"):
        right = name in ("Dice", "size", "last.ckpt")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for usage in usages:
        status = Text(usage.status, COLOURS.get(usage.status, ""))
        last = size(usage.last) if usage.last else ""
        table.add_row(Text(usage.run.path.name), status, number(usage.dice), size(usage.bytes), last)
    return table


def _deletions(deleted: "dict[Path, Freed]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from greenseg.report.units import size

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("network", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for path, each in deleted.items():
        table.add_row(Text(str(path)), "goes" if each.network else "stays", size(each.bytes))
    return table


def _plain(usage: "Usage") -> dict[str, object]:
    return {
        "run": str(usage.run.path),
        "status": usage.status,
        "dice": usage.dice,
        "bytes": usage.bytes,
        "reclaimable_bytes": usage.last,
    }
