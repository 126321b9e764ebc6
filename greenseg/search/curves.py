"""Learning curves of the runs of a grid, and the values that they are heading for."""

from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import NamedTuple


@dataclass(frozen=True)
class Curve:
    """The epochs of a run so far.

    Attributes:
        dice: validation Dice of each epoch; NaN where it is undefined.
        joules: joules up to the end of each epoch, with start-up.
        ended: whether it has ended by itself, after all epochs or by early stopping.
    """

    dice: tuple[float, ...]
    joules: tuple[float, ...]
    ended: bool = False

    def until(self, epochs: int) -> "Curve":
        """The curve as it was after some epochs."""
        return self if len(self.dice) <= epochs else Curve(self.dice[:epochs], self.joules[:epochs])

    @cached_property
    def best(self) -> float:
        """The best Dice so far; 0 if there is none."""
        return self.best_until(len(self.dice))

    def best_until(self, epochs: int) -> float:
        """The best Dice of the first epochs; 0 if there is none."""
        return max((dice for dice in self.dice[:epochs] if not isnan(dice)), default=0.0)

    def joules_after(self, epochs: int) -> float:
        """Joules up to the end of an epoch to come, from the mean of the epochs after the first."""
        done = len(self.joules)
        if epochs <= done or self.ended:
            return self.joules[min(epochs, done) - 1]
        each = (self.joules[-1] - self.joules[0]) / (done - 1) if done > 1 else self.joules[0]
        return self.joules[-1] + (epochs - done) * each


class Bounds(NamedTuple):
    """A Dice to come: expected, and its bounds to both sides."""

    expected: float
    low: float
    high: float
