"""EDANet.

Lo, Hang, Chan, Lin: Efficient Dense Modules of Asymmetric Convolution for Real-Time Semantic Segmentation.
ACM Multimedia Asia 2019, doi:10.1145/3338533.3366558, arXiv:1809.06323. Published size: 0.68 M parameters (Cityscapes'
19 classes).
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Halve, conv_bn_relu, factorized, scaled, upsample

_DILATIONS1, _DILATIONS2 = (1, 1, 1, 2, 2), (2, 2, 4, 4, 8, 8, 16, 16)
"""Dilation of each module of the two blocks."""


class EDANet(nn.Module):
    """Densely connected modules of asymmetric convolutions, at a quarter and an eighth of the size."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c15, c60, growth = (scaled(channels, width) for channels in (15, 60, 40))
        channels = c60 + growth * len(_DILATIONS1)
        half = channels // 2
        self.down1 = _halve(in_channels, c15)
        self.down2 = _halve(c15, c60)
        self.block1 = _dense(c60, growth, _DILATIONS1)
        self.down3 = _halve(channels, half)
        self.block2 = _dense(half, growth, _DILATIONS2)
        self.head = nn.Conv2d(half + growth * len(_DILATIONS2), classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        quarter = self.block1(self.down2(self.down1(x)))
        return upsample(self.head(self.block2(self.down3(quarter))), size=x.shape[2:])


def _halve(inputs: int, outputs: int) -> nn.Module:
    return Halve(inputs, outputs, bias=False, eps=1e-5, activation=nn.ReLU())


def _dense(channels: int, growth: int, dilations: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(_Module(channels + i * growth, growth, d) for i, d in enumerate(dilations)))


class _Module(nn.Module):
    """Adds channels: 1×1, a factorized convolution and a dilated one, dropout."""

    def __init__(self, inputs: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv_bn_relu(inputs, growth),
            *(*factorized(growth, bias=False), nn.BatchNorm2d(growth), nn.ReLU()),
            *(*factorized(growth, dilation=dilation, bias=False), nn.BatchNorm2d(growth), nn.ReLU()),
            nn.Dropout2d(0.02),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, inputs + growth, h, w]."""
        return torch.cat([self.branch(x), x], 1)
