"""Building blocks that several light networks share."""

from collections.abc import Callable, Iterable
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


def bn_prelu(channels: int, eps: float = 1e-5) -> nn.Sequential:
    """Batch normalisation, PReLU with a slope for each channel."""
    return nn.Sequential(nn.BatchNorm2d(channels, eps=eps), nn.PReLU(channels))


def factorized(
    channels: int,
    kernel: int = 3,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
    between: Iterable[nn.Module] = (),
) -> list[nn.Module]:
    """A square convolution factorized into a vertical and a horizontal one, which keep the shape."""
    reach = dilation * (kernel // 2)
    return [
        nn.Conv2d(channels, channels, (kernel, 1), 1, (reach, 0), (dilation, 1), groups, bias),
        *between,
        nn.Conv2d(channels, channels, (1, kernel), 1, (0, reach), (1, dilation), groups, bias),
    ]


def he_normal(network: nn.Module) -> None:
    """Initialise all convolutions after He et al. 2015, arXiv:1502.01852, and biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Halve(nn.Module):
    """Halves the size: a strided convolution, beside a max-pooling if it adds channels, as in ENet and ERFNet."""

    def __init__(self, inputs: int, outputs: int, bias: bool, eps: float, activation: nn.Module) -> None:
        super().__init__()
        pooled = inputs if outputs > inputs else 0
        self.conv = nn.Conv2d(inputs, outputs - pooled, 3, stride=2, padding=1, bias=bias)
        self.pool = nn.MaxPool2d(2) if pooled else None
        self.normalise = nn.Sequential(nn.BatchNorm2d(outputs, eps=eps), activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h/2, w/2]."""
        halved = self.conv(x)
        if self.pool is not None:
            halved = torch.cat([halved, self.pool(x)], 1)
        return self.normalise(halved)  # type: ignore[no-any-return]


def double(inputs: int, outputs: int, eps: float) -> list[nn.Module]:
    """Doubles the size: a transposed convolution, batch normalisation, ReLU."""
    up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return [up, nn.BatchNorm2d(outputs, eps=eps), nn.ReLU()]


class Residual(nn.Module):
    """Adds the input to a branch that keeps its shape; an activation follows."""

    def __init__(self, branch: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return self.activation(x + self.branch(x))  # type: ignore[no-any-return]


class NonBottleneck1d(Residual):
    """Residual block of two factorized convolutions, the second one dilated (ERFNet)."""

    def __init__(self, channels: int, kernel: int = 3, *, eps: float, dropout: float = 0.0, dilation: int = 1) -> None:
        branch = nn.Sequential(
            *factorized(channels, kernel, between=[nn.ReLU()]),
            nn.BatchNorm2d(channels, eps=eps),
            nn.ReLU(),
            *factorized(channels, kernel, dilation=dilation, between=[nn.ReLU()]),
            nn.BatchNorm2d(channels, eps=eps),
            nn.Dropout2d(dropout),
        )
        super().__init__(branch, nn.ReLU())


class Fire(nn.Module):
    """Fire module (Iandola et al. 2016, arXiv:1602.07360): squeeze by 1×1, expand by 1×1 and 3×3 side by side.

    Args:
        inputs: channels.
        squeeze: channels between.
        expand: channels of each of the two sides.
        activation: makes the activation after the squeeze and the one at the end.
        normalise: batch normalisation after the squeeze.
        bias: whether convolutions have biases.
        dilation: of the 3×3 convolution.
    """

    def __init__(
        self,
        inputs: int,
        squeeze: int,
        expand: int,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        normalise: bool = False,
        bias: bool = True,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, squeeze, 1, bias=bias), activation())
        if normalise:
            self.squeeze.append(nn.BatchNorm2d(squeeze))
        self.left = nn.Conv2d(squeeze, expand, 1, bias=bias)
        self.right = nn.Conv2d(squeeze, expand, 3, padding=dilation, dilation=dilation, bias=bias)
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, h, w] → [batch, 2 expand, h, w]."""
        x = self.squeeze(x)
        return self.activation(torch.cat([self.left(x), self.right(x)], 1))  # type: ignore[no-any-return]
