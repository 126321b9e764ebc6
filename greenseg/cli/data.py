"""`greenseg data`: data sets."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    volumes: Annotated[int, typer.Option(metavar="N", help="Number of volumes; the last fifth validates.")] = 15,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed; the same one writes the same bytes.")] = 0,
) -> None:
    """Write a phantom: drawn volumes of a fetal head in maternal tissue, with masks, in the E2MIP layout."""
    from rich.progress import Progress

    from greenseg.cli.view import console, say
    from greenseg.data.phantom import write_phantom

    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("drawing", total=volumes)
        written = write_phantom(out, volumes, seed, lambda done, total: progress.update(task, completed=done))
    say(f"Wrote {len(written)} volumes to {out}")
