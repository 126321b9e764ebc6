"""The LightningModule: network, loss, optimizer, schedule, validation per volume."""

import warnings
from collections import deque
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import update_bn

from greenseg.data import augment
from greenseg.data.loader import Batch
from greenseg.losses import LOSSES
from greenseg.metrics.overlap import VolumeOverlap
from greenseg.models import network
from greenseg.models.memory_format import channels_last
from greenseg.optimizers import OPTIMIZERS
from greenseg.settings import Settings
from greenseg.training import optimization
from greenseg.training.distillation import Teacher
from greenseg.training.predictions import predicted
from greenseg.training.task import BINARY_TASK, Task

_RECENT = 16
"""Number of batches for recomputing the statistics of batch normalisation."""


def shard(network: torch.nn.Module, mesh: DeviceMesh) -> None:
    """Divide weights, gradients and optimizer state among the devices of a one-dimensional mesh.

    While a stage (encoder, decoder, …) computes, each device has all its weights.
    """
    network.to(memory_format=torch.contiguous_format)  # FSDP needs contiguous weights; images stay channels last
    for stage in network.children():
        fully_shard(stage, mesh=mesh)
    fully_shard(network, mesh=mesh)


TWIN = "forward_network."
"""Prefix of the names under which checkpoints of earlier versions hold every tensor of the network a second time."""


def _without_twins(module: torch.nn.Module, state: dict[str, Any], *_: Any) -> None:
    for name in [name for name in state if name.startswith(TWIN)]:
        del state[name]


class Segmentation(pl.LightningModule):
    """Segmentation of slices.

    Args:
        settings: settings of the run.
        volumes: names of the validation subjects.
        task: channels of the images and classes of the masks.
        made: the network to train; None = the one of the settings.
        teacher: the network to learn from, or None.

    Attributes:
        scores: result of the last validation, as from `VolumeOverlap.compute`.
    """

    def __init__(
        self,
        settings: Settings,
        volumes: list[str],
        task: Task = BINARY_TASK,
        made: torch.nn.Module | None = None,
        teacher: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.task = settings, task
        classes = len(task.classes)
        self.network = made or network.build(settings, task.channels, network.outputs(classes))
        self.teacher = Teacher(teacher, settings) if teacher else None
        self.schedules_itself = OPTIMIZERS[settings.optimizer].schedules_itself
        self.register_load_state_dict_pre_hook(_without_twins)  # type: ignore[no-untyped-call]
        self.augmentation = augment.build(settings)
        self.loss_function = LOSSES[settings.loss](classes, task.ignored)
        self.overlap = VolumeOverlap(volumes, classes, task.ignored)
        self.scores: dict[str, torch.Tensor] = {}
        self.recent: deque[torch.Tensor] = deque(maxlen=_RECENT)

    def configure_model(self) -> None:
        """Shard the network if the strategy needs it; Lightning calls it."""
        if self.device_mesh is not None and not isinstance(self.network, FSDPModule):
            shard(self.network, self.device_mesh["data_parallel"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images: float32 [batch, channels, height, width] → [batch, outputs, height, width]."""
        if self.settings.channels_last:
            images = channels_last(images)
        return self.network(images)  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """The loss of logits against masks, in float32 whatever the precision of the run."""
        return self.loss_function(logits.float(), masks)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Augmentation and dropout then depend only on seed, epoch and rank, so that a resumed run draws the same random
        # numbers. (Lightning does not call on_train_epoch_start for the first epoch after a checkpoint.)
        if batch_idx == 0:
            state = np.random.SeedSequence([self.settings.seed, self.current_epoch, self.global_rank])
            torch.manual_seed(int(state.generate_state(1)[0]))
            self.recent.clear()
            self._freeze_encoder(self.current_epoch < self.settings.freeze_encoder)
        if self.schedules_itself:
            self.trainer.optimizers[0].train()  # type: ignore[attr-defined]

    def _freeze_encoder(self, frozen: bool) -> None:
        """Freeze the encoder, including its statistics of batch normalisation, or let it learn again."""
        if self.settings.freeze_encoder:
            encoder: torch.nn.Module = self.network.encoder  # type: ignore[assignment]
            encoder.requires_grad_(not frozen).train(not frozen)

    def loss_of(self, batch: Batch) -> torch.Tensor:
        """Loss of a batch after augmentation."""
        images, masks = augment.apply(self.augmentation, batch["image"], batch["mask"])
        if self.schedules_itself:
            self.recent.append(images)
        logits = self(images)
        loss = self.loss(logits, masks)
        return self.teacher.with_soft_masks(loss, logits, images) if self.teacher else loss

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = self.loss_of(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True)
        return loss

    def on_validation_start(self) -> None:
        if self.schedules_itself:
            # The optimizer validates and saves averaged weights (Defazio et al. 2024, arXiv:2405.15682), but steps from
            # others. The statistics of batch normalisation belong to those until they are recomputed here.
            self.trainer.optimizers[0].eval()  # type: ignore[attr-defined]
            with self.trainer.precision_plugin.forward_context():
                update_bn(self.recent, self)
        # Each rank has its own running statistics of batch normalisation. All ranks validate the network of rank 0,
        # which is also saved.
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, index: int) -> None:
        prediction = predicted(self(batch["image"]))
        self.overlap.update(prediction, batch["mask"], batch["subject"])

    def on_validation_epoch_end(self) -> None:
        self.scores = self.overlap.compute()
        self.overlap.reset()
        self.log_dict({name: self.scores[name].float() for name in ("dice", "iou")})  # already summed over ranks

    def on_train_epoch_end(self) -> None:
        self.step_plateau(self.trainer.callback_metrics["dice"])

    def step_plateau(self, dice: torch.Tensor | float) -> None:
        """Pass the Dice of an epoch to a `plateau` schedule; other schedules change per step."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(float(dice))

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = optimization.optimizer(self.network, self.settings, steps)
        schedule = optimization.SCHEDULES[self.settings.schedule](optimizer, self.settings, steps)
        return {"optimizer": optimizer, "lr_scheduler": schedule} if schedule else optimizer

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(create_graph=optimization.needs_graph(self.trainer.optimizers[0], self.settings))  # type: ignore[no-untyped-call]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        with warnings.catch_warnings():
            # The optimizer skips a step if a half-precision gradient overflows; torch then warns about the order.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            # With a metric, Lightning calls this for a plateau after all callbacks, checkpoints included, which would
            # be one step behind. So on_train_epoch_end has already made this step.
            if metric is None:
                scheduler.step()
