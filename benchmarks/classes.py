"""Training with several classes on a CPU: time and peak memory of `greenseg train` against a plain PyTorch loop.

Both train the same network with a softmax over 7 classes and the background, on the same slices, as in
`benchmarks.speed`: each is a separate program, takes turns with the other, and runs with flips (ours) or without
augmentation (the loop). Times are of the fastest round, of training epochs without validation, except the first epoch
of each program. Peak memory is that of the process, imports included; ours also validates. The table has our values as
shares of those of the loop: below 1 is better.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from rich.console import Console
from rich.table import Table

from benchmarks.speed import EPOCHS, ROUNDS, run, write_slices
from greenseg.data import phantom
from greenseg.files import cache_folder
from greenseg.runs.directory import find_runs
from greenseg.settings import Settings

CLASSES = 7
VOLUMES = 8
CASES = (("mobilenet-unet", 128, "32-true"), ("mobilenetv3-tiny-unet", 64, "32-true"))


def write_classes(folder: Path) -> None:
    """Write a phantom whose heads are cut into classes, from top to bottom."""
    phantom.write_phantom(folder, VOLUMES, seed=0)
    for path in folder.rglob("masks/*"):
        mask = sitk.ReadImage(str(path))
        labels = sitk.GetArrayFromImage(mask)
        rows = np.flatnonzero(labels.any((0, 2)))
        for place, row in enumerate(rows):
            labels[:, row][labels[:, row] > 0] = 1 + place * CLASSES // len(rows)
        cut = sitk.GetImageFromArray(labels)
        cut.CopyInformation(mask)
        sitk.WriteImage(cut, str(path))


def greenseg(settings: Settings, folder: Path) -> tuple[list[float], float]:
    """Seconds of every epoch of `greenseg train`, and its peak memory in GB."""
    values = settings.model_dump(mode="json", exclude_unset=True)
    options = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    with tempfile.TemporaryDirectory() as out:
        run("greenseg", "train", *options, "--out", out)
        (directory,) = find_runs([Path(out)])
        record = directory.record()
        assert record
        assert len(record.metrics.classes) == CLASSES
        return [epoch.train["seconds"] for epoch in directory.epochs()], record.memory.host_gb or 0.0


def plain(settings: Settings, folder: Path) -> tuple[list[float], float]:
    """The same of a plain loop, the better of 0 and 2 workers."""
    values = json.dumps(settings.model_dump(mode="json", exclude_unset=True))
    tries = [
        [json.loads(line) for line in run("benchmarks.peers.loops", "softmax", values, str(folder), str(EPOCHS), number)
         .splitlines()[-2:]]
        for number in ("0", "2")
    ]  # fmt: skip
    peak, seconds = min(tries, key=lambda each: min(each[1][1:]))
    return seconds, peak


def report(data: Path, model: str, size: int, precision: str) -> Table:
    """Measure a network."""
    values: dict[str, Any] = {
        "data": str(data), "model": model, "image_size": size, "spacing": 256 / size, "precision": precision,
        "augment": "flips", "batch_size": 8, "epochs": EPOCHS, "accelerator": "cpu",
        "labels": ",".join(f"class{number}={number}" for number in range(1, CLASSES + 1)),
    }  # fmt: skip
    settings = Settings.of(values)
    contestants = {"greenseg, flips": greenseg, "plain PyTorch": plain}
    seconds, peaks = dict.fromkeys(contestants, float("inf")), dict.fromkeys(contestants, 0.0)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        slices = write_slices(settings, Path(folder))
        for _ in range(ROUNDS):
            for name, measure in contestants.items():
                epochs, peak = measure(settings, Path(folder))
                seconds[name], peaks[name] = min(seconds[name], *epochs[1:]), max(peaks[name], peak)
    title = f"{model} {size}² {precision}, {CLASSES} classes, batches of 8, {slices} slices"
    table = Table(title=title, title_justify="left")
    table.add_column("loop")
    for column in ("slices per second", "time", "peak GB", "memory"):
        table.add_column(column, justify="right")
    for name in contestants:
        time, memory = seconds[name] / seconds["plain PyTorch"], peaks[name] / peaks["plain PyTorch"]
        table.add_row(name, f"{slices / seconds[name]:.1f}", f"{time:.2f}×", f"{peaks[name]:.2f}", f"{memory:.2f}×")
    return table


def main() -> None:
    """Print a table per network."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    cache_folder().mkdir(parents=True, exist_ok=True)
    console = Console(width=100, highlight=False)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        write_classes(Path(folder))
        for case in CASES:
            console.print(report(Path(folder), *case))
