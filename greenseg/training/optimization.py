"""The optimizer and the learning-rate schedule of a run."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer, lr_scheduler

from greenseg.optimizers import OPTIMIZERS
from greenseg.settings import Settings


def optimizer(network: nn.Module, settings: Settings, steps: int) -> Optimizer:
    """The optimizer for the settings and all parameters; it does not decay biases and normalisation.

    Args:
        network: network to train.
        settings: settings of the run.
        steps: number of steps of the run.
    """
    return OPTIMIZERS[settings.optimizer].make(  # type: ignore[no-any-return]
        network, float(settings.lr), settings.weight_decay, steps
    )


def _cosine(optimizer: Optimizer, settings: Settings, steps: int) -> dict[str, Any]:
    return {"scheduler": lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps), "interval": "step"}


def _one_cycle(optimizer: Optimizer, settings: Settings, steps: int) -> dict[str, Any]:
    cycle = lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=float(settings.lr),
        total_steps=max(steps, 4),  # a cycle needs at least 4 steps to rise and fall
        cycle_momentum="momentum" in optimizer.defaults or "betas" in optimizer.defaults,
    )
    return {"scheduler": cycle, "interval": "step"}


def _plateau(optimizer: Optimizer, settings: Settings, steps: int) -> dict[str, Any]:
    patience = max(1, settings.epochs // 10)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=patience)
    return {"scheduler": plateau, "interval": "epoch", "monitor": "dice"}


SCHEDULES: dict[str, Callable[[Optimizer, Settings, int], dict[str, Any] | None]] = {
    "onecycle": _one_cycle,
    "cosine": _cosine,
    "constant": lambda optimizer, settings, steps: None,
    "plateau": _plateau,
}
"""Name → function of optimizer, settings and number of steps that returns the schedule in Lightning's form, or None."""


def needs_graph(optimizer: Any, settings: Settings) -> bool:
    """Whether the next step estimates second derivatives and so needs a differentiable backward pass."""
    needed = OPTIMIZERS[settings.optimizer].needs_graph
    return needed is not None and needed(optimizer)
