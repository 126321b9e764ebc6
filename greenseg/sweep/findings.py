"""Settings in a file, each valid and in its canonical form; and all that is wrong with them, with its place."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from greenseg.errors import UserError
from greenseg.settings import canonical, overlay
from greenseg.sweep.grid import Values
from greenseg.yamlfile import Document, Key


@dataclass(frozen=True)
class Layer:
    """Settings, canonical, and where each of them stands."""

    values: Values = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def under(self, upper: "Layer") -> "Layer":
        """Both, where `upper` wins."""
        return Layer(overlay(self.values, upper.values), self.places | upper.places)


class Findings:
    """What was found in a file and is wrong with it.

    Attributes:
        document: the file.
        problems: a message for each mistake, with its place.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[str] = []
        self._known: dict[Hashable, tuple[Any, str | None]] = {}

    def report(self, key: Key, message: str, document: Document | None = None) -> None:
        """A mistake, and the key that it stands under; in another file than this one where a document is given."""
        self.problems.append(f"{(document or self.document).where(*key)}: {message}")

    def settings(self, key: Key, value: Any, document: Document | None = None) -> Layer:
        """A mapping of settings; what is wrong is reported."""
        document = document or self.document
        if not isinstance(value, dict) or not value:
            self.report(key, f"{key[0] if key else 'base'}: must be a mapping of settings to values", document)
            return Layer()
        return Layer(
            {str(n): self.value_at(document.where(*key, n), str(n), item) for n, item in value.items()},
            {str(n): document.where(*key, n) for n in value},
        )

    def value(self, key: Key, name: str, value: Any) -> Any:
        """The value of a setting that stands under a key, in its canonical form; what is wrong is reported."""
        return self.value_at(self.document.where(*key), name, value)

    def value_at(self, place: str, name: str, value: Any) -> Any:
        """The same, of one that stands elsewhere."""
        if isinstance(value, list):
            self.problems.append(f"{place}: {name}: one value is needed here; a list makes an axis, under 'grid'")
            return None
        try:
            token = (name, type(value).__name__, value)
            hash(token)
        except TypeError:
            self.problems.append(f"{place}: {name}: one value is needed, not a mapping")
            return None
        if token not in self._known:
            try:
                self._known[token] = (canonical(name, value), None)
            except UserError as error:
                self._known[token] = (None, str(error))
        known, message = self._known[token]
        if message:
            self.problems.append(f"{place}: {message}")
        return known
