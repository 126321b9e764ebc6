"""The meter, with Zeus itself: on a fake RAPL tree, and where there is no sensor."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenseg.energy import Energy, EnergyMeter, Reading
from greenseg.energy.estimate import WATTS_PER_CORE
from greenseg.energy.reading import side_by_side


class Rapl:
    """A powercap tree of one package, with or without a DRAM domain."""

    def __init__(self, root: Path, dram: bool) -> None:
        self._zones = {"package-0": root / "intel-rapl:0"}
        if dram:
            self._zones["dram"] = root / "intel-rapl:0" / "intel-rapl:0:0"
        for name, zone in self._zones.items():
            zone.mkdir(parents=True)
            (zone / "name").write_text(f"{name}\n")
            (zone / "max_energy_range_uj").write_text("262143328850\n")
            (zone / "energy_uj").write_text("1000000\n")

    def use(self, joules: float, zone: str = "package-0") -> None:
        counter = self._zones[zone] / "energy_uj"
        counter.write_text(f"{int(counter.read_text()) + round(joules * 1e6)}\n")


@pytest.fixture
def rapl_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Zeus looks for RAPL in an empty folder, and forgets it afterwards."""
    import zeus.device.cpu
    from zeus.device.cpu import rapl

    root = tmp_path / "powercap"
    root.mkdir()
    monkeypatch.setattr(rapl, "RAPL_DIR", str(root))
    monkeypatch.setattr(zeus.device.cpu, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
    yield root
    rapl.rapl_is_available.cache_clear()


@pytest.mark.usefixtures("rapl_root")
def test_without_sensors_joules_are_estimated_and_say_so() -> None:
    meter = EnergyMeter()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    energy = meter.lap()
    assert energy.sources == {"cpu": "estimate", "dram": "estimate"}
    cpu, dram = energy.readings
    assert cpu.joules == pytest.approx(0.3 * WATTS_PER_CORE, rel=0.2)
    assert dram.joules > 0
    assert set(meter.missing) == {"cpu", "dram"}
    assert meter.unmeasured == {}


@pytest.mark.usefixtures("rapl_root")
def test_a_gpu_without_sensor_is_unknown_not_zero() -> None:
    meter = EnergyMeter([0])
    assert "gpu" in meter.unmeasured
    assert "gpu" not in meter.lap(sync=False).sources


def test_cpu_and_dram_come_from_rapl_where_it_is(rapl_root: Path) -> None:
    rapl = Rapl(rapl_root, dram=True)
    meter = EnergyMeter()
    rapl.use(12.5)
    rapl.use(1.25, "dram")
    first = meter.lap()
    rapl.use(3)
    second = meter.lap()
    assert first.sources == {"cpu": "rapl", "dram": "rapl"}
    assert [reading.joules for reading in first.readings] == pytest.approx([12.5, 1.25])
    assert [reading.joules for reading in second.readings] == pytest.approx([3, 0])
    assert meter.missing == {}


def test_a_package_without_dram_domain_mixes_measured_and_estimated_visibly(rapl_root: Path) -> None:
    rapl = Rapl(rapl_root, dram=False)
    meter = EnergyMeter()
    rapl.use(7)
    energy = meter.lap()
    assert energy.sources == {"cpu": "rapl", "dram": "estimate"}
    assert "dram" in meter.missing


def test_one_process_of_a_node_counts_its_cpu(rapl_root: Path) -> None:
    Rapl(rapl_root, dram=True).use(5)
    meter = EnergyMeter()
    meter.leave_cpu_to_another()
    assert meter.lap().readings == ()


def test_usage_counts_descendants_that_live_and_that_ended() -> None:
    # In a process of its own: helpers that other tests left behind would count, too.
    code = """
import subprocess, sys
from greenseg.energy.estimate import usage
burn = "import time\\nend = time.process_time() + 0.4\\nwhile time.process_time() < end: pass\\n"
before = usage().cpu_seconds
subprocess.run([sys.executable, "-c", burn], check=True)
print(usage().cpu_seconds - before)
living = subprocess.Popen([sys.executable, "-c", burn + "print(flush=True)\\ntime.sleep(60)"], stdout=subprocess.PIPE)
living.stdout.readline()
print(usage().cpu_seconds - before)
living.kill()
living.wait()
print(usage().cpu_seconds - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ended, living, killed = map(float, done.stdout.split())
    assert 0.38 < ended < 0.6
    assert 0.76 < living < 1.2
    assert killed > living - 0.03, "what a child used is not lost when it ends"


def test_windows_add_up_by_component_and_source() -> None:
    first = Energy(2.0, (Reading("cpu", 10.0, "rapl"), Reading("gpu", 100.0, "nvml")))
    second = Energy(3.0, (Reading("cpu", 1.0, "estimate"), Reading("gpu", 50.0, "nvml")))
    both = first + second
    assert both.seconds == 5.0
    assert both.joules == 161.0
    assert both.sources == {"cpu": "estimate+rapl", "gpu": "nvml"}
    at_once = side_by_side([first, second])
    assert at_once.seconds == 3.0
    assert at_once.joules == 161.0
    assert Energy.from_json(both.to_json()) == both
