"""Signals that ask a process to stop: after its parent's death, and put off until it has finished what must not be cut
short. Imports no torch.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int) -> None:
    """Have this process asked to end (SIGTERM) when its parent dies, however that dies; end at once if it has died.

    Linux only: elsewhere a process outlives a parent that was killed.

    Args:
        parent: process ID that the parent passed on before it could die.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def stop_later() -> Iterator[None]:
    """Signals that ask this process to stop wait until the context ends."""
    if threading.current_thread() is not threading.main_thread():  # signals are not for other threads
        yield
        return
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])
