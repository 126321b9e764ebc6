"""Settings in a file, valid and in canonical form, and their problems with places."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from greenseg.errors import UserError
from greenseg.settings import MAPPINGS, canonical, overlay
from greenseg.sweep.grid import Values
from greenseg.yamlfile import Document, Key


@dataclass(frozen=True)
class Layer:
    """Settings in canonical form, and their places."""

    values: Values = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def under(self, upper: "Layer") -> "Layer":
        """This layer, overridden by `upper`."""
        return Layer(overlay(self.values, upper.values), self.places | upper.places)


class Findings:
    """Collects the problems of a file.

    Attributes:
        document: the file.
        problems: one message per mistake, with its place.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[str] = []
        self._known: dict[Hashable, tuple[Any, str | None]] = {}

    def report(self, key: Key, message: str, document: Document | None = None) -> None:
        """Report a mistake under a key, in this file or in the given document."""
        self.problems.append(f"{(document or self.document).where(*key)}: {message}")

    def settings(self, key: Key, value: Any, document: Document | None = None) -> Layer:
        """The layer of a mapping of settings; reports its problems."""
        document = document or self.document
        if not isinstance(value, dict) or not value:
            self.report(key, f"{key[0] if key else 'base'}: must be a mapping of settings to values", document)
            return Layer()
        return Layer(
            {str(n): self.value_at(document.where(*key, n), str(n), item) for n, item in value.items()},
            {str(n): document.where(*key, n) for n in value},
        )

    def value(self, key: Key, name: str, value: Any) -> Any:
        """The canonical value of a setting under a key; reports its problems."""
        return self.value_at(self.document.where(*key), name, value)

    def value_at(self, place: str, name: str, value: Any) -> Any:
        """Like `value`, for a setting at another place."""
        if isinstance(value, list):
            self.problems.append(f"{place}: {name}: must be one value here; a list is an axis and belongs under 'grid'")
            return None
        if isinstance(value, dict) and name not in MAPPINGS:
            self.problems.append(f"{place}: {name}: must be one value, not a mapping")
            return None
        token = (name, type(value).__name__, repr(value) if isinstance(value, dict) else value)
        if token not in self._known:
            try:
                self._known[token] = (canonical(name, value), None)
            except UserError as error:
                self._known[token] = (None, str(error))
        known, message = self._known[token]
        if message:
            self.problems.append(f"{place}: {message}")
        return known
