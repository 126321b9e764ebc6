"""Augmentation of whole batches with kornia, on the device of the network."""

from dataclasses import dataclass
from typing import Any

import torch
from kornia import augmentation as K

from greenseg.settings import Settings


@dataclass(frozen=True)
class _Strength:
    """Ranges of the changes to images; each slice draws from them uniformly."""

    degrees: float
    shift: float  # share of the image's side
    scale: tuple[float, float]
    bias: float  # largest log of the bias field's polynomial coefficients
    gamma: tuple[float, float]
    noise: float  # standard deviation, for tissue values up to 1
    blur: float  # largest standard deviation, in pixels


_STRENGTHS = {
    "light": _Strength(15.0, 0.05, (0.9, 1.1), 0.15, (0.8, 1.25), 0.015, 0.6),
    "strong": _Strength(180.0, 0.1, (0.75, 1.3), 0.3, (0.6, 1.7), 0.03, 1.0),
}


class RandomBiasField(K.IntensityAugmentationBase2D):  # type: ignore[misc]
    """Multiplies by the exponential of a random polynomial of third order, smooth and 1 on average over images.

    This is the model of MR coil inhomogeneity of Van Leemput et al. 1999 (doi:10.1109/42.811268), as in MONAI and
    TorchIO.

    Args:
        coefficient: each coefficient is drawn from -coefficient to +coefficient; coordinates range from -1 to 1.
        p: probability per image.
    """

    _POWERS = tuple((i, j) for i in range(4) for j in range(4) if 0 < i + j <= 3)

    def __init__(self, coefficient: float, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.coefficient = coefficient

    def generate_parameters(self, batch_shape: Any) -> dict[str, torch.Tensor]:
        """Coefficients, float32 [batch, 9]."""
        drawn = torch.rand(batch_shape[0], len(self._POWERS)) * 2 - 1
        return {"coefficients": drawn * self.coefficient}

    def apply_transform(self, input: torch.Tensor, params: Any, flags: Any, transform: Any = None) -> torch.Tensor:
        """Images float32 [batch, channels, height, width], multiplied by one field per image and clipped at 1."""
        y, x = (torch.linspace(-1, 1, n, device=input.device, dtype=input.dtype) for n in input.shape[-2:])
        basis = torch.stack([y[:, None] ** i * x[None, :] ** j for i, j in self._POWERS])
        log_field = torch.einsum("bk,khw->bhw", params["coefficients"].to(input), basis)
        return (input * log_field.exp()[:, None]).clamp(max=1.0)


def build(settings: Settings) -> torch.nn.Module | None:
    """The augmentation for the setting `augment`, or None for `none`.

    The module maps images [batch, channels, height, width] and masks [batch, 1, height, width] to augmented ones. All
    channels of an image change alike, except for their noise. A mask keeps its values, and is background where it is
    filled up. The module draws from torch's global random state.
    """
    if settings.augment == "none":
        return None
    steps: list[Any] = [K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5)]
    if strength := _STRENGTHS.get(settings.augment):
        shift = (strength.shift, strength.shift)
        steps += [
            K.RandomAffine(strength.degrees, translate=shift, scale=strength.scale, padding_mode="zeros", p=1.0),
            RandomBiasField(strength.bias, p=0.3),
            K.RandomGamma(gamma=strength.gamma, p=0.7),  # the contrast of other sequences
            K.RandomGaussianNoise(std=strength.noise, p=0.3),
            K.RandomGaussianBlur(kernel_size=(3, 3), sigma=(0.3, strength.blur), p=0.2),
        ]
    else:
        steps.append(K.RandomRotation90(times=(0, 3), p=1.0))
    return K.AugmentationSequential(*steps, data_keys=["input", "mask"], same_on_batch=False)  # type: ignore[no-any-return]


def apply(
    augmentation: torch.nn.Module | None, images: torch.Tensor, masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented images, float32 [batch, channels, height, width], and masks, float32 [batch, 1, height, width]."""
    if augmentation is None:
        return images, masks
    with torch.no_grad():
        images, masks = augmentation(images, masks)
    return images, masks
