"""Pauses between runs."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from greenseg.sweep.cool_down import CoolDown, Pause
from tests.energy.fakes import FakeNvml, constant, forget_nvml


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_nvml()


def wait(pause: Pause) -> dict[str, Any]:
    while not pause.over():
        time.sleep(0.05)
    return pause.to_json()


def test_a_pause_lasts_as_long_as_it_says() -> None:
    start = time.monotonic()
    paused = wait(CoolDown(0.2).begin())
    assert 0.2 <= time.monotonic() - start < 1
    assert paused["seconds"] == pytest.approx(0.2, abs=0.1)


def test_a_pause_ends_where_the_gpu_is_cool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml([constant(10, celsius=60), constant(10, celsius=40)]).install(monkeypatch.setattr)
    pause = CoolDown(60, temperature=50).begin()
    assert not pause.over()
    nvml.gpus[0].celsius = 40
    assert wait(pause) == {"seconds": pytest.approx(1, abs=0.5), "temperatures": [40, 40]}


def test_without_a_gpu_there_is_no_temperature_to_wait_for() -> None:
    assert wait(CoolDown(60, temperature=50).begin())["seconds"] < 1
