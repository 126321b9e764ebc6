"""Limits of an NVIDIA GPU: a power limit and a locked graphics clock. One entry in `LEVERS` adds a limit.

Zeus talks to the driver, directly or through zeusd.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greenseg.settings import Settings


@dataclass(frozen=True)
class Lever:
    """A limit that can be set.

    Attributes:
        unit: unit of its values.
        noted: type of the recorded value.
        bounds: returns the lowest and the highest valid value of a GPU, in `unit`.
        read: returns the value to restore; None if the driver does not report it.
        set: sets a value; returns the value that the GPU then has.
        put_back: restores a value from `read`.
        repair: returns the options of nvidia-smi that do the same.
    """

    unit: str
    noted: type
    bounds: Callable[[Any], tuple[int, int]]
    read: Callable[[Any], int | None]
    set: Callable[[Any, int], float]
    put_back: Callable[[Any, Any], None]
    repair: Callable[[Any], str]


def watts(milliwatts: int) -> float:
    """Watts from milliwatts, as an int if they are whole."""
    value = milliwatts / 1000
    return int(value) if value.is_integer() else value


def _power_bounds(device: Any) -> tuple[int, int]:
    low, high = device.get_power_management_limit_constraints()
    return math.ceil(low / 1000), high // 1000


def _set_power(device: Any, limit: int) -> float:
    device.set_power_management_limit(limit * 1000)
    return watts(device.get_power_management_limit())


def _put_power_back(device: Any, milliwatts: int) -> None:
    device.set_power_management_limit(milliwatts)
    if (now := device.get_power_management_limit()) != milliwatts:
        raise OSError(f"the driver keeps {watts(now):g} W")


def _clocks(device: Any) -> list[int]:
    return sorted(device.get_supported_graphics_clocks(max(device.get_supported_memory_clocks())))


def _set_clock(device: Any, megahertz: int) -> float:
    clock = min(_clocks(device), key=lambda clock: abs(clock - megahertz))
    device.set_gpu_locked_clocks(clock, clock)
    return clock


LEVERS = {
    "power_limit": Lever(
        "W",
        int,
        _power_bounds,
        lambda device: device.get_power_management_limit(),
        _set_power,
        _put_power_back,
        lambda milliwatts: f"-pl {watts(milliwatts):g}",
    ),
    "gpu_clock": Lever(
        "MHz",
        type(None),
        lambda device: (_clocks(device)[0], _clocks(device)[-1]),
        lambda device: None,  # NVML does not report locked clocks
        _set_clock,
        lambda device, before: device.reset_gpu_locked_clocks(),
        lambda before: "-rgc",
    ),
}
"""Setting → lever."""


def wanted(settings: Settings) -> dict[str, int]:
    """The limits that a run sets: setting → value."""
    return {name: value for name in LEVERS if (value := getattr(settings, name))}
