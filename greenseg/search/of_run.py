"""The learning curve of a run, from its files."""

from collections.abc import Sequence
from math import nan

from greenseg.energy import Energy
from greenseg.runs.record import Epoch, Record
from greenseg.runs.summary import BEFORE
from greenseg.search.curves import Curve


def curve_of(record: Record, epochs: Sequence[Epoch]) -> Curve | None:
    """The curve of a run; None before its first epoch.

    It is the same however often the run was killed or paused: of an epoch that was repeated, only the first line
    counts, and of the phases before training, those of the first attempt that finished an epoch.

    Args:
        record: its record.
        epochs: lines of its epochs.jsonl, in the order of writing.
    """
    first: dict[int, Epoch] = {}
    for line in epochs:
        first.setdefault(line.epoch, line)
    if not first:
        return None
    so_far = epochs[0].attempt_so_far
    spent = sum(Energy.from_json(so_far[phase]).joules for phase in BEFORE if phase in so_far)
    dice, joules = [], []
    for _, line in sorted(first.items()):
        spent += (Energy.from_json(line.train) + Energy.from_json(line.validation)).joules
        dice.append(nan if line.dice is None else line.dice)
        joules.append(spent)
    return Curve(tuple(dice), tuple(joules), record.status == "finished")
