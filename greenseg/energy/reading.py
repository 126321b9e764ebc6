"""Joules with their source and uncertainty."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Self

from annotated_types import Len
from typing_extensions import TypedDict  # of Python 3.12, which pydantic needs

ESTIMATE = "estimate"
"""Source of modelled joules; all other sources are measurements."""

APPROXIMATE = "approximate"
"""Mark: the window was shorter than the counter's period; the value is power at its end × its length."""

SHARED = "shared"
"""Mark: other processes used the same GPU, or other jobs the same node, and the counter includes their joules."""

APPORTIONED = "apportioned"
"""Mark: other runs or jobs used the same CPU; the value is this run's share of the counter, by CPU time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Joules of one component over one window.

    Attributes:
        component: `gpu`, `cpu` or `dram`.
        joules: energy, 0 or more.
        source: `nvml`, `amdsmi`, `rapl`, `soc` (measured) or `estimate` (modelled).
        low, high: range of possible values; for a measurement without marks, equal to `joules`.
        marks: caveats: `approximate`, `shared`, `apportioned`.
    """

    component: str
    joules: float
    source: str
    low: float = -1.0
    high: float = -1.0
    marks: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.low < 0:
            object.__setattr__(self, "low", self.joules)
        if self.high < 0:
            object.__setattr__(self, "high", self.joules)


class EnergyJson(TypedDict):
    """An energy in a file: `{component: {source: …}}` of joules, of their [low, high] and of their marks.

    Ranges and marks stand only where they say something.
    """

    seconds: float
    joules: dict[str, dict[str, float]]
    range: NotRequired[dict[str, dict[str, Annotated[list[float], Len(2, 2)]]]]
    marks: NotRequired[dict[str, dict[str, list[str]]]]


EnergyJson.__pydantic_config__ = {"extra": "allow", "strict": True}  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a window of time.

    Attributes:
        seconds: length of the window.
        readings: one reading per component and source, ordered by component.
    """

    seconds: float = 0.0
    readings: tuple[Reading, ...] = ()

    @property
    def joules(self) -> float:
        """Joules of all components together."""
        return sum(reading.joules for reading in self.readings)

    @property
    def low(self) -> float:
        """Lowest possible joules."""
        return sum(reading.low for reading in self.readings)

    @property
    def high(self) -> float:
        """Highest possible joules."""
        return sum(reading.high for reading in self.readings)

    @property
    def sources(self) -> dict[str, str]:
        """Component → source; sources of one component are joined with `+`."""
        found: dict[str, str] = {}
        for r in self.readings:
            found[r.component] = f"{found[r.component]}+{r.source}" if r.component in found else r.source
        return found

    @property
    def marks(self) -> frozenset[str]:
        """The marks of all readings."""
        return frozenset(mark for reading in self.readings for mark in reading.marks)

    def component(self, name: str) -> float:
        """Joules of one component, over all sources."""
        return sum(reading.joules for reading in self.readings if reading.component == name)

    def without(self, name: str) -> "Energy":
        """The same window without the readings of one component."""
        return Energy(self.seconds, tuple(reading for reading in self.readings if reading.component != name))

    def __add__(self, other: "Energy") -> "Energy":
        """Two consecutive windows: seconds and joules add up, per component and source."""
        return Energy(self.seconds + other.seconds, _merge([*self.readings, *other.readings]))

    def to_json(self) -> EnergyJson:
        """Plain values; `Energy.from_json` reads them."""
        value: EnergyJson = {"seconds": round(self.seconds, 6), "joules": {}}
        for r in self.readings:
            value["joules"].setdefault(r.component, {})[r.source] = round(r.joules, 6)
            if (r.low, r.high) != (r.joules, r.joules):
                bounds = [round(r.low, 6), round(r.high, 6)]
                value.setdefault("range", {}).setdefault(r.component, {})[r.source] = bounds
            if r.marks:
                value.setdefault("marks", {}).setdefault(r.component, {})[r.source] = sorted(r.marks)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The energy that `to_json` wrote."""
        ranges, marks = value.get("range", {}), value.get("marks", {})
        readings = []
        for component, by_source in value["joules"].items():
            for source, joules in by_source.items():
                low, high = ranges.get(component, {}).get(source, (joules, joules))
                marked = frozenset(marks.get(component, {}).get(source, ()))
                readings.append(Reading(component, joules, source, low, high, marked))
        return cls(value["seconds"], tuple(readings))


def side_by_side(parts: Iterable[Energy]) -> Energy:
    """Simultaneous windows of several processes, each with its own energy: joules add up, time does not."""
    parts = list(parts)
    seconds = max((part.seconds for part in parts), default=0.0)
    return Energy(seconds, _merge([reading for part in parts for reading in part.readings]))


def _merge(readings: list[Reading]) -> tuple[Reading, ...]:
    merged: dict[tuple[str, str], Reading] = {}
    for r in readings:
        m = merged.get((r.component, r.source))
        if m is not None:
            r = Reading(r.component, m.joules + r.joules, r.source, m.low + r.low, m.high + r.high, m.marks | r.marks)
        merged[r.component, r.source] = r
    return tuple(reading for _, reading in sorted(merged.items()))
