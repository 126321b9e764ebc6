"""ENet.

Paszke, Chaurasia, Kim, Culurciello: ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation.
2016, arXiv:1606.02147. Published size: 0.37 M parameters.
"""

import torch
from torch import nn

from greenseg.models.light.blocks import Halve, conv_bn, scaled

_STAGE = ((1, False), (2, False), (1, True), (4, False), (1, False), (8, False), (1, True), (16, False))
"""Dilation of each bottleneck of stages 2 and 3, and whether it is asymmetric (table 1 of the paper)."""


class ENet(nn.Module):
    """Bottlenecks with dilated and asymmetric convolutions; its decoder unpools where its encoder pooled.

    torch warns that unpooling is not deterministic. Here it is, since the windows do not overlap.
    """

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c16, c64, c128 = (scaled(channels, width) for channels in (16, 64, 128))
        self.initial = Halve(in_channels, c16, bias=False, eps=1e-5, activation=nn.PReLU(c16))
        self.down1 = _Down(c16, c64, dropout=0.01)
        self.stage1 = nn.Sequential(*(_Bottleneck(c64, dropout=0.01) for _ in range(4)))
        self.down2 = _Down(c64, c128, dropout=0.1)
        self.stage2_3 = nn.Sequential(*(_Bottleneck(c128, 0.1, *kind) for kind in _STAGE * 2))
        self.up4 = _Up(c128, c64)
        self.stage4 = nn.Sequential(_Bottleneck(c64, relu=True), _Bottleneck(c64, relu=True))
        self.up5 = _Up(c64, c16)
        self.stage5 = _Bottleneck(c16, relu=True)
        self.head = nn.ConvTranspose2d(c16, classes, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        x = self.initial(x)
        x, where1 = self.down1(x)
        x, where2 = self.down2(self.stage1(x))
        x = self.up4(self.stage2_3(x), where2)
        x = self.up5(self.stage4(x), where1)
        return self.head(self.stage5(x))  # type: ignore[no-any-return]


class _Bottleneck(nn.Module):
    """Residual block: 1×1 to a quarter of the channels, a convolution, 1×1 back, spatial dropout."""

    def __init__(
        self, channels: int, dropout: float = 0.1, dilation: int = 1, asymmetric: bool = False, relu: bool = False
    ) -> None:
        super().__init__()
        inner = channels // 4

        def activation(channels: int) -> nn.Module:
            return nn.ReLU() if relu else nn.PReLU(channels)  # the decoder has plain ReLU

        if asymmetric:
            middle: list[nn.Module] = [
                nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(inner, inner, (1, 5), padding=(0, 2)),
            ]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)]
        self.branch = nn.Sequential(
            *conv_bn(channels, inner),
            activation(inner),
            *middle,
            nn.BatchNorm2d(inner),
            activation(inner),
            *conv_bn(inner, channels),
            nn.Dropout2d(dropout),
        )
        self.activation = activation(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return self.activation(x + self.branch(x))  # type: ignore[no-any-return]


class _Down(nn.Module):
    """Bottleneck that halves the size; the main branch pools, adds zero channels and returns positions of maxima."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        inner = outputs // 4
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, inner, 2, stride=2, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            *conv_bn(inner, outputs),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.PReLU(outputs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[batch, inputs, h, w] → [batch, outputs, h/2, w/2], int64 [batch, inputs, h/2, w/2]."""
        main, where = self.pool(x)
        branch = self.branch(x)
        main = nn.functional.pad(main, (0, 0, 0, 0, 0, branch.shape[1] - main.shape[1]))
        return self.activation(main + branch), where


class _Up(nn.Module):
    """Bottleneck that doubles the size; the main branch unpools."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.main = conv_bn(inputs, outputs)
        self.unpool = nn.MaxUnpool2d(2)
        self.branch = nn.Sequential(
            *conv_bn(inputs, inner),
            nn.ReLU(),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            *conv_bn(inner, outputs),
        )

    def forward(self, x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w], int64 [batch, outputs, h, w] → [batch, outputs, 2h, 2w]."""
        return nn.functional.relu(self.unpool(self.main(x), where) + self.branch(x))
