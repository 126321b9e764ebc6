"""Pauses between runs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from greenseg.machine.cool_down import CoolDown, Pause
from tests import warm
from tests.energy.fakes import FakeNvml, constant, forget_nvml
from tests.launch.test_queue import job, launch


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_nvml()


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in the first place of the list; only waiting advances it."""
    now = [1000.0]
    monkeypatch.setattr("greenseg.machine.cool_down.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def wait(pause: Pause, now: list[float]) -> dict[str, Any]:
    while not pause.over():
        now[0] += 0.05
    return pause.to_json()


def test_a_pause_lasts_as_long_as_it_says(now: list[float]) -> None:
    assert wait(CoolDown(0.2).begin(), now)["seconds"] == pytest.approx(0.2)


def test_a_pause_ends_where_the_gpu_is_cool(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml([constant(10, celsius=60), constant(10, celsius=40)]).install(monkeypatch.setattr)
    pause = CoolDown(60, temperature=50).begin()
    assert not pause.over()
    nvml.gpus[0].celsius = 40
    assert wait(pause, now) == {"seconds": pytest.approx(1, abs=0.1), "temperatures": [40, 40]}


def test_without_a_gpu_there_is_no_temperature_to_wait_for(now: list[float]) -> None:
    assert wait(CoolDown(60, temperature=50).begin(), now)["seconds"] < 1


# ── of several GPUs, those of the run


def uuid(n: int) -> str:
    return f"GPU-{n}1111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("visible", "gpus", "temperatures"),
    [
        (None, ("1",), [31]),
        (None, ("2", "0"), [32, 90]),
        ("3,1", ("1",), [31]),
        ("3,1", ("3",), [33]),
        (uuid(2), (uuid(2),), [32]),
        (f"{uuid(3)},{uuid(1)}", (uuid(1),), [31]),
        ("GPU-3,GPU-1", ("GPU-1",), [31]),
        ("3,1", (uuid(1),), [31]),
        (uuid(1), ("1",), [31]),
        (" 3 , 1 ", ("3", "1"), [33, 31]),
    ],
)
def test_a_pause_waits_for_the_gpus_of_the_run_only(
    visible: str | None,
    gpus: tuple[str, ...],
    temperatures: list[int],
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    celsius = (90, 31, 32, 33)
    nvml = FakeNvml([constant(10, celsius=c, uuid=uuid(n)) for n, c in enumerate(celsius)])
    nvml.install(monkeypatch.setattr)
    pause = CoolDown(60, temperature=50).begin(gpus)
    if "0" not in gpus:  # that one is hot
        assert pause.over()
    assert pause.to_json()["temperatures"] == temperatures
    for gpu in nvml.gpus:
        gpu.celsius += 60
    assert not CoolDown(60, temperature=50).begin(gpus).over()


def test_a_run_on_the_cpu_waits_for_no_gpu(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    FakeNvml([constant(10, celsius=90)]).install(monkeypatch.setattr)
    assert wait(CoolDown(60, temperature=50).begin(()), now) == {"seconds": 0, "temperatures": []}


@pytest.mark.parametrize("name", ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "7", "GPU-9"])
def test_a_gpu_whose_temperature_nobody_knows_is_not_waited_for(
    name: str, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    FakeNvml([constant(10, celsius=90, uuid=uuid(0))]).install(monkeypatch.setattr)
    assert wait(CoolDown(60, temperature=50).begin((name,)), now) == {"seconds": 0, "temperatures": []}


def test_one_that_does_not_tell_hides_no_hot_one(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    FakeNvml([constant(10), constant(10)]).install(monkeypatch.setattr)

    def temperature(handle: int, kind: int) -> int:
        if handle == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 90

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperatureV", temperature)
    assert wait(CoolDown(5, temperature=50).begin(), now) == {"seconds": 5, "temperatures": [90]}


def test_a_sweep_looks_at_the_gpus_of_the_run_that_is_next(
    phantom: Path, tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(subprocess, "Popen", warm.Popen)
    FakeNvml([constant(10, celsius=40)]).install(monkeypatch.setattr)
    jobs = [job(phantom, tmp_path, seed=seed) for seed in range(2)]  # on the CPU
    launch(*jobs, slots=1, cool_down=CoolDown(60, temperature=50))
    assert jobs[1].context["cool_down"] == {"seconds": 0, "temperatures": []}
