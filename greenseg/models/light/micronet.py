"""Micro-Net.

Chen, Chen, Jing: A Miniaturized Semantic Segmentation Method for Remote Sensing Image. 2018, arXiv:1810.11603.
Published size: 29.26 times smaller than a U-Net, which has 31.0 M parameters: 1.06 M (2 classes).
Several networks have this name. This is the MicroNet of arXiv:2405.15778: the code of its authors
(https://github.com/szmazurek/efficient_segmentation) is a port of this one. Their port keeps 64 channels at all levels;
here the channels double from level to level, as in the paper. The last convolution has a bias, without which the logits
of a black image could only be 0.
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Fire, he_normal, scaled

_DOWN, _UP = (1, 1, 2, 3), (3, 2, 1)
"""Dilation of each fire module of a level in the encoder and in the decoder."""


class MicroNet(nn.Module):
    """A U-Net of fire modules with cascades of dilations, and only two poolings; no batch normalisation."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c64, c128, c256 = (scaled(channels, width) for channels in (64, 128, 256))
        self.pool = nn.MaxPool2d(2)
        self.down1 = _Level(in_channels, c64, _DOWN)
        self.down2 = _Level(c64, c128, _DOWN)
        self.down3 = _Level(c128, c256, _DOWN)
        self.up3 = _Level(c256, c256, _UP).append(nn.ConvTranspose2d(c256, c128, 2, stride=2, bias=False))
        self.up2 = _Level(c128, c128, _UP).append(nn.ConvTranspose2d(c128, c64, 2, stride=2, bias=False))
        self.up1 = _Level(c64, c64, _UP)
        self.head = nn.Conv2d(c64, classes, 1)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        x1 = self.down1(x)
        x2 = self.down2(self.pool(x1))
        x3 = self.down3(self.pool(x2))
        up2 = self.up2(self.up3(x3) + x2)
        return self.head(self.up1(up2 + x1))  # type: ignore[no-any-return]


class _Level(nn.Sequential):
    """Fire modules, one for each dilation: [batch, inputs, h, w] → [batch, channels, h, w]."""

    def __init__(self, inputs: int, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        for dilation in dilations:
            self.append(Fire(inputs, channels // 4, channels // 2, bias=False, dilation=dilation))
            inputs = channels
