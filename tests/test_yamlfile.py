"""YAML with positions."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.yamlfile import Document, load


def read(folder: Path, text: str | bytes) -> Document:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


def mistakes(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    return [problem.replace(f"{folder / 'file.yaml'}", "F") for problem in caught.value.problems]


def test_every_value_knows_its_place(tmp_path: Path) -> None:
    document = read(
        tmp_path,
        "# a comment\n"
        "base:\n"
        "  lr: 1e-3\n"
        "grid: {epochs: [1, 2],\n"
        "       lr: [0.1]}\n"
        "include:\n"
        "  - precision: 32-true\n"
        "    seed: 3\n",
    )
    assert document.value == {
        "base": {"lr": 0.001},
        "grid": {"epochs": [1, 2], "lr": [0.1]},
        "include": [{"precision": "32-true", "seed": 3}],
    }
    places: dict[tuple[Any, ...], str] = {
        (): "2:1",
        ("base",): "2:1",
        ("base", "lr"): "3:3",
        ("grid", "epochs"): "4:8",
        ("grid", "epochs", 1): "4:20",
        ("grid", "lr"): "5:8",
        ("grid", "lr", 0): "5:13",
        ("include", 0): "7:5",
        ("include", 0, "seed"): "8:5",
    }
    for key, place in places.items():
        assert document.where(*key) == f"{tmp_path / 'file.yaml'}:{place}"


def test_what_is_not_there_has_the_place_of_its_nearest_parent(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb:\n  c: 2\n")
    assert document.where("b", "x", 3).endswith(":2:1")
    assert document.where("x").endswith(":1:1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E+3", 1000.0), ("-2e6", -2e6), ("1.5e3", 1500.0), ("1.e3", 1000.0), (".5e3", 500.0),
        ("+1e0", 1.0), (".5", 0.5), ("1.0", 1.0), (".inf", math.inf), ("7", 7), ("'1e-3'", "1e-3"), ("e3", "e3"),
        ("1e", "1e"), ("32-true", "32-true"), ("1e3x", "1e3x"), ("yes", True), ("~", None), ("''", ""),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any, tmp_path: Path) -> None:
    found = read(tmp_path, f"lr: {text}\n").value["lr"]
    assert found == value
    assert type(found) is type(value)


def test_all_duplicate_keys_are_named(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "a: 1\nb: {c: 1, d: 2, c: 3}\na: 2\na: 3\n") == [
        "F:2:17: duplicate key 'c' (first on line 2)",
        "F:3:1: duplicate key 'a' (first on line 1)",
        "F:4:1: duplicate key 'a' (first on line 1)",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "F:2:2: not valid YAML: "),
        ("a: 1\n\tb: 2\n", "F:2:1: not valid YAML: "),
        ("a: 'b\n", "F:2:1: not valid YAML: "),
        ("a: b: c\n", "F:1:5: not valid YAML: "),
        ("a: *nowhere\n", "F:1:4: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", "F:2:1: not valid YAML: "),
        ("a: !!python/name:os.system\n", "F:1:4: not valid YAML: "),
        ("a: !tag b\n", "F:1:4: not valid YAML: "),
        ("{[a]: 1}\n", "F:1:2: a key must be a plain name"),
        ("? {a: 1}\n: 2\n", "F:1:3: a key must be a plain name"),
        ("a: &a [1, *a]\n", "F:1:4: an alias refers to the value that it is in"),
        ("a: 2001-99-99\n", "F:1:4: not valid YAML: "),
    ],
)
def test_what_is_not_valid_is_shown_where_it_is(text: str, place: str, tmp_path: Path) -> None:
    (problem,) = mistakes(tmp_path, text)
    assert problem.startswith(place)
    assert "\n" not in problem


def test_aliases_are_values(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x [1, 2]\nb: *x\nc: &y 3\nd: *y\n").value == {"a": [1, 2], "b": [1, 2], "c": 3, "d": 3}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_an_empty_file_is_none(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text).value is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.yaml: no such file$"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("junk", [b"\xff\xfe\x00a", b"\x00\x01\x02", b"a: \x07", b"\x1f\x8b\x08\x00" * 9, b"a: \xc3"])
def test_binary_junk_is_refused(junk: bytes, tmp_path: Path) -> None:
    assert all(problem.startswith("F") for problem in mistakes(tmp_path, junk))


@pytest.mark.parametrize(
    "text",
    [
        "a: !!timestamp x", "a: !!int ''", "a: !!float ''", "a: !!bool x", "!!seq a: 1",
        "!!map a: 1", "a: !!seq b", "a: 0b_", f"a: {'9' * 5000}", "<<: {a: 1}", "=: 1", "%YAML 9.9\n---\na: 1",
    ],
)  # fmt: skip
def test_tags_that_do_not_fit_are_refused(text: str, tmp_path: Path) -> None:
    assert "not valid YAML" in mistakes(tmp_path, text)[0]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_too_deep_a_nesting_is_refused(text: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, text)


_YAMLISH = st.lists(
    st.sampled_from([*"-?:,[]{}#&*!|>'\"%@` \n\t~<=", "a", "b: ", "\n  ", "- ", "&a ", "*a", "<<: ", "!!", "1e3", "\r"])
    | st.sampled_from(["!!int ", "!!float ", "!!bool ", "!!str ", "!!set ", "!!omap ", "!!null ", "2001-01-99", "0x"]),
    max_size=30,
).map("".join)


@given(text=st.text() | _YAMLISH | st.binary())
@settings(deadline=None, max_examples=400)
def test_any_file_is_a_document_or_a_mistake(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    problems = ["none"]
    try:
        read(folder, text)
    except UserError as error:
        problems = [problem.removeprefix(str(folder / "file.yaml")) for problem in error.problems]
    assert problems
    assert all(problem == "none" or problem.startswith(":") for problem in problems)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=_VALUES, style=st.sampled_from([True, False, None]))
@settings(deadline=None)
def test_what_yaml_writes_is_read_back(
    value: Any, style: bool | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Strings that look like numbers only in YAML 1.2 are the one exception, so they are kept out here."""

    def numberless(value: Any) -> bool:
        if isinstance(value, dict):
            return all(numberless(key) and numberless(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(numberless, value))
        return not (isinstance(value, str) and "e" in value.lower() and any(c.isdigit() for c in value))

    if numberless(value):
        text = yaml.safe_dump(value, default_flow_style=style)
        assert read(tmp_path_factory.getbasetemp(), text).value == value
