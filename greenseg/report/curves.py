"""Learning curves: quality against the joules spent until then, from epochs.jsonl."""

from dataclasses import dataclass

from greenseg.energy import Energy
from greenseg.report.results import Run
from greenseg.run_directory import BadRecord
from greenseg.run_summary import BEFORE, account_for_attempts


@dataclass(frozen=True)
class Curve:
    """How a run got on; a value for each finished epoch.

    Attributes:
        run: the run.
        dice: validation Dice; None where it is not known.
        joules: spent until the end of the epoch: start-up and probes of the attempts until then included, repeated
            epochs and checkpoints not.
    """

    run: Run
    dice: tuple[float | None, ...]
    joules: tuple[float, ...]


def curve(run: Run) -> Curve:
    """The learning curve of a run; empty where its epochs cannot be read."""
    try:
        attempts, epochs = run.history()
        attempts = account_for_attempts(attempts, epochs)
        # Of an epoch that was repeated after an interruption, the last time counts.
        lines = {line["epoch"]: line for line in epochs}
        points, spent, begun = list[tuple[float | None, float]](), 0.0, 0
        for epoch in sorted(lines):
            line = lines[epoch]
            while begun <= min(line["attempt"], len(attempts) - 1):
                energies = attempts[begun].get("energy", {})
                spent += sum(Energy.from_json(energies[phase]).joules for phase in BEFORE if phase in energies)
                begun += 1
            spent += sum(Energy.from_json(line[phase]).joules for phase in ("train", "validation"))
            points.append((line["dice"], spent))
    except (BadRecord, OSError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return Curve(run, (), ())
    return Curve(run, tuple(dice for dice, _ in points), tuple(joules for _, joules in points))
