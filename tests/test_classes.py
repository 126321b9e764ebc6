"""Classes of a segmentation, as a setting."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenseg.classes import BINARY, Classes, canonical, without_names
from greenseg.errors import UserError
from greenseg.settings import Settings, problems_of
from greenseg.sweep.file import read_sweep

NAMES = st.text(st.characters(exclude_characters="=,+:", exclude_categories=("C", "Z")), min_size=1)
LABELS = st.lists(st.integers(1, 999), min_size=1, max_size=8, unique=True)


@given(st.data())
def test_the_canonical_text_is_read_back(data: st.DataObject) -> None:
    labels = data.draw(LABELS)
    names = data.draw(st.lists(NAMES, min_size=1, max_size=len(labels), unique=True))
    value = {name: labels[i :: len(names)] for i, name in enumerate(names)}
    classes = Classes.of(value)
    assert classes is not None
    assert classes.names == tuple(names)
    assert Classes.of(str(classes)) == classes
    assert canonical(canonical(value)) == canonical(value)
    assert without_names(str(classes)) == classes.without_names


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (3, "3"),
        ("3, 1,2,1", "1,2,3"),
        ("csf=1, brain = 5+3", "csf=1,brain=3+5"),
        ({"csf": 1, "brain": [5, 3]}, "csf=1,brain=3+5"),
    ],
)
def test_notations(value: Any, text: str) -> None:
    assert Settings.of({"labels": value}).labels == text


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("1,x", "1,x"), ("csf=1,2", "csf=1,2"), ({}, "csf=1"), ({"csf": []}, "csf"), (True, "True"), (2.5, "2.5"),
        ("0,1", "0 is background"), ("csf=1,csf=2", "'csf'"), ("csf=1,brain=2+1", "label 1 is in two classes"),
        ("=1", "not a name"), ({"a:b": 1}, "a:b"), ({f"c{i}": i + 1 for i in range(255)}, "at most 254"),
    ],
)  # fmt: skip
def test_wrong_classes(value: Any, named: str) -> None:
    (problem,) = problems_of({"labels": value})
    assert problem.key == "labels"
    assert named in problem.message


def test_labels_identify_a_run_and_names_do_not() -> None:
    def identity(labels: Any) -> str:
        return Settings.of({"labels": labels}).identity

    assert identity("brain=1+2+3") == identity("1,2,3")
    assert identity("csf=1,brain=2") == identity({"x": 1, "y": 2}) != identity("csf=2,brain=1")
    assert len({identity(labels) for labels in ("", "1,2", "a=1,b=2", "a=1,b=2+3", "a=1+2,b=3")}) == 5
    assert len(BINARY) == 1


def test_a_sweep_file_names_classes_by_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text("base: {labels: {csf: 1, brain: [3, 2]}}\ngrid: {lr: [0.1]}\n")
    assert [run.labels for run in read_sweep(file).runs] == ["csf=1,brain=2+3"]
    file.write_text("grid: {labels: [{csf: 1}, {csf: 1, brain: [3, 2]}]}\n")
    assert [run.labels for run in read_sweep(file).runs] == ["csf=1", "csf=1,brain=2+3"]
    file.write_text("grid: {labels: ['csf=1,brain=2', 'a=1,b=2', '1,2', 'foreground=2+1']}\n")
    sweep = read_sweep(file)
    assert ([run.labels for run in sweep.runs], sweep.duplicates) == (["csf=1,brain=2", "1,2"], 2)
    file.write_text("grid: {labels: [{values: [1], csf: 2}]}\n")
    with pytest.raises(UserError, match="csf"):
        read_sweep(file)
