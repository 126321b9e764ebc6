"""ERFNet.

Romera, Álvarez, Bergasa, Arroyo: ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation.
IEEE Transactions on Intelligent Transportation Systems 19(1), 2018, doi:10.1109/TITS.2017.2750080.
Published size: 2.1 M parameters (2.06 M in the authors' code, Cityscapes' 20 outputs).
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Halve, scaled

_EPS = 1e-3  # of every batch normalisation, as in the authors' code


class ERFNet(nn.Sequential):
    """Residual blocks whose 3×3 convolutions are factorized into 3×1 and 1×3, partly dilated."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        c16, c64, c128 = (scaled(channels, width) for channels in (16, 64, 128))
        super().__init__(
            _halve(in_channels, c16),
            _halve(c16, c64),
            *(_NonBottleneck1d(c64, dropout=0.03) for _ in range(5)),
            _halve(c64, c128),
            *(_NonBottleneck1d(c128, dropout=0.3, dilation=dilation) for dilation in (2, 4, 8, 16) * 2),
            *_double(c128, c64),
            *(_NonBottleneck1d(c64) for _ in range(2)),
            *_double(c64, c16),
            *(_NonBottleneck1d(c16) for _ in range(2)),
            nn.ConvTranspose2d(c16, classes, 2, stride=2),
        )


def _halve(inputs: int, outputs: int) -> nn.Module:
    return Halve(inputs, outputs, bias=True, eps=_EPS, activation=nn.ReLU())


def _double(inputs: int, outputs: int) -> list[nn.Module]:
    up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return [up, nn.BatchNorm2d(outputs, eps=_EPS), nn.ReLU()]


class _NonBottleneck1d(nn.Module):
    """Residual block of two factorized 3×3 convolutions, the second one dilated."""

    def __init__(self, channels: int, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()
        d = dilation
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1)),
            nn.BatchNorm2d(channels, eps=_EPS),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d)),
            nn.BatchNorm2d(channels, eps=_EPS),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return nn.functional.relu(x + self.branch(x))
