"""Averaging over flips: the mean of what a network predicts for an image and its mirror images."""

from dataclasses import dataclass

import numpy as np

from greenseg.data.grid import FloatArray
from greenseg.inference.predictor import Predictor
from greenseg.inference.recipe import Recipe

_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


@dataclass
class Flipped:
    """A predictor whose probabilities are means over the four combinations of flips of rows and columns."""

    predictor: Predictor

    def __post_init__(self) -> None:
        self.recipe: Recipe = self.predictor.recipe
        self.identity, self.name = self.predictor.identity, self.predictor.name
        self.precision, self.device = self.predictor.precision, self.predictor.device
        self.notes = self.predictor.notes

    def probabilities(self, images: FloatArray) -> FloatArray:
        """The mean of the probabilities; see `Predictor.probabilities`."""
        total: FloatArray | None = None
        for axes in _FLIPS:
            found = np.flip(self.predictor.probabilities(np.ascontiguousarray(np.flip(images, axes))), axes)
            total = found.copy() if total is None else total + found
        assert total is not None
        return total / np.float32(len(_FLIPS))
