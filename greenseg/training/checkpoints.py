"""The checkpoints of a run: writing them, and resuming from them.

They are read as data (`weights_only` of torch.load), so that foreign files cannot execute code.
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
from greenseg.training.module import TWIN, Segmentation


class Unusable(Exception):
    """A run cannot continue from its last.ckpt; the message has the reason."""


@dataclass(frozen=True)
class Last:
    """A `last.ckpt`, without the values of its tensors.

    Attributes:
        epoch: epoch after which it was written.
        shapes: name → shape of each tensor of the network.
    """

    epoch: int
    shapes: dict[str, tuple[int, ...]]

    def check_network(self, module: pl.LightningModule) -> None:
        """Check that it belongs to this network.

        Raises:
            Unusable: it belongs to another network.
        """
        if self.shapes != _shapes(module.state_dict()):
            raise Unusable("it belongs to another network")


def read_last(run: RunDirectory, run_id: str | None) -> Last | None:
    """The `last.ckpt` of a run; None if it has none.

    Args:
        run: directory of the run.
        run_id: `id` in the record of the run; None if it has no record, or a record without `id`.

    Raises:
        Unusable: it is truncated or damaged, is not a checkpoint, or belongs to another run.
        OSError: it cannot be read.
    """
    path = run.last_checkpoint
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        raise Unusable("it is damaged, or contains more than data") from None
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError):
        raise Unusable("it is truncated or damaged") from None
    try:
        own = found["callbacks"][Checkpoints.__qualname__]
        last = Last(int(found["epoch"]), _shapes(found["state_dict"]))
        # Checkpoints of earlier versions do not name their run.
        if own.get("run", run_id) != run_id:
            raise Unusable("it belongs to another run")
    except (LookupError, AttributeError, TypeError, ValueError):
        raise Unusable("it is not a checkpoint of greenseg") from None
    return last


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.startswith(TWIN)}


class Checkpoints(Checkpoint):
    """Writes `last.ckpt`, to resume from, and `best.ckpt`, the network at its best Dice; both are replaced atomically.

    Both are written after every epoch. So however a run ends, only the epoch in progress has to be repeated.

    Args:
        run: directory of the run.
        run_id: `id` in its record, which identifies its checkpoints.

    Attributes:
        best_epoch: epoch of the best Dice; None before there is one.
    """

    def __init__(self, run: RunDirectory, run_id: str) -> None:
        self._run, self._id = run, run_id
        self._best = -math.inf
        self._behind = False  # whether early stopping and plateau in last.ckpt are one epoch behind
        self.best_epoch: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "run": self._id,
            "best": self._best,
            "best_epoch": self.best_epoch,
            "behind": False,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
        # Checkpoints of earlier versions have none; the next better epoch sets it.
        self.best_epoch = state_dict.get("best_epoch")
        self._behind = state_dict.get("behind", True)  # earlier versions wrote them too early

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._behind:
            self._catch_up(trainer)
        # The run may have been killed between the decision to stop and its end. Lightning does not save the decision.
        if any(stopping.wait_count >= stopping.patience for stopping in _early_stopping(trainer)):
            trainer.should_stop = True

    def _catch_up(self, trainer: pl.Trainer) -> None:
        """Update early stopping and plateau to the end of the last epoch, with the Dice from epochs.jsonl."""
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
        """Write the checkpoints at the end of an epoch; call it on all ranks."""
        dice = float(trainer.callback_metrics["dice"])  # the same on all ranks
        if dice > self._best:
            self._best, self.best_epoch = dice, trainer.current_epoch
            self._save(trainer, "best.ckpt", weights_only=True)
        self._save(trainer, "last.ckpt", weights_only=False)

    def _save(self, trainer: pl.Trainer, name: str, weights_only: bool) -> None:
        unfinished = self._run.checkpoints / f".{name}"
        try:
            trainer.save_checkpoint(unfinished, weights_only=weights_only)
        except BaseException:
            unfinished.unlink(missing_ok=True)  # frees space, since the disk may be full
            raise
        if trainer.is_global_zero:
            unfinished.replace(self._run.checkpoints / name)


class Pause(Checkpoint):
    """Ends the training after some epochs so that the run can go on later, unless it ends there anyway.

    Lightning calls a `Checkpoint` after EarlyStopping, so early stopping decides first.

    Args:
        until: number of epochs.

    Attributes:
        paused: whether it has ended the training.
    """

    def __init__(self, until: int) -> None:
        self._until = until
        self.paused = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done >= self._until and done != trainer.max_epochs and not trainer.should_stop:
            self.paused = trainer.should_stop = True


def _early_stopping(trainer: pl.Trainer) -> list[EarlyStopping]:
    return [callback for callback in trainer.early_stopping_callbacks if isinstance(callback, EarlyStopping)]


class PlainFiles(TorchCheckpointIO):
    """Writes checkpoints directly to the file, without checksums, in a third of Lightning's time."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: the disk is full, for instance.
        """
        torch.serialization.set_crc32_options(False)
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch reports a wrong position in the file, not its cause
            if isinstance(cause := error.__context__, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise
