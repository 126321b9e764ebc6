"""Pauses between runs."""

import time
from collections.abc import Iterator

import pytest

from greenseg.sweep.cool_down import CoolDown
from tests.energy.fakes import FakeNvml, constant, forget_nvml


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_nvml()


def test_a_pause_lasts_as_long_as_it_says() -> None:
    start = time.monotonic()
    paused = CoolDown(0.2).wait(lambda: True)
    assert 0.2 <= time.monotonic() - start < 1
    assert paused["seconds"] == pytest.approx(0.2, abs=0.1)


def test_a_pause_ends_where_it_is_no_longer_wanted() -> None:
    assert CoolDown(60).wait(lambda: False)["seconds"] < 1


def test_a_pause_ends_where_the_gpu_is_cool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml([constant(10, celsius=80), constant(10, celsius=40)]).install(monkeypatch.setattr)
    asked = 0

    def cooling() -> bool:
        nonlocal asked
        asked += 1
        nvml.gpus[0].celsius -= 20
        return True

    assert CoolDown(60, temperature=50).wait(cooling) == {
        "seconds": pytest.approx(1, abs=0.5),
        "temperatures": [40, 40],
    }
    assert asked == 2


def test_without_a_gpu_there_is_no_temperature_to_wait_for() -> None:
    assert CoolDown(60, temperature=50).wait(lambda: True)["seconds"] < 1
