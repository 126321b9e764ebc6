"""Formats of a report besides the table. One entry in `FORMATS` adds a format. Imports nothing heavy, for `--help`."""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenseg.report.comparison import Comparison, Row

    Write = Callable[[Comparison, Sequence[Row], Sequence[str] | None], str]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: suffix of its files.
        function: function that writes it, as `module:name`.
    """

    suffix: str
    function: str

    @property
    def write(self) -> "Write":
        """The function: takes a comparison, rows and column names (None for the default); returns text."""
        return pkgutil.resolve_name(self.function)  # type: ignore[no-any-return]


FORMATS: dict[str, Format] = {
    "markdown": Format(".md", "greenseg.report.export:as_markdown"),
    "csv": Format(".csv", "greenseg.report.export:as_csv"),
    "json": Format(".json", "greenseg.report.export:as_json"),
    "latex": Format(".tex", "greenseg.report.export:as_latex"),
    "html": Format(".html", "greenseg.report.page:as_html"),
}
"""Name → format."""
