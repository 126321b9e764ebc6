"""Formats of a report beside the table; one entry in `FORMATS` adds one. Imports nothing heavy: `--help` asks it."""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenseg.report.comparison import Comparison, Row

    Write = Callable[[Comparison, Sequence[Row], Sequence[str] | None], str]


@dataclass(frozen=True)
class Format:
    """One of them.

    Attributes:
        suffix: of its files.
        function: that writes it, as `module:name`.
    """

    suffix: str
    function: str

    @property
    def write(self) -> "Write":
        """Writes rows of a comparison, with the columns of these names (None: the usual ones), as text."""
        return pkgutil.resolve_name(self.function)  # type: ignore[no-any-return]


FORMATS: dict[str, Format] = {
    "markdown": Format(".md", "greenseg.report.export:as_markdown"),
    "csv": Format(".csv", "greenseg.report.export:as_csv"),
    "json": Format(".json", "greenseg.report.export:as_json"),
    "latex": Format(".tex", "greenseg.report.export:as_latex"),
    "html": Format(".html", "greenseg.report.page:as_html"),
}
"""Name → format."""
