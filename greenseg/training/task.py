"""What the network of a run gets and tells apart, from its data."""

from dataclasses import dataclass
from typing import Self

from greenseg.classes import BINARY, Classes
from greenseg.data.cache import Slices


@dataclass(frozen=True)
class Task:
    """Images and masks that a network is made for.

    Attributes:
        channels: channels of an image.
        classes: classes of the masks, without the background.
        ignored: whether some pixels of the masks are not annotated.
    """

    channels: int = 1
    classes: Classes = BINARY
    ignored: bool = False

    @classmethod
    def of(cls, slices: Slices) -> Self:
        """The task of a data set."""
        return cls(slices.channels, slices.classes, slices.has_ignored)


BINARY_TASK = Task()
"""One channel, one class."""
