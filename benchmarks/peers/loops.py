"""Typical training loops: `python -m benchmarks.peers.loops LOOP SETTINGS FOLDER EPOCHS WORKERS`.

Trains the network of the settings (JSON) on the slices in the folder (images.npy and masks.npy, and one file per
slice), and prints its peak memory in GB, then the seconds of every epoch, as JSON.
"""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from greenseg.models import network
from greenseg.settings import Settings

Seconds = Iterator[float]


def network_of(settings: Settings, outputs: int = 1) -> torch.nn.Module:
    """The network from its library: NCHW, without our changes."""
    plain = settings.model_copy(update={"channels_last": False, "precision": "32-true"})
    return network.build(plain, outputs=outputs).train()


def autocast(settings: Settings) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision, if the settings request it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16-mixed")


def plain(settings: Settings, folder: Path, epochs: int, workers: int) -> Seconds:
    """PyTorch: a DataLoader over tensors in memory, without augmentation; the same loss and optimizer as ours."""
    import segmentation_models_pytorch as smp

    images, masks = (torch.from_numpy(np.load(folder / f"{kind}.npy")).float() for kind in ("images", "masks"))
    dice, cross_entropy = smp.losses.DiceLoss("binary"), torch.nn.BCEWithLogitsLoss()
    return _loop(settings, images[:, None], masks[:, None], 1, (dice, cross_entropy), epochs, workers)


def softmax(settings: Settings, folder: Path, epochs: int, workers: int) -> Seconds:
    """The same with several classes: those of the setting `labels`, and the background."""
    import segmentation_models_pytorch as smp

    images, masks = (torch.from_numpy(np.load(folder / f"{kind}.npy")) for kind in ("images", "masks"))
    outputs = 1 + settings.labels.count("=")
    losses = smp.losses.DiceLoss("multiclass"), torch.nn.CrossEntropyLoss()
    return _loop(settings, images[:, None], masks.long(), outputs, losses, epochs, workers)


def _loop(
    settings: Settings,
    images: torch.Tensor,
    masks: torch.Tensor,
    outputs: int,
    losses: tuple[torch.nn.Module, torch.nn.Module],
    epochs: int,
    workers: int,
) -> Seconds:
    loader = DataLoader(
        TensorDataset(images, masks),
        batch_size=int(settings.batch_size),
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model, (dice, cross_entropy) = network_of(settings, outputs), losses
    optimizer = torch.optim.AdamW(model.parameters(), lr=float(settings.lr), weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, float(settings.lr), total_steps=epochs * len(loader))
    for _ in range(epochs):
        start, total = time.perf_counter(), 0.0
        for image, mask in loader:
            optimizer.zero_grad()
            with autocast(settings):
                logits = model(image)
                loss = dice(logits, mask) + cross_entropy(logits, mask)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        yield time.perf_counter() - start


def monai(settings: Settings, folder: Path, epochs: int, workers: int) -> Seconds:
    """MONAI: CacheDataset and dictionary transforms, as in its tutorial `2d_segmentation/torch/unet_training_dict.py`.

    Flips in addition to its quarter turns, no random crop: the weight of our `flips`.
    """
    import monai.data as md
    import monai.transforms as mt
    from monai.losses import DiceLoss

    keys = ["image", "mask"]
    files = (sorted(map(str, folder.glob(f"{key}-*.npy"))) for key in keys)
    transform = mt.Compose(
        [
            mt.LoadImaged(keys),
            mt.EnsureChannelFirstd(keys, channel_dim="no_channel"),
            mt.ScaleIntensityd(keys),
            mt.RandFlipd(keys, prob=0.5, spatial_axis=0),
            mt.RandFlipd(keys, prob=0.5, spatial_axis=1),
            mt.RandRotate90d(keys, prob=0.75, spatial_axes=(0, 1)),
        ]
    )
    items = [dict(zip(keys, pair, strict=True)) for pair in zip(*files, strict=True)]
    loader = md.DataLoader(
        md.CacheDataset(items, transform, progress=False),
        batch_size=int(settings.batch_size),
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = network_of(settings)
    dice = DiceLoss(sigmoid=True)
    optimizer = torch.optim.Adam(model.parameters(), float(settings.lr))
    for _ in range(epochs):
        start, total = time.perf_counter(), 0.0
        for batch in loader:
            optimizer.zero_grad()
            with autocast(settings):
                logits = model(batch["image"])
                loss = dice(logits, batch["mask"])
            loss.backward()
            optimizer.step()
            total += loss.item()
        yield time.perf_counter() - start


def ours_by_hand(settings: Settings, folder: Path, epochs: int, workers: int) -> Seconds:
    """All our choices (data, augmentation, memory format, optimizer), without Lightning, energy and records."""
    from greenseg.data import augment, cache
    from greenseg.data.loader import SliceDataset, TrainingBatches, loader
    from greenseg.training import optimization
    from greenseg.training.module import Segmentation

    training = SliceDataset(cache.prepare(settings), "train")
    module = Segmentation(settings, ["none"])  # for its network and loss; the loop does not use Lightning
    batches = TrainingBatches(len(training), int(settings.batch_size), 0)
    data = loader(training, batches, workers, pin_memory=False)
    steps = epochs * len(batches)
    optimizer = optimization.optimizer(module.network.train(), settings, steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, float(settings.lr), total_steps=steps)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        start = time.perf_counter()
        for batch in data:
            images, masks = augment.apply(module.augmentation, batch["image"], batch["mask"])
            with autocast(settings):
                loss = module.loss(module(images), masks)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        yield time.perf_counter() - start


if __name__ == "__main__":
    name, values, data, count, processes = sys.argv[1:]
    loop = {"plain": plain, "softmax": softmax, "monai": monai, "ours_by_hand": ours_by_hand}[name]
    seconds = list(loop(Settings.of(json.loads(values)), Path(data), int(count), int(processes)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
    print(json.dumps(seconds))
