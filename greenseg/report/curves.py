"""Learning curves: quality against the joules spent until then, from epochs.jsonl."""

from dataclasses import dataclass

from greenseg.energy import Energy
from greenseg.report.results import Run
from greenseg.run_directory import BadRecord

BEFORE = ("startup", "preparation")
"""Phases before the first epoch; their joules count from the start."""


@dataclass(frozen=True)
class Curve:
    """How a run got on; a value for each finished epoch.

    Attributes:
        run: the run.
        dice: validation Dice; None where it is not known.
        joules: spent until the end of the epoch, start-up included, repeated epochs and checkpoints not.
    """

    run: Run
    dice: tuple[float | None, ...]
    joules: tuple[float, ...]


def curve(run: Run) -> Curve:
    """The learning curve of a run; empty where its epochs cannot be read."""
    try:
        # Of an epoch that was repeated after an interruption, the last time counts.
        lines = {line["epoch"]: line for line in run.directory.epochs()}
        phases = run.record.get("energy", {}).get("phases", {})
        spent = sum(Energy.from_json(phases[phase]).joules for phase in BEFORE if phase in phases)
        dice, joules = [], []
        for epoch in sorted(lines):
            line = lines[epoch]
            spent += sum(Energy.from_json(line[phase]).joules for phase in ("train", "validation"))
            dice.append(line["dice"])
            joules.append(spent)
    except (BadRecord, OSError, KeyError, TypeError, ValueError, AttributeError):
        return Curve(run, (), ())
    return Curve(run, tuple(dice), tuple(joules))
