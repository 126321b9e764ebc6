"""The channels of images innermost in memory (NHWC)."""

import torch


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Images [batch, channels, height, width] with channels innermost in memory, by their strides as well.

    For torch, images with one channel have both formats. But if layers concatenate them with other channels (as ENet
    does), NCHW strides would set the format of the rest of the network.
    """
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)
