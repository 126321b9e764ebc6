"""ContextNet.

Poudel, Bonde, Liwicki, Zach: ContextNet: Exploring Context and Detail for Semantic Segmentation in Real-time.
BMVC 2018, arXiv:1805.04554. Published size: 0.85 M parameters (cn14: full and quarter resolution; Cityscapes' 19
classes), with a bias in every convolution. Batch normalisation makes the biases redundant, so they are left out here.
"""

import torch
from torch import nn

from greenseg.models.light.blocks import conv, conv_bn, conv_bn_relu, scaled, upsample

_BOTTLENECKS = ((1, 32, 1, 1), (6, 32, 1, 1), (6, 48, 3, 2), (6, 64, 3, 2), (6, 96, 2, 1), (6, 128, 2, 1))
"""Bottlenecks of the deep branch: expansion, channels, repetitions, stride of the first (table 1 of the paper)."""


class ContextNet(nn.Module):
    """The sum of a shallow branch at full resolution for detail and a deep one at a quarter of it for context."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128 = (scaled(channels, width) for channels in (32, 64, 128))
        self.detail = nn.Sequential(
            conv_bn_relu(in_channels, c32, 3, stride=2),
            _separable(c32, c64, stride=2),
            _separable(c64, c128, stride=2),
            _separable(c128, c128),
        )
        deep: list[nn.Module] = [conv_bn_relu(in_channels, c32, 3, stride=2)]
        channels = c32
        for expansion, wanted, repetitions, stride in _BOTTLENECKS:
            outputs = scaled(wanted, width)
            for i in range(repetitions):
                deep.append(_Bottleneck(channels, outputs, expansion, stride if i == 0 else 1))
                channels = outputs
        self.context = nn.Sequential(*deep)
        self.fuse_detail = conv_bn(c128, c128)
        self.fuse_context = nn.Sequential(
            conv(c128, c128, 3, dilation=4, groups=c128), nn.BatchNorm2d(c128), nn.ReLU(), *conv_bn(c128, c128)
        )
        self.head = nn.Conv2d(c128, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        detail = self.detail(x)
        context = self.context(upsample(x, scale_factor=0.25))
        context = self.fuse_context(upsample(context, size=detail.shape[2:]))
        fused = nn.functional.relu(self.fuse_detail(detail) + context)
        return upsample(self.head(fused), size=x.shape[2:])


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3×3 and pointwise convolution, each with batch normalisation and ReLU."""
    return nn.Sequential(conv_bn_relu(inputs, inputs, 3, stride=stride, groups=inputs), conv_bn_relu(inputs, outputs))


class _Bottleneck(nn.Module):
    """Inverted residual with a linear end (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.branch = nn.Sequential(
            conv_bn_relu(inputs, inner),
            conv_bn_relu(inner, inner, 3, stride=stride, groups=inner),
            conv_bn(inner, outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h/stride, w/stride]."""
        return x + self.branch(x) if self.shortcut else self.branch(x)  # type: ignore[no-any-return]
