"""The masks that validation predicts, kept small."""

import numpy as np
import torch

from greenseg.metrics.surface import Mask

# The product of 8 bytes, each 0 or 1, and this has them as the bits of its highest byte (Warren, Hacker's Delight).
_GATHER_BITS = 0x0102040810204080


class Predictions:
    """Predicted masks of one pass over the validation slices, a bit a pixel, on the device that predicts them."""

    def __init__(self) -> None:
        self._packed: list[torch.Tensor] = []

    def clear(self) -> None:
        """Forget them: another pass begins."""
        self._packed = []

    def add(self, prediction: torch.Tensor) -> None:
        """Keep those of a batch: bool [batch, 1, height, width], a multiple of 8 pixels each."""
        eights = prediction.contiguous().flatten(1).view(torch.int64)
        self._packed.append((eights * _GATHER_BITS >> 56).to(torch.uint8))

    def gathered(self) -> torch.Tensor:
        """Those of all ranks, in the order of the validation slices, padding at their end; to be called on all ranks.

        Returns:
            uint8 [slices, pixels / 8] in host memory.
        """
        mine = torch.cat(self._packed)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return mine.cpu()
        ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(ranks, mine)
        return torch.stack(ranks, 1).flatten(0, 1).cpu()  # slices were dealt out in turns


def unpacked(packed: torch.Tensor, slices: int, size: int) -> Mask:
    """Masks, bool [slices, size, size], from what `Predictions.gathered` returns."""
    bits = np.unpackbits(packed.numpy()[:slices], axis=1, bitorder="little")
    return bits.reshape(slices, size, size).astype(bool)
