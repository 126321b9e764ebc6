"""FSSNet.

Zhang et al.: Fast Semantic Segmentation for Scene Perception. IEEE Transactions on Industrial Informatics, 2018,
https://ieeexplore.ieee.org/document/8392426. Published size: 0.2 M parameters.
Dilations and dropout are those of the implementation in Efficient-Segmentation-Networks. Bottlenecks have a quarter of
the channels of their output, as in ENet.
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Halve, Residual, conv, conv_bn, conv_bn_prelu, factorized, scaled, upsample

_DILATIONS = (2, 5, 9, 2, 5, 9)
"""Of the continuous dilated block."""


class FSSNet(nn.Module):
    """Factorized blocks at a quarter of the size, dilated ones at an eighth; the decoder adds encoder features."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c16, c64, c128 = (scaled(channels, width) for channels in (16, 64, 128))
        self.initial = Halve(in_channels, c16, bias=False, eps=1e-5, activation=nn.PReLU(c16))
        self.down1 = _Down(c16, c64, dropout=0.03)
        self.stage1 = nn.Sequential(*(_factorized(c64, dropout=0.03) for _ in range(4)))
        self.down2 = _Down(c64, c128, dropout=0.3)
        self.stage2 = nn.Sequential(*(_bottleneck(c128, dropout=0.3, dilation=dilation) for dilation in _DILATIONS))
        self.up2 = _Up(c128, c64, dropout=0.3)
        self.stage3 = nn.Sequential(*(_bottleneck(c64, dropout=0.3) for _ in range(2)))
        self.up1 = _Up(c64, c16, dropout=0.3)
        self.stage4 = nn.Sequential(*(_bottleneck(c16, dropout=0.3) for _ in range(2)))
        self.head = nn.ConvTranspose2d(c16, classes, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        down1 = self.down1(self.initial(x))
        down2 = self.down2(self.stage1(down1))
        up2 = self.stage3(self.up2(self.stage2(down2), down2))
        return self.head(self.stage4(self.up1(up2, down1)))  # type: ignore[no-any-return]


def _residual(channels: int, inner: int, middle: list[nn.Module], dropout: float) -> nn.Module:
    branch = [*conv_bn_prelu(channels, inner), *middle, *conv_bn(inner, channels), nn.Dropout2d(dropout)]
    return Residual(nn.Sequential(*branch), nn.PReLU(channels))


def _factorized(channels: int, dropout: float) -> nn.Module:
    """Bottleneck whose 3×3 is factorized; keeps the shape."""
    inner = channels // 4
    between = [nn.BatchNorm2d(inner), nn.PReLU(inner)]
    middle = [*factorized(inner, bias=False, between=between), nn.BatchNorm2d(inner), nn.PReLU(inner)]
    return _residual(channels, inner, middle, dropout)


def _bottleneck(channels: int, dropout: float, dilation: int = 1) -> nn.Module:
    """Bottleneck whose 3×3 is dilated; keeps the shape."""
    inner = channels // 4
    middle = [conv(inner, inner, 3, dilation=dilation), nn.BatchNorm2d(inner), nn.PReLU(inner)]
    return _residual(channels, inner, middle, dropout)


class _Down(nn.Module):
    """Bottleneck that halves the size, beside a max-pooling with a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        inner = outputs // 4
        self.main = nn.Sequential(nn.MaxPool2d(2), *conv_bn(inputs, outputs))
        self.branch = nn.Sequential(
            *(nn.Conv2d(inputs, inner, 2, stride=2, bias=False), nn.BatchNorm2d(inner), nn.PReLU(inner)),
            *conv_bn_prelu(inner, inner, 3),
            *conv_bn(inner, outputs),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.PReLU(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h/2, w/2]."""
        return self.activation(self.main(x) + self.branch(x))  # type: ignore[no-any-return]


class _Up(nn.Module):
    """Bottleneck that doubles the size, beside an interpolation of the sum of its input and the encoder's features."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        inner = inputs // 4
        self.main = conv_bn(inputs, outputs)
        self.branch = nn.Sequential(
            *conv_bn_prelu(inputs, inner),
            *(nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False), nn.BatchNorm2d(inner), nn.PReLU(inner)),
            *conv_bn(inner, outputs),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.PReLU(outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Twice [batch, inputs, h, w] → [batch, outputs, 2h, 2w]."""
        main = upsample(self.main(x + skip), scale_factor=2)
        return self.activation(main + self.branch(x))  # type: ignore[no-any-return]
