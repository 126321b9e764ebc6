"""SegNet.

Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation.
IEEE Transactions on Pattern Analysis and Machine Intelligence 39(12), 2017, doi:10.1109/TPAMI.2016.2644615,
arXiv:1511.00561. Published size: 29.46 M parameters (in the comparison of ENet, arXiv:1606.02147, which counts the
statistics of batch normalisation, too). The encoder is that of VGG16, here without its pretrained weights. Biases that
batch normalisation makes redundant are left out here.
"""

import itertools

import torch
from torch import nn

from greenseg.models.light.blocks import conv_bn_relu, he_normal, scaled

_LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each level of the encoder; the decoder is its mirror image."""


class SegNet(nn.Module):
    """The convolutions of VGG16 and their mirror image, which unpools where the encoder pooled.

    torch warns that unpooling is not deterministic. Here it is, since the windows do not overlap.
    """

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        levels = [(scaled(channels, width), convolutions) for channels, convolutions in _LEVELS]
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        inputs = in_channels
        for channels, convolutions in levels:
            self.encoder.append(_Level(inputs, *[channels] * convolutions))
            inputs = channels
        for (channels, convolutions), (outputs, _) in itertools.pairwise(reversed(levels)):
            self.decoder.append(_Level(*[channels] * convolutions, outputs))
        channels, convolutions = levels[0]
        self.decoder.append(_Level(*[channels] * convolutions))
        self.head = nn.Conv2d(channels, classes, 3, padding=1)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        places = []
        for level in self.encoder:
            x, where = self.pool(level(x))
            places.append(where)
        for level, where in zip(self.decoder, reversed(places), strict=True):
            x = level(self.unpool(x, where))
        return self.head(x)  # type: ignore[no-any-return]


class _Level(nn.Sequential):
    """3×3 convolutions between these numbers of channels: [batch, first, h, w] → [batch, last, h, w]."""

    def __init__(self, *channels: int) -> None:
        super().__init__(*(conv_bn_relu(inputs, outputs, 3) for inputs, outputs in itertools.pairwise(channels)))
