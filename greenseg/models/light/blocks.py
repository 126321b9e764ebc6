"""Building blocks that several light networks share."""

from functools import partial

import torch
from torch import nn

upsample = partial(nn.functional.interpolate, mode="bilinear", align_corners=False)
"""Bilinear interpolation to a `size` or by a `scale_factor`."""


def scaled(channels: int, width: float) -> int:
    """A number of channels times `width`, rounded to a multiple of 4 unless `width` is 1; at least 4."""
    return channels if width == 1 else max(4, round(channels * width / 4) * 4)


def conv(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without bias that keeps the size, except for its stride."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def conv_bn(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation."""
    return nn.Sequential(conv(inputs, outputs, kernel, stride=stride, groups=groups), nn.BatchNorm2d(outputs))


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return conv_bn(inputs, outputs, kernel, stride=stride, groups=groups).append(nn.ReLU(inplace=True))


def conv_bn_prelu(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, PReLU with a slope for each channel."""
    return conv_bn(inputs, outputs, kernel, stride=stride, groups=groups).append(nn.PReLU(outputs))


def bn_prelu(channels: int) -> nn.Sequential:
    """Batch normalisation, PReLU with a slope for each channel."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


def he_normal(network: nn.Module) -> None:
    """Initialise all convolutions after He et al. 2015, arXiv:1502.01852, and biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Halve(nn.Module):
    """Halves the size and adds channels: a strided convolution beside a max-pooling, as in ENet and ERFNet."""

    def __init__(self, inputs: int, outputs: int, bias: bool, eps: float, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1, bias=bias)
        self.pool = nn.MaxPool2d(2)
        self.normalise = nn.Sequential(nn.BatchNorm2d(outputs, eps=eps), activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h/2, w/2]."""
        return self.normalise(torch.cat([self.conv(x), self.pool(x)], 1))  # type: ignore[no-any-return]
