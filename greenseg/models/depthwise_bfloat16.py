"""A workaround for depthwise convolutions that are wrong or slow in bfloat16 on a CPU."""

import torch
from torch import nn


def apply(network: nn.Module, strided: bool) -> None:
    """Change a network in place so that it computes the convolutions with flaws in oneDNN in float32.

    Args:
        network: network of any precision; on other devices and in other precisions, it computes as before.
        strided: include convolutions that are correct but slow. If the weights themselves are bfloat16, converting them
            costs more than it saves.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d) or not module.groups == module.in_channels > 1:
            continue
        if max(module.dilation) > 1 or (strided and max(module.stride) > 1):
            module.__class__ = _in_float32(type(module))


class _InFloat32:
    """A convolution that computes in float32 on a CPU instead of bfloat16; its input and output stay bfloat16.

    oneDNN (in torch 2.14) has two flaws in depthwise convolutions in bfloat16. For dilated ones with channels last, it
    computes the gradient of the weights from uninitialised memory, so training sooner or later ends in NaN. For strided
    ones, the gradient of the input is five times slower than in float32.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or kind != torch.bfloat16:
            return super().forward(x)  # type: ignore[misc,no-any-return]
        assert isinstance(self, nn.Conv2d)
        with torch.autocast("cpu", enabled=False):
            if self.weight.dtype == torch.float32:
                return super().forward(x.float()).to(kind)  # type: ignore[misc,no-any-return]
            weights = {name: weight.float() for name, weight in self.named_parameters()}
            return torch.func.functional_call(self, weights, x.float()).to(kind)  # type: ignore[no-any-return]


def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    return type(kind.__name__, (_InFloat32, kind), {})
