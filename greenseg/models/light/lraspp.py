"""LR-ASPP on MobileNetV3-Large, from torchvision.

Howard et al.: Searching for MobileNetV3. ICCV 2019, doi:10.1109/ICCV.2019.00140, arXiv:1905.02244.
Published size: 3.2 M parameters (3,221,538 in torchvision, 21 classes).
"""

from functools import partial

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.segmentation import LRASPP as TorchvisionLRASPP

_EIGHTH = 5
"""Number of blocks of MobileNetV3-Large up to an eighth of the size."""


class LRASPP(nn.Module):
    """A light head on a dilated MobileNetV3-Large: features at an eighth of the size, and weighted ones at a sixteenth.

    Batch normalisation has PyTorch's momentum of 0.1. torchvision's 0.01 suits the many steps on ImageNet. After the
    few hundred steps of a run here, the running statistics would still be those of untrained weights.
    """

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        normalise = partial(nn.BatchNorm2d, eps=1e-3)
        features = mobilenet_v3_large(dilated=True, width_mult=width, norm_layer=normalise).features
        first = features[0][0]
        features[0][0] = nn.Conv2d(in_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
        low, high = features[_EIGHTH - 1].out_channels, features[-1].out_channels
        self.network = TorchvisionLRASPP(_TwoLevels(*features), low, high, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] → [batch, classes, h, w]."""
        return self.network(x)["out"]  # type: ignore[no-any-return]


class _TwoLevels(nn.Sequential):
    """MobileNetV3 that returns its features at an eighth and at a sixteenth of the size."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """[batch, in_channels, h, w] → {"low": [batch, 40, h/8, w/8], "high": [batch, 960, h/16, w/16]}."""
        for block in self[:_EIGHTH]:
            x = block(x)
        low = x
        for block in self[_EIGHTH:]:
            x = block(x)
        return {"low": low, "high": x}
