"""Data loading against re-reading files and MONAI: slices per second, waiting in training, memory of parallel runs.

Each number comes from separate processes, which take turns. Times go from the start of the preparation of the data to
the last batch of the epoch, without imports. Files are in the page cache for all of them. Batches have 8 slices of the
training split, 128², without augmentation. For each number, peers get the better of 0 and 2 workers.
"""

import importlib
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, RandomSampler

from greenseg.data import phantom
from greenseg.data.grid import mask_to_grid, normalise, to_grid
from greenseg.files import cache_folder
from greenseg.settings import Settings

SPAWN = multiprocessing.get_context("spawn")  # nothing is inherited
ROUNDS = 3
BATCH_SIZE = 8
REREAD = 100  # slices
STEADY_EPOCHS, STEADY_SECONDS = 5, 3.0  # the shorter of both; at least one epoch
TRAINING_STEPS = 200
PHANTOM_VOLUMES = 105  # of 19 slices on average
E2MIP = Path(os.environ.get("GREENSEG_E2MIP") or Path(__file__).parents[2] / "shared" / "data" / "e2mip")

Batches = Iterable[dict[str, torch.Tensor]]


def ours(settings: Settings, workers: int = 0) -> Batches:
    """Batches from the slice cache, which is made first if missing."""
    from greenseg.data import cache
    from greenseg.data.loader import SliceDataset, TrainingBatches, loader

    training = SliceDataset(cache.prepare(settings), "train")
    batches = TrainingBatches(len(training), BATCH_SIZE, settings.seed)
    return loader(training, batches, workers, pin_memory=False)


def pairs(settings: Settings) -> list[tuple[str, str]]:
    """Image and mask of each subject of the training split."""
    folders = (Path(settings.data, "training_data", kind) for kind in ("images", "masks"))
    return list(zip(*(sorted(map(str, folder.glob("*.nii.gz"))) for folder in folders), strict=True))


def read(settings: Settings, slices: list[tuple[str, str, int]]) -> dict[str, torch.Tensor]:
    """A batch of slices; for each, both whole volumes are read from files."""
    arrays = []
    for *files, k in slices:
        volumes = (sitk.ReadImage(file, sitk.sitkFloat32) for file in files)
        image, mask = (volume[:, :, k : k + 1] for volume in volumes)
        grid = settings.image_size, settings.spacing
        arrays.append((normalise(to_grid(image, *grid)), mask_to_grid(mask, *grid).astype(np.float32)))
    images, masks = (torch.from_numpy(np.stack(a)) for a in zip(*arrays, strict=True))
    return {"image": images, "mask": masks}


def rereading(settings: Settings, workers: int) -> Batches:
    """A plain Dataset. A random sample of slices represents an epoch, since every slice costs the same."""
    header, slices = sitk.ImageFileReader(), []
    for image, mask in pairs(settings):
        header.SetFileName(image)
        header.ReadImageInformation()
        slices += [(image, mask, k) for k in range(header.GetSize()[2])]
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    some = RandomSampler(slices, num_samples=min(REREAD, len(slices)))
    return DataLoader(slices, BATCH_SIZE, sampler=some, collate_fn=partial(read, settings), **options)  # type: ignore[arg-type]


