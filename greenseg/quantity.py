"""Times and energies as text: `90`, `30min`, `1h 30min`; `500 kJ`, `2 kWh`."""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from greenseg.errors import did_you_mean

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_JOULES = {"J": 1, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9}

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_FORM = rf"^\s*({_NUMBER}|({_NUMBER}\s*(UNIT)\s*)+)\s*$"
TIME = _FORM.replace("UNIT", "|".join(_SECONDS))
"""Regular expression of a time as text."""
ENERGY = _FORM.replace("UNIT", "|".join(_JOULES))
"""Regular expression of an energy as text."""
_ANY = _FORM.replace("UNIT", "[A-Za-z]+")


def seconds(value: Any) -> float:
    """Seconds of a number, or of a text such as `30s`, `2h` or `1h 30min`.

    Raises:
        ValueError: it is not a time above 0.
    """
    return _quantity(value, _SECONDS, "s", "a time such as 90, 30min or 2h")


def joules(value: Any) -> float:
    """Joules of a number, or of a text such as `500 kJ` or `2 kWh`.

    Raises:
        ValueError: it is not an energy above 0.
    """
    return _quantity(value, _JOULES, "J", "an energy such as 5000, 500 kJ or 2 kWh")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that fits into a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _quantity(value: Any, units: Mapping[str, float], own: str, what: str) -> float:
    if is_number(value):
        total = float(value)
    elif isinstance(value, str) and re.fullmatch(_ANY, value):
        parts = re.findall(r"([0-9.]+)\s*([A-Za-z]*)", value)
        unknown = next((unit for _, unit in parts if unit and unit not in units), None)
        if unknown:
            raise ValueError(
                f"{value!r}: no unit '{unknown}'{did_you_mean(unknown, list(units))}; valid: {', '.join(units)}"
            )
        total = sum(float(number) * units[unit or own] for number, unit in parts)
    else:
        raise ValueError(f"{value!r} is not {what}")
    if not 0 < total < math.inf:
        raise ValueError(f"{value!r} is not {what}, above 0")
    return total
