"""The Lightning callback that records every epoch."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from greenseg.energy import EnergyMonitor
from greenseg.failures import Diverged
from greenseg.machine.signals import stop_later
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import ClassScores, Epoch
from greenseg.training import events
from greenseg.training.checkpoints import Checkpoints
from greenseg.training.module import Segmentation

_EVENT_SECONDS = 0.25
_HOPELESS = 25  # readings of a loss that is not finite; a gradient scaler needs fewer to come down from 65536


class Recorder(Checkpoint):
    """Writes a line to epochs.jsonl and the checkpoints after every epoch; reports progress. Only rank 0 writes.

    Lightning calls a `Checkpoint` after EarlyStopping, so a checkpoint has its decision about the same epoch.

    Args:
        run: directory of the run.
        attempt: number of this attempt at the run, from 0.
        energy: monitor of the energy; must come before this callback.
        checkpoints: checkpoints to write after the line of an epoch.
        spent: joules of earlier attempts.
    """

    def __init__(
        self, run: RunDirectory, attempt: int, energy: EnergyMonitor, checkpoints: Checkpoints, spent: float
    ) -> None:
        self._run, self._attempt, self._energy, self._checkpoints, self._spent = (
            run,
            attempt,
            energy,
            checkpoints,
            spent,
        )
        self._last_event = 0.0
        self._loss: torch.Tensor | None = None
        self._not_finite = 0
        self._epoch_start = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # on_train_epoch_start is not called for the first epoch after a checkpoint
            self._epoch_start = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = outputs["loss"]
        if not trainer.is_global_zero or time.monotonic() - self._last_event < _EVENT_SECONDS:
            return
        loss = float(outputs["loss"])  # not at every step, since it waits for the device
        self._not_finite = 0 if math.isfinite(loss) else self._not_finite + 1
        if self._not_finite >= _HOPELESS:
            raise Diverged(
                f"the loss is {loss} in {self._not_finite} readings in a row, in epoch {trainer.current_epoch + 1}"
            )
        self._emit(
            {
                "event": "step",
                "epoch": trainer.current_epoch,
                "step": batch_idx + 1,
                "steps": int(trainer.num_training_batches),
                "loss": _finite(loss),
            }
        )

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if trainer.is_global_zero and time.monotonic() - self._last_event >= _EVENT_SECONDS:
            self._emit({"event": "validation", "epoch": trainer.current_epoch})

    def _emit(self, event: dict[str, Any]) -> None:
        self._last_event = time.monotonic()
        events.emit(event | {"joules": self._spent + self._energy.total.joules})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with stop_later():  # a request to stop does not lose this epoch
            if trainer.is_global_zero:
                self._write(trainer, pl_module)
            # Only the loss of the last step: in half precision, single losses overflow. Their steps are skipped, and
            # training recovers.
            if self._loss is not None and not math.isfinite(loss := float(self._loss)):
                raise Diverged(f"the loss is {loss} at the end of epoch {trainer.current_epoch + 1}")
            self._checkpoints.save(trainer)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Segmentation)
        energy = self._energy.epochs[-1]
        loss, dice, iou = (float(trainer.callback_metrics[name]) for name in ("train_loss", "dice", "iou"))
        seconds = time.monotonic() - self._epoch_start
        line = Epoch(
            epoch=energy.epoch,
            attempt=self._attempt,
            train_loss=_finite(loss),
            dice=_finite(dice),
            iou=_finite(iou),
            volume_dice=_by_subject(pl_module, "volume_dice"),
            seconds=seconds,
            train=energy.train.to_json(),
            validation=energy.validation.to_json(),
            attempt_so_far={phase: e.to_json() for phase, e in self._energy.phases.items()},
            **_of_classes(pl_module),
        )
        self._run.append_epoch(line)
        self._emit({"event": "epoch", "epoch": energy.epoch})
        print(
            f"epoch {energy.epoch + 1}/{trainer.max_epochs}: loss {loss:.4f}, "
            f"Dice {'–' if line.dice is None else f'{dice:.4f}'}, "
            f"{seconds:.1f} s, {energy.total.joules:.1f} J in this epoch",
            flush=True,
        )


def _by_subject(module: Segmentation, score: str, row: int = 0) -> dict[str, float | None]:
    """Subject → value of a score with a row for each class, or with a single row."""
    subjects = module.overlap.subjects
    values = module.scores[score].reshape(-1, len(subjects))[row].tolist()  # torchmetrics makes one value a scalar
    return {subject: _finite(value) for subject, value in zip(subjects, values, strict=True)}


def _of_classes(module: Segmentation) -> dict[str, dict[str, ClassScores]]:
    """The field `classes` of an epoch; without it, if there is a single class."""
    names = module.task.classes.names
    if len(names) == 1:
        return {}
    means = zip(names, module.scores["class_dice"].tolist(), module.scores["class_iou"].tolist(), strict=True)
    return {
        "classes": {
            name: ClassScores(dice=_finite(dice), iou=_finite(iou), volume_dice=_by_subject(module, "dice_of", row))
            for row, (name, dice, iou) in enumerate(means)
        }
    }


def _finite(value: float) -> float | None:
    """The value; None if it is not finite, which JSON cannot express."""
    return value if math.isfinite(value) else None
