"""Events that a run sends to the process that started it: one JSON object per line, over a pipe.

The training never waits for the reader: events that do not fit into the pipe are dropped, and a closed pipe is ignored.
The run directory has everything that matters. An `epoch` event only announces another line in epochs.jsonl, from which
the queue makes the event that a user sees.
"""

import contextlib
import json
import os
from typing import Any

VARIABLE = "GREENSEG_EVENTS_FD"
"""Environment variable with the file descriptor of the pipe."""

CONTEXT = "GREENSEG_CONTEXT"
"""Environment variable with the context of the run for its record, as JSON."""

START_OVER = "GREENSEG_START_OVER"
"""Environment variable that makes a run discard its earlier attempts; it does so once it holds the lock."""

UNLESS_FAILED = "GREENSEG_UNLESS_FAILED"
"""Environment variable for a run that had not failed when it was planned: if it has since, it is left alone."""

THREADS = "GREENSEG_THREADS"
"""Environment variable with the number of threads for a run on a CPU."""

UNTIL = "GREENSEG_UNTIL"
"""Environment variable with the number of epochs after which the run pauses."""

OWNER = "GREENSEG_OWNER"
"""Environment variable with the knowledge of the queue about the owner of a run; see `greenseg.runs.owner`."""

PARENT = "GREENSEG_PARENT"
"""Environment variable with the ID of the process that started the run. The run ends with it."""

BUSY = 3
"""Exit code of a run's program if another process is training the run."""


def emit(event: dict[str, Any]) -> None:
    """Send an event, if there is a reader."""
    descriptor = os.environ.get(VARIABLE)
    if descriptor:
        with contextlib.suppress(OSError):
            # Lines shorter than PIPE_BUF (4096 bytes) are written completely or not at all.
            os.write(int(descriptor), json.dumps(event).encode()[:4000] + b"\n")
