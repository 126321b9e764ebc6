"""Which of RAPL's zones count: packages, each once, and nothing else; Zeus takes all that it finds for packages."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenseg.energy import EnergyMeter
from greenseg.energy.doctor import examine
from greenseg.energy.neighbours import Neighbours
from greenseg.energy.sensors import rapl_files
from tests.energy.fakes import FakePowercap, FakeZeusd, look_for_rapl_in

SUBZONES = {
    "intel-rapl:0/intel-rapl:0:0": "core",
    "intel-rapl:0/intel-rapl:0:1": "uncore",
    "intel-rapl:0/intel-rapl:0:2": "dram",
}
ONE = {"intel-rapl:0": "package-0", **SUBZONES}
EVERYTHING = {
    "package_0": 10.0, "package_1": 100.0, "package_0_die_0": 4.0, "package_0_die_1": 6.0,
    "dram": 1.0, "core": 7.0, "uncore": 2.0, "psys": 25.0,
}  # fmt: skip


def meter(tmp_path: Path) -> EnergyMeter:
    return EnergyMeter(neighbours=Neighbours(tmp_path / "meters"))


@pytest.mark.parametrize(
    ("zones", "cpu", "dram"),
    [
        pytest.param(ONE, 10, 1, id="a package"),
        pytest.param(ONE | {"intel-rapl:1": "psys"}, 10, 1, id="psys behind the package"),
        pytest.param(
            {"intel-rapl:0": "psys", "intel-rapl:1": "package-0", "intel-rapl:1/intel-rapl:1:0": "dram"},
            10, 1, id="psys before the package",
        ),
        pytest.param(
            ONE | {"intel-rapl:1": "psys", "intel-rapl:2": "package-1", "intel-rapl:2/intel-rapl:2:0": "dram"},
            110, 2, id="psys between packages",
        ),
        pytest.param(ONE | {"intel-rapl:1": "psys", "intel-rapl:1/intel-rapl:1:0": "dram"}, 10, 1, id="psys has dram"),
        pytest.param(
            {
                "intel-rapl:0": "package-0-die-0", "intel-rapl:0/intel-rapl:0:0": "dram",
                "intel-rapl:1": "package-0-die-1", "intel-rapl:1/intel-rapl:1:0": "dram",
            },
            10, 2, id="two dies of a package",
        ),
        pytest.param(ONE | {"intel-rapl:1": "package-0"}, 10, 1, id="the same package twice"),
        pytest.param(ONE | {"intel-rapl:0:0": "core", "intel-rapl:0:2": "dram"}, 10, 1, id="subzones at the top, too"),
        pytest.param(ONE | {"intel-rapl:1": "dram", "intel-rapl:2": "core"}, 10, 1, id="other zones at the top"),
        pytest.param(ONE | {"intel-rapl-mmio:0": "package-0"}, 10, 1, id="the same package in MMIO"),
        pytest.param({f"intel-rapl:{n}": "psys" for n in range(10)} | {"intel-rapl:10": "package-0",
                     "intel-rapl:10/intel-rapl:10:0": "dram"}, 10, 1, id="an index of two digits"),
    ],
)  # fmt: skip
def test_only_packages_count(zones: dict[str, str], cpu: float, dram: float, rapl_root: Path, tmp_path: Path) -> None:
    powercap = FakePowercap(rapl_root, zones)
    metered = meter(tmp_path)
    time.sleep(0.12)
    powercap.use(**EVERYTHING)
    energy = metered.lap()
    assert energy.sources == {"cpu": "rapl", "dram": "rapl"}
    assert (energy.component("cpu"), energy.component("dram")) == pytest.approx((cpu, dram))
    assert metered.missing == {}


def test_psys_alone_is_no_cpu(rapl_root: Path, tmp_path: Path) -> None:
    FakePowercap(rapl_root, {"intel-rapl:0": "psys"})
    metered = meter(tmp_path)
    assert metered.missing == dict.fromkeys(("cpu", "dram"), "RAPL lists no CPU package")
    assert metered.lap().sources == {"cpu": "estimate", "dram": "estimate"}
    assert examine(0)["components"]["cpu"]["source"] == "estimate"


def test_a_zone_without_a_name_may_be_a_package_so_nothing_is_measured(rapl_root: Path, tmp_path: Path) -> None:
    FakePowercap(rapl_root, ONE | {"intel-rapl:1": "package-1"})
    (rapl_root / "intel-rapl:1/name").unlink()
    metered = meter(tmp_path)
    assert set(metered.missing) == {"cpu", "dram"}
    assert metered.lap().sources == {"cpu": "estimate", "dram": "estimate"}


def test_memory_of_which_a_part_is_measured_is_estimated(rapl_root: Path, tmp_path: Path) -> None:
    powercap = FakePowercap(rapl_root, ONE | {"intel-rapl:1": "package-1"})
    metered = meter(tmp_path)
    powercap.use(**EVERYTHING)
    energy = metered.lap()
    assert energy.sources == {"cpu": "rapl", "dram": "estimate"}
    assert energy.component("cpu") == pytest.approx(110)
    assert metered.missing == {"dram": "only 1 of the 2 CPU packages have a DRAM domain in RAPL"}


# ── the daemon that reads RAPL for those who may not


@pytest.fixture
def zeusd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeZeusd]:
    daemon = FakeZeusd(tmp_path / "zeusd.sock")
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "zeusd.sock"))
    yield daemon
    daemon.close()


def test_the_daemons_psys_is_no_package_either(rapl_root: Path, tmp_path: Path, zeusd: FakeZeusd) -> None:
    FakePowercap(rapl_root, {"intel-rapl:0": "psys", **{f"intel-rapl:{n + 1}": f"package-{n}" for n in range(2)}})
    zeusd.microjoules = {0: (0, None), 1: (0, 0), 2: (0, 0)}
    metered = meter(tmp_path)
    zeusd.microjoules = {0: (35_000_000, None), 1: (10_000_000, 1_000_000), 2: (5_000_000, 500_000)}
    energy = metered.lap()
    assert energy.sources == {"cpu": "rapl", "dram": "rapl"}
    assert (energy.component("cpu"), energy.component("dram")) == pytest.approx((15, 1.5))


def test_a_zone_whose_name_is_hidden_from_the_daemons_user(rapl_root: Path, tmp_path: Path, zeusd: FakeZeusd) -> None:
    FakePowercap(rapl_root, {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1"})
    (rapl_root / "intel-rapl:1/name").unlink()
    zeusd.microjoules = {0: (0, 0), 1: (0, 0)}
    metered = meter(tmp_path)
    assert "intel-rapl:1 is a CPU package" in metered.missing["cpu"]
    assert metered.lap().sources == {"cpu": "estimate", "dram": "estimate"}


def test_doctor_asks_the_daemon_for_counters_that_it_may_not_read(rapl_root: Path, zeusd: FakeZeusd) -> None:
    FakePowercap(rapl_root, {"intel-rapl:0": "package-0", "intel-rapl:1": "psys"})
    (rapl_root / "intel-rapl:0/energy_uj").unlink()  # root may read what has no permissions, but not what is not there
    zeusd.microjoules = {0: (0, None), 1: (0, None)}
    found = examine(0)
    assert found["components"]["cpu"] == {"source": "rapl"}
    assert found["components"]["dram"]["source"] == "estimate"
    assert found["rapl_counter_period_ms"] is None, "it does not move"


# ── doctor


def test_doctor_looks_at_the_counters_of_packages(rapl_root: Path) -> None:
    FakePowercap(rapl_root, ONE | {"intel-rapl:1": "psys", "intel-rapl:2": "package-1", "intel-rapl:3": "package-1"})
    assert rapl_files() == [rapl_root / "intel-rapl:0/energy_uj", rapl_root / "intel-rapl:2/energy_uj"]


def test_doctor_looks_where_zeus_does_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeus.device.cpu import rapl

    mounted = tmp_path / "zeus_sys"
    FakePowercap(mounted, ONE | {"intel-rapl:1": "psys"})
    look_for_rapl_in(tmp_path / "nowhere", monkeypatch.setattr)
    monkeypatch.setattr(rapl, "CONTAINER_RAPL_DIR", str(mounted))
    try:
        assert rapl_files() == [mounted / "intel-rapl:0/energy_uj"]
        assert examine(0)["components"]["cpu"] == {"source": "rapl"}
    finally:
        rapl.rapl_is_available.cache_clear()


def test_doctor_says_that_a_cpu_has_no_dram_domain(rapl_root: Path) -> None:
    FakePowercap(rapl_root, {"intel-rapl:0": "package-0"})
    dram = examine(0)["components"]["dram"]
    assert dram["source"] == "estimate"
    assert "DRAM domain" in dram["why"]
