"""Learning curves: quality against the joules spent until then, from epochs.jsonl."""

from dataclasses import dataclass

from greenseg.report.results import Run
from greenseg.run_directory import BadRecord
from greenseg.run_summary import spent_by


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
        ends = [ended for _, ended in spent_by(attempts, epochs)]
        # Of an epoch that was repeated after an interruption, the last time counts.
        last = {line["epoch"]: (line["dice"], joules) for line, joules in zip(epochs, ends, strict=True)}
        points = [last[epoch] for epoch in sorted(last)]
    except (BadRecord, OSError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return Curve(run, (), ())
    return Curve(run, tuple(dice for dice, _ in points), tuple(joules for _, joules in points))
