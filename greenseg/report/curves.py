"""Learning curves: quality against the joules spent until then, from epochs.jsonl."""

from dataclasses import dataclass

from greenseg.report.run import Run
from greenseg.runs.record import BadRecord
from greenseg.runs.summary import last_of_each, spent_by


@dataclass(frozen=True)
class Curve:
    """How a run got on; a value for each finished epoch.

    Attributes:
        run: the run.
        dice: validation Dice; None where it is not known.
        joules: spent by the run until the end of the epoch, as `spent_by` counts them: those of earlier attempts, and
            of start-up and probes, included.
    """

    run: Run
    dice: tuple[float | None, ...]
    joules: tuple[float, ...]


def curve(run: Run) -> Curve:
    """The learning curve of a run; empty where its epochs cannot be read."""
    try:
        attempts, epochs = run.history()
        spent = spent_by(attempts, epochs)
        ends = {id(line): ended for line, (_, ended) in zip(epochs, spent, strict=True)}
        points = [(line.dice, ends[id(line)]) for line in last_of_each(epochs)]
    except (BadRecord, OSError, LookupError, TypeError, ValueError, AttributeError):
        return Curve(run, (), ())
    return Curve(run, tuple(dice for dice, _ in points), tuple(joules for _, joules in points))
