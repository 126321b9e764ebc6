"""Depthwise convolutions that a CPU trains wrongly, or slowly, in bfloat16."""

import torch
from torch import nn


def apply(network: nn.Module, strided: bool) -> None:
    """Have a network, in place, compute in float32 those of its convolutions that oneDNN has flaws in.

    Args:
        network: of any precision; on other devices, and in other precisions, it computes as before.
        strided: also those that are right but slow. Where weights are bfloat16 themselves, converting them costs more.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d) or not module.groups == module.in_channels > 1:
            continue
        if max(module.dilation) > 1 or (strided and max(module.stride) > 1):
            module.__class__ = _in_float32(type(module))


class _InFloat32:
    """A convolution that computes in float32 what a CPU would in bfloat16, and takes and gives bfloat16.

    oneDNN (that of torch 2.14) has two flaws in depthwise convolutions in bfloat16. Of dilated ones whose channels lie
    innermost, it computes the gradient of the weights from memory that nobody has written: training ends in NaN, sooner
    or later. Of strided ones, it takes the gradient of the input five times slower than in float32.
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
