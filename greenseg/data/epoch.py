"""How many batches and slices an epoch of training has. Imports no torch: a report asks, too."""


def batches_per_epoch(slices: int, batch_size: int, ranks: int = 1) -> int:
    """Batches that each rank trains on in an epoch.

    All ranks get equally many slices. A last batch of a single slice is dropped, unless it is the only one.
    """
    full, rest = divmod(-(-slices // ranks), batch_size)
    return full + (rest > 1 or full == 0)


def slices_per_epoch(slices: int, batch_size: int, ranks: int = 1) -> int:
    """Slices that all ranks together train on in an epoch, those that are dealt twice counted twice."""
    return min(batches_per_epoch(slices, batch_size, ranks) * batch_size, -(-slices // ranks)) * ranks
