"""The masks that validation predicts, in compact form."""

import numpy as np
import torch

from greenseg.metrics.surface import Mask

# Multiplying 8 bytes, each 0 or 1, by this number gathers them as bits in the highest byte (Warren, Hacker's Delight).
_GATHER_BITS = 0x0102040810204080


class Predictions:
    """Predicted masks of one pass over the validation slices, one bit per pixel, on the device of the network."""

    def __init__(self) -> None:
        self._packed: list[torch.Tensor] = []

    def clear(self) -> None:
        """Discard the masks before another pass."""
        self._packed = []

    def add(self, prediction: torch.Tensor) -> None:
        """Add the masks of a batch: bool [batch, 1, height, width], with a multiple of 8 pixels each."""
        eights = prediction.contiguous().flatten(1).view(torch.int64)
        self._packed.append((eights * _GATHER_BITS >> 56).to(torch.uint8))

    def gathered(self) -> torch.Tensor:
        """The masks of all ranks, in the order of the validation slices, padding at the end; call it on all ranks.

        Returns:
            uint8 [slices, pixels / 8] in host memory.
        """
        mine = torch.cat(self._packed)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return mine.cpu()
        ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(ranks, mine)
        return torch.stack(ranks, 1).flatten(0, 1).cpu()  # ranks had every n-th slice


def unpacked(packed: torch.Tensor, slices: int, size: int) -> Mask:
    """Masks, bool [slices, size, size], from the result of `Predictions.gathered`."""
    bits = np.unpackbits(packed.numpy()[:slices], axis=1, bitorder="little")
    return bits.reshape(slices, size, size).astype(bool)
