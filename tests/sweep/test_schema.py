"""The published schema says what the loader accepts."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.settings import Settings, choices
from greenseg.sweep.file import KEYS, read_sweep
from greenseg.sweep.schema import schema
from tests.conftest import times
from tests.settings.test_settings import VALUES

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft7Validator(schema())


def loads(folder: Path, content: Any) -> bool:
    """Whether the loader accepts it."""
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    try:
        read_sweep(file)
    except UserError:
        return False
    return True


def test_the_published_schema_is_up_to_date() -> None:
    published = json.loads((ROOT / "docs" / "sweep.schema.json").read_text(encoding="utf-8"))
    assert published == schema(), "run `make docs`"
    jsonschema.Draft7Validator.check_schema(published)
    assert set(published["properties"]) == set(KEYS)
    assert all(published["properties"][key]["description"] for key in KEYS)


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_sweeps_that_come_with_greenseg_name_it_and_follow_it(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    start = "# yaml-language-server: $schema="
    assert first.startswith(start)
    assert (file.parent / first.removeprefix(start)).resolve() == ROOT / "docs" / "sweep.schema.json"
    VALIDATOR.validate(yaml.safe_load(file.read_text(encoding="utf-8")))


# Settings that concern nothing else, so that a file is right where each of its values is.
_FREE = ["batch_size", "lr", "channels_last", "schedule", "spacing", "validation_share", "epochs"]
_WRONG = st.sampled_from([None, -1, "x", "", [], {}, [[1]], {"a": 1}])
_VALUE = {name: VALUES[name] for name in _FREE}


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Right values, and now and then one that is of no use anywhere."""
    return st.integers(0, 60).flatmap(lambda n: _WRONG if n == 37 else right)


def mapping(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Of settings; where it is wrong, it is no text, which under `base` names a file."""
    return mostly(
        st.fixed_dictionaries({}, optional={name: mostly(value) for name, value in values.items()}).filter(bool)
    ).filter(lambda value: value != "x")


def axis(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    plain = mostly(st.lists(mostly(value), min_size=1, max_size=3))
    branch = st.fixed_dictionaries({"values": plain})
    return mostly(plain | branch | st.lists(branch, min_size=1, max_size=2))


_RANGES = st.sampled_from(
    [
        {"from": 8, "to": 32, "times": 2},
        {"from": 8, "to": 32, "step": 8},
        {"from": 8, "to": 32, "step": 8, "times": 2},
        {"from": 8, "times": 2},
        {"from": "a", "to": 32, "times": 2},
        {"values": [8], "from": 8, "to": 9, "step": 1},
        {"when": {"lr": 1.0}},
    ]
)
_GRID = st.fixed_dictionaries(
    {},
    optional={
        **{name: axis(_VALUE[name]) for name in _FREE[:3]},
        "batch_size": axis(_VALUE["batch_size"]) | _RANGES,
        "schedule, epochs": axis(st.tuples(VALUES["schedule"], VALUES["epochs"]).map(list)),
    },
).filter(bool)
_SWEEP = st.fixed_dictionaries(
    {},
    optional={
        "name": mostly(st.just("a.b")),
        "base": mapping(_VALUE) | st.lists(mapping(_VALUE), min_size=1, max_size=2),
        "grid": mostly(_GRID),
        "include": mostly(st.lists(mapping({name: _VALUE[name] for name in _FREE[3:]}), max_size=2)),
        "seeds": mostly(st.lists(mostly(st.integers(0, 2**32 - 1)), min_size=1, max_size=2)),
        "order": mostly(st.sampled_from(["listed", "shuffled"])),
        "cool_down": mostly(st.just(3) | st.just({"seconds": 3, "temperature": 50.5}) | st.just({"temperature": 3})),
        "retries": mostly(st.integers(0, 3)),
        "timeout": mostly(st.sampled_from([30, 1.5, "30min", "1h 30 min", "5", "3 kWh", "h", "0.5 d"])),
        "measure": mostly(
            st.booleans() | st.just({"seconds": 30, "accelerator": "cpu"}) | st.just({"accelerator": "x"})
        ),
        "keep": mostly(st.sampled_from(["best", "front", "all", "none"])),
        "max_energy": mostly(st.sampled_from([3e6, "2 kWh", "500kJ", "2 kwh", "7 h"])),
    },
)


@given(content=_SWEEP)
@example(content={"sead": [1]})
@example(content={"grid": {"schedule,": [["cosine", 1]]}})
@example(content={"grid": {"schedule, epochs": [["cosine", 1]]}})
@example(content={"grid": {" epochs": [1]}})
@example(content={"base": {"encoder": "ResNet", "decoder": "FPN"}})
@example(content={"grid": {"lr": [1], "batch_size": {"values": [1], "when": {"lr": [1.0]}}}})
@example(content={"grid": {"lr": [1], "batch_size": {"values": [1], "when": {"lr": []}}}})
@example(content={"grid": {"lr": [1], "batch_size": {"values": [1], "when": {}}}})
@settings(deadline=None, max_examples=times(4))
def test_what_the_loader_accepts_is_what_the_schema_accepts(
    content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    errors = [error.message for error in VALIDATOR.iter_errors(content)]
    assert loads(tmp_path_factory.getbasetemp(), content) == (not errors), errors


@pytest.mark.parametrize("name", list(Settings.model_fields))
@given(data=st.data())
@settings(deadline=None, max_examples=20)
def test_every_valid_value_of_a_setting_validates(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    VALIDATOR.validate({"base": {name: value}})
    VALIDATOR.validate({"grid": {name: [value]}, "exclude": [{name: value}], "include": [{name: value}]})


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_wrong_types_limits_and_choices_do_not_validate(name: str, tmp_path: Path) -> None:
    field = Settings.model_fields[name]
    wrong: list[Any] = [None, [1], {"a": "x"}]
    if field.annotation in (int, float):
        wrong += ["1", True, -1, 10**12]
    elif field.annotation is bool:
        wrong += [1, "true"]
    else:
        wrong += [True, *([] if name in ("labels", "workers", "batch_size", "lr") else [1])]
        wrong += ["no such choice"] if choices(name) else []
    for value in wrong:
        assert not VALIDATOR.is_valid({"base": {name: value}}), value
        assert not loads(tmp_path, {"base": {name: value}}), value


def test_files_to_inherit_from_validate() -> None:
    VALIDATOR.validate({"base": "other.yaml"})
    VALIDATOR.validate({"base": ["other.yaml", {"epochs": 3}]})
    assert not VALIDATOR.is_valid({"base": [3]})
