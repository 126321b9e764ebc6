"""A sweep file whose configurations are drawn: what is read, and what is refused, with its place."""

from pathlib import Path

import pytest

from greenseg.errors import UserError
from greenseg.sweep.file import Searching, Sweep, read_sweep
from greenseg.sweep.grid import Between

OPTUNA = "search: {method: optuna, configurations: 5}\n"
LR = "grid:\n  lr: {from: 1e-4, to: 1e-1, log: true}\n"


def read(folder: Path, text: str, search: str | None = None) -> Sweep:
    file = folder / "s.yaml"
    file.write_text(text, encoding="utf-8")
    return read_sweep(file, search=search)


def test_axes_become_a_space(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra 'search'")
    text = (
        "base: {epochs: 3}\nseeds: [1, 2]\n"
        "search: {method: optuna, sampler: random, configurations: 60, budget: 3 MJ, seed: 4}\n" + LR +
        "  image_size: {from: 64, to: 256, log: false}\n"
        "  batch_size: {from: 4, to: 16, times: 2}\n"
        "  optimizer, weight_decay: [[sgd, 0], [adamw, 0.01]]\n"
    )  # fmt: skip
    sweep = read(tmp_path, text)
    assert sweep.search == Searching("optuna", 3e6, None, 4, "random", 60)
    assert sweep.runs == ()
    assert sweep.space
    lr, size, batch, tied = sweep.space.axes
    assert (lr.between, size.between) == (Between(1e-4, 0.1, True), Between(64, 256, False, 32))
    assert [row["batch_size"] for row in batch.rows({})] == [4, 8, 16]
    assert len(tied.rows({})) == 2
    assert sweep.space.size is None
    assert sweep.space.seeds == (1, 2)
    assert sweep.varied == ("lr", "image_size", "batch_size", "optimizer", "weight_decay", "seed")
    runs = sweep.space.runs({"lr": 0.01})
    assert [(run.seed, run.lr, run.epochs) for run in runs] == [(1, 0.01, 3), (2, 0.01, 3)]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (LR, ["s.yaml:2:3", "optuna", "'step' or 'times'"]),
        ("search: halving\n" + LR, ["s.yaml:3:3", "optuna"]),
        ("grid:\n  lr: {from: 1e-4, to: 1e-1}\n", ["2:3", "'step' and 'times'", "'log: true'"]),
        (OPTUNA, ["1:1", "needs 'grid'"]),
        ("search: optuna\n" + LR, ["1:1", "needs 'configurations'"]),
        ("search: {method: optuna, configurations: 0}\n" + LR, ["1:26", "0 is not a whole number"]),
        ("search: {method: optuna, configurations: 5, sampler: tpa}\n" + LR, ["'tpa'", "did you mean 'tpe'", "nsga2"]),
        ("search: {method: optuna, configurations: 5, budget: 25 %}\n" + LR, ["1:45", "no grid", "joules"]),
        ("search: {method: halving, configurations: 5}\ngrid: {lr: [1, 2]}\n", ["1:27", "with method halving"]),
        ("search: {method: halving, sampler: tpe}\ngrid: {lr: [1, 2]}\n", ["1:27", "not valid with method halving"]),
        ("search: {method: optuna, configuration: 5}\n" + LR, ["did you mean 'configurations'"]),
        (OPTUNA + LR + "exclude:\n  - {lr: 1e-3}\n", ["4:1", "exclude", "tie settings"]),
        (OPTUNA + LR + "include:\n  - {lr: 1e-3}\n", ["4:1", "include", "tie settings"]),
        (OPTUNA + LR + "  compile: {values: [true, false], when: {lr: 1}}\n", ["4:3", "'when'"]),
        (OPTUNA + "grid: {seed: [1, 2]}\n", ["2:8", "'seeds'"]),
        (OPTUNA + "grid: {lr: {from: 1, to: 1, log: false}}\n", ["2:8", "not below"]),
        (OPTUNA + "grid: {weight_decay: {from: 0, to: 1, log: true}}\n", ["2:23", "above 0"]),
        (OPTUNA + "grid: {lr: {from: 1, to: 2, log: 3}}\n", ["2:29", "neither true nor false"]),
        (OPTUNA + "grid: {lr: {from: 1, log: true}}\n", ["to: is missing"]),
        (OPTUNA + "grid: {lr: {from: 1, to: x, log: true}}\n", ["'x' is not a number"]),
        (OPTUNA + "grid: {lr: {from: 1, to: 2, step: 1, log: true}}\n", ["unknown key 'step'", "from, to, log"]),
        (OPTUNA + "grid: {lr: {from: 1, to: 200, log: true}}\n", ["2:22", "at most 100"]),
        (OPTUNA + "grid: {image_size: {from: 70, to: 96, log: true}}\n", ["2:21", "32"]),
        (OPTUNA + "grid: {epochs: {from: 1.5, to: 9, log: true}}\n", ["2:17", "epochs"]),
        (OPTUNA + "grid: {optimizer: {from: 1, to: 2, log: true}}\n", ["no numbers"]),
        (OPTUNA + "grid: {labels: {from: 1, to: 2, log: true}}\n", ["no numbers"]),
        (OPTUNA + "grid:\n  lr, epochs: {from: 1, to: 2, log: true}\n", ["3:3", "list of lists"]),
        (OPTUNA + "grid: {lr: [{from: 1, to: 2, log: true}, {values: [3]}]}\n", ["log", "lr"]),
        (OPTUNA + "grid: {prune: [0.0, 0.5]}\n", ["2:8", "compress"]),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_from_is_refused(text: str, problems: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, text)
    assert all(problem in str(refused.value) for problem in problems), refused.value


def test_another_method_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--search none: lr: a range"):
        read(tmp_path, OPTUNA + LR, "none")
    lists = "grid: {lr: [1e-3, 1e-2]}\n"
    assert len(read(tmp_path, OPTUNA + lists, "none").runs) == 2
    with pytest.raises(UserError, match="'configurations' is not valid with method halving"):
        read(tmp_path, OPTUNA + lists, "halving")
    with pytest.raises(UserError, match="needs 'configurations'"):
        read(tmp_path, "search: halving\n" + lists, "optuna")


def test_without_optuna_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("greenseg.sweep.file.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"s.yaml:1:10.*greenseg\[search\]"):
        read(tmp_path, OPTUNA + LR)
