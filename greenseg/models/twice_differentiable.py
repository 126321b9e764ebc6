"""Networks whose gradients have gradients, as an optimizer needs that estimates second derivatives (Sophia)."""

import torch
from torch import nn
from torch.nn import functional


class _Hardsigmoid(nn.Hardsigmoid):
    """The same function, of operations that torch can differentiate twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu6(x + 3) / 6


def apply(network: nn.Module) -> None:
    """Compute a network, in place, with nothing that torch differentiates only once; results are the same.

    That is hard sigmoids (of MobileNetV3 and others), and attention in one kernel (timm's transformers).
    """
    for module in network.modules():
        if type(module) is nn.Hardsigmoid:
            module.__class__ = _Hardsigmoid
        if getattr(module, "fused_attn", False):
            module.fused_attn = False  # type: ignore[assignment]
