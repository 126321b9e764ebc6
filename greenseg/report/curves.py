"""Learning curves: quality against the joules spent so far, from epochs.jsonl."""

from dataclasses import dataclass

from greenseg.report.run import Run
from greenseg.runs.record import BadRecord
from greenseg.runs.summary import last_of_each, spent_by


@dataclass(frozen=True)
class Curve:
    """The progress of a run, with a value per finished epoch.

    Attributes:
        run: the run.
        dice: validation Dice; None if unknown.
        joules: joules of the run until the end of the epoch, as in `spent_by`: including earlier attempts, start-up and
            probes.
    """

    run: Run
    dice: tuple[float | None, ...]
    joules: tuple[float, ...]


def curve(run: Run) -> Curve:
    """The learning curve of a run; empty if its epochs are unreadable."""
    try:
        attempts, epochs = run.history()
        spent = spent_by(attempts, epochs)
        ends = {id(line): ended for line, (_, ended) in zip(epochs, spent, strict=True)}
        points = [(line.dice, ends[id(line)]) for line in last_of_each(epochs)]
    except (BadRecord, OSError, LookupError, TypeError, ValueError, AttributeError):
        return Curve(run, (), ())
    return Curve(run, tuple(dice for dice, _ in points), tuple(joules for _, joules in points))
