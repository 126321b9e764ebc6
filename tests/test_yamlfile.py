"""YAML with positions."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.yamlfile import Document, dump, load
from tests.conftest import times


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
        ("1e", "1e"), ("32-true", "32-true"), ("1e3x", "1e3x"), ("~", None), ("''", ""), ("", None), ("Null", None),
        ("true", True), ("TRUE", True), ("False", False), ("nULL", "nULL"), ("1E3", 1000.0), ("1.", 1.0), ("+7", 7),
        ("+.5", 0.5), ("-.INF", -math.inf), ("-0", 0), ("'7'", "7"), ("!!str 7", "7"), ("!!float 7", 7.0),
        # YAML 1.1, or a reader in a hurry, takes these for something else.
        ("010", 10), ("020", 20), ("-010", -10), ("08", 8), ("007.50", 7.5), ("0o17", 15), ("0x10", 16), ("0", 0),
        ("!!int 010", 10), ("1:30", "1:30"), ("190:20:30.15", "190:20:30.15"), ("1_000", "1_000"), ("1_0.5", "1_0.5"),
        ("0b1", "0b1"), ("-0x1", "-0x1"), ("+.inf", math.inf), ("inf", "inf"), ("nan", "nan"), ("1e5_0", "1e5_0"),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("NO", "NO"), ("y", "y"), ("n", "n"), ("Y", "Y"),
        ("2024-01-01", "2024-01-01"), ("2001-99-99", "2001-99-99"), ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("=", "="), ("<<", "<<"), ("１", "１"), ("−1", "−1"), (".", "."), ("-", [None]), ("1,5", "1,5"), ("+", "+"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text: str, value: Any, tmp_path: Path) -> None:
    found = read(tmp_path, f"lr:\n  {text}\n").value["lr"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number(tmp_path: Path) -> None:
    assert all(math.isnan(read(tmp_path, f"lr: {text}").value["lr"]) for text in (".nan", ".NaN", "!!float .NAN"))


def test_words_and_numbers_are_keys_as_they_are_written(tmp_path: Path) -> None:
    found = read(tmp_path, "on: 1\nno: 2\n010: 3\n=: 4\n'<<': 5\n~: 6\n1e-3: 7\n'1': 8\n").value
    assert found == {"on": 1, "no": 2, 10: 3, "=": 4, "<<": 5, None: 6, 0.001: 7, "1": 8}


def test_a_merge_key_brings_in_what_the_mapping_lacks(tmp_path: Path) -> None:
    document = read(
        tmp_path,
        "a: &a {x: 1, y: 1}\n"
        "b: &b\n"
        "  y: 2\n"
        "  z: 2\n"
        "c: {<<: *a, y: 3}\n"
        "d: {y: 3, <<: *a}\n"
        "e: {<<: [*b, *a, *b], w: 0}\n"
        "f: &f {<<: *b, z: 9}\n"
        "g: {<<: [*f, *b], <: 1}\n"
        "h: {<<: {x: [*a]}, '<<': *a}\n",
    )
    a, b = {"x": 1, "y": 1}, {"y": 2, "z": 2}
    assert document.value == {
        "a": a, "b": b, "c": {"x": 1, "y": 3}, "d": {"x": 1, "y": 3}, "e": {"x": 1, "y": 2, "z": 2, "w": 0},
        "f": {"y": 2, "z": 9}, "g": {"z": 9, "y": 2, "<": 1}, "h": {"x": [a], "<<": a},
    }  # fmt: skip
    assert list(document.value["e"]) == ["y", "z", "x", "w"], "in the order of writing"
    assert document.where("e", "z").endswith(":4:3"), "a mistake is shown where it is written"
    assert document.where("e", "w").endswith(":7:23")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<<: 1", "F:1:5: << takes a mapping"),
        ("a: &a [1]\nb: {<<: *a}", "F:1:8: << takes a mapping"),
        ("a: &a {<<: *a}", "F:1:4: an alias refers to a value that contains it"),
        ("a: &a {b: {<<: [*a]}}", "F:1:4: an alias refers to a value that contains it"),
        ("a: &a {}\nb:\n  <<: *a\n  <<: *a", "F:4:3: duplicate key '<<' (first on line 3); to merge several"),
    ],
)
def test_merge_keys_that_cannot_be_followed_are_shown(text: str, expected: str, tmp_path: Path) -> None:
    (problem,) = mistakes(tmp_path, text)
    assert problem.startswith(expected)


@pytest.mark.parametrize("line", ["&{0} {{k: [*{1}, *{1}]}}", "&{0} {{<<: [*{1}, *{1}], k{0}: *{1}}}"])
def test_aliases_that_would_make_a_universe_of_a_few_lines_are_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenseg.yamlfile._MOST", 10_000)
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: {line.format(f'a{i}', f'a{i - 1}')}" for i in range(1, 60)]
    assert "more than 10,000 values" in mistakes(tmp_path, "\n".join(lines))[0]
    merged = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}" for i in range(1, 60)]
    assert len(read(tmp_path, "\n".join(merged)).value["a59"]) == 60


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
        ("a: &a [1, *a]\n", "F:1:4: an alias refers to a value that contains it"),
        ("a: 1e999\n", "F:1:4: not valid YAML: '1e999' is not a number that fits into a float"),
        ("a: 1e-999\n", "F:1:4: not valid YAML: '1e-999' is not a number that fits into a float"),
        ("a:\t1\n", "F:1:3: not valid YAML: found character '\\t' that cannot start any token; use spaces, not tabs"),
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
        "!!map a: 1", "a: !!seq b", "a: !!int 0b1", "a: !!int 1_0",
            "a: !!int 1.0", "a: !!bool yes", "a: !!null 0", "a: !!binary aGk=", f"a: {'9' * 5000}",
            "%YAML 9.9\n---\na: 1",
    ],
)  # fmt: skip
def test_tags_that_do_not_fit_are_refused(text: str, tmp_path: Path) -> None:
    assert "not valid YAML" in mistakes(tmp_path, text)[0]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_files_of_other_systems_are_read_alike(newline: str, start: str, tmp_path: Path) -> None:
    text = start + "lr: 1e-3\ndata: 'á\n  b'\n".replace("\n", newline)
    document = read(tmp_path, text)
    assert document.value == {"lr": 0.001, "data": "á b"}
    assert document.where("lr").endswith(":1:1")
    assert document.where("data").endswith(":2:1")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("latin-1", "F:2:8: not valid YAML: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("utf-16", "F:1:1: not valid YAML: this is UTF-16; save the file as UTF-8"),
    ],
)
def test_other_encodings_are_named(encoding: str, expected: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, "lr: 1\ndata: fétal\n".encode(encoding)) == [expected]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_too_deep_a_nesting_is_refused(text: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, text)


_YAMLISH = st.lists(
    st.sampled_from([*"-?:,[]{}#&*!|>'\"%@` \n\t~<=", "a", "b: ", "\n  ", "- ", "&a ", "*a", "<<: ", "!!", "1e3", "\r"])
    | st.sampled_from(["!!int ", "!!float ", "!!bool ", "!!str ", "!!set ", "!!omap ", "!!null ", "2001-01-99", "0x"]),
    max_size=30,
).map("".join)


@given(text=st.text() | _YAMLISH | st.binary())
@settings(deadline=None, max_examples=times(4))
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


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in type, too, and in the order of keys."""
    return repr(one) == repr(other)


