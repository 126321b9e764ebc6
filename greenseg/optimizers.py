"""Optimizers: construction and restrictions. One entry in `OPTIMIZERS` adds an optimizer.

Imports nothing heavy, since the command line and YAML files use it, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Make = Callable[["nn.Module", float, float, int], Any]
"""Takes a network, learning rate, weight decay and number of steps of the run; returns a `torch.optim.Optimizer`."""

_WARM_UP = 0.05
"""Share of the steps over which schedule-free AdamW raises its learning rate; its authors recommend a warm-up."""


@dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    No optimizer decays biases or the weights of normalisation.

    Attributes:
        make: see `Make`.
        states: values of its state per weight, which `last.ckpt` has beside the weights.
        works_on: forms of weights that it can update, besides whole weights: `shards` of them (fsdp), or one `flat`
            piece of all (DeepSpeed). A flat piece has no matrices or layers, and no methods other than a step.
        runs_on: kinds of device that it works on.
        package: additional package that it needs; empty for none.
        extra: extra of greenseg with this package; empty for none.
        schedules_itself: it replaces a schedule and validates averaged weights.
        needs_graph: takes the optimizer and returns whether its next step estimates second derivatives, which needs a
            differentiable backward pass; None if it never does.
    """

    make: Make
    states: float
    works_on: tuple[Literal["shards", "flat"], ...] = ()
    runs_on: tuple[str, ...] = ("cpu", "gpu", "mps")
    package: str = ""
    extra: str = ""
    schedules_itself: bool = False
    needs_graph: Callable[[Any], bool] | None = None


def _timm(name: str, fused: bool = False, **more: Any) -> Make:
    """An optimizer that timm makes.

    Args:
        name: timm's name of the optimizer.
        fused: torch can update all parameters in one pass. On a CPU, single updates took up to 9 % of a step.
        more: further arguments of the optimizer.
    """

    def make(network: "nn.Module", lr: float, weight_decay: float, steps: int) -> Any:
        from timm.optim import create_optimizer_v2
        from torch.distributed.tensor import DTensor

        parameter = next(network.parameters())
        # torch has no fused SGD for sharded parameters (fsdp).
        whole = parameter.device.type == "cpu" and not isinstance(parameter, DTensor)
        options = more | ({"fused": True} if whole and fused else {})
        return create_optimizer_v2(network, name, lr=lr, weight_decay=weight_decay, **options)

    return make


def _sophia(network: "nn.Module", lr: float, weight_decay: float, steps: int) -> Any:
    from pytorch_optimizer import SophiaH  # takes half a second of CPU time, so only runs that use it import it
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
    "adamw": Optimizer(_timm("adamw", fused=True), 2, works_on=("shards", "flat")),
    "adam": Optimizer(_timm("adam", fused=True), 2, works_on=("shards", "flat")),
    "sgd": Optimizer(_timm("sgd", fused=True), 1, works_on=("shards", "flat")),
    "nadam": Optimizer(_timm("nadam"), 2, works_on=("shards", "flat")),
    "lion": Optimizer(_timm("lion"), 1, works_on=("shards", "flat")),
    "adafactor": Optimizer(_timm("adafactor"), 0.5),
    "novograd": Optimizer(_timm("novograd"), 1),
    "novograd-amsgrad": Optimizer(_timm("novograd", amsgrad=True), 1),
    "muon": Optimizer(_timm("muon"), 1, works_on=("shards",)),
    "sophia": Optimizer(_sophia, 3, needs_graph=_estimates_now),
    "schedule-free-adamw": Optimizer(_schedule_free, 2, works_on=("shards",), schedules_itself=True),
    "adamw-8bit": Optimizer(_timm("bnbadamw8bit"), 0.5, runs_on=("gpu",), package="bitsandbytes", extra="8bit"),
}
"""Name → optimizer."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(OPTIMIZERS)]
