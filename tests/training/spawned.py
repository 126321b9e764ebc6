"""What test_probe has a spawned process do; imports no more than that needs."""

import multiprocessing

from greenseg.data.loader import Batch, SliceDataset


def shapes(data: SliceDataset, queue: "multiprocessing.Queue[object]") -> None:
    batch: Batch = data[[0, 1]]
    queue.put((tuple(batch["image"].shape), float(batch["image"].sum())))
