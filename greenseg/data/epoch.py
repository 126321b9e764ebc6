"""Numbers of batches and slices in an epoch of training. Imports no torch, since reports use it, too."""


def batches_per_epoch(slices: int, batch_size: int, ranks: int = 1) -> int:
    """Number of batches per rank in an epoch.

    All ranks get the same number of slices. A last batch of a single slice is dropped, unless it is the only batch.
    """
    full, rest = divmod(-(-slices // ranks), batch_size)
    return full + (rest > 1 or full == 0)


def slices_per_epoch(slices: int, batch_size: int, ranks: int = 1) -> int:
    """Number of training slices in an epoch over all ranks; slices that occur twice count twice."""
    return min(batches_per_epoch(slices, batch_size, ranks) * batch_size, -(-slices // ranks)) * ranks
