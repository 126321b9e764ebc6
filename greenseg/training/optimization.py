"""Optimizers and learning-rate schedules by name, from timm, pytorch_optimizer and torch."""

from typing import Any

from timm.optim import create_optimizer_v2
from timm.optim import param_groups_weight_decay as without_decay_of_vectors
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer, lr_scheduler

from greenseg.config import SCHEDULE_FREE, SOPHIA, Settings

_TIMM = {"adamw-8bit": "bnbadamw8bit"}
"""Where timm has another name than we; all others have the same."""

_FUSED = ("adamw", "adam", "sgd")
"""Those of torch that can update all parameters in one pass; on a CPU, one by one they took up to 9 % of a step."""

_WARM_UP = 0.05
"""Share of the steps over which schedule-free AdamW raises its learning rate; its authors advise some."""


def optimizer(network: nn.Module, settings: Settings, steps: int) -> Optimizer:
    """The optimizer that the settings name, for all parameters; biases and normalisation are not decayed.

    Args:
        network: to be trained.
        settings: of the run.
        steps: that the run will take.
    """
    if settings.optimizer in (SCHEDULE_FREE, SOPHIA):
        # Importing it takes half a second of CPU time: only the runs that use it pay for it.
        from pytorch_optimizer import ScheduleFreeAdamW, SophiaH

        groups = without_decay_of_vectors(network, settings.weight_decay)
        if settings.optimizer == SOPHIA:
            return SophiaH(groups, lr=settings.lr, weight_decay=settings.weight_decay)  # type: ignore[no-any-return]
        return ScheduleFreeAdamW(  # type: ignore[no-any-return]
            groups, lr=settings.lr, weight_decay=settings.weight_decay, warmup_steps=round(_WARM_UP * steps)
        )
    name = _TIMM.get(settings.optimizer, settings.optimizer)
    parameter = next(network.parameters())
    # torch has no fused SGD for parameters that are sharded (fsdp).
    whole = parameter.device.type == "cpu" and not isinstance(parameter, DTensor)
    fused = {"fused": True} if whole and name in _FUSED else {}
    return create_optimizer_v2(network, name, lr=settings.lr, weight_decay=settings.weight_decay, **fused)  # type: ignore[no-any-return]


def schedule(optimizer: Optimizer, settings: Settings, steps: int) -> dict[str, Any] | None:
    """The schedule that the settings name, as Lightning wants it; None for a constant learning rate."""
    if settings.schedule == "cosine":
        return {"scheduler": lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps), "interval": "step"}
    if settings.schedule == "onecycle":
        cycle = lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=float(settings.lr),
            total_steps=max(steps, 4),  # with fewer, the rise and fall of one cycle have no room
            cycle_momentum="momentum" in optimizer.defaults or "betas" in optimizer.defaults,
        )
        return {"scheduler": cycle, "interval": "step"}
    if settings.schedule == "plateau":
        patience = max(1, settings.epochs // 10)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=patience)
        return {"scheduler": plateau, "interval": "epoch", "monitor": "dice"}
    return None


def needs_graph(optimizer: Any, settings: Settings) -> bool:
    """Whether the next step estimates second derivatives: its backward pass must then be differentiable itself."""
    return settings.optimizer == SOPHIA and optimizer.param_groups[0].get("step", 0) % optimizer.update_period == 0
