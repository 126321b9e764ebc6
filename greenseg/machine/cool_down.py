"""Pauses between runs: a hot GPU draws more for the same work."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CoolDown:
    """A pause before a run.

    Attributes:
        seconds: length of the pause, or with a temperature its maximum.
        temperature: temperature of every GPU of the run, in °C, that ends the pause early; None to pause for `seconds`.
    """

    seconds: float
    temperature: float | None = None

    def begin(self, gpus: Sequence[str] | None = None) -> "Pause":
        """Begin a pause now.

        Args:
            gpus: the GPUs of the run, as in CUDA_VISIBLE_DEVICES; empty for a run on the CPU. Default: all GPUs that
                are visible to this process.
        """
        return Pause(self, time.monotonic(), gpus)


@dataclass
class Pause:
    """A running pause.

    Attributes:
        cool_down: length of the pause.
        start: its start on the monotonic clock, in seconds.
        gpus: the GPUs that must be cool, as in CUDA_VISIBLE_DEVICES; None for all GPUs visible to this process.
    """

    cool_down: CoolDown
    start: float
    gpus: Sequence[str] | None = None
    _asked: float = 0.0

    def over(self) -> bool:
        """Whether the pause is over; queries the GPUs at most once per second."""
        now = time.monotonic()
        if now - self.start >= self.cool_down.seconds:
            return True
        if self.cool_down.temperature is None or now - self._asked < 1:
            return False
        self._asked = now
        hot = self._temperatures()
        return not hot or max(hot) <= self.cool_down.temperature  # no GPU: nothing to wait for

    def to_json(self) -> dict[str, Any]:
        """Its length in seconds, and the temperatures at its end, for the record."""
        return {"seconds": round(time.monotonic() - self.start, 1), "temperatures": self._temperatures()}

    def _temperatures(self) -> list[int]:
        from greenseg.energy.sensors import temperatures  # not on the way to --help

        return temperatures(self.gpus)
