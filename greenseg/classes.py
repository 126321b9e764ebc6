"""The classes that a network tells apart, and the labels of masks that form them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

FOREGROUND = "foreground"
"""Name of the only class if nobody named it."""

MOST = 254
"""Largest number of classes: a pixel is stored in a byte, and two of its values mean background and not annotated."""

IGNORED = 255
"""Value of a pixel without annotation in prepared masks. It counts neither in the loss nor in a metric."""

EXAMPLES = "such as 1,2,3 (one class), or csf=1,grey_matter=2,brain=3+4+5"

_NUMBER = r"\d{1,9}"


@dataclass(frozen=True)
class Classes:
    """Classes of a segmentation, without the background.

    Attributes:
        names: their names, in the order of the network's outputs.
        labels: for each class, the labels of a mask that form it, ascending; empty for any label above 0.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """Classes from a setting: text such as `1,2,3` or `csf=1,brain=3+4+5`, a number, or names with their labels.

        Returns:
            None if the value is empty: the data set decides.

        Raises:
            ValueError: the value has another form, a name or a label occurs twice, or a label is not above 0.
        """
        if isinstance(value, Mapping):
            named = [(str(name), _numbers(labels, value)) for name, labels in value.items()]
        else:
            text = str(value).strip()
            if not text:
                return None
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise _wrong(value)
            if "=" in text:
                if not all("=" in part for part in text.split(",")):
                    raise _wrong(value)
                parts = [part.rpartition("=") for part in text.split(",")]
                named = [(name.strip(), _numbers(labels.split("+"), value)) for name, _, labels in parts]
            else:
                named = [(FOREGROUND, _numbers(text.split(","), value))]
        if not named:
            raise _wrong(value)
        classes = cls(tuple(name for name, _ in named), tuple(labels for _, labels in named))
        classes._check()
        return classes

    def _check(self) -> None:
        for name in self.names:
            if not name or re.search(r"[=,+:]", name):
                raise ValueError(
                    f"{name!r} is not a name for a class; write text without the characters '=', ',', '+', ':'"
                )
        if len(self) > MOST:
            raise ValueError(f"{len(self)} classes; at most {MOST} are possible")
        if twice := next((name for name in self.names if self.names.count(name) > 1), None):
            raise ValueError(f"two classes have the name '{twice}'")
        class_of: dict[int, str] = {}
        for name, labels in zip(self.names, self.labels, strict=True):
            for label in labels:
                if label in class_of:
                    raise ValueError(f"label {label} is in two classes, {class_of[label]} and {name}")
                class_of[label] = name

    def __str__(self) -> str:
        """The canonical text of the setting; `Classes.of` reads it."""
        if self.names == (FOREGROUND,):
            return ",".join(map(str, self.labels[0]))
        return ",".join(f"{name}={'+'.join(map(str, labels))}" for name, labels in self._items())

    def _items(self) -> list[tuple[str, tuple[int, ...]]]:
        return list(zip(self.names, self.labels, strict=True))

    @property
    def without_names(self) -> str:
        """Which labels form a class, as text. Runs that differ in the names only are the same."""
        if len(self) == 1:
            return ",".join(map(str, self.labels[0]))
        return ";".join("+".join(map(str, labels)) for labels in self.labels)


BINARY = Classes((FOREGROUND,), ((),))
"""Any label above 0 is the one class."""


def canonical(value: Any) -> str:
    """The canonical text of a setting with classes; raises like `Classes.of`."""
    classes = Classes.of(value)
    return "" if classes is None else str(classes)


def without_names(text: str) -> str:
    """The classes of a canonical text, without their names."""
    classes = Classes.of(text) if "=" in text else None
    return classes.without_names if classes else text


def _numbers(labels: Any, value: Any) -> tuple[int, ...]:
    texts = [str(label).strip() for label in (labels if isinstance(labels, list | tuple) else [labels])]
    if not texts or not all(re.fullmatch(_NUMBER, text) for text in texts):
        raise _wrong(value)
    numbers = sorted({int(text) for text in texts})
    if 0 in numbers:
        raise ValueError("0 is background; labels are above 0")
    return tuple(numbers)


def _wrong(value: Any) -> ValueError:
    return ValueError(f"{value!r} does not name labels; write them {EXAMPLES}")
