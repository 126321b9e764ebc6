"""`greenseg predict`: masks for images from a trained network."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from greenseg.errors import ExitCode, UserError, did_you_mean
from greenseg.precisions import PRECISIONS
from greenseg.settings import Layout

if TYPE_CHECKING:
    from greenseg.energy import EnergyMeter
    from greenseg.inference.predictor import Predictor

_ACCELERATORS = ("auto", "cpu", "gpu")
_PICKS = ("best", "knee", "cheapest")


def predict(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run directory, exported file, or a sweep's folder with --pick.")
    ],
    images: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            metavar="IN",
            help="Image, folder with images or a DICOM series, or a data set in any layout.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the masks; made if it is missing.")
    ],
    pick: Annotated[
        str,
        typer.Option(metavar="NAME", help="Choose a run of a folder: best, knee or cheapest (see greenseg report)."),
    ] = "",
    suffix: Annotated[
        str, typer.Option(metavar="TEXT", help="Add _TEXT to the names of masks, such as maskpred.")
    ] = "",
    threshold: Annotated[
        str,
        typer.Option(metavar="P", help="Foreground is above this probability; only for one class. Default: 0.5."),
    ] = "",
    largest_component: Annotated[
        bool, typer.Option("--largest-component", help="Keep only the largest connected part of each class.")
    ] = False,
    flip_averaging: Annotated[
        bool, typer.Option("--flip-averaging", help="Average the probabilities over four flips of the image.")
    ] = False,
    tile: Annotated[
        bool, typer.Option("--tile", help="Also predict what lies outside the square that the network sees.")
    ] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write probabilities, to OUT/probabilities/.")
    ] = False,
    batch_size: Annotated[
        str, typer.Option(metavar="N|auto", help="Slices per batch; auto = the fastest of 1, 2, 4, …")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help=f"Default: that of the run. One of: {', '.join(PRECISIONS)}.")
    ] = "",
    accelerator: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or gpu.")] = "auto",
    layout: Annotated[str, typer.Option(metavar="NAME", help="Layout of the data set; see `greenseg train`.")] = "auto",
    channels: Annotated[
        str, typer.Option(metavar="NAME,…", help="Channels of the images; default: those of the run.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Redo existing predictions and replace them.")] = False,
) -> None:
    """Predict masks for images, in their geometry, and measure the energy.

    The same command continues an interrupted prediction, and predicts only images that are new or have changed.
    """
    probability, slices = _check_options(
        images, out, pick, suffix, threshold, batch_size, precision, accelerator, layout
    )
    from greenseg.cli.network import find_network

    path = find_network(run, pick)
    meter = _meter(accelerator)

    from greenseg.cli.predict_view import PredictView, prediction_panel, remarks
    from greenseg.cli.view import print_uncut, say, warn
    from greenseg.inference.batching import BatchSize
    from greenseg.inference.flips import Flipped
    from greenseg.inference.inputs import find
    from greenseg.inference.ledger import Ledger, network_digest
    from greenseg.inference.load import load
    from greenseg.inference.of_run import weights_of
    from greenseg.inference.pipeline import How
    from greenseg.inference.predictor import Options
    from greenseg.inference.session import check, claimed, left, predict_all
    from greenseg.launch.stop import Stop

    plain = load(path, Options(precision, accelerator))
    predictor: Predictor = Flipped(plain) if flip_averaging else plain
    classes = predictor.recipe.classes.names
    if threshold and len(classes) > 1:
        raise UserError(
            f"--threshold {threshold}: {path} has {len(classes)} classes, and the most probable one counts; omit it"
        )
    if plain.device not in ("cpu", "cuda"):
        meter.has_unmeasured_gpu(f"no sensor is known for a device of type {plain.device}")
    found = find(images, predictor.recipe, layout, channels or _channels_of(plain, images))  # type: ignore[arg-type]
    if out.resolve() in {each.parent.resolve() for image in found.images for each in image.paths} and images.is_dir():
        raise UserError(f"--output {out}: is a folder of the input; choose another folder")
    how = How(out, f"_{suffix.lstrip('_')}" if suffix else "", tile, probability, largest_component, save_probabilities)
    network = {"weights": network_digest(*weights_of(path)), "name": plain.name}
    options = {
        "precision": plain.precision,
        "threshold": probability if len(classes) == 1 else "",
        "largest-component": largest_component,
        "flip-averaging": flip_averaging,
        "tile": tile,
    }
    check(Ledger(out), found.images, how, classes, network, options, again)
    with claimed(out) as mine:
        if not mine:
            warn(f"Another process is predicting into this folder: {out}")
            raise typer.Exit(ExitCode.INCOMPLETE)
        ledger = Ledger(out)
        check(ledger, found.images, how, classes, network, options, again)
        todo = left(ledger, found.by_subject(), how, classes, again)
        for note in (*plain.notes, *found.notes):
            say(f"note: {note}")
        if not todo.subjects:
            say(f"Already predicted (--again predicts it again): {out}")
            meter.close()
            return
        if again or ledger.head is None or ledger.difference(network, options):
            ledger.begin(network, options, todo.stale)
        if todo.finished:
            say(f"Continuing: {todo.finished} of {len(found.images)} masks are there")
        sizes = BatchSize(slices)
        with Stop().installed() as stop, PredictView(todo) as view:
            totals = predict_all(
                predictor, todo, how, sizes, ledger, meter, view.update, lambda: stop.requests > 0, slices
            )
    for problem in totals.problems:
        warn(f"failed: {problem}")
    for note in remarks(totals, sizes, predictor.recipe, tile):
        say(f"note: {note}")
    if totals.images:
        print_uncut(prediction_panel(totals, todo, sizes, plain, meter, ledger, out))
    if totals.interrupted:
        warn(f"Interrupted; the same command continues: {out}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if totals.failed:
        files = "1 image" if totals.failed == 1 else f"{totals.failed} images"
        warn(f"{files} failed, {totals.images} predicted; the same command tries them again")
        raise typer.Exit(ExitCode.FAILED)


def _meter(accelerator: str) -> "EnergyMeter":
    """A meter for the GPU that torch will use, if there is one."""
    from greenseg.energy import EnergyMeter
    from greenseg.energy.sensors import visible_gpus

    return EnergyMeter((0,) if accelerator != "cpu" and visible_gpus() else ())


def _channels_of(predictor: Any, images: Path) -> str:
    """The channels that the run was trained on, if the images are a data set that names its channels."""
    settings = getattr(predictor, "settings", None)
    is_named = images.is_dir() and ((images / "dataset.json").is_file() or any(images.glob("sub-*")))
    return settings.channels if settings and (is_named or images.suffix.lower() == ".csv") else ""


def _check_options(
    images: Path,
    out: Path,
    pick: str,
    suffix: str,
    threshold: str,
    batch_size: str,
    precision: str,
    accelerator: str,
    layout: str,
) -> tuple[float, int | None]:
    """The threshold, and the slices per batch or None for auto.

    Raises:
        UserError: an option is wrong; lists all problems.
    """
    problems: list[str] = []
    for option, value, valid in (
        ("--pick", pick, _PICKS),
        ("--precision", precision, tuple(PRECISIONS)),
        ("--accelerator", accelerator, _ACCELERATORS),
        ("--layout", layout, get_args(Layout)),
    ):
        if value and value not in valid:
            problems.append(f"{option}: no '{value}'{did_you_mean(value, valid)}; valid: {', '.join(valid)}")
    if not images.exists():
        problems.append(f"--input {images}: no such file or folder")
    elif not (images.is_file() or images.is_dir()):
        problems.append(f"--input {images}: neither a file nor a folder")
    there = next((path for path in (out, *out.parents) if path.exists()), None)
    if there and not there.is_dir():
        problems.append(f"--output {out}: {there} is a file; name a folder")
    elif images.is_dir() and out.resolve() == images.resolve():
        problems.append(f"--output {out}: is the input; choose another folder")
    if suffix and not re.fullmatch(r"\w[\w.+-]*", suffix):
        problems.append(f"--suffix '{suffix}': use letters and digits, and between them any of _ . + -")
    probability = 0.5
    try:
        probability = float(threshold or 0.5)
        if not 0 < probability < 1:
            raise ValueError
    except ValueError:
        problems.append(f"--threshold {threshold}: must be a probability between 0 and 1, such as 0.5")
    slices = int(batch_size) if re.fullmatch(r"[1-9]\d{0,5}", batch_size) else None
    if slices is None and batch_size != "auto":
        problems.append(f"--batch-size {batch_size}: must be a number from 1 up, or auto")
    if problems:
        raise UserError(problems)
    return probability, slices