def monai(settings: Settings, workers: int, persistent: bool = False, plain: bool = False) -> Batches:
    """MONAI's caches after the transforms of a typical 2D pipeline.

    Files with one slice are items of the data set. `GridPatchDataset` and `PatchIterd` cut volumes, as in MONAI's
    tutorial "2D slices from 3D training"; their slices come unshuffled, which costs less. `plain` is faster, and
    written by hand: tensors without MONAI's metadata, volumes cut into a list of slices once.
    """
    import monai.data as md
    import monai.transforms as mt
    import nibabel

    keys, size, spacing = ["image", "mask"], settings.image_size, settings.spacing
    items = [dict(zip(keys, pair, strict=True)) for pair in pairs(settings)]
    single = nibabel.load(items[0]["image"]).shape[2] == 1
    transform = mt.Compose(
        [
            mt.LoadImaged(keys),
            mt.EnsureChannelFirstd(keys),
            mt.Spacingd(keys, pixdim=(spacing, spacing, -1), mode=("bilinear", "nearest")),
            mt.ScaleIntensityRangePercentilesd("image", 0, 99.5, 0, 1, clip=True),
            mt.ResizeWithPadOrCropd(keys, (size, size, -1)),
            *([mt.EnsureTyped(keys, track_meta=False)] if plain else []),
            *([mt.SqueezeDimd(keys, dim=-1)] if single and not plain else []),
        ]
    )
    if persistent:
        dataset = md.PersistentDataset(items, transform, cache_folder() / "monai")
    else:
        dataset = md.CacheDataset(items, transform, num_workers=os.cpu_count(), progress=False)
    if plain:
        moved = ({key: volume[key].movedim(-1, 0).contiguous() for key in keys} for volume in dataset)
        dataset = [dict(zip(keys, pair, strict=True)) for v in moved for pair in zip(*v.values(), strict=True)]
    elif not single:
        cut = md.PatchIterd(keys, patch_size=(None, None, 1), start_pos=(0, 0, 0))
        dataset = md.GridPatchDataset(dataset, cut, mt.SqueezeDimd(keys, dim=-1), with_coordinates=False)
    options = {"num_workers": workers, "persistent_workers": workers > 0, "shuffle": single or plain}
    return md.DataLoader(dataset, batch_size=BATCH_SIZE, **options)  # type: ignore[no-any-return]


OURS, CACHE, PERSISTENT, TRAINING = "greenseg", "MONAI CacheDataset", "MONAI PersistentDataset", "training"
LOADERS: dict[str, Callable[[Settings, int], Batches]] = {
    OURS: ours,
    "SimpleITK, re-reading": rereading,
    CACHE: monai,
    f"{CACHE}, by hand": partial(monai, plain=True),
    PERSISTENT: partial(monai, persistent=True),
}


def waiting(settings: Settings) -> float:
    """Share of the training time, over all epochs, in which the Trainer waits for the next batch."""
    import pytorch_lightning as pl
    from pytorch_lightning.profilers import SimpleProfiler

    from greenseg.training.module import Segmentation

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    profiler = SimpleProfiler()
    trainer = pl.Trainer(
        max_steps=TRAINING_STEPS, precision=settings.precision, profiler=profiler, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Segmentation(settings, ["none"]), ours(settings))
    seconds = {name: sum(times) for name, times in profiler.recorded_durations.items()}
    return float(seconds["[_TrainingEpochLoop].train_dataloader_next"] / seconds["run_training_epoch"])


def epochs(settings: Settings, load: Callable[[Settings, int], Batches], workers: int) -> tuple[list[float], Batches]:
    """Slices per second of the first epoch, with all work before it, and of later ones (median); and the loader."""
    seconds: list[float] = []
    start = time.perf_counter()
    batches = load(settings, workers)
    while len(seconds) < 2 or (len(seconds) <= STEADY_EPOCHS and sum(seconds[1:]) < STEADY_SECONDS):
        slices = sum(len(batch["image"]) for batch in batches)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return [slices / seconds[0], slices / median(seconds[1:])], batches


def worker(pipe: Connection, job: str, data: Path, cache: Path, workers: int) -> None:
    """A measuring process: reports the end of its imports and waits, then works, reports the result and waits."""
    warnings.filterwarnings("ignore")
    multiprocessing.set_start_method(None, force=True)  # workers of loaders start as in any program
    os.environ["GREENSEG_CACHE"] = str(cache)
    settings = Settings.of({"data": str(data), "model": "mobilenet-unet", "image_size": 128, "precision": "bf16-mixed"})
    for module in ("monai.data", "monai.transforms", "nibabel") if "MONAI" in job else ("greenseg.data.loader",):
        importlib.import_module(module)
    pipe.send("ready")
    pipe.recv()
    result, _kept = (waiting(settings), None) if job == TRAINING else epochs(settings, LOADERS[job], workers)
    pipe.send(result)
    pipe.recv()


