"""From settings to a network of segmentation-models-pytorch."""

import segmentation_models_pytorch as smp
import torch

from greenseg.config import Settings
from greenseg.models import names


def build(settings: Settings) -> torch.nn.Module:
    """The network that the settings name: float32 [batch, 1, height, width] → logits of the same shape.

    Raises:
        ValueError, RuntimeError: smp cannot make this network, or its weights cannot be loaded.
    """
    network = getattr(smp, names.DECODERS[settings.decoder])(
        encoder_name=settings.encoder,
        encoder_weights=None if settings.encoder_weights == "none" else settings.encoder_weights,
        in_channels=1,
        classes=1,
    )
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network  # type: ignore[no-any-return]


def parameters(network: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
