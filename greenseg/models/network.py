"""From settings to a network: of segmentation-models-pytorch, or one of the light ones that it lacks."""

import warnings
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from greenseg import model_names as names
from greenseg.config import SOPHIA, Settings
from greenseg.errors import UserError
from greenseg.models import gradient_checkpointing, light, twice_differentiable


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
    if settings.optimizer == SOPHIA:
        twice_differentiable.apply(network)
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if settings.precision in ("bf16-mixed", "bf16-true", "16-mixed"):  # the last is bf16-mixed on a CPU
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
                mixed = settings.precision != "bf16-true"
                if max(module.dilation) > 1 or (mixed and max(module.stride) > 1):
                    module.__class__ = _in_float32(type(module))
    return network  # type: ignore[no-any-return]


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
