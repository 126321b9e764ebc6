"""Numbers with units, as text."""

from collections.abc import Callable, Iterable

Unit = Callable[[Iterable[float | None]], tuple[str, float]]
"""Chooses one unit for a column of values: its name, and its size, to divide by."""


def plain_unit(values: Iterable[float | None]) -> tuple[str, float]:
    """No unit: values are shown unchanged."""
    return "", 1.0


def parameter_unit(values: Iterable[float | None]) -> tuple[str, float]:
    """Millions of parameters, unless all networks are tiny."""
    largest = max((value for value in values if value is not None), default=0.0)
    return ("M", 1e6) if largest >= 1e5 else ("", 1.0)


def megabyte_unit(values: Iterable[float | None]) -> tuple[str, float]:
    """Bytes as MB."""
    return "MB", 1e6


def joule_unit(values: Iterable[float | None]) -> tuple[str, float]:
    """One unit for a column of joules, and its size, to divide by: the largest value has at most 5 digits."""
    largest = max((value for value in values if value is not None), default=0.0)
    for unit, size in (("J", 1.0), ("kJ", 1e3), ("MJ", 1e6)):
        if round(largest / size) < 1e5 or unit == "MJ":
            return unit, size
    return "MJ", 1e6


def number(value: float | None, digits: int = 3) -> str:
    """A number with at least `digits` significant digits, separated thousands and no exponent; – for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])  # after rounding: 9.999 is 10.0
    return f"{value:,.{max(digits - 1 - exponent, 0)}f}"


def joules(value: float | None) -> str:
    """Joules with their own unit, such as `12.3 kJ`."""
    unit, size = joule_unit([value])
    return "–" if value is None else f"{number(value / size)} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds as `7.3 s`, `4:05 min` or `2:03:20 h`."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def count(n: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def size(n: int) -> str:
    """Bytes as `831 kB`, `22.4 MB`."""
    for unit, divisor in (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if n < 999.5 * divisor or unit == "GB":
            break
    return f"{n / divisor:.3g} {unit}"


def percent(share: float | None) -> str:
    """A share as `31 %`, with a true minus sign; one decimal below 10 %; – for None."""
    if share is None:
        return "–"
    digits = 0 if abs(share) >= 0.0995 or share == 0 else 1
    return f"{share * 100:.{digits}f} %".replace("-", "−")
