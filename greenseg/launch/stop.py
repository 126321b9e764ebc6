"""Requests of the user to stop runs."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any, Self

from greenseg.launch.executor import Force


class Stop:
    """Requests that all runs stop: gently after one request, immediately after two.

    While it is installed, Ctrl-C and SIGTERM count as requests. SIGHUP (a closed terminal, a lost connection) counts
    only as the first request, since it may come repeatedly, and never if it is ignored, as under `nohup`.

    Attributes:
        requests: number of requests.
    """

    def __init__(self) -> None:
        self.requests = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[Self]:
        """Handle the signals while the context lasts."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._request) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def force(self) -> Force | None:
        """The way in which runs have to stop; None if there is no request."""
        return (None, Force.ASK, Force.KILL)[min(self.requests, 2)]

    def _request(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP and self.requests:
            return
        self.requests += 1
