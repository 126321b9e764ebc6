"""ESNet.

Wang, Zhou, Wu: ESNet: An Efficient Symmetric Network for Real-time Semantic Segmentation.
PRCV 2019, doi:10.1007/978-3-030-31723-2_4, arXiv:1906.09826. Published size: 1.66 M parameters (Cityscapes).
In the authors' code, the three parallel branches share their last batch normalisation. Here each has its own, since
running statistics of three branches together would be those of none.
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Halve, NonBottleneck1d, double, factorized, scaled

_EPS = 1e-3  # of every batch normalisation, as in the authors' code


class ESNet(nn.Sequential):
    """Residual blocks of factorized 3×3 and 5×5 convolutions; in the middle, three dilated ones in parallel."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        c16, c64, c128 = (scaled(channels, width) for channels in (16, 64, 128))
        super().__init__(
            _halve(in_channels, c16),
            *(NonBottleneck1d(c16, 3, eps=_EPS, dropout=0.03) for _ in range(3)),
            _halve(c16, c64),
            *(NonBottleneck1d(c64, 5, eps=_EPS, dropout=0.03) for _ in range(2)),
            _halve(c64, c128),
            *(_Parallel(c128, dropout=0.3) for _ in range(3)),
            *double(c128, c64, _EPS),
            *(NonBottleneck1d(c64, 5, eps=_EPS) for _ in range(2)),
            *double(c64, c16, _EPS),
            *(NonBottleneck1d(c16, 3, eps=_EPS) for _ in range(2)),
            nn.ConvTranspose2d(c16, classes, 2, stride=2),
        )


def _halve(inputs: int, outputs: int) -> nn.Module:
    return Halve(inputs, outputs, bias=True, eps=_EPS, activation=nn.ReLU())


class _Parallel(nn.Module):
    """Parallel factorized convolution unit: a factorized convolution, then the sum of three dilated ones."""

    def __init__(self, channels: int, dropout: float, dilations: tuple[int, ...] = (2, 5, 9)) -> None:
        super().__init__()
        self.first = nn.Sequential(
            *factorized(channels, between=[nn.ReLU()]), nn.BatchNorm2d(channels, eps=_EPS), nn.ReLU()
        )
        self.branches = nn.ModuleList(
            nn.Sequential(
                *factorized(channels, dilation=dilation, between=[nn.ReLU()]),
                nn.BatchNorm2d(channels, eps=_EPS),
                nn.Dropout2d(dropout),
            )
            for dilation in dilations
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        transformed = self.first(x)
        return nn.functional.relu(sum((branch(transformed) for branch in self.branches), x))
