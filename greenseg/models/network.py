"""Builds a network from settings: from segmentation-models-pytorch, or one of the light networks that it lacks."""

import pkgutil
import warnings
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from greenseg import model_names as names
from greenseg.errors import UserError
from greenseg.models import lean
from greenseg.models.transforms import TRANSFORMS
from greenseg.settings import Settings


def outputs(classes: int) -> int:
    """Logits per pixel: one for a single class (sigmoid), else one for the background and each class (softmax)."""
    return 1 if classes == 1 else classes + 1


def build(settings: Settings, channels: int = 1, outputs: int = 1) -> torch.nn.Module:
    """The network for the settings: float32 [batch, channels, height, width] → logits [batch, outputs, height, width].

    Raises:
        UserError: see `plain`.
    """
    return transformed(plain(settings, channels, outputs), settings)


def transformed(network: torch.nn.Module, settings: Settings) -> torch.nn.Module:
    """A network with the changes that the settings need; see `greenseg.models.transforms`."""
    for transform in TRANSFORMS:
        if transform.wanted(settings):
            transform.apply(network, settings)
    return network


def plain(settings: Settings, channels: int = 1, outputs: int = 1) -> torch.nn.Module:
    """The network without the changes of `transformed`.

    Pretrained weights of a first convolution are for three channels; segmentation-models-pytorch adds up or repeats
    them for another number.

    Raises:
        UserError: segmentation-models-pytorch cannot make this network, or its weights cannot be loaded.
    """
    if settings.decoder in names.NETWORKS:
        light = pkgutil.resolve_name(f"greenseg.models.light.{names.NETWORKS[settings.decoder]}")
        network = light(in_channels=channels, classes=outputs, width=settings.width)
    else:
        try:
            network = getattr(smp, names.DECODERS[settings.decoder])(
                encoder_name=settings.encoder,
                encoder_weights=None if settings.encoder_weights == "none" else settings.encoder_weights,
                in_channels=channels,
                classes=outputs,
                **_input_size(settings),
                **(lean.ARGUMENTS[settings.decoder](settings.decoder_width) if settings.decoder_width else {}),
            )
            if settings.decoder_width and isinstance(network, smp.Linknet):
                lean.flatten_linknet(network, settings.decoder_width, outputs)
        except Exception as error:  # timm's encoders raise many kinds of exceptions
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{settings.model}: segmentation-models-pytorch cannot make it: {reason}") from error
    return network  # type: ignore[no-any-return]


def _input_size(settings: Settings) -> dict[str, Any]:
    """The argument for the input size, if the encoder needs it: positional encodings of timm's transformers."""
    if not settings.encoder.startswith("tu-"):
        return {}
    known = timm.get_pretrained_cfg(settings.encoder[3:], allow_unregistered=True)
    return {"img_size": settings.image_size} if known and known.fixed_input_size else {}


def parameters(network: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def macs(network: torch.nn.Module, image_size: int, channels: int = 1) -> int:
    """Multiply-accumulates of a forward pass over one slice, in convolutions and matrix products; works on `meta`."""
    image = torch.empty(1, channels, image_size, image_size, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition as two


def size(settings: Settings, channels: int = 1, outputs: int = 1) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the network for the settings, without allocating memory for it.

    Raises:
        UserError, RuntimeError: it cannot be made, or not for this image size.
    """
    # smp's Mix Transformers read values in their constructor, which `meta` does not have.
    device = "cpu" if settings.encoder.startswith("mit_") else "meta"
    with torch.device(device), warnings.catch_warnings(action="ignore"):
        network = build(settings.model_copy(update={"channels_last": False}), channels, outputs)
        return parameters(network), macs(network.to("meta"), settings.image_size, channels)
