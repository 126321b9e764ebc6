"""Augmentation of whole batches, on the device where the network is, with kornia."""

from typing import Any

import torch
from kornia import augmentation as K

from greenseg.config import Settings


def build(settings: Settings) -> torch.nn.Module | None:
    """The augmentation that `augment` names, or None for `none`.

    The module maps images [batch, 1, height, width] and masks of the same shape to augmented ones. It draws from
    torch's global random state.
    """
    flips = [K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5)]
    steps: dict[str, list[Any]] = {
        "none": [],
        "flips": [*flips, K.RandomRotation90(times=(0, 3), p=1.0)],
        "strong": [
            *flips,
            K.RandomAffine(degrees=180.0, translate=(0.1, 0.1), scale=(0.75, 1.3), padding_mode="zeros", p=1.0),
            K.RandomGamma(gamma=(0.6, 1.7), p=0.7),  # the contrast of other sequences
            K.RandomGaussianNoise(std=0.03, p=0.3),
            K.RandomGaussianBlur(kernel_size=(3, 3), sigma=(0.3, 1.0), p=0.2),
        ],
    }
    chosen = steps[settings.augment]
    if not chosen:
        return None
    return K.AugmentationSequential(*chosen, data_keys=["input", "mask"], same_on_batch=False)  # type: ignore[no-any-return]


def apply(
    augmentation: torch.nn.Module | None, images: torch.Tensor, masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented images and masks, float32 [batch, 1, height, width] each."""
    if augmentation is None:
        return images, masks
    with torch.no_grad():
        images, masks = augmentation(images, masks)
    return images, masks
