"""Twice differentiable networks, for optimizers that estimate second derivatives (Sophia)."""

import torch
from torch import nn
from torch.nn import functional


class _Hardsigmoid(nn.Hardsigmoid):
    """The same function, made of operations that torch can differentiate twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu6(x + 3) / 6


def apply(network: nn.Module) -> None:
    """Replace, in place, the operations of a network that torch can differentiate only once; results are the same.

    These are hard sigmoids (in MobileNetV3 and others) and fused attention (timm's transformers).
    """
    for module in network.modules():
        if type(module) is nn.Hardsigmoid:
            module.__class__ = _Hardsigmoid
        if getattr(module, "fused_attn", False):
            module.fused_attn = False  # type: ignore[assignment]
