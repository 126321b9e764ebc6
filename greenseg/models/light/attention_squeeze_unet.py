"""Attention Squeeze U-Net.

Pennisi, Bloisi, Suriani, Nardi, Facchiano, Giampetruzzi: Skin Lesion Area Segmentation Using Attention Squeeze U-Net
for Embedded Devices. Journal of Digital Imaging 35, 2022, doi:10.1007/s10278-022-00634-7.
Published size: 2.6 M parameters (2 classes). The best network of arXiv:2405.15778.
"""

from functools import partial

import torch
from torch import nn

from greenseg.models.light.blocks import Fire, conv_bn, he_normal, scaled


class AttentionSqueezeUNet(nn.Module):
    """A U-Net of SqueezeNet's fire modules with attention gates on its skip connections."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()

        def c(channels: int) -> int:
            return scaled(channels, width)

        self.first = nn.Sequential(nn.Conv2d(in_channels, c(64), 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.level2 = nn.Sequential(_fire(c(64), c(16), c(64)), _fire(2 * c(64), c(16), c(64)), self.pool)
        self.level3 = nn.Sequential(_fire(2 * c(64), c(32), c(128)), _fire(2 * c(128), c(32), c(128)), self.pool)
        self.level4 = nn.Sequential(_fire(2 * c(128), c(48), c(192)), _fire(2 * c(192), c(48), c(192)))
        self.level5 = nn.Sequential(_fire(2 * c(192), c(64), c(256)), _fire(2 * c(256), c(64), c(256)))
        self.up4 = _Up(2 * c(256), c(192), skip=2 * c(192), squeeze=c(48), attention=c(96), stride=1)
        self.up3 = _Up(2 * c(192), c(128), skip=2 * c(128), squeeze=c(32), attention=c(64), stride=1)
        self.up2 = _Up(2 * c(128), c(64), skip=2 * c(64), squeeze=c(16), attention=c(16), stride=2)
        self.up1 = _Up(2 * c(64), c(32), skip=c(64), squeeze=c(16), attention=c(4), stride=2)
        self.enlarge = nn.Upsample(scale_factor=2)
        self.last = nn.Sequential(nn.Conv2d(2 * c(32) + c(64), c(64), 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(c(64), classes, 1)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        x0 = self.first(x)
        x1 = self.pool(x0)
        x2 = self.level2(x1)
        x3 = self.level3(x2)
        x4 = self.level4(x3)
        up = self.up4(self.level5(x4), x4)
        for block, skip in ((self.up3, x3), (self.up2, x2), (self.up1, x1)):
            up = block(up, skip)
        joined = self.last(torch.cat([self.enlarge(up), x0], 1))
        return self.enlarge(self.head(joined))  # type: ignore[no-any-return]


_fire = partial(Fire, normalise=True)


class _Gate(nn.Module):
    """Attention gate (Oktay et al. 2018, arXiv:1804.03999): weights a skip connection by the level below."""

    def __init__(self, gating: int, skip: int, inner: int) -> None:
        super().__init__()
        self.gating = conv_bn(gating, inner)
        self.skip = conv_bn(skip, inner)
        self.weight = conv_bn(inner, 1).append(nn.Sigmoid())

    def forward(self, gating: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """The skip connection, weighted; same shape."""
        return skip * self.weight(nn.functional.relu(self.gating(gating) + self.skip(skip)))  # type: ignore[no-any-return]


class _Up(nn.Module):
    """Transposed convolution, gate on the skip connection, fire module: [batch, 2 outputs, …]."""

    def __init__(self, inputs: int, outputs: int, skip: int, squeeze: int, attention: int, stride: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 3, stride, padding=1, output_padding=stride - 1)
        self.gate = _Gate(outputs, skip, attention)
        self.fire = _fire(outputs + skip, squeeze, outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Features from below and the skip connection → features of the size of the skip connection."""
        x = self.up(x)
        return self.fire(torch.cat([self.gate(x, skip), x], 1))  # type: ignore[no-any-return]
