"""`greenseg evaluate`: predicted masks against reference masks."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenseg.cli.network import PICK_HELP, find_network
from greenseg.errors import UserError
from greenseg.settings import Settings

if TYPE_CHECKING:
    from greenseg.evaluation.evaluate import Evaluation


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PRED|RUN",
            help="Predicted mask, or a folder with masks. With --data: run directory or exported file; with --pick, a "
            "folder with runs.",
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Argument(metavar="[REF]", help="Reference mask, a folder with masks, or a data set in any layout."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data set with masks: predict its images with RUN, then compare."),
    ] = None,
    pick: Annotated[str, typer.Option(metavar="NAME", help=PICK_HELP)] = "",
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

    `greenseg evaluate RUN --data DIR` first predicts the images of a data set with a trained network.

    The exit code is 2 if a mask lacks its partner, has another grid or is unreadable; then nothing is written.
    """
    against = _references(references, data, pick, {"--labels": labels, "--allow-missing": allow_missing})
    settings = Settings.of({"data": str(against), "layout": layout, "labels": labels, "channels": channels})
    _check_options({"--json": json, "--csv": csv, "--montage": montage}, tolerance, images, predictions, against)

    from greenseg.cli.view import FilesView, console, print_uncut, say
    from greenseg.data.montage import write_montage
    from greenseg.evaluation import export, summary, table
    from greenseg.evaluation.evaluate import evaluate
    from greenseg.evaluation.pairs import pair_up
    from greenseg.evaluation.pictures import worst_pictures
    from greenseg.files import write_atomically, write_json

    with tempfile.TemporaryDirectory(prefix="greenseg-") as folder:  # for the predictions of RUN
        if data:
            result = _of_network(find_network(predictions, pick), data, settings, tolerance, Path(folder))
        else:
            found = pair_up(
                predictions,
                against,
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


def _references(references: Path | None, data: Path | None, pick: str, unused: Mapping[str, object]) -> Path:
    """The argument REF or the option --data.

    Raises:
        UserError: both are given, or none, or an option has no effect; lists all problems.
    """
    if data is None:
        if references is None:
            raise UserError("name the reference masks: greenseg evaluate PRED REF, or greenseg evaluate RUN --data DIR")
        if pick:
            raise UserError("--pick chooses a run of a sweep; it needs --data DIR, with the images to predict")
        return references
    problems = [f"{option} has no effect with --data" for option, value in unused.items() if value]
    problems += [f"REF {references} and --data {data}: give one of them"] if references else []
    if problems:
        raise UserError(problems)
    return data


def _of_network(run: Path, data: Path, settings: Settings, tolerance: float, folder: Path) -> "Evaluation":
    """Predict the images of a data set with a network into a folder, and compare."""
    from greenseg.cli.view import FilesView
    from greenseg.evaluation.evaluate import evaluate
    from greenseg.evaluation.of_network import known_subjects, predict_references
    from greenseg.inference.load import load

    predictor = load(run)
    with FilesView("predicting masks") as view:
        found = predict_references(predictor, data, folder, settings.layout, settings.channels, view.update)
    found.notes += predictor.notes + known_subjects(run, data, settings.layout, settings.channels)
    with FilesView("comparing masks") as view:
        result = evaluate(found, tolerance=tolerance, progress=view.update)
    result.temporary = True
    return result


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
