"""Windows of prediction: the same network predicts slices over and over, and a meter counts.

A call of the network counts with everything that it needs: the copy of its input to the device, and of the
probabilities back. Reading files and resampling do not count.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np

from greenseg.data.grid import FloatArray
from greenseg.energy import EnergyMeter
from greenseg.failures import kind_of
from greenseg.inference.batching import LARGEST, OF_MEMORY
from greenseg.inference.predictor import Predictor
from greenseg.runs.record import TriedBatch, Window

WARM_UP = 0.1
"""Length of the warm-up before a window, as a share of the window; at least `_WARM_UP_CALLS`."""

TRIAL = 0.05
"""Length of the trial of a batch size, as a share of a window; at least `_TRIAL_CALLS`."""

_WARM_UP_CALLS, _TRIAL_CALLS = 3, 2
_WORSE = 1.05  # a size is worse if its slices take this many times the fewest joules

Clock = Callable[[], float]
Tell = Callable[[str], None]


def best_batch(
    predictor: Predictor, images: FloatArray, seconds: float, meter: EnergyMeter, clock: Clock = time.perf_counter
) -> tuple[int, list[TriedBatch]]:
    """The number of slices per batch with the fewest joules per slice, from short trials of 1, 2, 4, …

    The trials end with the number of slices, with `LARGEST`, with the memory, or after two sizes in a row that were
    worse than an earlier one.

    Args:
        predictor: the network.
        images: float32 [slices, channels, size, size].
        seconds: length of a window, of which a trial takes the share `TRIAL`.
        meter: a meter that has begun; its laps are consumed.
        clock: time in seconds.
    """
    tried, fewest, worse, size = list[TriedBatch](), math.inf, 0, 1
    while size <= min(LARGEST, len(images)) and worse < 2:
        try:
            found = _repeated(predictor, images, size, TRIAL * seconds, 1, _TRIAL_CALLS, meter, clock)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or kind_of(error) not in OF_MEMORY:
                raise
            found = None
        if found is None:  # the exception, which holds the tensors of the failed batch, is gone
            tried.append(TriedBatch(batch_size=size, out_of_memory=True))
            if (torch := sys.modules.get("torch")) and predictor.device == "cuda":
                torch.cuda.empty_cache()
            break
        joules = found.joules_per_slice
        tried.append(
            TriedBatch(batch_size=size, joules_per_slice=joules, seconds_per_slice=found.seconds / found.slices)
        )
        worse = worse + 1 if joules > _WORSE * fewest else 0
        fewest = min(fewest, joules)
        size *= 2
    fitting = [each for each in tried if each.joules_per_slice is not None]
    return min(fitting, key=lambda each: each.joules_per_slice or 0.0).batch_size, tried


def window(
    predictor: Predictor,
    images: FloatArray,
    batch_size: int,
    seconds: float,
    meter: EnergyMeter,
    clock: Clock = time.perf_counter,
) -> Window:
    """Predict batches of one size for at least `seconds`, after a warm-up.

    Args:
        predictor: the network.
        images: float32 [slices, channels, size, size]; predicted in this order, over and over.
        batch_size: slices per batch, at most as many as there are.
        seconds: shortest duration, without the warm-up.
        meter: a meter that has begun; its laps are consumed.
        clock: time in seconds.
    """
    return _repeated(predictor, images, batch_size, seconds, _WARM_UP_CALLS, _WARM_UP_CALLS, meter, clock, WARM_UP)


def _repeated(
    predictor: Predictor,
    images: FloatArray,
    batch_size: int,
    seconds: float,
    warm_up_calls: int,
    calls: int,
    meter: EnergyMeter,
    clock: Clock,
    warm_up: float = 0.0,
) -> Window:
    batches = _batches(images, batch_size)
    _predict(predictor, batches, warm_up * seconds, warm_up_calls, clock)
    meter.lap()  # the window begins
    durations = _predict(predictor, batches, seconds, calls, clock)
    energy = meter.lap()
    p50, p95 = np.percentile(durations, (50, 95)) * 1000
    return Window(
        batch_size=batch_size,
        slices=len(durations) * batch_size,
        seconds=energy.seconds,
        energy=energy.to_json(),
        cpu_seconds=meter.cpu_seconds,
        p50_ms=float(p50),
        p95_ms=float(p95),
    )


def _batches(images: FloatArray, size: int) -> Iterator[FloatArray]:
    """Batches of this size without end; a rest that would be smaller is left out."""
    return cycle([images[start : start + size] for start in range(0, len(images) - size + 1, size)])


def _predict(
    predictor: Predictor, batches: Iterator[FloatArray], seconds: float, calls: int, clock: Clock
) -> list[float]:
    """Predict for at least this long and this many calls; returns the duration of each call."""
    durations = list[float]()
    began = now = clock()
    while now - began < seconds or len(durations) < calls:
        batch, before = next(batches), clock()
        predictor.probabilities(batch)
        now = clock()
        durations.append(now - before)
    return durations
