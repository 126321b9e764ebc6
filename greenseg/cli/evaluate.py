"""`greenseg evaluate`: predicted masks against reference masks."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from greenseg.errors import UserError
from greenseg.settings import Settings


def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PRED", help="Predicted mask, or a folder with masks.")],
    references: Annotated[
        Path, typer.Argument(metavar="REF", help="Reference mask, a folder with masks, or a data set in any layout.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="NAME=N+N,…", help="Classes, by the labels in the masks; see `greenseg train`.")
    ] = "",
    tolerance: Annotated[float, typer.Option(metavar="MM", help="Tolerance of surface Dice, in mm.")] = 2.0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count a reference without prediction as an empty prediction.")
    ] = False,
    cases: Annotated[bool, typer.Option("--cases", help="Also list every volume.")] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything as JSON, like nnU-Net's summary.json.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a line per volume and class as CSV.")] = None,
    montage: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Write a picture of the worst volumes: reference blue, prediction orange."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images for --montage. Default: those of the data set.")
    ] = None,
    layout: Annotated[str, typer.Option(metavar="NAME", help="Layout of the data set; see `greenseg train`.")] = "auto",
    channels: Annotated[
        str, typer.Option(metavar="NAME,…", help="Channels of the data set's images; see `greenseg train`.")
    ] = "",
) -> None:
    """Compare predicted masks with reference masks, volume by volume and class by class.

    The exit code is 2 if a mask lacks its partner, has another grid or is unreadable; then nothing is written.
    """
    settings = Settings.of({"data": str(references), "layout": layout, "labels": labels, "channels": channels})
    _check_options({"--json": json, "--csv": csv, "--montage": montage}, tolerance, images, predictions, references)

    from greenseg.cli.view import FilesView, console, print_uncut, say
    from greenseg.data.montage import write_montage
    from greenseg.evaluation import export, summary, table
    from greenseg.evaluation.evaluate import evaluate
    from greenseg.evaluation.pairs import pair_up
    from greenseg.evaluation.pictures import worst_pictures
    from greenseg.files import write_atomically, write_json

    found = pair_up(
        predictions,
        references,
        settings.layout,
        settings.labels,
        settings.channels,
        allow_missing=allow_missing,
        images=images,
    )
    with FilesView("comparing masks") as view:
        result = evaluate(found, settings.labels, tolerance, view.update)
    classes = summary.summaries(result)
    pictures = list(worst_pictures(result, classes)) if montage else []
    if montage and not pictures:
        raise UserError(f"--montage {montage}: all masks are empty; there is nothing to show")
    if cases:
        print_uncut(table.volume_table(result, console.width))
    say(table.title(result))
    print_uncut(table.class_table(result, classes, console.width))
    for number, of_class in enumerate(classes):
        say(table.worst_text(of_class, number))
    for note in result.notes:
        say(f"note: {note}")
    if json:
        write_json(json, export.as_data(result))
        say(f"Wrote {json}")
    if csv:
        write_atomically(csv, export.as_csv(result))
        say(f"Wrote {csv}")
    if montage:
        write_montage(pictures, montage, columns=summary.WORST)
        say(f"Wrote {montage}: {', '.join(picture.subject for picture in pictures)}, row by row")


_SUFFIXES = {"--json": ".json", "--csv": ".csv", "--montage": ".png"}


def _check_options(
    files: Mapping[str, Path | None], tolerance: float, images: Path | None, predictions: Path, references: Path
) -> None:
    """Check the options before anything is read.

    Raises:
        UserError: a file cannot be written or is named twice, or an option has no effect; lists all problems.
    """
    named = {option: path for option, path in files.items() if path}
    problems = [f"{option} {path}: no such folder" for option, path in named.items() if not path.parent.is_dir()]
    problems += [f"{option} {path}: this is a folder" for option, path in named.items() if path.is_dir()]
    problems += [
        f"{option} {path}: name a {_SUFFIXES[option]} file"
        for option, path in named.items()
        if path.suffix.lower() != _SUFFIXES[option]
    ]
    inputs = {path.resolve() for path in (predictions, references)}
    inputs |= {path / "dataset.json" for path in inputs}
    problems += [
        f"{option} {path}: this is an input; choose another file"
        for option, path in named.items()
        if path.resolve() in inputs
    ]
    picture = named.get("--montage")
    if len(set(named.values())) < len(named):
        problems.append(f"{', '.join(named)}: use a different file for each")
    if images and not picture:
        problems.append("--images: only --montage shows images; name its file, too")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        problems.append(f"--tolerance {tolerance:g}: must be a distance in mm, 0 or more")
    if problems:
        raise UserError(problems)
