"""Training on a CPU: slices per second of `greenseg train` against a plain PyTorch loop and MONAI's usual 2D pipeline.

All train the same network on the same slices. Each is a separate program in the usual environment of its users, and has
a turn in every round. Times are training epochs without validation, except the first epoch of each program. The table
shows the fastest round, which other processes disturbed least. The plain loop has no augmentation; MONAI uses flips and
quarter turns, like our `flips`. Each peer gets the better of 0 and 2 workers. "our choices by hand" shows the cost of
the Trainer, the energy and the records. Each uses its default number of threads, which is all cores; for one core, run
the benchmark under `taskset -c 1`.

The data set is the phantom, or the one at `GREENSEG_E2MIP`, in E2MIP's layout.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from greenseg.data import cache, phantom
from greenseg.data.loader import SliceDataset
from greenseg.files import cache_folder
from greenseg.runs.directory import find_runs
from greenseg.settings import Settings

ROUNDS = 3
EPOCHS = 3
PHANTOM_VOLUMES = 8
CASES = (
    ("mobilenet-unet", 128, "32-true"),
    ("mobilenet-unet", 128, "bf16-mixed"),
    ("enet", 128, "32-true"),
    ("mobilenetv3-tiny-unet", 64, "32-true"),
    ("mobilenet-unet", 256, "32-true"),
)

Measure = Callable[[Settings, Path], list[float]]


def run(*arguments: str) -> str:
    """Output of a Python program that must succeed."""
    program = [sys.executable, "-m", *arguments]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout


def greenseg(augment: str) -> Measure:
    """`greenseg train`, as users call it."""

    def measure(settings: Settings, folder: Path) -> list[float]:
        values = settings.model_dump(mode="json", exclude_unset=True) | {"augment": augment}
        options = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        with tempfile.TemporaryDirectory() as out:
            run("greenseg", "train", *options, "--out", out)
            epochs = find_runs([Path(out)])[0].epochs()
        return [epoch.train["seconds"] for epoch in epochs]

    return measure


def loop(name: str, workers: tuple[int, ...] = (0, 2)) -> Measure:
    """A loop of `benchmarks.peers.loops`."""

    def measure(settings: Settings, folder: Path) -> list[float]:
        values = json.dumps(settings.model_dump(mode="json", exclude_unset=True))
        tries = [run("benchmarks.peers.loops", name, values, str(folder), str(EPOCHS), str(n)) for n in workers]
        return min((json.loads(output.splitlines()[-1]) for output in tries), key=lambda seconds: min(seconds[1:]))

    return measure


GREENSEG = "greenseg, flips"
CONTESTANTS: dict[str, Measure] = {
    GREENSEG: greenseg("flips"),
    "greenseg, strong": greenseg("strong"),
    "our choices by hand, flips": loop("ours_by_hand", (0,)),
    "plain PyTorch": loop("plain"),
    "MONAI": loop("monai"),
}


def write_slices(settings: Settings, folder: Path) -> int:
    """Write the training slices to files that peers can read; returns their number."""
    training = SliceDataset(cache.prepare(settings), "train")
    batch = training[list(range(len(training)))]
    for kind in ("image", "mask"):
        slices = batch[kind].squeeze(1).numpy()
        np.save(folder / f"{kind}s.npy", slices)
        for number, each in enumerate(slices):
            np.save(folder / f"{kind}-{number:05}.npy", each)
    return len(training)


def report(data: Path, model: str, size: int, precision: str) -> Table:
    """Measure a network."""
    values: dict[str, Any] = {
        "data": str(data), "model": model, "image_size": size, "spacing": 256 / size, "precision": precision,
        "augment": "flips", "batch_size": 8, "epochs": EPOCHS, "accelerator": "cpu",
    }  # fmt: skip
    settings = Settings.of(values)
    contestants = {name: measure for name, measure in CONTESTANTS.items() if name != "MONAI" or find_spec("monai")}
    seconds = dict.fromkeys(contestants, float("inf"))
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        slices = write_slices(settings, Path(folder))
        for _ in range(ROUNDS):
            for name, measure in contestants.items():
                seconds[name] = min(seconds[name], *measure(settings, Path(folder))[1:])
    table = Table(title=f"{model} {size}² {precision}, batches of 8, {slices} slices", title_justify="left")
    table.add_column("loop")
    for column in ("slices per second", "speedup of greenseg, flips"):
        table.add_column(column, justify="right")
    for name, each in seconds.items():
        table.add_row(name, f"{slices / each:.1f}", f"{each / seconds[GREENSEG]:.2f}×")
    return table


def main() -> None:
    """Print a table per network."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    cache_folder().mkdir(parents=True, exist_ok=True)
    if not find_spec("monai"):
        print("MONAI is missing (`make bench` installs it); measuring without it")
    data = Path(os.environ.get("GREENSEG_E2MIP") or cache_folder() / f"benchmark-phantom-{PHANTOM_VOLUMES}")
    if not data.is_dir():
        phantom.write_phantom(data, PHANTOM_VOLUMES, seed=0)
    console = Console(width=100, highlight=False)
    for case in CASES:
        console.print(report(data, *case))
