"""The schema of a record: whatever stands in a file is read, or refused in words, and what is not known is kept."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Epoch, Record, read_epoch, read_record
from greenseg.runs.summary import estimate_watts
from tests.runs import Json, epoch, record

VERSIONS = Path(__file__).parents[1] / "versions"
RECORDS = sorted(VERSIONS.rglob("run.json"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
WHOLE: Json = json.loads(next(VERSIONS.glob("0.1.0-preprocessing-6/runs/old/*/run.json")).read_bytes())
WHOLE["attempts"][0]["cpu"] = WHOLE["hardware"]["cpu"]
UNKNOWN = st.dictionaries(st.text().map("new {}".format), JSON, min_size=1, max_size=3)


Place = tuple[str | int, ...]


def paths(value: Any, *path: str | int) -> list[Place]:
    """The path of every value in JSON objects and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in paths(each, *path, key))]


def at(path: Place) -> Any:
    """The value of `WHOLE` at a path."""
    found: Any = WHOLE
    for key in path:
        found = found[key]
    return found


def replaced(path: Place, by: object) -> Any:
    """`WHOLE` with another value at a path."""
    if not path:
        return by
    changed = copy.deepcopy(WHOLE)
    inside: Any = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = by
    return changed


def same(one: Any, other: Any) -> bool:
    """As JSON: 1 is 1.0, and NaN is NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


def read_or_refused(text: bytes) -> None:
    for read in (read_record, read_epoch):
        with contextlib.suppress(BadRecord):
            read(text)


@given(JSON)
def test_any_json_is_a_record_or_refused(value: object) -> None:
    read_or_refused(json.dumps(value).encode())


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_record_or_refused(text: bytes) -> None:
    read_or_refused(text)


@given(st.sampled_from(paths(WHOLE)), JSON)
def test_any_json_in_place_of_a_part_is_kept_and_named_or_refused(path: Place, value: object) -> None:
    changed = replaced(path, value)
    try:
        found = read_record(json.dumps(changed).encode())
    except BadRecord:
        return
    if found.damage:
        assert str(path[0]) in found.damage or path == ("network", "parameters")
        assert same(found.to_json(), changed), "it is written back as it was"


@given(
    st.sampled_from([path for path in paths(WHOLE) if path[:1] != ("settings",) and isinstance(at(path), dict)]),
    UNKNOWN,
)
def test_unknown_fields_survive(path: Place, unknown: Json) -> None:
    written = replaced(path, at(path) | unknown)
    found = read_record(json.dumps(written).encode())
    found.ended = "now"
    assert same(found.to_json(), written | {"ended": "now"})


@given(UNKNOWN)
def test_unknown_fields_of_an_epoch_survive(unknown: Json) -> None:
    written = epoch(0) | unknown
    assert same(read_epoch(json.dumps(written).encode()).to_json(), written)


def test_what_is_written_in_place_of_a_damaged_part_stands() -> None:
    found = read_record(json.dumps(record({}) | {"attempts": "x", "ran": 3}).encode())
    assert found.attempts == []
    assert found.damage
    found.attempts = []
    assert found.to_json()["attempts"] == []
    assert found.to_json()["ran"] == 3


def test_bytes_of_file_names_that_are_no_utf_8_survive() -> None:
    for written in (record({"data": "a\udcff"}), record() | {"data": {"subjects": {"train": ["\udcff"]}}}):
        found = read_record(json.dumps(written).encode())
        assert found.damage == ""
        assert found.to_json() == written
    line = epoch(0) | {"volume_dice": {"\udcff": 0.5}}
    assert read_epoch(json.dumps(line).encode()).to_json() == line


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: str(file.relative_to(VERSIONS).parts[0]))
def test_records_of_earlier_versions_are_read_in_todays_shape(file: Path) -> None:
    written = json.loads(file.read_bytes())
    assert Record.model_validate(written).to_json() == written
    run = RunDirectory(file.parent)
    found = run.record()
    assert found is not None
    assert found.damage == ""
    assert found.data is not None
    assert found.data.slices_per_epoch == {"train": 12, "validation": 6}
    assert [attempt.cpu for attempt in found.attempts] == [written["hardware"]["cpu"]]
    assert bool(estimate_watts(found.attempts)) == ("energy_method" in written)
    assert found.known_as
    assert all(isinstance(line, Epoch) for line in run.epochs())


def test_constants_and_cpu_of_earlier_attempts_come_from_the_record() -> None:
    """Earlier versions wrote those of the last attempt only; another host may have another CPU."""
    written = record()
    written["attempts"] = [{"status": "killed", "host": host} for host in ("there", "here", "here")]
    found = read_record(json.dumps(written).encode())
    assert [attempt.cpu for attempt in found.attempts] == [None, "some CPU", "some CPU"]
    assert "cpu" not in found.attempts[0].to_json(), "it stays unknown"
    assert estimate_watts(found.attempts) == {((10.0, 10.0, 10.0), (0.4, 0.4, 0.4))}
