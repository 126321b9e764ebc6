"""FPENet.

Liu, Yin: Feature Pyramid Encoding Network for Real-time Semantic Segmentation. BMVC 2019, arXiv:1909.08599.
Published size: 0.4 M parameters (Cityscapes' 19 classes).
All blocks of stages 2 and 3 expand their channels by 4, which gives the published size. Implementations that expand
only in the first block of a stage, such as the one in Efficient-Segmentation-Networks, have 0.12 M.
"""

import torch
from torch import nn

from greenseg.models.light.blocks import conv, conv_bn, conv_bn_relu, he_normal, scaled, upsample

_BLOCKS2, _BLOCKS3 = 3, 9
_DILATIONS = (1, 2, 4, 8)
"""Of the four parts of a block's channels."""


class FPENet(nn.Module):
    """Feature pyramids of dilated depthwise convolutions; in its decoder, two levels weigh each other."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c16, c32, c64 = (scaled(channels, width) for channels in (16, 32, 64))
        self.stage1 = nn.Sequential(conv_bn_relu(in_channels, c16, 3, stride=2), _Block(c16, c16, expansion=1))
        self.stage2 = _Stage(c16, c32, _BLOCKS2)
        self.stage3 = _Stage(c32, c64, _BLOCKS3)
        self.up2 = _Up(low=c32, high=c64, outputs=c64)
        self.up1 = _Up(low=c16, high=c64, outputs=c32)
        self.head = nn.Conv2d(c32, classes, 1)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        x1 = self.stage1(x)
        x2 = self.stage2(x1)
        x3 = self.stage3(x2)
        return upsample(self.head(self.up1(x1, self.up2(x2, x3))), size=x.shape[2:])


class _Block(nn.Module):
    """Feature pyramid encoding block: 1×1, a depthwise 3×3 for each part of the channels, 1×1, residual.

    Each part is convolved together with the result of the part before, and more widely dilated.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int = 4, stride: int = 1) -> None:
        super().__init__()
        part = outputs * expansion // len(_DILATIONS)
        self.expand = conv_bn_relu(inputs, part * len(_DILATIONS), stride=stride)
        self.pyramid = nn.ModuleList(
            nn.Sequential(conv(part, part, 3, dilation=dilation, groups=part), nn.BatchNorm2d(part), nn.ReLU())
            for dilation in _DILATIONS
        )
        self.merge = conv_bn(part * len(_DILATIONS), outputs)
        self.shortcut = nn.Identity() if inputs == outputs else conv_bn(inputs, outputs, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h/stride, w/stride]."""
        parts = self.expand(x).chunk(len(_DILATIONS), 1)
        encoded = [self.pyramid[0](parts[0])]
        for level, part in zip(self.pyramid[1:], parts[1:], strict=True):
            encoded.append(level(part + encoded[-1]))
        return nn.functional.relu(self.shortcut(x) + self.merge(torch.cat(encoded, 1)))


class _Stage(nn.Module):
    """A block that halves the size, and the other blocks with a residual around all of them."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.first = _Block(inputs, outputs, stride=2)
        self.rest = nn.Sequential(*(_Block(outputs, outputs) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h/2, w/2]."""
        first = self.first(x)
        return first + self.rest(first)  # type: ignore[no-any-return]


class _Up(nn.Module):
    """Mutual embedding: the fine level weighs pixels of the coarse one, which weighs channels of the fine one."""

    def __init__(self, low: int, high: int, outputs: int) -> None:
        super().__init__()
        self.low, self.high = conv_bn(low, outputs), conv_bn(high, outputs)
        self.pixels = nn.Sequential(conv(1, 1), nn.Sigmoid())
        self.channels = nn.Sequential(conv(outputs, outputs), nn.ReLU(), nn.Sigmoid())

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """[batch, low, h, w] and [batch, high, h/2, w/2] → [batch, outputs, h, w]."""
        low, high = self.low(low), self.high(high)
        pixels = self.pixels(low.mean(1, keepdim=True))
        channels = self.channels(high.mean((2, 3), keepdim=True))
        return channels * low + pixels * upsample(high, size=low.shape[2:])  # type: ignore[no-any-return]
