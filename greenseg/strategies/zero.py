"""DeepSpeed's ZeRO, with checkpoints like everybody's. Needs the extra 'deepspeed'."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from pytorch_lightning.strategies.strategy import Strategy
from torch.optim import Optimizer

_OBJECTS = ("loss_scaler", "param_slice_mappings", "zero_stage")
"""What DeepSpeed's state has beside tensors and plain values. It needs none of it to go on: without half precision the
loss is not scaled, and the others serve the conversion of its own folders."""


class Zero2(DeepSpeedStrategy):
    """ZeRO, stage 2: gradients and the optimizer's state are divided among the devices, weights are whole on each.

    DeepSpeed writes folders, in which each rank has files of its own, even of weights alone. Here rank 0 gathers the
    parts into the one file that other strategies write: it is replaced atomically, and one process can read it.
    """

    def __init__(self) -> None:
        super().__init__(stage=2, logging_batch_size_per_gpu=1)  # of the throughput that it would log, which we do not

    def setup(self, trainer: pl.Trainer) -> None:
        assert self.lightning_module is not None
        # DeepSpeed takes no other weights; images keep their channels last.
        self.lightning_module.to(memory_format=torch.contiguous_format)
        super().setup(trainer)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        parts: list[Any] | None = [None] * self.world_size if self.is_global_zero else None
        state = super().optimizer_state(optimizer)
        plain = {name: value for name, value in state.items() if name not in _OBJECTS}
        torch.distributed.gather_object(plain, parts)
        return {"parts": parts}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        # Lightning does not pass `weights_only` on, where a strategy restores after its set-up.
        checkpoint = Strategy.load_checkpoint(self, checkpoint_path, weights_only=True)
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"])
        self.deepspeed_engine.optimizer.load_state_dict(checkpoint["optimizer_states"][0]["parts"])
        return checkpoint
