"""Follows an attempt at a run by the files in its directory, on any host."""

import contextlib
from typing import Any

from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Epoch, Record, read_epoch
from greenseg.runs.summary import training_joules


class Follower:
    """Follows the next attempt at a run. Make it before the attempt starts.

    Args:
        run: existing directory of the run.
        began: follow the last attempt instead, which has started already.
    """

    def __init__(self, run: RunDirectory, *, began: bool = False) -> None:
        self._run = run
        self._before = None if began else _last_of(self._record())
        self._attempt: int | None = None
        self._spent = 0.0
        self._read = 0

    def began(self, record: Record) -> bool:
        """Whether the last attempt in the record is this one, not an earlier one."""
        last = _last_of(record)
        return last is not None and last != self._before

    def epochs(self) -> list[dict[str, Any]]:
        """Epochs that ended since the last call, as events; see `greenseg.training.events`."""
        if self._attempt is None:
            record = self._record()
            if not record or not self.began(record):
                return []
            *earlier, _ = record.attempts
            self._attempt, self._spent = len(earlier), sum(training_joules(a.energy or {}) for a in earlier)
        try:
            with (self._run.files / "epochs.jsonl").open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content.rfind(b"\n") + 1  # the rest is still being written
        self._read += whole
        lines: list[Epoch] = []
        for line in content[:whole].splitlines():
            with contextlib.suppress(BadRecord):  # damaged: the judge reports it
                lines.append(read_epoch(line))
        return [self._event(line) for line in lines if line.attempt == self._attempt]

    def _event(self, line: Epoch) -> dict[str, Any]:
        return {
            "event": "epoch",
            "epoch": line.epoch,
            "train_loss": line.train_loss,
            "dice": line.dice,
            "iou": line.iou,
            "seconds": line.seconds,
            "joules": self._spent + training_joules(line.attempt_so_far),
        }

    def _record(self) -> Record | None:
        try:
            return self._run.record()
        except BadRecord:
            return None


def _last_of(record: Record | None) -> str | None:
    """Identity of the last attempt at a run; None if there is none."""
    return record.attempts[-1].identity if record and record.attempts else None
