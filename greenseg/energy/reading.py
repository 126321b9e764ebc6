"""Joules that carry where they come from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

ESTIMATE = "estimate"
"""Source of joules that were modelled; every other source measured them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Joules of one component over one window.

    Attributes:
        component: `gpu`, `cpu` or `dram`.
        joules: energy, 0 or more.
        source: `nvml`, `amdsmi`, `rapl`, `soc` (measured) or `estimate` (modelled).
    """

    component: str
    joules: float
    source: str


@dataclass(frozen=True, slots=True)
class Energy:
    """What a window of time cost.

    Attributes:
        seconds: wall clock.
        readings: one for each component and source, ordered by component.
    """

    seconds: float = 0.0
    readings: tuple[Reading, ...] = ()

    @property
    def joules(self) -> float:
        """Joules of all components together."""
        return sum(reading.joules for reading in self.readings)

    @property
    def sources(self) -> dict[str, str]:
        """Component → source; sources of one component are joined with `+`."""
        found: dict[str, str] = {}
        for r in self.readings:
            found[r.component] = f"{found[r.component]}+{r.source}" if r.component in found else r.source
        return found

    def __add__(self, other: "Energy") -> "Energy":
        """One window after another: seconds and joules add up, component by component and source by source."""
        return Energy(self.seconds + other.seconds, _merge([*self.readings, *other.readings]))

    def to_json(self) -> dict[str, Any]:
        """`{"seconds": s, "joules": {component: {source: joules}}}`; `Energy.from_json` reads it."""
        joules: dict[str, dict[str, float]] = {}
        for r in self.readings:
            joules.setdefault(r.component, {})[r.source] = round(r.joules, 6)
        return {"seconds": round(self.seconds, 6), "joules": joules}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The energy that `to_json` wrote."""
        parts = value["joules"].items()
        readings = (Reading(component, joules, source) for component, by in parts for source, joules in by.items())
        return cls(value["seconds"], tuple(readings))


def side_by_side(parts: Iterable[Energy]) -> Energy:
    """Windows at the same time, of several processes that each counted their own: joules add up, time does not."""
    parts = list(parts)
    seconds = max((part.seconds for part in parts), default=0.0)
    return Energy(seconds, _merge([reading for part in parts for reading in part.readings]))


def _merge(readings: list[Reading]) -> tuple[Reading, ...]:
    joules: dict[tuple[str, str], float] = {}
    for r in readings:
        joules[r.component, r.source] = joules.get((r.component, r.source), 0.0) + r.joules
    return tuple(Reading(component, j, source) for (component, source), j in sorted(joules.items()))
