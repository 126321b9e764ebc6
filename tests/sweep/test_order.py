"""The order of a sweep's runs, and the pauses between them."""

from pathlib import Path

import pytest

from greenseg.errors import UserError
from greenseg.machine.cool_down import CoolDown
from greenseg.sweep.file import Measuring, Sweep, read_sweep

GRID = "grid:\n  batch_size: [1, 2, 4, 8, 16, 32]\nseeds: [0, 1, 2]\n"


def sweep(tmp_path: Path, text: str) -> Sweep:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_sweep(path)


def test_a_shuffle_mixes_configurations_and_seeds_always_alike(tmp_path: Path) -> None:
    listed = sweep(tmp_path, GRID)
    shuffled = sweep(tmp_path, f"{GRID}order: shuffled\n")
    assert listed.order == "listed"
    assert shuffled.order == "shuffled"
    assert shuffled.runs != listed.runs
    assert {run.identity for run in shuffled.runs} == {run.identity for run in listed.runs}
    assert [run.seed for run in shuffled.runs] != sorted(run.seed for run in shuffled.runs)
    assert sweep(tmp_path, f"{GRID}order: shuffled\n") == shuffled, "a sweep that is resumed keeps its order"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cool_down: 30", CoolDown(30)),
        ("cool_down: {seconds: 300, temperature: 50}", CoolDown(300, 50)),
    ],
)
def test_pauses(text: str, expected: CoolDown, tmp_path: Path) -> None:
    assert sweep(tmp_path, f"{GRID}{text}\n").cool_down == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("measure: false", None),
        ("measure: true", Measuring()),
        ("measure: {seconds: 60, accelerator: cpu}", Measuring(60, "cpu")),
    ],
)
def test_measurements_afterwards(text: str, expected: Measuring | None, tmp_path: Path) -> None:
    assert sweep(tmp_path, f"{GRID}{text}\n").measure == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "order: shufled",
            "s.yaml:4:1: order: 'shufled' is not valid (did you mean 'shuffled'?); valid: listed, shuffled",
        ),
        ("cool_down: long", "s.yaml:4:1: cool_down: seconds: 'long' is not a number above 0"),
        ("cool_down: {seconds: -1}", "s.yaml:4:13: cool_down: seconds: -1 is not a number above 0"),
        ("cool_down: {temperature: 50}", "s.yaml:4:1: cool_down: needs 'seconds', the longest pause"),
        (
            "measure: on",
            "s.yaml:4:1: measure: 'on' is not true, false or a mapping with seconds and accelerator",
        ),
        ("measure: {seconds: 0}", "s.yaml:4:11: measure: seconds: 0 is not a number above 0"),
        (
            "measure: {second: 3}",
            "s.yaml:4:11: measure: unknown key 'second' (did you mean 'seconds'?); valid: seconds, accelerator",
        ),
        (
            "measure: {accelerator: mps}",
            "s.yaml:4:11: measure: accelerator: 'mps' is not valid; valid: auto, cpu, gpu",
        ),
        ("cool_down: {seconds: 3, temp: 5}", "s.yaml:4:25: cool_down: unknown key 'temp'; valid: seconds, temperature"),
    ],
)
def test_mistakes_are_shown_where_they_are(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        sweep(tmp_path, f"{GRID}{text}\n")
    assert [problem.rpartition("/")[2] for problem in caught.value.problems] == [message]
