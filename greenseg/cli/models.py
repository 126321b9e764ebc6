"""`greenseg models`: the available networks and their sizes."""

import json
from typing import Annotated

import typer

from greenseg.classes import MOST


def models(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL…", help="Models (resnet18-fpn) or patterns ('efficientnet-*-unet')."),
    ] = None,
    image_size: Annotated[
        int, typer.Option(metavar="N", min=32, max=2048, help="Height and width of a slice, in pixels.")
    ] = 128,
    channels: Annotated[int, typer.Option(metavar="N", min=1, help="Channels of an image.")] = 1,
    classes: Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="Classes to segment.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List networks with their parameters and the multiply-accumulates (MACs) of a forward pass over one slice.

    Without MODEL, the list has the light networks, every decoder, and the encoders with a short name. Nearly every
    encoder works with every decoder: `greenseg models '*-unet'` lists all encoders.
    """
    from greenseg.models.catalogue import Size, matching, overview, sizes
    from greenseg.settings import Settings

    Settings.of({"image_size": image_size})
    groups = {"": matching(patterns)} if patterns else overview()
    wanted = [model for group in groups.values() for model in group]

    from rich import box
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from greenseg.cli.view import console, print_uncut
    from greenseg.report.units import number

    with Progress(console=console, disable=not console.is_terminal or as_json, transient=True) as progress:
        task = progress.add_task("counting", total=None)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        found = sizes(wanted, image_size, update, channels, classes)
    if as_json:
        made_for = {"image_size": image_size, "channels": channels, "classes": classes}
        print(json.dumps([size.__dict__ | made_for for size in found], indent=2))
        return
    by_name: dict[str, Size] = {size.model: size for size in found}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("M parameters", justify="right", no_wrap=True)
    table.add_column(f"GMACs at {image_size}²", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for heading, group in groups.items():
        if heading:
            table.add_row(Text(heading, "bold"))
        for size in (by_name[model] for model in group):
            millions = None if size.parameters is None else size.parameters / 1e6
            table.add_row(size.model, number(millions), number(size.gmacs), size.reason)
        table.add_section()
    print_uncut(table)
