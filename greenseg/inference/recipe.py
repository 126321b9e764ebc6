"""The way from images to the input of a network, and from its output to masks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from greenseg.classes import BINARY, Classes
from greenseg.data import PREPROCESSING
from greenseg.data.hounsfield import Window


@dataclass(frozen=True)
class Recipe:
    """Everything about a trained network except its weights.

    Attributes:
        image_size: height and width of its input, in pixels.
        spacing: pixel spacing of its input, in mm.
        channels: channels of an image.
        classes: its classes, without the background. One class has one output, whose sigmoid is the probability.
            Several classes have an output for the background and each class, whose softmax are the probabilities.
        windows: channel → its window, for channels in Hounsfield units. Others are scaled per subject.
        preprocessing: version of the preprocessing.
    """

    image_size: int
    spacing: float
    channels: int = 1
    classes: Classes = BINARY
    windows: Mapping[int, Window] = field(default_factory=dict)
    preprocessing: int = PREPROCESSING

    @property
    def labels(self) -> tuple[int, ...]:
        """The label of each class in predicted masks: the smallest of its labels in training, 1 for any above 0."""
        return tuple(labels[0] if labels else 1 for labels in self.classes.labels)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `from_json`."""
        return {
            "image_size": self.image_size,
            "spacing": self.spacing,
            "channels": self.channels,
            "classes": [
                {"name": name, "labels": list(labels)}
                for name, labels in zip(self.classes.names, self.classes.labels, strict=True)
            ],
            "windows": {str(channel): [window.low, window.high] for channel, window in self.windows.items()},
            "preprocessing": self.preprocessing,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The recipe that `to_json` wrote.

        Raises:
            ValueError: it is not what `to_json` writes.
        """
        try:
            classes = Classes(
                tuple(str(each["name"]) for each in value["classes"]),
                tuple(tuple(map(int, each["labels"])) for each in value["classes"]),
            )
            windows = {
                int(channel): Window(float(low), float(high)) for channel, (low, high) in value["windows"].items()
            }
            return cls(
                int(value["image_size"]),
                float(value["spacing"]),
                int(value["channels"]),
                classes,
                windows,
                int(value["preprocessing"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the description of a network's input: {error}") from None
