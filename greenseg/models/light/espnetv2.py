"""ESPNetv2.

Mehta, Rastegari, Shapiro, Hajishirzi: ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional
Neural Network. CVPR 2019, doi:10.1109/CVPR.2019.00941, arXiv:1811.11431. The published sizes are for the classifier
(ImageNet's 1000 classes): 1.24 M parameters at width 0.5, 1.67 M at 1. Segmentation uses its first four levels.
"""

import math

import torch
from torch import nn

from greenseg.models.light.blocks import bn_prelu, conv, conv_bn, conv_bn_prelu, he_normal, upsample

_BRANCHES = 4
_RECEPTIVE = (13, 11, 9, 7, 5)
"""Largest receptive field of the dilated convolutions of each level."""


class ESPNetv2(nn.Module):
    """Pyramids of dilated depthwise convolutions; its decoder works on as many channels as there are classes."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        base, c2, c3, c4 = level_channels(width)[:4]
        self.level1 = conv_bn_prelu(in_channels, base, 3, stride=2)
        self.level2 = Down(base, c2, in_channels, _RECEPTIVE[0])
        self.down3 = Down(c2, c3, in_channels, _RECEPTIVE[1])
        self.level3 = nn.Sequential(*(EESP(c3, c3, _RECEPTIVE[2]) for _ in range(3)))
        self.down4 = Down(c3, c4, in_channels, _RECEPTIVE[2])
        self.level4 = nn.Sequential(*(EESP(c4, c4, _RECEPTIVE[3]) for _ in range(7)))

        dropout = 0.1 if width <= 0.5 else 0.2
        self.project4 = conv_bn_prelu(c4, c3)
        self.pyramid = nn.Sequential(EESP(2 * c3, c3, 7), _Pooling(c3))
        self.project3 = nn.Sequential(nn.Dropout2d(dropout), conv(c3, classes), *bn_prelu(classes))
        self.project2 = conv_bn_prelu(c2 + classes, classes)
        self.project1 = nn.Sequential(nn.Dropout2d(dropout), conv(base + classes, classes))
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        x1 = self.level1(x)
        x2 = self.level2(x1, x)
        x3 = self.level3(self.down3(x2, x))
        x4 = self.level4(self.down4(x3, x))
        joined = self.pyramid(torch.cat([x3, upsample(self.project4(x4), scale_factor=2)], 1))
        out = upsample(self.project3(joined), scale_factor=2)
        out = upsample(self.project2(torch.cat([x2, out], 1)), scale_factor=2)
        return upsample(self.project1(torch.cat([x1, out], 1)), scale_factor=2)


def level_channels(width: float) -> list[int]:
    """Channels of the five levels: 32, 64, 128, … times `width`, the first at most 32."""
    base = math.ceil(int(32 * width) / _BRANCHES) * _BRANCHES
    return [min(32, base), *(base * 2**level for level in range(1, 5))]


class EESP(nn.Module):
    """Extremely efficient spatial pyramid: reduce, convolve at several dilations, add up, merge.

    Args:
        inputs: channels.
        outputs: channels, a multiple of 4.
        receptive: largest receptive field; branches that would exceed it are not dilated.
        down: halve the size, without residual and activation.
    """

    def __init__(self, inputs: int, outputs: int, receptive: int, down: bool = False) -> None:
        super().__init__()
        inner = outputs // _BRANCHES
        fields = sorted(field if field <= receptive else 3 for field in range(3, 3 + 2 * _BRANCHES, 2))
        self.shortcut = inputs == outputs and not down
        # 4 groups at every published width; fewer at other widths if the channels are not divisible.
        self.reduce = conv_bn_prelu(inputs, inner, groups=math.gcd(_BRANCHES, inputs, inner))
        self.branches = nn.ModuleList(
            conv(inner, inner, 3, stride=2 if down else 1, dilation=(field - 1) // 2, groups=inner) for field in fields
        )
        self.merge = nn.Sequential(bn_prelu(outputs), conv_bn(outputs, outputs, groups=_BRANCHES))
        self.activation = nn.Identity() if down else nn.PReLU(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h, w], or half of it."""
        reduced = self.reduce(x)
        sums = [self.branches[0](reduced)]
        for branch in self.branches[1:]:
            sums.append(sums[-1] + branch(reduced))
        merged = self.merge(torch.cat(sums, 1))
        return self.activation(merged + x if self.shortcut else merged)  # type: ignore[no-any-return]


class Down(nn.Module):
    """Halves the size: average pooling beside an EESP, plus the reduced image itself."""

    def __init__(self, inputs: int, outputs: int, image_channels: int, receptive: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.eesp = EESP(inputs, outputs - inputs, receptive, down=True)
        self.image = nn.Sequential(conv_bn_prelu(image_channels, image_channels, 3), conv_bn(image_channels, outputs))
        self.activation = nn.PReLU(outputs)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] and the image → [batch, outputs, h/2, w/2]."""
        out = torch.cat([self.pool(x), self.eesp(x)], 1)
        while image.shape[2] > out.shape[2]:
            image = self.pool(image)
        return self.activation(out + self.image(image))  # type: ignore[no-any-return]


class _Pooling(nn.Module):
    """Joined depthwise convolutions of ever smaller copies of the features (Zhao et al. 2017, arXiv:1612.01105)."""

    def __init__(self, channels: int, copies: int = 4) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList(conv(channels, channels, 3, groups=channels) for _ in range(copies))
        self.project = conv_bn_prelu(channels * (copies + 1), channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        copies, smaller = [x], x
        for stage in self.stages:
            smaller = self.pool(smaller)
            copies.append(upsample(stage(smaller), size=x.shape[2:]))
        return self.project(torch.cat(copies, 1))  # type: ignore[no-any-return]
