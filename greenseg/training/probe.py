"""The value `auto` of settings: measurements before the run choose the best value.

The trial networks are discarded. The joules of the measurements are part of the run, as phase `probe`.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from torch.utils.data import Sampler

from greenseg.classes import IGNORED
from greenseg.data.loader import Batch, SliceDataset, TrainingBatches, loader
from greenseg.energy import Energy
from greenseg.failures import Failure, kind_of
from greenseg.machine.cores import usable_cores
from greenseg.optimizers import OPTIMIZERS
from greenseg.runs.record import TriedBatch, TriedRate, TriedWorkers
from greenseg.settings import Settings
from greenseg.training import optimization
from greenseg.training.module import Segmentation
from greenseg.training.task import BINARY_TASK, Task

_NO_ROOM = (Failure.OUT_OF_GPU_MEMORY, Failure.OUT_OF_MEMORY)
_UNNOTICED = 0.02  # largest share of a step for loading in the training process
_TRY_SECONDS = 0.25
_METER_SECONDS = 1.5  # NVML updates its counter about ten times a second
_WORSE = 1.05  # joules per slice, relative to the best size so far, above which larger sizes are given up
_A_DECADE = 8
_LEARNING_RATES = np.geomspace(1e-5, 10, 6 * _A_DECADE + 1)
_LOST = 1.25  # loss, relative to the lowest so far, above which higher learning rates are given up


class _Loss(torch.nn.Module):
    """The loss of a batch as a forward pass, so that Fabric applies the run's precision."""

    def __init__(self, settings: Settings, task: Task) -> None:
        super().__init__()
        self.module = Segmentation(settings, [], task)

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.module.loss_of(batch)


class Trial:
    """Training steps on a separate network, without loading and without the optimizer."""

    def __init__(self, settings: Settings, task: Task = BINARY_TASK) -> None:
        # Other weights cost the same, and compiling would take longer than the measurement.
        trial = settings.model_copy(update={"encoder_weights": "none", "compile": False})
        self._fabric = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)
        self._loss = self._fabric.setup_module(_Loss(trial, task))

    def steps(self, batch: Batch, seconds: float) -> tuple[int, float]:
        """Run steps on a batch for this many seconds, at least one; returns their number and their actual seconds.

        One more step runs before the clock starts, to allocate memory and select kernels.
        """
        on_device = self._fabric.to_device(batch)
        self._step(on_device)
        started, count = time.perf_counter(), 0
        while not count or time.perf_counter() - started < seconds:
            self._step(on_device)
            count += 1
        return count, time.perf_counter() - started

    def _step(self, batch: Batch) -> None:
        self._fabric.backward(self._loss(batch))
        self._loss.zero_grad()
        if self._fabric.device.type == "cuda":
            torch.cuda.synchronize()


