"""Pauses between runs: a hot GPU draws more for the same work."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from greenseg.energy.sensors import temperatures


@dataclass(frozen=True)
class CoolDown:
    """How long to pause before a run.

    Attributes:
        seconds: the pause, or the longest one where a temperature is given.
        temperature: of every GPU of the run, in °C, at which the pause ends early; None to pause for `seconds`.
    """

    seconds: float
    temperature: float | None = None

    def begin(self, gpus: Sequence[str] | None = None) -> "Pause":
        """Begin a pause now.

        Args:
            gpus: those that the run will use, as CUDA_VISIBLE_DEVICES takes them; none for a run on the CPU. By default
                all that this process sees.
        """
        return Pause(self, time.monotonic(), gpus)


@dataclass
class Pause:
    """A pause that goes on.

    Attributes:
        cool_down: how long to pause.
        start: when it began, on the monotonic clock.
        gpus: those that must be cool, as CUDA_VISIBLE_DEVICES takes them; None for all that this process sees.
    """

    cool_down: CoolDown
    start: float
    gpus: Sequence[str] | None = None
    _asked: float = 0.0

    def over(self) -> bool:
        """Whether it is over; asks the GPUs at most once a second."""
        now = time.monotonic()
        if now - self.start >= self.cool_down.seconds:
            return True
        if self.cool_down.temperature is None or now - self._asked < 1:
            return False
        self._asked = now
        hot = temperatures(self.gpus)
        return not hot or max(hot) <= self.cool_down.temperature  # no GPU: nothing to wait for

    def to_json(self) -> dict[str, Any]:
        """How long it was, and the temperatures at its end, for the record."""
        return {"seconds": round(time.monotonic() - self.start, 1), "temperatures": temperatures(self.gpus)}
