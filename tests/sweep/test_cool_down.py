"""Pauses between runs."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from greenseg.sweep.cool_down import CoolDown, Pause
from tests.energy.fakes import FakeNvml, constant, forget_nvml


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_nvml()


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in the first place of the list; only waiting advances it."""
    now = [1000.0]
    monkeypatch.setattr("greenseg.sweep.cool_down.time", SimpleNamespace(monotonic=lambda: now[0]))
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