def measure(job: str, data: Path, cache: Path, workers: int = 0, runs: int = 1) -> tuple[Any, float]:
    """The result of one of `runs` parallel workers, and the MB that all of them add (PSS: shared pages count once)."""
    running = []
    for _ in range(runs):
        here, there = SPAWN.Pipe()
        running.append((SPAWN.Process(target=worker, args=(there, job, data, cache, workers)), here))
        running[-1][0].start()
        there.close()  # so that its death ends the wait
    sizes = []
    for _ in ("imported", "worked"):
        results = [pipe.recv() for _, pipe in running]  # none continues before all are here
        maps = [entry for process, _ in running for entry in psutil.Process(process.pid).memory_maps()]
        # Private memory and the cache, without libraries, which other programs may map, too.
        sizes.append(sum(m.pss for m in maps if not m.path.startswith("/") or m.path.startswith(str(cache))) / 1e6)
        for _, pipe in running:
            pipe.send("continue")
    for process, _ in running:
        process.join()
    return results[0], sizes[1] - sizes[0]


def speeds(data: Path) -> dict[str, list[float]]:
    """Slices per second of every loader: first epochs of a first and a second run, and steady epochs."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in LOADERS}
    for _ in range(ROUNDS):
        for name in LOADERS:
            figures = []
            for workers in (0,) if name == OURS else (0, 2):
                with tempfile.TemporaryDirectory(dir=cache_folder()) as cache:
                    times = 1 + (name in (OURS, PERSISTENT))  # with the others, every run is a first run
                    runs = [measure(name, data, Path(cache), workers)[0] for _ in range(times)]
                figures.append((runs[0][0], runs[-1][0], max(steady for _, steady in runs)))
            rounds[name].append([max(figure) for figure in zip(*figures, strict=True)])
    return {name: [median(figure) for figure in zip(*turns, strict=True)] for name, turns in rounds.items()}


def report(title: str, data: Path) -> None:
    """Measure a data set; print its table and sentences."""
    figures = speeds(data)
    table = Table(title=f"{title}: slices per second (speed of greenseg ÷ speed of the loader)", title_justify="left")
    table.add_column("loader")
    for column in ("first run, epoch 1", "second run, epoch 1", "steady epochs"):
        table.add_column(column, justify="right")
    for name, speed in figures.items():
        table.add_row(name, *(f"{x:,.0f}  ({own / x:.1f}×)" for x, own in zip(speed, figures[OURS], strict=True)))
    console = Console(width=100, highlight=False)
    console.print(table)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        cache = Path(folder).resolve()
        measure(OURS, data, cache)
        share, _ = measure(TRAINING, data, cache)
        console.print(f"Wait for data in {TRAINING_STEPS} training steps (mobilenet-unet, 128², bf16): {share:.2%}")
        size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 1e6
        console.print(f"Additional memory for loading (slice cache on disk: {size:.0f} MB):")
        for name in (OURS, CACHE):
            one, four = (measure(name, data, cache, runs=runs)[1] for runs in (1, 4))
            console.print(f"  {name}: 1 run {one:.0f} MB, 4 parallel runs {four:.0f} MB ({four / one:.2f}×)")


def main() -> None:
    """Print the results for E2MIP, if it is available, and for a phantom of about 2,000 slices."""
    if not (find_spec("monai") and find_spec("nibabel")):
        sys.exit("MONAI is missing: pip install --constraint constraints.txt --group bench (`make bench` does it)")
    cache_folder().mkdir(parents=True, exist_ok=True)
    if E2MIP.is_dir():
        report("E2MIP", E2MIP)
    else:
        print("E2MIP is missing (set GREENSEG_E2MIP to its folder); measuring the phantom only")
    drawn = cache_folder() / f"benchmark-phantom-{PHANTOM_VOLUMES}"
    if not drawn.is_dir():
        phantom.write_phantom(drawn, PHANTOM_VOLUMES, seed=0)
    report(f"Phantom of {PHANTOM_VOLUMES} volumes", drawn)
