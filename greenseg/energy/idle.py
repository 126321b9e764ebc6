"""What the machine draws when nobody trains."""

import time

from greenseg.energy.meter import EnergyMeter
from greenseg.energy.reading import ESTIMATE


def idle_watts(seconds: float, gpus: tuple[int, ...] = ()) -> dict[str, float]:
    """Average watts of each measured component over a time in which this process sleeps; `gpu` is the mean of the GPUs.

    An estimate is no measurement, and counts only what this process does: it has no idle part. So the result is empty
    where there is no sensor, at once.
    """
    meter = EnergyMeter(gpus)
    if any(reading.source != ESTIMATE for reading in meter.lap(sync=False).readings):
        time.sleep(seconds)
    energy = meter.lap(sync=False)
    meter.close()
    shares = {"gpu": len(gpus) or 1}  # that of a chip such as Apple's is measured without being asked for
    return {
        r.component: r.joules / energy.seconds / shares.get(r.component, 1)
        for r in energy.readings
        if r.source != ESTIMATE
    }
