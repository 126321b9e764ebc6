"""The channels of images innermost in memory (NHWC)."""

import torch


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Images [batch, channels, height, width] with their channels innermost in memory, by their strides as well.

    To torch, images of one channel lie either way already. But where layers put them beside the channels of others (as
    ENet does), strides of NCHW would decide how the rest of the network lies.
    """
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)