def workers(settings: Settings, dataset: SliceDataset, task: Task = BINARY_TASK) -> tuple[int, TriedWorkers]:
    """The smallest number of loader processes that keep the device busy.

    The number is 0 if loading in the training process takes less than 2 % of a step. Otherwise, it is the smallest
    number that makes a batch in less time than a step takes; if there is none, the fastest number.

    Args:
        settings: settings of the run, with its batch size.
        dataset: the training slices.
        task: their channels and classes.

    Returns:
        The number, and the measurements: seconds per `step`, and seconds per `batch` by number of workers.
    """
    batches = TrainingBatches(len(dataset), int(settings.batch_size), settings.seed)
    count, seconds = Trial(settings, task).steps(dataset[next(iter(batches))], _TRY_SECONDS)
    step = seconds / count
    batch: dict[int, float] = {}
    for number in _numbers(usable_cores() // settings.devices):
        batch[number] = _batch_seconds(dataset, batches, number)
        if batch[number] < (step if number else _UNNOTICED * step):
            break
    fed = [number for number, seconds in batch.items() if number and seconds < step]
    chosen = 0 if batch[0] < _UNNOTICED * step else fed[0] if fed else min(batch, key=batch.__getitem__)
    return chosen, TriedWorkers(step=step, batch={str(number): seconds for number, seconds in batch.items()})


def _numbers(cores: int) -> Iterator[int]:
    yield 0
    number = 1
    while number <= cores:
        yield number
        number *= 2


def _batch_seconds(dataset: SliceDataset, batches: Sampler[list[int]], number: int) -> float:
    """Seconds per batch, after the first batch."""
    made = iter(loader(dataset, batches, number, pin_memory=False))
    next(made)
    started, count = time.perf_counter(), 0
    for _ in made:
        count += 1
        if time.perf_counter() - started > _TRY_SECONDS:
            break
    return (time.perf_counter() - started) / count if count else 0.0


def batch_size(
    settings: Settings, dataset: SliceDataset, measure: Callable[[], Energy], task: Task = BINARY_TASK
) -> tuple[int, list[TriedBatch]]:
    """The batch size with the fewest joules per slice, not the largest that fits.

    It tries powers of two from 2 up to a quarter of a device's training slices, each for about 1.5 s. It stops if the
    memory is exhausted, or if two sizes in a row are more than 5 % worse than the best.

    Args:
        settings: settings of the run.
        dataset: the training slices.
        measure: returns the energy since its last call.
        task: channels and classes of the slices.

    Returns:
        The size, and the measurements: for each `batch_size`, `joules_per_slice` and `seconds_per_slice`, or
        `out_of_memory`.

    Raises:
        Exception: the error of the device if even the smallest size does not fit.
    """
    trial = Trial(settings, task)
    table: list[TriedBatch] = []
    best, chosen, worse, size = float("inf"), 2, 0, 2
    while size <= max(len(dataset) // (4 * settings.devices), 2) and worse < 2:
        try:
            batch = dataset[list(range(size))]
            trial.steps(batch, 0)
            measure()
            count, seconds = trial.steps(batch, _METER_SECONDS)
        except Exception as error:
            if not table or kind_of(error) not in _NO_ROOM:
                raise
            table.append(TriedBatch(batch_size=size, out_of_memory=True))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            break
        slices = size * (count + 1)
        joules = measure().joules / slices
        each = seconds / (size * count)
        table.append(TriedBatch(batch_size=size, joules_per_slice=joules, seconds_per_slice=each))
        worse = worse + 1 if joules > _WORSE * best else 0
        if joules < best:
            best, chosen = joules, size
        size *= 2
    return chosen, table


def learning_rate(settings: Settings, dataset: SliceDataset, task: Task = BINARY_TASK) -> tuple[float, list[TriedRate]]:
    """The learning rate at which the loss falls fastest, by a range test (Smith 2015, arXiv:1506.01186).

    The optimizer takes a step at each of eight learning rates per decade, in ascending order, until the loss is a
    quarter above its lowest value. All steps use the same batch, because the loss differs more between batches than
    between steps. The result is the middle of the decade with the steepest fall of a line through the losses over the
    logarithm of the learning rate.

    Args:
        settings: settings of the run, with its batch size.
        dataset: the training slices.
        task: their channels and classes.

    Returns:
        The learning rate, and the measurements: for each `lr`, the `loss` before its step.
    """
    pl.seed_everything(settings.seed, verbose=False)  # same initial weights as the run
    trial = settings.model_copy(update={"lr": float(_LEARNING_RATES[0]), "compile": False})
    fabric = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)
    model = _Loss(trial, task).to(fabric.device)
    loss_of, optimizer = fabric.setup(model, optimization.optimizer(model.module.network, trial, steps=1))
    if OPTIMIZERS[settings.optimizer].schedules_itself:
        optimizer.optimizer.train()
    batch = fabric.to_device(_with_foreground(dataset, int(settings.batch_size), settings.seed))
    losses: list[float] = []
    for lr in _LEARNING_RATES:
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        loss = loss_of(batch)
        losses.append(float(loss.detach()))
        if not losses[-1] < np.inf or np.median(losses[-3:]) > _LOST * min(losses):
            break
        optimizer.zero_grad()
        fabric.backward(loss, create_graph=optimization.needs_graph(optimizer, settings))
        if settings.gradient_clip:
            fabric.clip_gradients(loss_of, optimizer, max_norm=settings.gradient_clip)
        optimizer.step()
    tried = [TriedRate(lr=float(lr), loss=loss) for lr, loss in zip(_LEARNING_RATES, losses, strict=False)]
    return steepest([row.lr for row in tried], losses), tried


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The middle of the decade of learning rates with the steepest fall of the losses; of all rates if they are fewer.

    Args:
        rates: learning rates, ascending, eight per decade.
        losses: loss at each rate; the last may not be finite.
    """
    logs, values = np.log10(rates), np.asarray(losses)
    logs, values = logs[np.isfinite(values)], values[np.isfinite(values)]
    width = min(_A_DECADE + 1, len(values))
    if width < 2:
        return float(rates[0])
    starts = range(len(values) - width + 1)
    slopes = [np.polyfit(logs[i : i + width], values[i : i + width], 1)[0] for i in starts]
    best = int(np.argmin(slopes))
    return float(f"{10 ** logs[best : best + width].mean():.3g}")


def _with_foreground(dataset: SliceDataset, size: int, seed: int) -> Batch:
    """The first training batch with foreground; if an epoch has none, its first batch."""
    order = list(TrainingBatches(len(dataset), size, seed))
    batches = (dataset[positions] for positions in order)
    return next((batch for batch in batches if _has_foreground(batch["mask"])), dataset[order[0]])


def _has_foreground(masks: torch.Tensor) -> bool:
    return bool(((masks > 0) & (masks != IGNORED)).any())
