"""Deletes the last checkpoint of each run that finishes here, since only an unfinished run resumes from it."""

from typing import Any

from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.launch.queue import Listener
from greenseg.runs.disk import free


class Tidy:
    """Passes everything on to another listener, and tidies up after runs that have finished.

    Args:
        listener: the other listener.

    Attributes:
        bytes: size of the deleted files.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.bytes = 0

    def start(self, job: Job) -> None:
        """A run begins."""
        self._listener.start(job)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A run sent an event."""
        self._listener.event(job, event)

    def end(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""
        if outcome.status == "finished" and job.tries:  # else another process has trained it, and tidies up itself
            freed = free(job.run)
            self.bytes += freed.bytes
            if freed.kept:
                self.event(job, {"event": "warning", "message": f"not deleted: {freed.kept}"})
        self._listener.end(job, outcome)
