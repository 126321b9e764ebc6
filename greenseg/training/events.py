"""Events that a run sends to the process that started it: one JSON object per line, over a pipe.

The training never waits for its audience: what does not fit into the pipe is dropped, and a closed pipe is ignored.
What matters is in the run directory: an `epoch` only says that there is another line in epochs.jsonl, from which the
queue makes the event that a user sees.
"""

import contextlib
import json
import os
from typing import Any

VARIABLE = "GREENSEG_EVENTS_FD"
"""Environment variable that holds the pipe's file descriptor."""

CONTEXT = "GREENSEG_CONTEXT"
"""Environment variable that holds, as JSON, what surrounds the run and belongs into its record."""

START_OVER = "GREENSEG_START_OVER"
"""Environment variable that makes a run discard its earlier attempts; it does so once it holds the lock."""

THREADS = "GREENSEG_THREADS"
"""Environment variable that holds how many threads the run may compute with on a CPU."""

PARENT = "GREENSEG_PARENT"
"""Environment variable that holds the ID of the process that started the run. The run ends with it."""

BUSY = 3
"""Exit code of a run's program where another process trains that run."""


def emit(event: dict[str, Any]) -> None:
    """Send an event, if anybody listens."""
    descriptor = os.environ.get(VARIABLE)
    if descriptor:
        with contextlib.suppress(OSError):
            # Lines shorter than PIPE_BUF (4096 bytes) are written whole or not at all.
            os.write(int(descriptor), json.dumps(event).encode()[:4000] + b"\n")
