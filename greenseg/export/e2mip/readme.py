"""The README of a submission: what it is, how to run it, and what the run cost here."""

from collections.abc import Mapping, Sequence

import greenseg
from greenseg.energy.reading import ESTIMATE
from greenseg.report.run import Run
from greenseg.report.units import joules
from greenseg.settings import Settings

_TEXT = """\
# A submission to the E2MIP challenge

{model} at {size}×{size} pixels of {spacing:g} mm, {epochs}, in {precision}. greenseg {version} wrote this folder.
Nothing in it was trained: `train.sh` trains this configuration from scratch on the mounted data, with seed {seed}.

| file | what |
| --- | --- |
| `Dockerfile` | the image; only its build needs a network |
| `train.sh` | trains on `/mnt/training_data` into `/mnt/training_results` |
| `inference.sh` | makes `/mnt/predicted_data/X_maskpred.nii.gz` of `/mnt/query_data/X.nii.gz`, without training data |
| `config.yaml` | the settings of the training |
| `{wheel}`, `constraints.txt` | greenseg, and the exact versions of all that it needs |
| `environment.sh`, `figures.py` | used by the two scripts |
{weights}
## Build

    docker build --tag {tag} .
{cuda}
## Run

    docker run --rm --gpus all --network none --shm-size 2g \\
      -v "$PWD/training_data:/mnt/training_data:ro" -v "$PWD/training_results:/mnt/training_results" \\
      {tag} /submission/train.sh
    docker run --rm --gpus all --network none --shm-size 2g \\
      -v "$PWD/training_results:/mnt/training_results" \\
      -v "$PWD/query_data:/mnt/query_data:ro" -v "$PWD/predicted_data:/mnt/predicted_data" \\
      {tag} /submission/inference.sh

`training_data` has `images` and `masks`, or the folder `train_slice` (or `training_data`) with them. The volumes are in
`query_data`, or in its folder `images` or `test_volume`. If `train.sh` is interrupted, the same call continues. Both
scripts end with an exit code above 0 if anything fails. They work with `--read-only --tmpfs /tmp` and as any `--user`
who may write to the two results folders.

## Convert to enroot

    enroot import --output {tag}.sqsh dockerd://{tag}:latest
    enroot create --name {tag} {tag}.sqsh
    enroot start --mount "$PWD/training_data:/mnt/training_data" \\
      --mount "$PWD/training_results:/mnt/training_results" {tag} /submission/train.sh
    enroot start --mount "$PWD/training_results:/mnt/training_results" \\
      --mount "$PWD/query_data:/mnt/query_data" --mount "$PWD/predicted_data:/mnt/predicted_data" \\
      {tag} /submission/inference.sh

## The settings

They are those that the run here was started with, in `config.yaml`. Nothing that was measured on the other machine is
carried over: a setting that was `auto` is `auto`, and is measured again on the machine that trains, which counts as
training. A setting that was given is the same.
{notes}
## What the run here had

{figures}

{sources}

## Why the jury's joules are higher

The challenge measures the whole machine, for training and for inference. The joules above are those of the run: GPUs
that it used, CPU, and memory. They **lack** the mainboard, fans, disks, network cards and the losses of the power
supply, the idle power of all other GPUs, and, where they are estimated, idle cores. On a node with several GPUs, of
which the run uses one, the difference is likely a multiple. The joules compare configurations on one machine; they do
not predict the jury's figure. They also depend on the machine, and the Dice depends on the data.

At its end, each script prints the joules as greenseg measures them on the machine where it runs.
"""

_NAMES = {"gpu": "GPU", "cpu": "CPU", "dram": "memory"}


def readme(run: Run, settings: Settings, notes: Sequence[str], pinned: Mapping[str, str], wheel: str, tag: str) -> str:
    """The content of README.md.

    Args:
        run: the run.
        settings: settings of the submission.
        notes: sentences on settings that differ from those of the run.
        pinned: package → version.
        wheel: file name of greenseg's wheel.
        tag: name of the image.
    """
    weights = "" if settings.encoder_weights == "none" else _weights(settings)
    changed = "".join(f"- {note}\n" for note in notes)
    return _TEXT.format(
        model=settings.model,
        size=settings.image_size,
        spacing=settings.spacing,
        epochs="1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs",
        precision=settings.precision,
        version=greenseg.__version__,
        seed=settings.seed,
        wheel=wheel,
        tag=tag,
        weights=weights,
        cuda=_cuda(pinned),
        notes=f"These differ from the run:\n\n{changed}" if changed else "",
        figures=_figures(run),
        sources=_sources(run),
    )


def _cuda(pinned: Mapping[str, str]) -> str:
    """The version of CUDA that a driver must support, if torch comes with one."""
    for name, version in pinned.items():
        if name.startswith("nvidia-cuda-runtime"):
            cuda = ".".join(version.split(".")[:2])
            return f"\ntorch {pinned['torch']} comes with CUDA {cuda}: the driver of the GPU must support it.\n"
    return ""


def _weights(settings: Settings) -> str:
    return (
        f"\nThe encoder starts with the public weights of {settings.encoder} ({settings.encoder_weights}), which the "
        f"image contains.\n"
    )


def _figures(run: Run) -> str:
    metrics, test = run.metrics, run.record.test
    rows = [("Dice on its validation subjects", _number(metrics.dice, 4))]
    if test.dice is not None:
        rows.append(("Dice on its test subjects", _number(test.dice, 4)))
    rows.append(("joules of training", joules(metrics.joules)))
    for reading in run.energy.readings:
        component = _NAMES.get(reading.component, reading.component)
        rows.append((f"… {component}", f"{joules(reading.joules)}, {reading.source}"))
    where = "its test subjects" if run.tested else "its validation subjects, without start-up"
    rows.append((f"joules of inference on {where}", joules(run.inference_joules)))
    rows.append(("joules to predict a slice, in validation", joules(metrics.joules_per_inference)))
    rows.append(("seconds of training", _number(metrics.seconds, 0)))
    return "\n".join(["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _sources(run: Run) -> str:
    hardware = run.record.hardware
    gpus = ", ".join(hardware.gpus or []) or "no GPU"
    said = [f"It ran on {hardware.cpu or 'an unknown CPU'} with {gpus}."]
    if ESTIMATE in "+".join(run.energy.sources.values()):
        said.append("An `estimate` is a model of the load, not a measurement, and may be off by several times.")
    if run.unmeasured:
        said.append(f"Unknown, and not in the sum: {', '.join(_NAMES.get(name, name) for name in run.unmeasured)}.")
    return " ".join(said)


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:,.{digits}f}"
