"""ERFNet.

Romera, Álvarez, Bergasa, Arroyo: ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation.
IEEE Transactions on Intelligent Transportation Systems 19(1), 2018, doi:10.1109/TITS.2017.2750080.
Published size: 2.1 M parameters (2.06 M in the authors' code, Cityscapes' 20 outputs).
"""

from torch import nn

from greenseg.models.light.blocks import Halve, NonBottleneck1d, double, scaled

_EPS = 1e-3  # of every batch normalisation, as in the authors' code


class ERFNet(nn.Sequential):
    """Residual blocks whose 3×3 convolutions are factorized into 3×1 and 1×3, partly dilated."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        c16, c64, c128 = (scaled(channels, width) for channels in (16, 64, 128))
        super().__init__(
            _halve(in_channels, c16),
            _halve(c16, c64),
            *(NonBottleneck1d(c64, eps=_EPS, dropout=0.03) for _ in range(5)),
            _halve(c64, c128),
            *(NonBottleneck1d(c128, eps=_EPS, dropout=0.3, dilation=dilation) for dilation in (2, 4, 8, 16) * 2),
            *double(c128, c64, _EPS),
            *(NonBottleneck1d(c64, eps=_EPS) for _ in range(2)),
            *double(c64, c16, _EPS),
            *(NonBottleneck1d(c16, eps=_EPS) for _ in range(2)),
            nn.ConvTranspose2d(c16, classes, 2, stride=2),
        )


def _halve(inputs: int, outputs: int) -> nn.Module:
    return Halve(inputs, outputs, bias=True, eps=_EPS, activation=nn.ReLU())
