"""Time and joules per epoch that runs of a sweep will take, from its finished runs."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import Any, NamedTuple

from greenseg.runs.standing import Spent
from greenseg.settings import ACCOUNTING, Settings, group_of, values_of

_COST = (
    "encoder", "decoder", "image_size", "batch_size", "precision", "accelerator", "devices", "nodes", "power_limit",
    "gpu_clock",
)  # fmt: skip
"""Settings with the largest effect on the time and joules of an epoch."""


class Range(NamedTuple):
    """A prediction: mean, lowest and highest of the observed values."""

    mean: float
    low: float
    high: float


class Cost(NamedTuple):
    """The cost of an epoch of a run.

    Attributes:
        seconds: its time, with a share of the time outside of epochs.
        joules: its energy, likewise.
        by: the runs that it comes from: `repeats` of the run, those `alike` in all that costs much, or `all`.
    """

    seconds: Range
    joules: Range
    by: str


class Costs:
    """Predicts runs from those that have finished: from its repeats, else from similar runs, else from all.

    Args:
        varied: names of the settings that the sweep varies.
    """

    def __init__(self, varied: Iterable[str]) -> None:
        names = [n for n in varied if group_of(n) != ACCOUNTING and n not in ("seed", "epochs")]
        self._kinds = {
            "repeats": values_of(names),
            "alike": values_of([name for name in names if name in _COST or name == "model"]),
            "all": values_of([]),
        }
        self._seen: dict[str, dict[Any, list[Spent]]] = {kind: defaultdict(list) for kind in self._kinds}

    def add(self, settings: Settings, spent: Spent) -> None:
        """Learn from a finished run, of at least one epoch."""
        for kind, key in self._kinds.items():
            self._seen[kind][key(settings)].append(spent)

    def of(self, settings: Settings) -> Cost | None:
        """The cost per epoch of a run; None before a run has finished."""
        for kind, key in self._kinds.items():
            if found := self._seen[kind].get(key(settings)):
                return Cost(*_rates(found), kind)
        return None


def _rates(group: Iterable[Spent]) -> tuple[Range, Range]:
    rates = [(spent.seconds / spent.epochs, spent.joules / spent.epochs) for spent in group]
    seconds, joules = zip(*rates, strict=True)
    return _range(seconds), _range(joules)


def _range(values: tuple[float, ...]) -> Range:
    return Range(fmean(values), min(values), max(values))
