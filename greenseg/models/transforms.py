"""Changes to a network after construction, in their order. One entry in `TRANSFORMS` adds a change."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from greenseg.models import depthwise_bfloat16, gradient_checkpointing, twice_differentiable
from greenseg.optimizers import OPTIMIZERS
from greenseg.precisions import PRECISIONS
from greenseg.settings import Settings


@dataclass(frozen=True)
class Transform:
    """A change that keeps the results of a network and the names of its parameters.

    Attributes:
        wanted: whether the settings need it.
        apply: changes a network in place.
    """

    wanted: Callable[[Settings], bool]
    apply: Callable[[nn.Module, Settings], object]


TRANSFORMS = (
    Transform(
        lambda settings: settings.gradient_checkpointing,
        lambda network, settings: gradient_checkpointing.apply(network),
    ),
    Transform(
        lambda settings: OPTIMIZERS[settings.optimizer].needs_graph is not None,
        lambda network, settings: twice_differentiable.apply(network),
    ),
    Transform(
        lambda settings: settings.channels_last,
        lambda network, settings: network.to(memory_format=torch.channels_last),
    ),
    Transform(
        lambda settings: PRECISIONS[settings.precision].bfloat16_on_cpu != "",
        lambda network, settings: depthwise_bfloat16.apply(
            network, strided=PRECISIONS[settings.precision].bfloat16_on_cpu == "mixed"
        ),
    ),
    Transform(lambda settings: settings.compile, lambda network, settings: network.compile()),
)
"""In the order in which they are applied."""
