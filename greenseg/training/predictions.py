"""The masks that validation predicts, in compact form."""

import numpy as np
import torch

from greenseg.data.grid import ByteArray

# Multiplying 8 bytes, each 0 or 1, by this number gathers them as bits in the highest byte (Warren, Hacker's Delight).
_GATHER_BITS = 0x0102040810204080
_LOWEST_BITS = 0x0101010101010101


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


class Predictions:
    """Predicted masks of one pass over the validation slices, on the device of the network.

    A pixel takes as many bits as the number of the last class has, one for a single class. The first bits of all pixels
    of a slice come first, then the second ones, and so on.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int = 1) -> None:
        self._bits = classes.bit_length()
        self._packed: list[torch.Tensor] = []

    def clear(self) -> None:
        """Discard the masks before another pass."""
        self._packed = []

    def add(self, prediction: torch.Tensor) -> None:
        """Add the masks of a batch: bool or uint8 [batch, 1, height, width], with a multiple of 8 pixels each."""
        eights = prediction.contiguous().flatten(1).view(torch.int64)
        planes = [(eights >> bit & _LOWEST_BITS) * _GATHER_BITS >> 56 for bit in range(self._bits)]
        self._packed.append(torch.cat(planes, 1).to(torch.uint8))

    def gathered(self) -> torch.Tensor:
        """The masks of all ranks, in the order of the validation slices, padding at the end; call it on all ranks.

        Returns:
            uint8 [slices, bits of a pixel × pixels / 8] in host memory.
        """
        mine = torch.cat(self._packed)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return mine.cpu()
        ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(ranks, mine)
        return torch.stack(ranks, 1).flatten(0, 1).cpu()  # ranks had every n-th slice


def unpacked(packed: torch.Tensor, slices: int, size: int) -> ByteArray:
    """Masks, uint8 [slices, size, size] with the numbers of the classes, from the result of `Predictions.gathered`."""
    bits = np.unpackbits(packed.numpy()[:slices], axis=1, bitorder="little").reshape(slices, -1, size, size)
    place = np.arange(bits.shape[1], dtype=np.uint8)[:, None, None]
    return (bits << place).sum(1, dtype=np.uint8)  # type: ignore[no-any-return]
