"""Pauses between runs: a hot GPU draws more for the same work."""

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CoolDown:
    """How long to pause before a run.

    Attributes:
        seconds: the pause, or the longest one where a temperature is given.
        temperature: of every GPU, in °C, at which the pause ends early; None to pause for `seconds`.
    """

    seconds: float
    temperature: float | None = None

    def begin(self) -> "Pause":
        """Begin a pause now."""
        return Pause(self, time.monotonic())


@dataclass
class Pause:
    """A pause that goes on.

    Attributes:
        cool_down: how long it shall be.
        start: when it began, on the monotonic clock.
    """

    cool_down: CoolDown
    start: float
    _asked: float = 0.0

    def over(self) -> bool:
        """Whether it is over; asks the GPUs at most once a second."""
        now = time.monotonic()
        if now - self.start >= self.cool_down.seconds:
            return True
        if self.cool_down.temperature is None or now - self._asked < 1:
            return False
        self._asked = now
        hot = temperatures()
        return not hot or max(hot) <= self.cool_down.temperature  # no GPU: nothing to wait for

    def to_json(self) -> dict[str, Any]:
        """How long it was, and the temperatures at its end, for the record."""
        return {"seconds": round(time.monotonic() - self.start, 1), "temperatures": temperatures()}


def temperatures() -> list[int]:
    """Temperature of every GPU in °C; empty where there is none."""
    from zeus.device import get_gpus

    try:
        gpus = get_gpus()
        return [gpus.get_gpu_temperature(index) for index in range(len(gpus))]
    except Exception:  # no driver, no library, or a GPU that does not tell
        return []
