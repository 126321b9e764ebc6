"""RAPL counters that come and go within a window."""

from types import SimpleNamespace

import pytest

from greenseg.energy.sensors.rapl import RaplSensor


@pytest.mark.parametrize(("first", "last"), [(None, 5e6), (5e6, None)])
def test_a_dram_counter_that_is_absent_at_one_end_gives_no_joules(
    first: float | None, last: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = iter([SimpleNamespace(cpu_mj=1e6, dram_mj=first), SimpleNamespace(cpu_mj=1e6 + 7000, dram_mj=last)])
    cpus = SimpleNamespace(
        supports_get_dram_energy_consumption=lambda index: True, get_total_energy_consumption=lambda index: next(shown)
    )
    monkeypatch.setattr("zeus.device.get_cpus", lambda: cpus)
    monkeypatch.setattr("greenseg.energy.sensors.rapl.cpu_packages", lambda cpus: [0])
    sensor = RaplSensor((), ())
    sensor.begin("lap")
    assert [(reading.component, reading.joules) for reading in sensor.end("lap")] == [("cpu", 7.0)]
    assert set(sensor.missing) == {"dram"}
