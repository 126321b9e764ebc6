"""DeepSpeed's ZeRO, with the same checkpoints as other strategies. Needs the extra 'deepspeed'."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from pytorch_lightning.strategies.strategy import Strategy
from torch.optim import Optimizer

_OBJECTS = ("loss_scaler", "param_slice_mappings", "zero_stage")
"""Entries of DeepSpeed's state that are neither tensors nor plain values. A run continues without them: the loss is not
scaled without half precision, and the others serve the conversion of DeepSpeed's own folders."""


class Zero2(DeepSpeedStrategy):
    """ZeRO stage 2: gradients and optimizer state are divided among the devices; each has whole weights.

    DeepSpeed writes folders with files per rank, even for weights alone. Here, rank 0 gathers the parts into a single
    file, as other strategies write it. The file is replaced atomically, and one process can read it.
    """

    def __init__(self) -> None:
        super().__init__(stage=2, logging_batch_size_per_gpu=1)  # for its log of the throughput, which is unused

    def setup(self, trainer: pl.Trainer) -> None:
        assert self.lightning_module is not None
        # DeepSpeed accepts only contiguous weights; images stay channels last.
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
        # Lightning does not pass `weights_only` to strategies that restore after their set-up.
        checkpoint = Strategy.load_checkpoint(self, checkpoint_path, weights_only=True)
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"])
        self.deepspeed_engine.optimizer.load_state_dict(checkpoint["optimizer_states"][0]["parts"])
        return checkpoint
