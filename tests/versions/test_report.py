"""A report on run folders of earlier versions gives the values that it gave when they were kept."""

import csv
import io
from pathlib import Path

from greenseg.report.formats import FORMATS
from greenseg.report.reader import Reader
from greenseg.report.results import by_configuration
from greenseg.report.select import Query
from greenseg.runs.directory import find_runs

HERE = Path(__file__).parent


def test_records_of_earlier_versions_give_the_same_values() -> None:
    reader, query = Reader(), Query()
    runs, damaged = reader.read(find_runs([HERE]))
    assert not damaged
    comparison = query.compare(by_configuration(runs), reader.notes)
    text = FORMATS["csv"].write(comparison, query.rows(comparison), None)
    now = list(csv.DictReader(io.StringIO(text)))
    then = list(csv.DictReader((HERE / "report.csv").open(encoding="utf-8")))
    assert {row["on_grid"] for row in now if row["status"] == "finished"} == {"true"}
    # Later settings add columns; the joules of a validation slice have got another name.
    now = [
        {**row, **{f"inference{end}": row[f"validation_slice{end}"] for end in ("", "_low", "_high")}} for row in now
    ]
    assert [{name: row[name] for name in before} for row, before in zip(now, then, strict=True)] == then
