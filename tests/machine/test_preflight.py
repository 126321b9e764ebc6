"""What a machine cannot run is refused before anything starts."""

import errno
from pathlib import Path
from typing import Any, NoReturn

import pytest

from greenseg.errors import UserError
from greenseg.machine import gpus, preflight
from greenseg.settings import Settings
from greenseg.sweep.file import read_sweep
from greenseg.sweep.plan import make_plan
from tests.conftest import Command
from tests.runs import record, write


def be(monkeypatch: pytest.MonkeyPatch, number: int, apple: bool = False) -> None:
    monkeypatch.setattr(gpus, "count", lambda: number)
    monkeypatch.setattr(gpus, "apple", lambda: apple)


@pytest.mark.parametrize("workers", [2, "auto"])
def test_workers_need_shared_memory(workers: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Lock", fail)
    preflight.check(Settings.of({"workers": 0}))
    with pytest.raises(UserError, match=rf"workers {workers}: .* /dev/shm .*Read-only .* set workers: 0"):
        preflight.check(Settings.of({"workers": workers}))


@pytest.mark.parametrize(
    ("number", "apple", "values", "expected"),
    [
        (0, False, {}, None),
        (0, False, {"devices": 2, "strategy": "ddp"}, None),
        (0, False, {"precision": "16-mixed"}, None),
        (0, False, {"precision": "bf16-true"}, None),
        (0, False, {"precision": "64-true"}, None),
        (0, False, {"accelerator": "gpu"}, "accelerator gpu: no GPU is available"),
        (0, False, {"accelerator": "mps"}, "accelerator mps: needs Apple silicon"),
        (0, False, {"precision": "16-true"}, "precision 16-true: is slow on a CPU and ends in NaN"),
        (2, False, {"precision": "16-true", "accelerator": "cpu"}, "precision 16-true: is slow on a CPU"),
        (0, False, {"precision": "transformer-engine"}, "precision transformer-engine: needs a GPU"),
        (2, False, {"precision": "16-true"}, None),
        (2, False, {"precision": "transformer-engine"}, "needs the package transformer_engine"),
        (2, False, {"devices": 2}, None),
        (2, False, {"devices": 3}, "devices 3: this machine has 2 GPUs"),
        (1, False, {"devices": 2, "accelerator": "gpu"}, "devices 2: this machine has 1 GPU"),
        (1, False, {"devices": 4, "accelerator": "cpu"}, None),
        (0, True, {"accelerator": "mps"}, None),
        (0, True, {"accelerator": "gpu"}, None),
        (0, True, {"strategy": "ddp"}, "strategy ddp: works on CPUs and CUDA"),
        (0, True, {"devices": 2}, "devices 2: this machine has 1 GPU"),
        (0, True, {"precision": "64-true"}, "precision 64-true: needs 64-bit numbers"),
    ],
)
def test_what_a_machine_can_run(
    number: int, apple: bool, values: dict[str, Any], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, number, apple)
    if not expected:
        preflight.check(Settings.of(values))
        return
    with pytest.raises(UserError) as caught:
        preflight.check(Settings.of(values))
    (problem,) = caught.value.problems
    assert expected in problem


def test_runs_to_do_that_cannot_run_here_are_named_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, 2)
    file = tmp_path / "s.yaml"
    file.write_text(
        "base: {accelerator: gpu}\n"
        "grid:\n"
        "  precision: [32-true, transformer-engine]\n"
        "  devices: [1, 2, 4]\n"
        "include:\n"
        "  - {devices: 1, accelerator: mps}\n"
    )
    assert make_plan(read_sweep(file), tmp_path / "runs").impossible == [
        f"{file}:6:18: accelerator mps: needs Apple silicon",
        f"{file}:4:3: devices 4: this machine has 2 GPUs",
        f"{file}:3:3: precision transformer-engine: needs an NVIDIA GPU",
        f"{file}:3:3: precision transformer-engine: needs the package transformer_engine",
    ]
    file.write_text("grid:\n  precision: [32-true, 16-true]\n  devices: [1, 4]\n")
    assert make_plan(read_sweep(file), tmp_path / "runs").impossible == [
        f"{file}:3:3: devices 4: this machine has 2 GPUs"
    ]
    be(monkeypatch, 0)
    plan = make_plan(read_sweep(file, ["accelerator=gpu"]), tmp_path / "runs")
    assert plan.impossible == [
        "--set accelerator=gpu: accelerator gpu: no GPU is available; `greenseg doctor` shows why"
    ]


def test_runs_that_are_done_need_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, 0)
    file = tmp_path / "s.yaml"
    file.write_text("base: {accelerator: gpu}\n")
    assert len(make_plan(read_sweep(file), tmp_path / "runs").impossible) == 1
    write(tmp_path / "runs" / "s", record({"accelerator": "gpu"}))
    assert make_plan(read_sweep(file), tmp_path / "runs").impossible == []


def test_train_and_sweep_refuse_with_exit_code_2_and_a_dry_run_tells(greenseg: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("grid:\n  accelerator: [cpu, gpu]\n")
    gone = {"CUDA_VISIBLE_DEVICES": ""}
    swept = greenseg("sweep", "s.yaml", **gone)
    assert swept.returncode == 2
    assert "error: s.yaml:2:3: accelerator gpu: no GPU is available" in swept.stderr
    dry = greenseg("sweep", "s.yaml", "--dry-run", **gone)
    assert dry.returncode == 0
    assert "Not on this machine: s.yaml:2:3: accelerator gpu" in dry.stderr
    trained = greenseg("train", "--accelerator", "gpu", **gone)
    assert trained.returncode == 2
    assert "accelerator gpu: no GPU is available" in trained.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_what_cannot_be_what_this_machine_cannot_and_the_data_are_said_at_once(
    greenseg: Command, tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(
        "base: {data: nowhere, accelerator: cpu, image_size: 64}\n"
        "grid:\n"
        "  precision: [16-true, 32-true]\n"
        "  batch_size: [4, 8]\n"
        "  model: [resnet18-pan, mit_b0-linknet]\n"
    )
    swept = greenseg("sweep", "s.yaml")
    assert swept.returncode == 2
    assert [line for line in swept.stderr.splitlines() if line.startswith("error: ")] == [
        "error: s.yaml:5:3: resnet18-pan: pan needs image_size 128 or more, not 64",
        "error: s.yaml:5:3: mit_b0-linknet: linknet does not work with the encoders mit_*",
        "error: s.yaml:3:3: precision 16-true: is slow on a CPU and ends in NaN; use 16-mixed or bf16-true",
        "error: nowhere: no such folder; --data needs a data set in one of these layouts:",
    ]
    (tmp_path / "s.yaml").write_text("base: {data: nowhere}\n")
    dry = greenseg("sweep", "s.yaml", "--dry-run")
    assert dry.returncode == 0
    assert "Not on this machine: nowhere: no such folder" in dry.stderr
    trained = greenseg("train", "--data", "nowhere", "--accelerator", "mps")
    assert trained.returncode == 2
    assert "accelerator mps" in trained.stderr
    assert "nowhere: no such folder" in trained.stderr


def test_data_that_the_system_will_not_look_at_is_a_problem_of_the_data() -> None:
    name = "x" * 300  # longer than a file system takes
    assert preflight.data_problems([Settings.of({"data": name})]) == [f"{name}: File name too long"]