@given(value=_VALUES)
@example(
    value=["010", "08", "0o17", "1e3", "1_0", "1:30", "no", "~", "<<", "=", "2024-01-01", ".5", "1.", "+1", "", "y"]
)
@example(
    value=[10, -0.0, 1e-5, 1e22, 1e300, math.inf, -math.inf, True, None, {"no": 1, "010": 2}, "a\u2028b", "\ufeffa"]
)
@example(value=["é", "\x85", "\x07", "a\nb", "a: b", "#", " a ", "\udcff"])
def test_what_we_write_is_read_back_by_us_and_by_others(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = dump(value)
    assert same(read(tmp_path_factory.getbasetemp(), text).value, value)
    assert same(yaml.safe_load(text), value)


@given(value=_VALUES, style=st.sampled_from([True, False, None]))
def test_what_others_write_is_read_back(
    value: Any, style: bool | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Text that is a number only in YAML 1.2, which PyYAML does not quote, is the one exception: it is left out."""

    def is_plain_in_both(value: Any) -> bool:
        if isinstance(value, dict):
            return all(is_plain_in_both(key) and is_plain_in_both(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(is_plain_in_both, value))
        return not (isinstance(value, str) and any(c.isdigit() for c in value))

    if is_plain_in_both(value):
        text = yaml.safe_dump(value, default_flow_style=style)
        assert read(tmp_path_factory.getbasetemp(), text).value == value


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "versions").rglob("config.yaml")), ids=str)
def test_configurations_of_earlier_versions_are_read_as_they_were(path: Path) -> None:
    assert same(load(path).value, yaml.safe_load(path.read_text(encoding="utf-8")))
