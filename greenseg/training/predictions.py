"""The classes that validation predicts."""

import torch


def predicted(logits: torch.Tensor) -> torch.Tensor:
    """The class of each pixel: the only one if its logit is above 0, or the one with the largest logit.

    Args:
        logits: [batch, outputs, height, width]; one output for a single class, else background and classes.

    Returns:
        uint8 [batch, 1, height, width]: 0 background, from 1 up the number of the class.
    """
    if logits.shape[1] == 1:
        return (logits > 0).view(torch.uint8)
    # On a CPU, torch takes four times as long if the outputs of a pixel are not adjacent.
    return logits.contiguous(memory_format=torch.channels_last).argmax(1, keepdim=True).to(torch.uint8)
