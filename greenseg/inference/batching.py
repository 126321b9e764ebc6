"""The size of batches: fixed, or chosen while the real work is done. Imports no torch."""

import sys
import time
from collections.abc import Iterator

from greenseg.data.grid import FloatArray
from greenseg.failures import Failure, kind_of
from greenseg.inference.predictor import Predictor

LARGEST = 256  # slices
_TIMES = 2  # batches of each size: the first one of a size also prepares the kernels
_WORSE = 1.05  # a size is worse if its slices take this many times as long
OF_MEMORY = (Failure.OUT_OF_GPU_MEMORY, Failure.OUT_OF_MEMORY)


class BatchSize:
    """Chooses the sizes of batches.

    Without a fixed size, the first batches of the work have 1, 2, 4, 8, … slices, two of each size, until with two
    sizes in a row, a slice took longer than before. From then on, the size with the shortest time per slice is used.
    A size that does not fit into memory is halved, also a fixed one.

    Args:
        fixed: slices per batch; None = choose.

    Attributes:
        largest: most slices that fit, as far as known.
        notes: sentences for the user.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.largest = fixed or LARGEST
        self.notes: list[str] = []
        self._tries = 0 if fixed else 1  # the size to try next; 0 = decided
        self._chosen = fixed or 1
        self._seconds: dict[int, list[float]] = {}  # size → seconds per slice of each batch
        self._worse = 0

    @property
    def chosen(self) -> int:
        """The size in use."""
        return self._tries or self._chosen

    def next(self, left: int) -> int:
        """Slices of the next batch, of those that are left."""
        return min(left, self.largest, self._tries or self._chosen)

    def took(self, slices: int, seconds: float) -> None:
        """A batch took so many seconds."""
        size = self._tries
        if not size or slices <= size // 2:
            return  # decided, or the rest of a volume
        self._seconds.setdefault(size, []).append(seconds / slices)
        if len(self._seconds[size]) < _TIMES:
            return
        others = [min(found) for smaller, found in self._seconds.items() if smaller < size]
        self._worse = self._worse + 1 if others and min(self._seconds[size]) > _WORSE * min(others) else 0
        self._tries = 2 * size
        if self._worse == 2 or self._tries > self.largest:
            self._decide()

    def does_not_fit(self, slices: int) -> None:
        """A batch did not fit into memory."""
        self.largest = max(slices // 2, 1)
        self.notes.append(f"batches of {slices} slices do not fit into memory; it goes on with {self.largest}")
        if self._tries:
            self._decide()

    def _decide(self) -> None:
        fitting = {size: min(found) for size, found in self._seconds.items() if size <= self.largest}
        self._tries, self._chosen = 0, min(fitting, key=fitting.__getitem__, default=self.largest)


def in_batches(predictor: Predictor, images: FloatArray, size: int | BatchSize) -> Iterator[FloatArray]:
    """The probabilities of slices, batch by batch; see `Predictor.probabilities`.

    Raises:
        Exception: that of torch if a single slice does not fit into memory.
    """
    sizes = size if isinstance(size, BatchSize) else BatchSize(size)
    start = 0
    while start < len(images):
        slices = sizes.next(len(images) - start)
        began = time.perf_counter()
        try:
            found = predictor.probabilities(images[start : start + slices])
        except (RuntimeError, MemoryError) as error:
            if slices == 1 or kind_of(error) not in OF_MEMORY:
                raise
            found = None
        if found is None:  # the exception, which holds the tensors of the failed batch, is gone
            sizes.does_not_fit(slices)
            if (torch := sys.modules.get("torch")) and predictor.device == "cuda":
                torch.cuda.empty_cache()
            continue
        sizes.took(slices, time.perf_counter() - began)
        start += slices
        yield found
