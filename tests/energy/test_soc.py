"""Chips that measure themselves, with Zeus itself: Jetson's sensor files and Apple's library are faked."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from zeus.device.soc import jetson as jetson_of_zeus

from greenseg.energy import Energy, EnergyMeter
from greenseg.energy.doctor import examine
from greenseg.energy.idle import idle_watts
from greenseg.energy.neighbours import Neighbours
from greenseg.energy.sensors import soc
from tests.energy.fakes import FakeApple, FakeJetson, FakeNvml, constant, forget_nvml

pytestmark = pytest.mark.usefixtures("rapl_root", "no_cuda")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield
    forget_nvml()


@pytest.fixture
def jetson(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJetson]:
    """A Jetson with the rails that the test names, in mW."""
    chip = FakeJetson(tmp_path / "jetson", request.param).install(monkeypatch.setattr)
    yield chip
    chip.close()


def meter(tmp_path: Path, *gpus: int) -> EnergyMeter:
    return EnergyMeter(gpus, neighbours=Neighbours(tmp_path / "meters"))


def after(metered: EnergyMeter, seconds: float = 0.6) -> Energy:
    metered.lap(sync=False)
    time.sleep(seconds)
    return metered.lap(sync=False)


RAILS = {"VDD_IN": 9000.0, "VDD_GPU": 5000.0, "VDD_CPU": 2000.0}
SHARED_RAIL = {"VDD_IN": 9000.0, "VDD_CPU_GPU_CV": 6000.0, "VDD_SOC": 1000.0}


@pytest.mark.parametrize("jetson", [RAILS], indirect=True)
@pytest.mark.usefixtures("jetson")
def test_a_jetsons_gpu_and_cpu_are_measured_and_its_total_does_not_count_again(tmp_path: Path) -> None:
    metered = meter(tmp_path, 0)
    energy = after(metered)
    assert energy.sources == {"cpu": "soc", "dram": "estimate", "gpu": "soc"}
    # Zeus polls 10 times a second.
    assert energy.component("gpu") == pytest.approx(5 * energy.seconds, rel=0.5)
    assert energy.component("gpu") / energy.component("cpu") == pytest.approx(5 / 2)
    assert set(metered.missing) == {"dram"}
    assert metered.unmeasured == {}
    metered.has_unmeasured_gpu("of a kind that nobody measures")
    assert metered.unmeasured == {}, "the chip measures it"


@pytest.mark.parametrize("jetson", [SHARED_RAIL], indirect=True)
@pytest.mark.usefixtures("jetson")
def test_a_gpu_without_a_rail_of_its_own_is_unknown_not_zero(tmp_path: Path) -> None:
    metered = meter(tmp_path, 0)
    energy = after(metered)
    assert energy.sources == {"cpu": "soc", "dram": "estimate"}
    assert "no sensor" in metered.unmeasured["gpu"]
    without = meter(tmp_path)
    assert without.unmeasured == {}, "a run that uses no GPU misses none"
    without.has_unmeasured_gpu("it is the chip's")
    assert without.unmeasured == {"gpu": "it is the chip's"}


@pytest.mark.parametrize("jetson", [RAILS], indirect=True)
@pytest.mark.usefixtures("jetson")
def test_doctor_names_a_chips_own_sensors() -> None:
    found = examine(0)
    assert {component: how["source"] for component, how in found["components"].items()} == {
        "gpu": "soc", "cpu": "soc", "dram": "estimate",
    }  # fmt: skip
    assert "SoC" in found["components"]["dram"]["why"]
    assert found["rapl_counter_period_ms"] is None
    assert set(idle_watts(0.3)) == {"gpu", "cpu"}


@pytest.mark.parametrize("jetson", [RAILS], indirect=True)
@pytest.mark.usefixtures("jetson")
def test_a_driver_that_knows_the_gpu_but_not_its_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([constant(100)]).install(monkeypatch.setattr)

    def not_supported(handle: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", not_supported)
    metered = meter(tmp_path, 0)
    assert after(metered).sources["gpu"] == "soc"
    assert examine(0)["components"]["gpu"] == {"source": "soc"}


@pytest.mark.parametrize("jetson", [RAILS], indirect=True)
@pytest.mark.usefixtures("jetson")
def test_a_gpu_that_its_driver_measures_does_not_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    FakeNvml([constant(100)], clock=lambda: now[0]).install(monkeypatch.setattr)
    metered = meter(tmp_path, 0)
    now[0] += 2
    energy = metered.lap(sync=False)
    assert energy.sources["gpu"] == "nvml"
    assert energy.component("gpu") == pytest.approx(200)


def test_apples_chip_is_measured_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = FakeApple(cpu_total_mj=3000, gpu_mj=5000, dram_mj=700, ane_mj=9000).install(monkeypatch.setattr)
    try:
        metered = meter(tmp_path)
        for _ in range(2):
            energy = after(metered, 0.12)
            assert energy.sources == {"cpu": "soc", "dram": "soc", "gpu": "soc"}
            assert [reading.joules for reading in energy.readings] == pytest.approx([3, 0.7, 5])
            assert metered.missing == {}, "also after a window that RAPL could have measured"
        chip.metrics.gpu_mj = None
        assert "gpu" not in metered.lap(sync=False).sources
        assert "gpu" in metered.unmeasured
    finally:
        chip.close()


def test_a_chip_that_greenseg_does_not_know_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zeus.device.soc
    from zeus.device.soc.common import EmptySoC

    class Novelty(EmptySoC):  # type: ignore[misc]
        def begin_window(self, key: str, restart: bool = False) -> None:
            pass

        def end_window(self, key: str) -> SimpleNamespace:
            return SimpleNamespace(joules_mj=1)

    monkeypatch.setattr(zeus.device.soc, "_soc", Novelty())
    metered = meter(tmp_path, 0)
    assert metered.lap(sync=False).sources == {"cpu": "estimate", "dram": "estimate"}
    assert "Novelty" in metered.unmeasured["gpu"]
    assert set(metered.missing) == {"gpu", "cpu", "dram"}


def test_every_chip_that_zeus_knows_is_in_the_table() -> None:
    from zeus.device.soc import apple, jetson
    from zeus.device.soc.common import EmptySoC, SoC

    from greenseg.energy.sensors.soc import FIELDS

    known = {kind.__name__ for kind in SoC.__subclasses__() if kind.__module__.startswith("zeus.")}
    assert set(FIELDS) == known - {EmptySoC.__name__}
    for kind, measurement in (("AppleSilicon", apple.AppleSiliconMeasurement), ("Jetson", jetson.JetsonMeasurement)):
        assert set(FIELDS[kind].values()) <= set(measurement.__dataclass_fields__)


class Rail:
    """A rail whose reading takes a while."""

    def __init__(self, milliwatts: float, seconds: float) -> None:
        self.milliwatts, self.seconds = milliwatts, seconds

    def measure_power(self) -> float:
        if self.seconds:  # sleeping for 0 s, too, lets another thread go first
            time.sleep(self.seconds)
        return self.milliwatts


def test_all_rails_of_a_reading_are_of_the_same_moment() -> None:
    context = multiprocessing.get_context("spawn")
    commands, results = context.Queue(), context.Queue()
    rails = {"cpu_power_mw": Rail(2000, 0), "gpu_power_mw": Rail(5000, 0.1)}
    polling = threading.Thread(target=soc._poll, args=(commands, results, rails))
    polling.start()
    time.sleep(0.3)
    commands.put(jetson_of_zeus.Command.READ)
    measured = results.get(timeout=20)
    commands.put(jetson_of_zeus.Command.STOP)
    polling.join()
    assert measured.gpu_energy_mj / measured.cpu_energy_mj == pytest.approx(5 / 2)
