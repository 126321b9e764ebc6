"""What every sensor is to the meter."""

from collections.abc import Collection
from typing import Protocol

from greenseg.energy.reading import Reading


class Sensor(Protocol):
    """Measures components over windows of time.

    Attributes:
        sources: component → source of its joules, for each component that it measures.
        missing: component → why it does not measure it, where a user would expect that it does.
    """

    sources: dict[str, str]
    missing: dict[str, str]

    def __init__(self, gpus: tuple[int, ...], measured: Collection[str]) -> None:
        """Look for what can be measured here; what cannot be is no error, and has its reason in `missing`.

        Args:
            gpus: indices of the GPUs that this process uses, as the framework counts them.
            measured: components that another sensor measures already; they must not count twice.
        """

    def begin(self, window: str) -> None:
        """Open a window; windows may overlap."""

    def end(self, window: str) -> list[Reading]:
        """Close a window; a component that has stopped answering moves from `sources` to `missing`."""


def reason(error: Exception) -> str:
    """An exception of a driver as a reason, in a line."""
    return " ".join(str(error).split()) or type(error).__name__
