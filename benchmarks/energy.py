"""Cost of measuring: the readings of an epoch, and training with the callback against training without it."""

import logging
import time
import warnings
from statistics import median

import pytorch_lightning as pl
import torch

from greenseg.energy import EnergyMeter, EnergyMonitor

STEPS = 24  # take about a second together


class Busy(pl.LightningModule):
    """Matrix products: about a second per `STEPS` steps of an epoch."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.layer = torch.nn.Linear(768, 768)
        self.seconds: list[float] = []

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.zeros(1, 768, 768).expand(self.steps, 768, 768), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        for _ in range(6):
            batch = self.layer(batch)
        return batch.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-9)

    def on_train_epoch_start(self) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def epochs(callbacks: list[pl.Callback], seconds: int, number: int) -> list[float]:
    """Seconds per epoch."""
    module = Busy(STEPS * seconds)
    pl.Trainer(
        accelerator="cpu",
        max_epochs=number,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module)
    return module.seconds


def main() -> None:
    """Print the cost of a reading and of the readings of an epoch, and the comparison of both trainings."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    meter = EnergyMeter()
    laps = []
    for _ in range(200):
        start = time.perf_counter()
        meter.lap()
        laps.append(time.perf_counter() - start)
    reading = median(laps)
    print(f"one reading: {reading * 1e3:.3f} ms; four per epoch: {4 * reading * 1e3:.2f} ms, {4 * reading:.2%} of 1 s")
    for seconds, number, turns in ((1, 5, 6), (60, 1, 2)):
        without, with_monitor = [], []
        for _ in range(turns):
            # The first of several epochs is the warm-up.
            without += epochs([], seconds, number)[min(number - 1, 1) :]
            with_monitor += epochs([EnergyMonitor()], seconds, number)[min(number - 1, 1) :]
        a, b = median(without), median(with_monitor)
        print(
            f"epochs of about {seconds} s: without callback {a:.3f} s, with callback {b:.3f} s, ratio {b / a:.4f}",
            flush=True,
        )
