"""From settings to a network: of segmentation-models-pytorch, or one of the light ones that it lacks."""

import warnings
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from greenseg.config import Settings
from greenseg.errors import UserError
from greenseg.models import gradient_checkpointing, light, names


def build(settings: Settings) -> torch.nn.Module:
    """The network that the settings name: float32 [batch, 1, height, width] → logits of the same shape.

    Raises:
        UserError: segmentation-models-pytorch cannot make this network, or its weights cannot be loaded.
    """
    if settings.decoder in names.NETWORKS:
        network = getattr(light, names.NETWORKS[settings.decoder])(in_channels=1, classes=1, width=settings.width)
    else:
        try:
            network = getattr(smp, names.DECODERS[settings.decoder])(
                encoder_name=settings.encoder,
                encoder_weights=None if settings.encoder_weights == "none" else settings.encoder_weights,
                in_channels=1,
                classes=1,
                **_input_size(settings),
            )
        except Exception as error:  # of any kind: what timm's encoders raise differs from file to file
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{settings.model}: segmentation-models-pytorch cannot make it: {reason}") from error
    if settings.gradient_checkpointing:
        gradient_checkpointing.apply(network)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if settings.precision in ("bf16-mixed", "16-mixed"):  # of which Lightning makes bf16-mixed on a CPU
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and max(module.stride) > 1:
                module.__class__ = _in_float32(type(module))
    return network  # type: ignore[no-any-return]


class _InFloat32:
    """A convolution that leaves mixed precision on a CPU, as the last one before it, and takes and gives its type.

    For strided depthwise convolutions in bfloat16, oneDNN takes the gradient of the input five times slower than for
    float32 ones, with a kernel meant for dense ones.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # type: ignore[misc,no-any-return]
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))  # type: ignore[misc,no-any-return]


def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    return type(kind.__name__, (_InFloat32, kind), {})


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Images [batch, channels, height, width] with their channels innermost in memory, by their strides as well.

    To torch, images of one channel lie either way already. But where layers put them beside the channels of others (as
    ENet does), strides of NCHW would decide how the rest of the network lies.
    """
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


def _input_size(settings: Settings) -> dict[str, Any]:
    """What tells an encoder the size of its input, where it must know it: positions of transformers of timm."""
    if not settings.encoder.startswith("tu-"):
        return {}
    known = timm.get_pretrained_cfg(settings.encoder[3:], allow_unregistered=True)
    return {"img_size": settings.image_size} if known and known.fixed_input_size else {}


def parameters(network: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def macs(network: torch.nn.Module, image_size: int) -> int:
    """Multiply-accumulates of one slice, forwards, in convolutions and matrix products; a network on `meta` will do."""
    image = torch.empty(1, 1, image_size, image_size, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition as two


def size(settings: Settings) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the network that the settings name, without memory for it.

    Raises:
        UserError, RuntimeError: it cannot be made, or not for this image size.
    """
    # smp's Mix Transformers read values while they are made, which `meta` does not have.
    device = "cpu" if settings.encoder.startswith("mit_") else "meta"
    with torch.device(device), warnings.catch_warnings(action="ignore"):
        network = build(settings.model_copy(update={"channels_last": False}))
        return parameters(network), macs(network.to("meta"), settings.image_size)
