"""SQNet.

Treml et al.: Speeding up Semantic Segmentation for Autonomous Driving. NIPS Workshop MLITS 2016,
https://openreview.net/forum?id=S1uHiFyyg. Channels are those of the implementation in Efficient-Segmentation-Networks,
which has 16.26 M parameters (Cityscapes' 19 classes); we know of no size that the authors published.
"""

from functools import partial

import torch
from torch import nn

from greenseg.models.light.blocks import Fire, he_normal, scaled

_fire = partial(Fire, activation=nn.ELU)


class SQNet(nn.Module):
    """A SqueezeNet with ELUs, parallel dilated convolutions, and a decoder that refines by the encoder's features.

    It has no batch normalisation.
    """

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c96, c128, c256, c512 = (scaled(channels, width) for channels in (96, 128, 256, 512))
        self.pool = nn.MaxPool2d(2)
        self.first = nn.Sequential(nn.Conv2d(in_channels, c96, 3, stride=2, padding=1), nn.ELU())
        self.level2 = _fires(c96, c128, 2)
        self.level3 = _fires(c128, c256, 2)
        self.level4 = _fires(c256, c512, 3).append(_Parallel(c512))
        self.refine3 = _Refine(c512, c256)
        self.refine2 = _Refine(2 * c256, c128)
        self.refine1 = _Refine(2 * c128, c96)
        he_normal(self)
        # After he_normal, which would make the few outputs of this convolution ten times too large.
        self.head = nn.ConvTranspose2d(2 * c96, classes, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        x1 = self.first(x)
        x2 = self.level2(self.pool(x1))
        x3 = self.level3(self.pool(x2))
        x4 = self.level4(self.pool(x3))
        refined = self.refine2(self.refine3(x4, x3), x2)
        return self.head(self.refine1(refined, x1))  # type: ignore[no-any-return]


def _fires(inputs: int, channels: int, modules: int) -> nn.Sequential:
    """Fire modules: [batch, inputs, h, w] → [batch, channels, h, w]."""
    return nn.Sequential(
        *(_fire(channels if i else inputs, channels // 8, channels // 2) for i in range(modules)),
    )


class _Parallel(nn.Module):
    """The sum of four dilated 3×3 convolutions, each with an ELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation), nn.ELU())
            for dilation in (1, 2, 3, 4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class _Refine(nn.Module):
    """Refinement (Pinheiro et al. 2016, arXiv:1603.08695): doubles the size and joins the encoder's features."""

    def __init__(self, inputs: int, skip: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(inputs, skip, 3, stride=2, padding=1, output_padding=1), nn.ELU())
        self.skip = nn.Sequential(nn.Conv2d(skip, skip, 3, padding=1), nn.ELU())
        self.join = nn.Sequential(nn.Conv2d(2 * skip, 2 * skip, 3, padding=1), nn.ELU())

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] and [batch, skip, 2h, 2w] → [batch, 2 skip, 2h, 2w]."""
        return self.join(torch.cat([self.skip(skip), self.up(x)], 1))  # type: ignore[no-any-return]
