"""Pauses between runs: a hot GPU draws more for the same work."""

import time
from collections.abc import Callable
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

    def wait(self, wanted: Callable[[], bool]) -> dict[str, Any]:
        """Pause; returns for how long, and the temperatures at its end, for the record.

        Args:
            wanted: asked every second; the pause ends where it says no.
        """
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < self.seconds and wanted():
            if self.temperature is not None:
                hot = temperatures()
                if not hot or max(hot) <= self.temperature:  # no GPU: nothing to wait for
                    break
            time.sleep(min(1.0, self.seconds - elapsed))
        return {"seconds": round(time.monotonic() - start, 1), "temperatures": temperatures()}


def temperatures() -> list[int]:
    """Temperature of every GPU in °C; empty where there is none."""
    from zeus.device import get_gpus

    try:
        gpus = get_gpus()
        return [gpus.get_gpu_temperature(index) for index in range(len(gpus))]
    except Exception:  # no driver, no library, or a GPU that does not tell
        return []
