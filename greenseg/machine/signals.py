"""Stop signals: sent when the parent dies, and deferred during work that must not be interrupted. Imports no torch."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to stop. srun passes only SIGUSR1 on to its tasks: on SIGTERM, it kills them."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int) -> None:
    """Send SIGTERM to this process when its parent dies, however it dies; end at once if it is already dead.

    Works on Linux only: elsewhere, a process outlives a killed parent.

    Args:
        parent: process ID of the parent, passed on by the parent itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def stop_later() -> Iterator[None]:
    """Defer stop signals until the context ends."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield
        return
    asked: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])
