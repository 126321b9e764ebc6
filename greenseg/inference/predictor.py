"""Trained networks behind one interface, whatever they are stored as. See `greenseg.inference.load`."""

from dataclasses import dataclass
from typing import Protocol

from greenseg.data.grid import FloatArray
from greenseg.inference.recipe import Recipe


@dataclass(frozen=True)
class Options:
    """The way a network runs.

    Attributes:
        precision: numeric precision by its Lightning name; empty = that of the run, 32-true for a file.
        accelerator: auto, cpu or gpu.
    """

    precision: str = ""
    accelerator: str = "auto"


class Predictor(Protocol):
    """A trained network.

    Attributes:
        recipe: the preparation of its input and the meaning of its output.
        identity: text that names its weights.
        name: text for users.
        precision: the numeric precision in effect.
        device: `cpu`, `cuda` or `mps`.
        notes: sentences for the user.
    """

    recipe: Recipe
    identity: str
    name: str
    precision: str
    device: str
    notes: list[str]

    def probabilities(self, images: FloatArray) -> FloatArray:
        """Probabilities of a batch.

        Args:
            images: float32 [batch, channels, image_size, image_size], from 0 to 1.

        Returns:
            float32 [batch, 1, image_size, image_size] for one class, else with a channel for the background
            and for each class.
        """
