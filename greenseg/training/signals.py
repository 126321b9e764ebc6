"""Signals that ask a process to stop, put off until it has finished what must not be cut short. Imports no torch."""

import contextlib
import signal
import threading
from collections.abc import Iterator


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
