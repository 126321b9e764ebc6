"""Losses from segmentation-models-pytorch (smp) and torch. One entry in `LOSSES` adds a loss.

A network for one class has one logit per pixel (sigmoid). For several, it has one for the background and one for each
class (softmax). Imports nothing heavy, since the command line and YAML files use it, too.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from greenseg.classes import IGNORED

if TYPE_CHECKING:
    import torch

Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Takes logits, float32 [batch, 1 or classes + 1, height, width], and masks, float32 [batch, 1, height, width], with
the numbers of the classes (0: background); returns the scalar to minimise."""


class Maker(Protocol):
    """Makes a loss for a number of classes; `ignored`: the masks have pixels that are `IGNORED` and must not count.

    Ignoring pixels takes time, and on some losses a wait for the GPU, so data without such pixels leave it out.
    """

    def __call__(self, classes: int = 1, ignored: bool = False) -> Loss: ...


def _smp(name: str, classes: int, ignored: bool, **options: Any) -> Loss:
    """A loss of smp."""
    import segmentation_models_pytorch as smp

    mode = "binary" if classes == 1 else "multiclass"
    return getattr(smp.losses, name)(mode=mode, ignore_index=IGNORED if ignored else None, **options)  # type: ignore[no-any-return]


def _numbers(masks: "torch.Tensor", classes: int) -> "torch.Tensor":
    """Masks as smp and torch take them: as they are for one class, int64 [batch, height, width] for several."""
    return masks if classes == 1 else masks.squeeze(1).long()


def _overlap(name: str, **options: Any) -> Maker:
    """A loss from the overlap of each class. Of several classes, it leaves out the background, as nnU-Net does."""

    def make(classes: int = 1, ignored: bool = False) -> Loss:
        loss: Any = _smp(name, classes, ignored, **options)
        if classes == 1:
            return loss  # type: ignore[no-any-return]
        loss.classes = slice(1, None)  # a list of classes would be copied to the GPU, and waited for, in each step

        def of_present(logits: "torch.Tensor", masks: "torch.Tensor") -> "torch.Tensor":
            import torch

            # smp's mean is over all classes, and a class that the batch lacks is 0 in it, as if it were perfect.
            each = torch.arange(1, classes + 1, device=masks.device, dtype=masks.dtype)
            present = (masks.flatten() == each[:, None]).any(1).sum()
            return loss(logits, _numbers(masks, classes)) * (classes / present.clamp_min(1))  # type: ignore[no-any-return]

        return of_present

    return make


def _mean_of_annotated(total: Loss) -> Loss:
    """A loss that is the sum over the annotated pixels, divided by their number; 0 without any."""
    return lambda logits, masks: total(logits, masks) / (masks != IGNORED).sum().clamp_min(1)


def _cross_entropy(classes: int = 1, ignored: bool = False) -> Loss:
    from torch.nn import functional

    if classes > 1:

        def of_pixels(logits: "torch.Tensor", masks: "torch.Tensor") -> "torch.Tensor":
            return functional.cross_entropy(logits, _numbers(masks, classes), ignore_index=IGNORED, reduction="none")
    elif ignored:

        def of_pixels(logits: "torch.Tensor", masks: "torch.Tensor") -> "torch.Tensor":
            annotated = (masks != IGNORED).to(logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits, masks, annotated, reduction="none")
    else:
        return functional.binary_cross_entropy_with_logits

    if ignored:
        return _mean_of_annotated(lambda logits, masks: of_pixels(logits, masks).sum())
    # torch's own mean of a cross entropy of several classes is not deterministic on a GPU.
    return lambda logits, masks: of_pixels(logits, masks).mean()


def _focal(classes: int = 1, ignored: bool = False) -> Loss:
    loss = _smp("FocalLoss", classes, ignored, reduction="sum" if ignored else "mean")

    def of_numbers(logits: "torch.Tensor", masks: "torch.Tensor") -> "torch.Tensor":
        return loss(logits, _numbers(masks, classes))

    return _mean_of_annotated(of_numbers) if ignored else of_numbers  # smp's mean over no pixels is NaN


def _lovasz(classes: int = 1, ignored: bool = False) -> Loss:
    loss = _smp("LovaszLoss", classes, ignored)
    # If all pixels are ignored, smp returns an empty tensor, with sum 0. The sum of a scalar is the scalar.
    return lambda logits, masks: loss(logits, _numbers(masks, classes)).sum()


def _dice_and_cross_entropy(classes: int = 1, ignored: bool = False) -> Loss:
    dice, cross_entropy = LOSSES["dice"](classes, ignored), LOSSES["ce"](classes, ignored)
    return lambda logits, masks: cross_entropy(logits, masks) + dice(logits, masks)


LOSSES: dict[str, Maker] = {
    "dice_ce": _dice_and_cross_entropy,
    "dice": _overlap("DiceLoss"),  # Milletari et al. 2016, arXiv:1606.04797
    "ce": _cross_entropy,
    "focal": _focal,  # Lin et al. 2017, arXiv:1708.02002, with gamma 2; of several classes, each against the others
    "tversky": _overlap("TverskyLoss", alpha=0.3, beta=0.7),  # Salehi et al. 2017, arXiv:1706.05721: misses count more
    "lovasz": _lovasz,  # Berman et al. 2018, arXiv:1705.08790; of several classes, those in the batch
}
"""Name → function that makes the loss."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(LOSSES)]
