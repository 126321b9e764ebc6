"""Measuring alone: one measurement at a time on a machine, and none while another process of greenseg works.

Processes of others cannot be kept away. Their CPU seconds are counted, and the measurement gets a mark.
"""

import contextlib
import math
import socket
import time
from collections.abc import Callable, Iterator

from greenseg import locks
from greenseg.energy.estimate import machine_cpu_seconds, usage
from greenseg.energy.neighbours import Neighbours
from greenseg.files import CACHE_REMEDY, cache_folder, refusal

SHARE = 0.1
"""Largest share of a measurement's own CPU seconds that other processes may use beside it."""

_LOOK_SECONDS = 0.5


class Occupied(Exception):
    """Another process of greenseg works on this machine or on this run; the message names it."""


@contextlib.contextmanager
def alone(tell: Callable[[str], None]) -> Iterator[None]:
    """Be the only measurement on this machine while the context lasts; waits for another one to end.

    Args:
        tell: called with a sentence if it has to wait.

    Raises:
        Occupied: another process of this user trains or predicts with greenseg on this machine.
        UserError: the cache folder has no locks.
    """
    path = cache_folder() / f"measure-{socket.gethostname()}.lock"
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if stack.enter_context(locks.hold(path)) is None:
                tell("waiting for another measurement on this machine")
                stack.enter_context(locks.hold(path, patience=math.inf))
        except OSError as error:
            raise refusal(path.parent, error, CACHE_REMEDY) from None
        if others := Neighbours().present():
            processes = f"process{'es' if len(others) > 1 else ''} {', '.join(map(str, others))}"
            raise Occupied(
                f"greenseg trains or predicts on this machine ({processes}), and a measurement needs it alone; run the "
                f"same command again afterwards"
            )
        yield


class Others:
    """The CPU seconds of all other processes of this machine, from its creation on."""

    def __init__(self) -> None:
        self._before = machine_cpu_seconds()

    def share(self, own: float) -> float:
        """CPU seconds of other processes since the creation, ÷ those of this process.

        Args:
            own: CPU seconds of this process and its descendants in the same time.
        """
        others = max(machine_cpu_seconds() - self._before - own, 0.0)
        return others / own if own else math.inf if others else 0.0


def busy_cores() -> float:
    """Number of cores that other processes use now."""
    others, before, start = Others(), usage().cpu_seconds, time.monotonic()
    time.sleep(_LOOK_SECONDS)
    own = usage().cpu_seconds - before
    return max(machine_cpu_seconds() - others._before - own, 0.0) / (time.monotonic() - start)
