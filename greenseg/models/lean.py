"""Lean decoders: every stage has the same, small number of channels.

What makes a pruned network small and good is its shape, and a network that is built with lean, flat widths reaches the
same (arXiv:2512.03834).
"""

from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from torch import nn

_STAGES = 5


def _same(name: str) -> Callable[[int], dict[str, Any]]:
    return lambda width: {name: width}


def _stages(width: int) -> dict[str, Any]:
    return {"decoder_channels": (width,) * _STAGES}


ARGUMENTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "unet": _stages,
    "unetplusplus": _stages,
    "manet": lambda width: {**_stages(width), "decoder_pab_channels": width},
    "linknet": lambda width: {},  # see `flatten_linknet`
    "fpn": lambda width: {"decoder_pyramid_channels": width, "decoder_segmentation_channels": width},
    "pspnet": _same("psp_out_channels"),
    "pan": _same("decoder_channels"),
    "deeplabv3": _same("decoder_channels"),
    "deeplabv3plus": _same("decoder_channels"),
    "upernet": _same("decoder_channels"),
    "segformer": _same("decoder_segmentation_channels"),
    "dpt": lambda width: {"decoder_intermediate_channels": (width,) * 4, "decoder_fusion_channels": width},
}
"""Decoder → the arguments of segmentation-models-pytorch for this many channels in every stage."""


def flatten_linknet(network: smp.Linknet, width: int, outputs: int) -> None:
    """Give a Linknet a decoder with the same number of channels in every stage, in place.

    Linknet adds the features of the encoder, so its stages have their numbers of channels. Here, a convolution of 1×1
    first brings each feature to `width` channels.
    """
    network.decoder = _FlatLinknetDecoder(network.encoder.out_channels, width)
    network.segmentation_head = SegmentationHead(width, outputs, kernel_size=1)
    network.initialize()


class _FlatLinknetDecoder(nn.Module):
    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Conv2d(each, width, 1) if each else nn.Identity() for each in channels[1:]
        )  # a transformer has no feature of half the size, and smp none of its channels
        flat = [channels[0], *(width if each else 0 for each in channels[1:])]
        self.decoder = LinknetDecoder(flat, prefinal_channels=width, n_blocks=len(channels) - 1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        projected = [project(x) for project, x in zip(self.project, features[1:], strict=True)]
        return self.decoder([features[0], *projected])  # type: ignore[no-any-return]
