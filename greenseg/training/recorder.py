"""Lightning callbacks that keep the run directory up to date."""

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping

from greenseg.energy import EnergyMonitor
from greenseg.failures import Diverged
from greenseg.run_directory import RunDirectory
from greenseg.training import events
from greenseg.training.module import Segmentation
from greenseg.training.signals import stop_later

_EVENT_SECONDS = 0.25
_HOPELESS = 25  # readings of a loss that is not finite: more than a gradient scaler needs to come down from 65536


class Recorder(Checkpoint):
    """After every epoch, writes a line to epochs.jsonl and checkpoints; reports progress. The first rank writes.

    As a `Checkpoint` it is called after EarlyStopping: a checkpoint holds what that one decided at the same epoch.

    Args:
        run: where to.
        attempt: number of this attempt at the run, from 0.
        energy: the monitor that measures; comes before this callback.
        checkpoints: are written after the line of their epoch.
        spent: joules of earlier attempts.
    """

    def __init__(
        self, run: RunDirectory, attempt: int, energy: EnergyMonitor, checkpoints: "Checkpoints", spent: float
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
        loss = float(outputs["loss"])  # waits for the device: not at every step
        self._not_finite = 0 if math.isfinite(loss) else self._not_finite + 1
        if self._not_finite >= _HOPELESS:
            raise Diverged(
                f"the loss is {loss} since {self._not_finite} readings, in epoch {trainer.current_epoch + 1}"
            )
        self._emit(
            {
                "event": "step",
                "epoch": trainer.current_epoch,
                "step": batch_idx + 1,
                "steps": int(trainer.num_training_batches),
                "loss": loss if math.isfinite(loss) else None,
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
        with stop_later():  # a run that is asked to stop here still keeps this epoch
            if trainer.is_global_zero:
                self._write(trainer, pl_module)
            # Only that of the last step: in half precision single ones overflow, their steps are skipped, and it
            # recovers.
            if self._loss is not None and not math.isfinite(loss := float(self._loss)):
                raise Diverged(f"the loss is {loss} at the end of epoch {trainer.current_epoch + 1}")
            self._checkpoints.save(trainer)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Segmentation)
        energy = self._energy.epochs[-1]
        metrics = {name: float(trainer.callback_metrics[name]) for name in ("train_loss", "dice", "iou")}
        line = {
            "epoch": energy.epoch,
            "attempt": self._attempt,
            **{name: value if math.isfinite(value) else None for name, value in metrics.items()},
            "volume_dice": {k: v if math.isfinite(v) else None for k, v in pl_module.volume_dice.items()},
            "seconds": time.monotonic() - self._epoch_start,
            "train": energy.train.to_json(),
            "validation": energy.validation.to_json(),
            "attempt_so_far": {phase: e.to_json() for phase, e in self._energy.phases.items()},
        }
        self._run.append_epoch(line)
        shown = {name: line[name] for name in ("epoch", "train_loss", "dice", "iou", "seconds")}
        self._emit({"event": "epoch", **shown})
        dice = "–" if line["dice"] is None else f"{line['dice']:.4f}"
        print(
            f"epoch {energy.epoch + 1}/{trainer.max_epochs}: loss {metrics['train_loss']:.4f}, Dice {dice}, "
            f"{line['seconds']:.1f} s, {energy.total.joules:.1f} J in this epoch",
            flush=True,
        )


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt`, to go on from, and `best.ckpt`, the network at its best Dice; both are replaced atomically.

    Both after every epoch, so that whatever ends a run, no epoch but the one that it is in has to be repeated.

    Attributes:
        best_epoch: that of the best Dice; None before there is one.
        best_predictions: what was predicted in it, as `Predictions.gathered` returns it. What takes long to tell from
            masks is told once, at the end of the run; `last.ckpt` carries them there.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._best = -math.inf
        self._behind = False  # whether last.ckpt holds early stopping and plateau as they were an epoch earlier
        self.best_epoch: int | None = None
        self.best_predictions = torch.empty(0, dtype=torch.uint8)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best,
            "best_epoch": self.best_epoch,
            "best_predictions": self.best_predictions,
            "behind": False,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
        # Checkpoints of earlier versions have none: then there is one once there is a better epoch.
        self.best_epoch = state_dict.get("best_epoch")
        self.best_predictions = state_dict.get("best_predictions", self.best_predictions)
        self._behind = state_dict.get("behind", True)  # earlier versions wrote them too early

    def next_epoch(self) -> int:
        """The epoch with which the run goes on: 0 where there is no `last.ckpt`."""
        if not self._run.last_checkpoint.exists():
            return 0
        # Our own checkpoint; its tensors are not kept.
        last = torch.load(self._run.last_checkpoint, map_location="meta", weights_only=False)
        return int(last["epoch"]) + 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._behind:
            self._catch_up(trainer)
        # The run may have been killed between the decision to stop and its end; Lightning does not keep the decision.
        if any(stopping.wait_count >= stopping.patience for stopping in _early_stopping(trainer)):
            trainer.should_stop = True

    def _catch_up(self, trainer: pl.Trainer) -> None:
        """Bring early stopping and plateau to the end of the last epoch, by the Dice in its line of epochs.jsonl."""
        lines = [line for line in self._run.epochs() if line["epoch"] == trainer.current_epoch - 1]
        if not lines:
            return
        dice = math.nan if lines[-1]["dice"] is None else float(lines[-1]["dice"])
        assert isinstance(trainer.lightning_module, Segmentation)
        trainer.lightning_module.step_plateau(dice)
        for stopping in _early_stopping(trainer):
            if dice > stopping.best_score:
                stopping.best_score, stopping.wait_count = torch.tensor(dice), 0
            else:
                stopping.wait_count += 1

    def save(self, trainer: pl.Trainer) -> None:
        """Write them, at the end of an epoch; on all ranks."""
        dice = float(trainer.callback_metrics["dice"])  # the same on all ranks
        if dice > self._best:
            self._best, self.best_epoch = dice, trainer.current_epoch
            assert isinstance(trainer.lightning_module, Segmentation)
            self.best_predictions = trainer.lightning_module.predictions.gathered()
            self._save(trainer, "best.ckpt", weights_only=True)
        self._save(trainer, "last.ckpt", weights_only=False)

    def _save(self, trainer: pl.Trainer, name: str, weights_only: bool) -> None:
        unfinished = self._run.checkpoints / f".{name}"
        try:
            trainer.save_checkpoint(unfinished, weights_only=weights_only)
        except BaseException:
            unfinished.unlink(missing_ok=True)  # the disk is full, perhaps, and this is in the way
            raise
        if trainer.is_global_zero:
            unfinished.replace(self._run.checkpoints / name)


def _early_stopping(trainer: pl.Trainer) -> list[EarlyStopping]:
    return [callback for callback in trainer.early_stopping_callbacks if isinstance(callback, EarlyStopping)]


class PlainFiles(TorchCheckpointIO):
    """Writes checkpoints straight to the file, without checksums: in a third of the time that Lightning takes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: the disk is full, for instance.
        """
        torch.serialization.set_crc32_options(False)
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch complains of its position in the file, not of why it is wrong
            if isinstance(cause := error.__context__, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise
