"""The checkpoints of a run: how they are written, and how a run goes on from one.

They are read as data (`weights_only` of torch.load): nothing in a file that somebody else put there is executed.
"""

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping

from greenseg.runs.directory import RunDirectory
from greenseg.training.module import Segmentation


class Unusable(Exception):
    """A run cannot go on from its last.ckpt; the message says why."""


@dataclass(frozen=True)
class Last:
    """A `last.ckpt`, without the values of its tensors.

    Attributes:
        epoch: the one that it was written after.
        shapes: name → shape of each tensor of the network.
    """

    epoch: int
    shapes: dict[str, tuple[int, ...]]

    def check_network(self, module: pl.LightningModule) -> None:
        """Whether it is of this network.

        Raises:
            Unusable: it is of another one.
        """
        if self.shapes != _shapes(module.state_dict()):
            raise Unusable("it is of another network")


def read_last(run: RunDirectory, run_id: str | None) -> Last | None:
    """The `last.ckpt` of a run; None where it has none.

    Args:
        run: where to look.
        run_id: `id` in the record of the run; None where it has no record, or one of a version that wrote none.

    Raises:
        Unusable: it is cut short or damaged, no checkpoint, or that of another run.
        OSError: it cannot be read.
    """
    path = run.last_checkpoint
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        raise Unusable("it is damaged, or holds other things than data") from None
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError):
        raise Unusable("it is cut short or damaged") from None
    try:
        own = found["callbacks"][Checkpoints.__qualname__]
        last = Last(int(found["epoch"]), _shapes(found["state_dict"]))
        # Those of earlier versions do not say whose they are.
        if own.get("run", run_id) != run_id:
            raise Unusable("it is of another run")
    except (LookupError, AttributeError, TypeError, ValueError):
        raise Unusable("it is no checkpoint of greenseg") from None
    return last


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt`, to go on from, and `best.ckpt`, the network at its best Dice; both are replaced atomically.

    Both after every epoch, so that whatever ends a run, no epoch but the one that it is in has to be repeated.

    Args:
        run: where to.
        run_id: `id` in its record, by which a checkpoint is known as its own.

    Attributes:
        best_epoch: that of the best Dice; None before there is one.
        best_predictions: the predictions of that epoch, as `Predictions.gathered` returns them. Figures that take long
            to compute are computed from them once, at the end of the run. `last.ckpt` keeps them until then.
    """

    def __init__(self, run: RunDirectory, run_id: str) -> None:
        self._run, self._id = run, run_id
        self._best = -math.inf
        self._behind = False  # whether last.ckpt holds early stopping and plateau as they were an epoch earlier
        self.best_epoch: int | None = None
        self.best_predictions = torch.empty(0, dtype=torch.uint8)

    def state_dict(self) -> dict[str, Any]:
        return {
            "run": self._id,
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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._behind:
            self._catch_up(trainer)
        # The run may have been killed between the decision to stop and its end; Lightning does not keep the decision.
        if any(stopping.wait_count >= stopping.patience for stopping in _early_stopping(trainer)):
            trainer.should_stop = True

    def _catch_up(self, trainer: pl.Trainer) -> None:
        """Bring early stopping and plateau to the end of the last epoch, by the Dice in its line of epochs.jsonl."""
        lines = [line for line in self._run.epochs() if line.epoch == trainer.current_epoch - 1]
        if not lines:
            return
        dice = math.nan if lines[-1].dice is None else lines[-1].dice
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
