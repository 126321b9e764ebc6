"""Idle power of the machine."""

import time

from greenseg.energy.meter import EnergyMeter
from greenseg.energy.reading import ESTIMATE


def idle_watts(seconds: float, gpus: tuple[int, ...] = ()) -> dict[str, float]:
    """Average watts of each measured component while this process sleeps; `gpu` is the mean over the GPUs.

    An estimate has no idle part, since it counts only the activity of this process. So without a sensor, the result is
    empty, and the function returns at once.
    """
    meter = EnergyMeter(gpus)
    if any(reading.source != ESTIMATE for reading in meter.lap(sync=False).readings):
        time.sleep(seconds)
    energy = meter.lap(sync=False)
    meter.close()
    shares = {"gpu": len(gpus) or 1}  # chips such as Apple's measure it unasked
    return {
        r.component: r.joules / energy.seconds / shares.get(r.component, 1)
        for r in energy.readings
        if r.source != ESTIMATE
    }
