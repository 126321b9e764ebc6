"""Our training loop against a bare PyTorch loop: same network, same batches, same augmentation, loss and optimizer."""

import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch

from greenseg.config import Settings
from greenseg.data import augment, cache
from greenseg.data.loader import SliceDataset, TrainingBatches, ValidationBatches, loader
from greenseg.energy import EnergyMonitor
from greenseg.run_directory import RunDirectory
from greenseg.training.module import Segmentation
from greenseg.training.recorder import Checkpoints, Recorder

EPOCHS = 5
BATCH_SIZE = 8


def ours(settings: Settings, slices: cache.Slices) -> list[float]:
    """Seconds of every training epoch, with all our callbacks."""
    training, validation = SliceDataset(slices, "train"), SliceDataset(slices, "validation")
    pl.seed_everything(0, verbose=False)
    monitor = EnergyMonitor()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        run.create(settings)
        checkpoints = Checkpoints(run)
        pl.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            precision=settings.precision,
            callbacks=[monitor, Recorder(run, 0, monitor, checkpoints, 0.0), checkpoints],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(
            Segmentation(settings, validation.subjects),
            loader(training, TrainingBatches(len(training), BATCH_SIZE, 0), 0, pin_memory=False),
            loader(validation, ValidationBatches(len(validation), BATCH_SIZE), 0, pin_memory=False),
        )
    return [epoch.train.seconds for epoch in monitor.epochs]


def bare(settings: Settings, slices: cache.Slices) -> list[float]:
    """Seconds of every training epoch of a plain loop."""
    training = SliceDataset(slices, "train")
    pl.seed_everything(0, verbose=False)
    module = Segmentation(settings, ["none"])  # for its network and loss; Lightning has no part in the loop
    network = module.network.train()
    batches = TrainingBatches(len(training), BATCH_SIZE, 0)
    data = loader(training, batches, 0, pin_memory=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=float(settings.lr), weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, float(settings.lr), total_steps=EPOCHS * len(batches))
    augmentation = augment.build(settings)
    seconds = []
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        start = time.perf_counter()
        for batch in data:
            images, masks = augment.apply(augmentation, batch["image"], batch["mask"])
            if settings.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
                logits = network(images)
            loss = module.loss(logits, masks)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Print seconds of an epoch of both loops, in turns, and their ratio."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for model, size, precision in (
        ("mobilenet-unet", 128, "bf16-mixed"),
        ("mobilenet-unet", 128, "32-true"),
        ("mobilenetv3-tiny-unet", 64, "32-true"),
    ):
        settings = Settings.of({"model": model, "image_size": size, "spacing": 256 / size, "precision": precision})
        slices = cache.prepare(settings)
        times: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(2):
            sys.stdout.flush()
            with open("/dev/null", "w") as nowhere:  # noqa: PTH123
                stdout, sys.stdout = sys.stdout, nowhere
                times["bare"] += bare(settings, slices)[1:]  # the first epoch warms up
                times["ours"] += ours(settings, slices)[1:]
                sys.stdout = stdout
        mine, floor = median(times["ours"]), median(times["bare"])
        print(f"{model} {size}² {precision}: bare loop {floor:.3f} s, ours {mine:.3f} s, ratio {mine / floor:.3f}")
