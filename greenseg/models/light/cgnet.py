"""CGNet.

Wu, Tang, Zhang, Cao, Zhang: CGNet: A Light-Weight Context Guided Network for Semantic Segmentation.
IEEE Transactions on Image Processing 30, 2021, doi:10.1109/TIP.2020.3042065, arXiv:1811.08201.
Published size: 0.5 M parameters (M3N21; Cityscapes' 19 classes).
"""

import torch
from torch import nn

from greenseg.models.light.blocks import bn_prelu, conv, conv_bn_prelu, he_normal, scaled, upsample

_M, _N = 3, 21
"""Blocks of stages 2 and 3."""


class CGNet(nn.Module):
    """Context guided blocks: local features and their surroundings, weighted by the global context."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128 = (scaled(channels, width) for channels in (32, 64, 128))
        self.stage1 = nn.Sequential(
            conv_bn_prelu(in_channels, c32, 3, stride=2), conv_bn_prelu(c32, c32, 3), conv_bn_prelu(c32, c32, 3)
        )
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1)  # the next stages get the image, too
        self.join1 = bn_prelu(c32 + in_channels)
        self.down2 = _Down(c32 + in_channels, c64, dilation=2, reduction=8)
        self.stage2 = nn.Sequential(*(_Block(c64, dilation=2, reduction=8) for _ in range(_M - 1)))
        self.join2 = bn_prelu(2 * c64 + in_channels)
        self.down3 = _Down(2 * c64 + in_channels, c128, dilation=4, reduction=16)
        self.stage3 = nn.Sequential(*(_Block(c128, dilation=4, reduction=16) for _ in range(_N - 1)))
        self.join3 = bn_prelu(2 * c128)
        self.head = conv(2 * c128, classes)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        image2 = self.shrink(x)
        image4 = self.shrink(image2)
        first = self.down2(self.join1(torch.cat([self.stage1(x), image2], 1)))
        second = self.down3(self.join2(torch.cat([self.stage2(first), first, image4], 1)))
        joined = self.join3(torch.cat([second, self.stage3(second)], 1))
        return upsample(self.head(joined), size=x.shape[2:])


class _Weigh(nn.Module):
    """Weighs channels by the global context (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.weights = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return x * self.weights(x.mean((2, 3)))[:, :, None, None]  # type: ignore[no-any-return]


class _Surroundings(nn.Module):
    """Depthwise 3×3 convolutions of near and far neighbours, side by side."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.local = conv(channels, channels, 3, groups=channels)
        self.surrounding = conv(channels, channels, 3, dilation=dilation, groups=channels)
        self.normalise = bn_prelu(2 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, h, w] → [batch, 2 channels, h, w]."""
        return self.normalise(torch.cat([self.local(x), self.surrounding(x)], 1))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Context guided block with a residual around it."""

    def __init__(self, channels: int, dilation: int, reduction: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_bn_prelu(channels, channels // 2),
            _Surroundings(channels // 2, dilation),
            _Weigh(channels, reduction),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class _Down(nn.Sequential):
    """Context guided block that halves the size: [batch, inputs, h, w] → [batch, outputs, h/2, w/2]."""

    def __init__(self, inputs: int, outputs: int, dilation: int, reduction: int) -> None:
        super().__init__(
            conv_bn_prelu(inputs, outputs, 3, stride=2),
            _Surroundings(outputs, dilation),
            conv(2 * outputs, outputs),
            _Weigh(outputs, reduction),
        )
