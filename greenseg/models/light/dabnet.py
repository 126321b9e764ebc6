"""DABNet.

Li, Yun, Kim, Kim: DABNet: Depth-wise Asymmetric Bottleneck for Real-time Semantic Segmentation.
BMVC 2019, doi:10.5244/C.33.186, arXiv:1907.11357. Published size: 0.76 M parameters (Cityscapes' 19 classes).
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Halve, Residual, bn_prelu, conv, factorized, he_normal, scaled, upsample

_EPS = 1e-3  # of every batch normalisation, as in the authors' code
_DILATIONS1, _DILATIONS2 = (2, 2, 2), (4, 4, 8, 8, 16, 16)
"""Dilation of each module of the two blocks."""


class DABNet(nn.Module):
    """Depthwise asymmetric bottlenecks at a quarter and an eighth of the size; each level gets the image, too."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128 = (scaled(channels, width) for channels in (32, 64, 128))
        joined = [c32 + in_channels, 2 * c64 + in_channels, 2 * c128 + in_channels]
        self.first = nn.Sequential(
            *(conv(in_channels, c32, 3, stride=2), bn_prelu(c32, _EPS)),
            *(conv(c32, c32, 3), bn_prelu(c32, _EPS)),
            *(conv(c32, c32, 3), bn_prelu(c32, _EPS)),
        )
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1)
        self.join1 = bn_prelu(joined[0], _EPS)
        self.down1 = _halve(joined[0], c64)
        self.block1 = nn.Sequential(*(_bottleneck(c64, dilation) for dilation in _DILATIONS1))
        self.join2 = bn_prelu(joined[1], _EPS)
        self.down2 = _halve(joined[1], c128)
        self.block2 = nn.Sequential(*(_bottleneck(c128, dilation) for dilation in _DILATIONS2))
        self.join3 = bn_prelu(joined[2], _EPS)
        self.head = conv(joined[2], classes)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        image2 = self.shrink(x)
        image4 = self.shrink(image2)
        image8 = self.shrink(image4)
        down1 = self.down1(self.join1(torch.cat([self.first(x), image2], 1)))
        down2 = self.down2(self.join2(torch.cat([self.block1(down1), down1, image4], 1)))
        joined = self.join3(torch.cat([self.block2(down2), down2, image8], 1))
        return upsample(self.head(joined), size=x.shape[2:])


def _halve(inputs: int, outputs: int) -> nn.Module:
    return Halve(inputs, outputs, bias=False, eps=_EPS, activation=nn.PReLU(outputs))


def _bottleneck(channels: int, dilation: int) -> nn.Module:
    """Depthwise asymmetric bottleneck: 3×3 to half of the channels, two branches, 1×1 back; keeps the shape."""
    inner = channels // 2
    branch = nn.Sequential(
        *(bn_prelu(channels, _EPS), conv(channels, inner, 3), bn_prelu(inner, _EPS)),
        _Branches(inner, dilation),
        *(bn_prelu(inner, _EPS), conv(inner, channels)),
    )
    return Residual(branch, nn.Identity())


class _Branches(nn.Module):
    """The sum of two factorized depthwise convolutions, of near and of far neighbours."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.near, self.far = _depthwise(channels, 1), _depthwise(channels, dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return self.near(x) + self.far(x)  # type: ignore[no-any-return]


def _depthwise(channels: int, dilation: int) -> nn.Sequential:
    between = [bn_prelu(channels, _EPS)]
    layers = factorized(channels, dilation=dilation, groups=channels, bias=False, between=between)
    return nn.Sequential(*layers, bn_prelu(channels, _EPS))
