"""The interface between the meter and every sensor."""

from collections.abc import Collection
from typing import Protocol

from greenseg.energy.reading import Reading


class Sensor(Protocol):
    """Measures components over windows of time.

    Attributes:
        sources: component → source of its joules, for each measured component.
        missing: component → reason, for each component that a user would expect it to measure.
    """

    sources: dict[str, str]
    missing: dict[str, str]

    def __init__(self, gpus: tuple[int, ...], measured: Collection[str]) -> None:
        """Find the components that it can measure here. Others are not errors; `missing` has the reasons.

        Args:
            gpus: indices of the GPUs that this process uses, as the framework numbers them.
            measured: components that other sensors already measure; they must not count twice.
        """

    def begin(self, window: str) -> None:
        """Open a window; windows may overlap."""

    def end(self, window: str) -> list[Reading]:
        """Close a window and return its readings. A component without a reading moves from `sources` to `missing`."""


def reason(error: Exception) -> str:
    """An exception of a driver as a reason in one line."""
    return " ".join(str(error).split()) or type(error).__name__
