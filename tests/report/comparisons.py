"""Comparisons of records written by hand."""

from pathlib import Path
from typing import Any

from greenseg.report.comparison import Comparison, Row
from greenseg.report.results import Result, by_configuration
from greenseg.report.run import Run
from greenseg.report.select import Query
from greenseg.runs.directory import RunDirectory
from tests.runs import Json, typed


def results(*records: Json) -> list[Result]:
    """The configurations of these records, in memory."""
    return by_configuration(
        [Run(RunDirectory(Path("runs/x")), written["status"], typed(written)) for written in records]
    )


def compared(*records: Json, **query: Any) -> Comparison:
    """The comparison of these records, as `greenseg report` with these options makes it."""
    return Query(**query).compare(results(*records))


def row(comparison: Comparison, **settings: object) -> Row:
    """The one row with these settings."""
    (found,) = [row for row in comparison.rows if settings.items() <= row.result.settings.items()]
    return found
