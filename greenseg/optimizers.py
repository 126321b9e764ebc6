"""Optimizers: how each is made, and what it goes with. One entry in `OPTIMIZERS` adds one.

Imports nothing heavy: command line and YAML ask it, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Make = Callable[["nn.Module", float, float, int], Any]
"""Of a network, learning rate, weight decay and number of steps of the run: a `torch.optim.Optimizer`."""

_WARM_UP = 0.05
"""Share of the steps over which schedule-free AdamW raises its learning rate; its authors advise some."""


@dataclass(frozen=True)
class Optimizer:
    """One of them.

    Biases and the weights of normalisation are not decayed by any.

    Attributes:
        make: see `Make`.
        works_on: what it can update beside whole weights: `shards` of them (fsdp), or one `flat` piece of all
            (DeepSpeed), which has no matrices and no layers, and knows no other methods than a step.
        runs_on: kinds of device that it works on.
        package: that it needs beside those of greenseg, and the extra that brings it; empty for none.
        schedules_itself: it takes the place of a schedule, and validates weights that it averages.
        needs_graph: whether its next step estimates second derivatives, so that the backward pass must be
            differentiable itself; None for an optimizer that never does.
    """

    make: Make
    works_on: tuple[Literal["shards", "flat"], ...] = ()
    runs_on: tuple[str, ...] = ("cpu", "gpu", "mps")
    package: str = ""
    extra: str = ""
    schedules_itself: bool = False
    needs_graph: Callable[[Any], bool] | None = None


def _timm(name: str, fused: bool = False) -> Make:
    """By timm.

    Args:
        name: that timm knows it by.
        fused: torch can update all parameters in one pass; on a CPU, one by one they took up to 9 % of a step.
    """

    def make(network: "nn.Module", lr: float, weight_decay: float, steps: int) -> Any:
        from timm.optim import create_optimizer_v2
        from torch.distributed.tensor import DTensor

        parameter = next(network.parameters())
        # torch has no fused SGD for parameters that are sharded (fsdp).
        whole = parameter.device.type == "cpu" and not isinstance(parameter, DTensor)
        options = {"fused": True} if whole and fused else {}
        return create_optimizer_v2(network, name, lr=lr, weight_decay=weight_decay, **options)

    return make


def _sophia(network: "nn.Module", lr: float, weight_decay: float, steps: int) -> Any:
    from pytorch_optimizer import SophiaH  # half a second of CPU time: only the runs that use it pay for it
    from timm.optim import param_groups_weight_decay

    return SophiaH(param_groups_weight_decay(network, weight_decay), lr=lr, weight_decay=weight_decay)


def _schedule_free(network: "nn.Module", lr: float, weight_decay: float, steps: int) -> Any:
    from pytorch_optimizer import ScheduleFreeAdamW
    from timm.optim import param_groups_weight_decay

    groups = param_groups_weight_decay(network, weight_decay)
    return ScheduleFreeAdamW(groups, lr=lr, weight_decay=weight_decay, warmup_steps=round(_WARM_UP * steps))


def _estimates_now(optimizer: Any) -> bool:
    return bool(optimizer.param_groups[0].get("step", 0) % optimizer.update_period == 0)


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(_timm("adamw", fused=True), works_on=("shards", "flat")),
    "adam": Optimizer(_timm("adam", fused=True), works_on=("shards", "flat")),
    "sgd": Optimizer(_timm("sgd", fused=True), works_on=("shards", "flat")),
    "nadam": Optimizer(_timm("nadam"), works_on=("shards", "flat")),
    "lion": Optimizer(_timm("lion"), works_on=("shards", "flat")),
    "adafactor": Optimizer(_timm("adafactor")),
    "novograd": Optimizer(_timm("novograd")),
    "muon": Optimizer(_timm("muon"), works_on=("shards",)),
    "sophia": Optimizer(_sophia, needs_graph=_estimates_now),
    "schedule-free-adamw": Optimizer(_schedule_free, works_on=("shards",), schedules_itself=True),
    "adamw-8bit": Optimizer(_timm("bnbadamw8bit"), runs_on=("gpu",), package="bitsandbytes", extra="8bit"),
}
"""Name → optimizer."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(OPTIMIZERS)]
