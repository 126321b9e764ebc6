"""The classes that the files of a data set name."""

import re
from collections.abc import Sequence

from greenseg.classes import Classes

_FORBIDDEN = re.compile(r"\s*[=,+:]+\s*")


def named(classes: Sequence[tuple[str, Sequence[int]]]) -> Classes | None:
    """Classes with these names and labels, in this order; None if there are fewer than two.

    A single name changes nothing: any label above 0 is foreground. Characters that the setting `labels` uses itself
    become `_`.

    Raises:
        ValueError: a name occurs twice or is empty, a label is in two classes, or there are too many classes.
    """
    if len(classes) < 2:
        return None
    labels_of: dict[str, list[int]] = {}
    for name, labels in classes:
        cleaned = _FORBIDDEN.sub("_", name.strip())
        if cleaned in labels_of:
            raise ValueError(f"two classes have the name '{cleaned}'")
        labels_of[cleaned] = list(labels)
    return Classes.of(labels_of)


def remedy(name: str, labels: Sequence[int]) -> str:
    """How to name the classes by hand, with this class as an example."""
    return f"name the classes yourself, such as --labels {_FORBIDDEN.sub('_', name)}={'+'.join(map(str, labels))}"
