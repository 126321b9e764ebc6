"""Losses from segmentation-models-pytorch and torch. One entry in `LOSSES` adds a loss.

Imports nothing heavy, since the command line and YAML files use it, too.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Takes logits, float32 [batch, 1, height, width], and masks of this shape, 0 or 1; returns the scalar to minimise."""


def _smp(name: str, **options: Any) -> Callable[[], Loss]:
    def make() -> Loss:
        import segmentation_models_pytorch as smp

        return getattr(smp.losses, name)(mode="binary", **options)  # type: ignore[no-any-return]

    return make


def _cross_entropy() -> Loss:
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits


def _dice_and_cross_entropy() -> Loss:
    dice, cross_entropy = LOSSES["dice"](), LOSSES["ce"]()
    return lambda logits, masks: cross_entropy(logits, masks) + dice(logits, masks)


LOSSES: dict[str, Callable[[], Loss]] = {
    "dice_ce": _dice_and_cross_entropy,
    "dice": _smp("DiceLoss"),  # Milletari et al. 2016, arXiv:1606.04797
    "ce": _cross_entropy,
    "focal": _smp("FocalLoss"),  # Lin et al. 2017, arXiv:1708.02002, with gamma 2
    "tversky": _smp("TverskyLoss", alpha=0.3, beta=0.7),  # Salehi et al. 2017, arXiv:1706.05721: misses count more
    "lovasz": _smp("LovaszLoss"),  # Berman et al. 2018, arXiv:1705.08790
}
"""Name → function that makes the loss."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(LOSSES)]
