"""Energy of a training: measured by Zeus if there are sensors, otherwise estimated and marked as such.

This package is independent of segmentation and imports nothing else of greenseg. In any Lightning project:

    from greenseg.energy import EnergyMonitor

    monitor = EnergyMonitor()
    trainer = Trainer(callbacks=[monitor])
    trainer.fit(model)
    print(monitor.total, monitor.epochs)
"""

from typing import TYPE_CHECKING, Any

from greenseg.energy.meter import EnergyMeter
from greenseg.energy.reading import Energy, Reading

if TYPE_CHECKING:
    from greenseg.energy.monitor import EnergyMonitor, EpochEnergy

__all__ = ["Energy", "EnergyMeter", "EnergyMonitor", "EpochEnergy", "Reading"]


def __getattr__(name: str) -> Any:
    # The callback needs Lightning, and with it torch; readings and the meter do not.
    if name in ("EnergyMonitor", "EpochEnergy"):
        from greenseg.energy import monitor

        return getattr(monitor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
