"""The user's wish that runs stop."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any, Self

from greenseg.launch.executor import Force


class Stop:
    """Asks all running runs to stop: once gently, twice at once.

    Set by Ctrl-C and SIGTERM while it is installed, and by SIGHUP (a terminal that was closed, a connection that was
    lost), which is always gentle, since it may come more than once; unless it is ignored, as under `nohup`.

    Attributes:
        requests: how often it was asked for.
    """

    def __init__(self) -> None:
        self.requests = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[Self]:
        """Take over the signals while the context lasts."""
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
        """How runs are to stop; None while they are not."""
        return (None, Force.ASK, Force.KILL)[min(self.requests, 2)]

    def _request(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP and self.requests:
            return
        self.requests += 1
