"""What `auto` means: trying, for about a second, before the run, and taking what was measured to be best."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils.data import Sampler

from greenseg.config import Settings
from greenseg.data.loader import Batch, SliceDataset, loader
from greenseg.training.machine import usable_cores
from greenseg.training.module import Segmentation

_UNNOTICED = 0.02  # share of a step that loading may take in the training process
_TRY = 0.2  # seconds for one thing to try


def workers(settings: Settings, dataset: SliceDataset, batches: Sampler[list[int]]) -> tuple[int, dict[str, Any]]:
    """The fewest loading processes that keep the device busy.

    None, if loading in the training process takes below 2 % of a step. Else the fewest that make a batch in less time
    than a step takes; if no number does, whichever makes one fastest.

    Args:
        settings: of the run.
        dataset: of the training slices.
        batches: of one epoch.

    Returns:
        The number, and what was measured: seconds of a `step`, seconds a `batch` by number of workers.
    """
    step = _step_seconds(settings, dataset[next(iter(batches))])
    batch: dict[int, float] = {}
    for number in _numbers(usable_cores() // settings.devices):
        batch[number] = _batch_seconds(dataset, batches, number)
        if batch[number] < (step if number else _UNNOTICED * step):
            break
    fed = [number for number, seconds in batch.items() if number and seconds < step]
    chosen = 0 if batch[0] < _UNNOTICED * step else fed[0] if fed else min(batch, key=batch.__getitem__)
    return chosen, {"step": step, "batch": {str(number): seconds for number, seconds in batch.items()}}


def _numbers(cores: int) -> Iterator[int]:
    yield 0
    number = 1
    while number <= cores:
        yield number
        number *= 2


def _batch_seconds(dataset: SliceDataset, batches: Sampler[list[int]], number: int) -> float:
    """Seconds a batch, once the first one has come."""
    made = iter(loader(dataset, batches, number, pin_memory=False))
    next(made)
    started, count = time.perf_counter(), 0
    for _ in made:
        count += 1
        if time.perf_counter() - started > _TRY:
            break
    return (time.perf_counter() - started) / count if count else 0.0


def _step_seconds(settings: Settings, batch: Batch) -> float:
    """Seconds of a training step without loading and without the optimizer, on a network of its own."""
    trial = settings.model_copy(update={"encoder_weights": "none", "compile": False})
    fabric = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)
    module = Segmentation(trial, [])
    network = fabric.setup_module(module.to(fabric.device))
    network.mark_forward_method("loss_of")
    on_device = fabric.to_device(batch)

    def steps() -> Iterator[None]:
        while True:
            fabric.backward(network.loss_of(on_device))
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            yield

    steady = steps()
    next(steady)  # memory is claimed, kernels are chosen
    started, count = time.perf_counter(), 0
    for _ in islice(steady, 100):
        count += 1
        if time.perf_counter() - started > _TRY:
            break
    return (time.perf_counter() - started) / count
