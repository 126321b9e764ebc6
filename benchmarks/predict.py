"""Prediction against a plain script: slices per second of `greenseg predict` and of a loop in PyTorch.

The script reads with SimpleITK, resamples, predicts in batches of the same size, brings the probabilities back and
writes masks, one after another, and measures no energy. Both are whole processes that take turns: the first figure
counts everything from start to end, the second one leaves out what comes before the first image. Ratios above 1 mean
that greenseg is faster. Networks are untrained; files are in the page cache.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk

ROUNDS = 5
MANY = 40  # volumes
SHAPE = (20, 128, 128)  # of slices
PIXEL, THICK = 2.0, 5.0  # mm
BATCH = 8
CASES = (("mobilenetv3-tiny-unet", 64, 4.0), ("mobilenet-unet", 128, 2.0))
"""Network, image size and spacing."""

SCRIPT = """\
import json, sys, time
began = time.time()
import numpy as np, SimpleITK as sitk, torch
import segmentation_models_pytorch as smp
encoder, weights, size, spacing, batch, out, *files = sys.argv[1:]
size, spacing, batch = int(size), float(spacing), int(batch)
network = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=1)
state = torch.load(weights, weights_only=True)["state_dict"]
network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
network = network.eval().to(memory_format=torch.channels_last)

def resampled(image, like_size, like_spacing):
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    origin = [c - (n - 1) / 2 * s for c, n, s in zip(centre, like_size, like_spacing)]
    return sitk.Resample(image, like_size, sitk.Transform(), sitk.sitkLinear, origin, like_spacing,
                         image.GetDirection(), 0.0, sitk.sitkFloat32)

start, slices = time.time(), 0
for file in files:
    image = sitk.ReadImage(file, sitk.sitkFloat32)
    *_, thick = image.GetSpacing()
    grid = resampled(image, (size, size, image.GetSize()[2]), (spacing, spacing, thick))
    values = sitk.GetArrayFromImage(grid)
    values = np.clip(values / np.percentile(values[values > 0], 99.5), 0, 1).astype(np.float32)
    inputs = torch.from_numpy(values)[:, None].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = torch.cat([network(part).sigmoid() for part in inputs.split(batch)])
    probabilities = sitk.GetImageFromArray(found[:, 0].numpy())
    probabilities.CopyInformation(grid)
    mask = sitk.Resample(probabilities, image, sitk.Transform(), sitk.sitkLinear, 0.0) > 0.5
    sitk.WriteImage(sitk.Cast(mask, sitk.sitkUInt8), out + "/" + file.rpartition("/")[2])
    slices += len(values)
print(json.dumps([slices, time.time() - start]))
"""


def write_images(folder: Path, number: int) -> list[Path]:
    """Volumes of noise in a disc."""
    rng = np.random.default_rng(0)
    _, y, x = np.indices(SHAPE)
    inside = (y - SHAPE[1] / 2) ** 2 + (x - SHAPE[2] / 2) ** 2 < (SHAPE[1] / 3) ** 2
    paths = []
    for volume in range(number):
        image = sitk.GetImageFromArray((inside * rng.integers(100, 800, SHAPE)).astype(np.int16))
        image.SetSpacing((PIXEL, PIXEL, THICK))
        paths.append(folder / f"case{volume:02}.nii.gz")
        sitk.WriteImage(image, str(paths[-1]))
    return paths


def write_run(folder: Path, model: str, size: int, spacing: float) -> tuple[Path, str]:
    """The directory of a run with an untrained network, and the name of its encoder."""
    import torch

    from greenseg.models import network
    from greenseg.runs.directory import RunDirectory
    from greenseg.runs.record import Record
    from greenseg.settings import Settings

    settings = Settings.of({"model": model, "image_size": size, "spacing": spacing})
    run = RunDirectory(folder)
    run.create(settings)
    run.write_record(Record(id="benchmark", status="finished", settings=settings.resolved()))
    torch.manual_seed(0)
    weights = network.build(settings.model_copy(update={"encoder_weights": "none"})).state_dict()
    torch.save({"state_dict": {f"network.{name}": value for name, value in weights.items()}}, run.best_checkpoint)
    return folder, settings.encoder


def measured(command: list[str], slices: int) -> tuple[float, float, str]:
    """Slices per second of a whole process, its CPU seconds, and its output."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return slices / (time.perf_counter() - start), cpu, done.stdout


def compare(model: str, size: int, spacing: float, volumes: int) -> None:
    """Print the slices per second of both, as a whole and without startup, and the ratios of their medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for each in ("in", "theirs"):
            (folder / each).mkdir()
        files = write_images(folder / "in", volumes)
        run, encoder = write_run(folder / "run", model, size, spacing)
        slices = volumes * SHAPE[0]
        weights = str(run / "checkpoints" / "best.ckpt")
        script = [sys.executable, "-c", SCRIPT, encoder, weights, str(size), str(spacing), str(BATCH)]
        script += [str(folder / "theirs"), *map(str, files)]
        greenseg = [
            sys.executable,
            "-m",
            "greenseg",
            "predict",
            str(run),
            "-i",
            str(folder / "in"),
            "--accelerator",
            "cpu",
        ]
        rows: dict[str, list[tuple[float, float, float]]] = {"script": [], "greenseg": [], "greenseg, auto": []}
        for turn in range(ROUNDS):
            whole, cpu, said = measured(script, slices)
            rows["script"].append((whole, slices / json.loads(said)[1], cpu))
            for option, label in (([f"--batch-size={BATCH}"], "greenseg"), ([], "greenseg, auto")):
                out = folder / f"{len(option)}-{turn}"
                whole, cpu, _ = measured([*greenseg, *option, "-o", str(out)], slices)
                lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()[1:]]
                seconds = sum(line["energy"]["seconds"] for line in lines if line.get("phase") != "startup")
                rows[label].append((whole, slices / seconds, cpu))
    medians = {label: [median(column) for column in zip(*turns, strict=True)] for label, turns in rows.items()}
    print(f"{model}, {size}², {volumes} volume{'s' if volumes > 1 else ''} of {SHAPE[0]} slices:")
    for label, (whole, steady, cpu) in medians.items():
        ratios = f"({whole / medians['script'][0]:.2f}×, {steady / medians['script'][1]:.2f}×)"
        print(f"  {label:15} {whole:7.2f} slices/s, {steady:7.1f} without startup  {ratios:16} {cpu:6.1f} s of CPU")


def main() -> None:
    """Print the results for one volume and for many."""
    for model, size, spacing in CASES:
        for volumes in (1, MANY):
            compare(model, size, spacing, volumes)
