"""`greenseg data`: data sets."""

from pathlib import Path
from typing import Annotated

import typer

from greenseg.errors import ExitCode, UserError
from greenseg.settings import Settings

app = typer.Typer(help="Check data sets, manage the slice cache, write a phantom.", no_args_is_help=True)


@app.command()
def check(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the data set, or its CSV file.")],
    layout: Annotated[str, typer.Option(metavar="NAME", help="Layout of the data set; see `greenseg train`.")] = "auto",
    labels: Annotated[
        str, typer.Option(metavar="NAME=N+N,…", help="Classes, by the labels in the masks; see `greenseg train`.")
    ] = "",
    channels: Annotated[str, typer.Option(metavar="NAME,…", help="Channels of an image; see `greenseg train`.")] = "",
    test_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the subjects for the test part; see `greenseg train`.")
    ] = 0.0,
    split_from: Annotated[
        str, typer.Option(metavar="CSV", help="File with the split of every subject; see `greenseg train`.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    montage: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Write a picture with one slice per case and the contours of its classes."),
    ] = None,
) -> None:
    """List the cases of a data set and all its problems. The exit code is 2 if there are any."""
    given = {"data": str(data), "layout": layout, "labels": labels, "channels": channels}
    settings = Settings.of(given | {"test_share": test_share, "split_from": split_from})
    if montage and (montage.suffix.lower() != ".png" or not montage.parent.is_dir()):
        raise UserError(f"--montage {montage}: name a .png file in an existing folder")

    import json
    import sys
    from dataclasses import asdict

    from greenseg.cli.view import FilesView, print_uncut, say, warn
    from greenseg.data import check as checks
    from greenseg.data.montage import Picture, write_montage
    from greenseg.data.rules import Rule
    from greenseg.report.cases import case_table, class_table

    pictures: list[Picture] = []
    with FilesView("checking images", disable=as_json) as view:
        found = checks.check(
            data,
            settings.layout,
            settings.labels,
            settings.channels,
            rule=Rule.of(settings),
            progress=view.update,
            picture=pictures.append if montage else None,
        )
    if as_json:
        json.dump(asdict(found), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        if found.cases:
            print_uncut(case_table(found))
        if len(found.classes) > 1:
            print_uncut(class_table(found))
        for note in found.notes:
            say(f"note: {note}")
        for problem in found.problems:
            warn(f"error: {problem}")
        if not found.problems:
            say("No problems.")
    if montage:
        write_montage(pictures, montage)
        if not as_json:
            say(f"Wrote {montage}")
    if found.problems:
        raise typer.Exit(ExitCode.USAGE)


@app.command()
def cache(
    show: Annotated[bool, typer.Option("--list", help="List the cached slices (the default).")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Remove them; this does not disturb running runs.")] = False,
) -> None:
    """List or clear the slices that are prepared for training."""
    from rich.table import Table

    from greenseg.cli.view import print_uncut, say
    from greenseg.data import cache as slices
    from greenseg.files import cache_folder
    from greenseg.report.units import count, size

    if clear:
        say(f"Freed {size(slices.clear())} in {cache_folder() / 'slices'}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("size", "slices", "grid", "labels", "data"):
        table.add_column(name, justify="right" if name in ("size", "slices") else "left", overflow="fold")
    total, number = 0, 0
    for made in slices.cached():
        how = made.index["preprocessing"]
        grid = f"{how['image_size']}² × {how['spacing']:g} mm"
        labels = how["labels"] or made.index["classes"] or "any"
        table.add_row(size(made.bytes), str(made.index["shape"][0]), grid, labels, made.index["data"])
        total, number = total + made.bytes, number + 1
    if number:
        print_uncut(table)
    say(f"{count(number, 'cache')}, {size(total)}, in {cache_folder() / 'slices'}")


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create.")],
    volumes: Annotated[
        int, typer.Option(metavar="N", help="Number of volumes; in the E2MIP layout, the last fifth is for validation.")
    ] = 15,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed; the same seed writes the same bytes.")] = 0,
    test: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of further volumes for the test part; they change no other.")
    ] = 0,
    tissues: Annotated[
        bool, typer.Option("--tissues", help="Masks with four tissues instead of one; writes the nnU-Net layout.")
    ] = False,
    channels: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Contrasts that each volume has as channels, such as T2W,DWI; writes the nnU-Net layout.",
        ),
    ] = "",
) -> None:
    """Write a phantom: synthetic volumes of a fetal head in maternal tissue, with masks."""
    from rich.progress import Progress

    from greenseg.cli.view import console, say
    from greenseg.data.phantom import write_phantom

    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("drawing", total=volumes + test)
        write_phantom(
            out,
            volumes,
            seed,
            lambda done, total: progress.update(task, completed=done),
            test=test,
            tissues=tissues,
            channels=[name.strip().upper() for name in channels.split(",") if name.strip()],
        )
    say(f"Wrote {volumes} volumes{f' and {test} for testing' if test else ''} to {out}")
