"""Batches of slices from the slice cache, the same for any number of workers, in any epoch, on any rank.

A batch is one gather from the memory map. For slices of a usual size, this takes a fraction of the time of a transfer
from another process, so loading in the training process is the default.
"""

import signal
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from greenseg.data.cache import Slices
from greenseg.data.epoch import batches_per_epoch, slices_per_epoch

Batch = dict[str, torch.Tensor]
NOBODY = -1
"""Subject of a slice that pads a batch and does not count."""


class SliceDataset(Dataset[Batch]):
    """The slices of one split. One item is a whole batch, gathered from the memory map in one step.

    The index of an item is a list of positions in the split; `NOBODY` stands for padding. An item has

        image    float32 [batch, channels, size, size]
        mask     float32 [batch, 1, size, size]: 0, the number of the class from 1 up, or `IGNORED`
        subject  int64 [batch], number of the subject in the split, or NOBODY
    """

    def __init__(self, slices: Slices, split: Literal["train", "validation"], drop_empty: float = 0.0, seed: int = 0):
        """
        Args:
            slices: slices of the data set.
            split: split to take them from.
            drop_empty: share of the slices without foreground to leave out; `seed` selects them.
            seed: seed of this selection.
        """
        self._slices = slices
        subjects = slices.subjects(split)
        self.subjects = [str(subject["name"]) for subject in subjects]
        rows = np.concatenate([np.arange(s["first"], s["first"] + s["slices"]) for s in subjects])
        empty = np.concatenate([s["first"] + np.array(s["empty"], int) for s in subjects])
        dropped = np.random.default_rng(seed).permutation(empty)[: round(drop_empty * len(empty))]
        kept = ~np.isin(rows, dropped)
        self._row = rows[kept]
        self._subject = np.repeat(np.arange(len(subjects)), [s["slices"] for s in subjects])[kept]

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, positions: list[int]) -> Batch:
        wanted = np.asarray(positions)
        rows = self._row[wanted]
        subject = np.where(wanted == NOBODY, NOBODY, self._subject[wanted])
        return {
            "image": torch.from_numpy(self._slices.images[rows]),
            "mask": torch.from_numpy(self._slices.masks[rows]).unsqueeze(1).float(),
            "subject": torch.from_numpy(subject),
        }


class TrainingBatches(Sampler[list[int]]):
    """Every slice once per epoch, in an order that depends only on seed and epoch, divided among the ranks.

    All ranks get the same number of slices: if it is not divisible, a few slices occur twice. A last batch of a single
    slice is dropped, since batch normalisation cannot learn from it.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self._length, self._batch_size, self._seed, self._rank, self._ranks = (
            length,
            batch_size,
            seed,
            rank,
            ranks,
        )
        self._share = -(-length // ranks)
        self.epoch = 0

    @property
    def slices(self) -> int:
        """Number of slices in an epoch over all ranks."""
        return slices_per_epoch(self._length, self._batch_size, self._ranks)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch for the order of the next iteration; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return batches_per_epoch(self._length, self._batch_size, self._ranks)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._length)
        mine = np.resize(order, self._share * self._ranks)[self._rank :: self._ranks]
        for i in range(len(self)):
            yield mine[i * self._batch_size : (i + 1) * self._batch_size].tolist()


class ValidationBatches(Sampler[list[int]]):
    """Every slice exactly once over all ranks, in order; ranks without slices left get `NOBODY`.

    Every rank has the same number of batches of the same size. Otherwise, the collectives of the strategy would hang.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        share = -(-length // ranks)
        padded = np.full(share * ranks, NOBODY)
        padded[:length] = np.arange(length)
        self._mine, self._batch_size = padded[rank::ranks], batch_size

    def __len__(self) -> int:
        return -(-len(self._mine) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(len(self)):
            yield self._mine[i * self._batch_size : (i + 1) * self._batch_size].tolist()


def _leave_interrupts_to_the_run(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def loader(dataset: SliceDataset, batches: Sampler[list[int]], workers: int, pin_memory: bool) -> DataLoader[Batch]:
    """A DataLoader of whole batches; its workers live as long as the loader."""
    return DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        worker_init_fn=_leave_interrupts_to_the_run,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )
