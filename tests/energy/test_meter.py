"""The meter, with Zeus itself: on a fake RAPL tree, and where there is no sensor."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from greenseg.energy import Energy, EnergyMeter, Reading
from greenseg.energy.estimate import Model, Usage, usage
from greenseg.energy.idle import idle_watts
from greenseg.energy.neighbours import Neighbours
from greenseg.energy.reading import side_by_side
from tests.energy.fakes import FakeGpu, FakeNvml, FakeRapl, constant, forget_nvml


def meter(tmp_path: Path, *gpus: int) -> EnergyMeter:
    """A meter without neighbours, whatever else runs on this machine."""
    return EnergyMeter(gpus, neighbours=Neighbours(tmp_path / "meters"))


# ── no sensor


@pytest.mark.usefixtures("rapl_root")
def test_without_sensors_joules_are_estimated_and_say_so(tmp_path: Path) -> None:
    metered = meter(tmp_path)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    energy = metered.lap()
    assert energy.sources == {"cpu": "estimate", "dram": "estimate"}
    cpu, dram = energy.readings
    assert cpu.joules == pytest.approx(0.3 * metered.model.core_watts[0], rel=0.2)
    assert cpu.low < cpu.joules < cpu.high, "no estimate deserves a tight error bar"
    assert dram.low < dram.joules < dram.high
    assert set(metered.missing) == {"cpu", "dram"}
    assert metered.unmeasured == {}


@pytest.mark.usefixtures("rapl_root")
def test_a_gpu_without_sensor_is_unknown_not_zero(tmp_path: Path) -> None:
    metered = meter(tmp_path, 0)
    assert "gpu" in metered.unmeasured
    assert "gpu" not in metered.lap(sync=False).sources


def test_the_constants_of_the_estimate_are_named_and_settable() -> None:
    model = Model.of_this_machine(cpu_watts=7.5, dram_watts=0.2)
    assert model.core_watts == (7.5, 7.5, 7.5)
    assert model.gb_watts == (0.2, 0.2, 0.2)
    assert "7.5 W per busy core (given)" in model.basis
    default = Model.of_this_machine()
    assert default.core_watts[1] < default.core_watts[0] < default.core_watts[2]
    assert "Green Algorithms" in default.basis


def test_a_known_cpu_has_its_rated_power(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("codecarbon", reason="the extra 'carbon' is not installed")
    from greenseg.energy import estimate

    info = {"model name": ["Intel(R) Core(TM) i7-9700K CPU @ 3.60GHz"], "flags": ["fpu sse"], "siblings": ["8"]}
    monkeypatch.setattr(estimate, "_cpuinfo", lambda name: info.get(name, []))
    estimate.rated_core_watts.cache_clear()
    try:
        watts, why = estimate.rated_core_watts()
    finally:
        estimate.rated_core_watts.cache_clear()
    assert watts == pytest.approx(95 / 8), "95 W: Intel's own figure"
    assert "rated 95 W" in why


# ── CPU and DRAM


def test_cpu_and_dram_come_from_rapl_where_it_is(rapl_root: Path, tmp_path: Path) -> None:
    rapl = FakeRapl(rapl_root, packages=2)
    metered = meter(tmp_path)
    for zone, joules in (("package-0", 10.0), ("package-1", 2.5), ("dram-0", 1.0), ("dram-1", 0.25)):
        rapl.use(joules, zone)
    first = metered.lap()
    rapl.use(3)
    second = metered.lap()
    assert first.sources == {"cpu": "rapl", "dram": "rapl"}
    assert [reading.joules for reading in first.readings] == pytest.approx([12.5, 1.25])
    assert second.component("cpu") == pytest.approx(3)
    assert metered.missing == {}
    rapl.use(0.5)
    last, difference = metered.close()
    assert last.component("cpu") == pytest.approx(0.5)
    assert difference == pytest.approx({"seconds": 0, "cpu": 0, "dram": 0}, abs=1e-6)


@pytest.mark.usefixtures("rapl_root")
def test_slow_neighbours_are_no_gap_between_the_laps_and_the_whole(tmp_path: Path) -> None:
    class Slow(Neighbours):
        def exchange(self, used: Usage) -> float:
            others = super().exchange(used)
            end = time.process_time() + 0.05  # reading many process trees takes CPU time
            while time.process_time() < end:
                pass
            return others

    metered = EnergyMeter(neighbours=Slow(tmp_path / "meters"))
    metered.lap()
    _, difference = metered.close()
    assert difference == pytest.approx({"seconds": 0, "cpu": 0}, abs=1e-6)


def test_a_process_that_ends_while_it_is_read_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    before = usage().cpu_seconds
    read = psutil.Process.oneshot

    def ended(process: psutil.Process) -> AbstractContextManager[None]:
        if process.pid == child.pid:
            child.communicate()
        return read(process)

    monkeypatch.setattr(psutil.Process, "oneshot", ended)
    assert usage().cpu_seconds >= before


def test_a_counter_that_wraps_loses_nothing(rapl_root: Path, tmp_path: Path) -> None:
    rapl = FakeRapl(rapl_root, span=20_000_000)  # 20 J
    metered = meter(tmp_path)
    used = 0.0
    for joules in (15.0, 9.0, 8.0, 12.0):  # wraps at 20 J, and again at 40 J
        rapl.use(joules)
        time.sleep(1.2)  # Zeus watches for wraps in a process of its own, once a second or so
        used += metered.lap().component("cpu")
    assert used == pytest.approx(44, rel=0.01)


def test_a_package_without_dram_domain_mixes_measured_and_estimated_visibly(rapl_root: Path, tmp_path: Path) -> None:
    rapl = FakeRapl(rapl_root, dram=False)
    metered = meter(tmp_path)
    rapl.use(7)
    time.sleep(0.12)
    energy = metered.lap()
    assert energy.sources == {"cpu": "rapl", "dram": "estimate"}
    assert "no DRAM domain" in metered.missing["dram"]


def test_a_counter_that_never_moves_is_not_zero_joules(rapl_root: Path, tmp_path: Path) -> None:
    FakeRapl(rapl_root)
    metered = meter(tmp_path)
    time.sleep(0.12)
    energy = metered.lap()
    assert energy.sources == {"cpu": "estimate", "dram": "estimate"}
    assert "does not move" in metered.missing["cpu"]


def test_a_counter_that_only_root_may_read_is_missing_with_its_reason(rapl_root: Path, tmp_path: Path) -> None:
    from greenseg.energy.doctor import examine

    FakeRapl(rapl_root)
    reason = "permission denied: energy_uj"

    class Forbidden:
        def __init__(self, *_: object) -> None:
            from zeus.device.cpu.common import ZeusCPUNoPermissionError

            raise ZeusCPUNoPermissionError(reason)

    with pytest.MonkeyPatch.context() as patch:
        import zeus.device.cpu

        patch.setattr(zeus.device.cpu, "RAPLCPUs", Forbidden)
        metered = meter(tmp_path)
        assert metered.missing == {"cpu": reason, "dram": reason}
        assert metered.lap().sources["cpu"] == "estimate"
        assert "zeusd" in examine(0)["components"]["cpu"]["remedy"]


def test_one_process_of_a_node_counts_its_cpu(rapl_root: Path, tmp_path: Path) -> None:
    FakeRapl(rapl_root).use(5)
    metered = meter(tmp_path)
    metered.leave_cpu_to_another()
    assert metered.lap().readings == ()


def until_idle() -> None:
    """Wait until no process of ours, Zeus' among them, computes any more."""
    before = -1.0
    while (now := usage().cpu_seconds) > before + 0.01:
        before = now
        time.sleep(0.5)


def test_runs_side_by_side_share_the_counter_by_cpu_time(rapl_root: Path, tmp_path: Path) -> None:
    rapl = FakeRapl(rapl_root)
    folder = tmp_path / "meters"
    code = f"""
import sys, time
from pathlib import Path
from greenseg.energy.estimate import usage
from greenseg.energy.neighbours import Neighbours
mine = Neighbours(Path({str(folder)!r}))
mine.exchange(usage())
print("here", flush=True)
sys.stdin.readline()
end = time.process_time() + 0.6
while time.process_time() < end: pass
mine.exchange(usage())
print("done", flush=True)
sys.stdin.readline()
"""
    # A process group of its own would not do: a neighbour is no descendant, so it is started by a shell that ends.
    ready, go = tmp_path / "out", tmp_path / "in"
    for pipe in (ready, go):
        os.mkfifo(pipe)
    script = tmp_path / "neighbour.py"
    script.write_text(code)
    subprocess.run(f"{sys.executable} {script} < {go} > {ready} &", shell=True, check=True)
    with go.open("w") as commands, ready.open() as answers:
        assert answers.readline() == "here\n"
        metered = EnergyMeter(neighbours=Neighbours(folder))
        until_idle()  # Zeus starts a process for each counter, and these are ours
        rapl.use(10)
        metered.lap()
        commands.write("go\n")
        commands.flush()
        assert answers.readline() == "done\n"
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        rapl.use(80)
        shared = metered.lap()
        commands.write("end\n")
    cpu = next(reading for reading in shared.readings if reading.component == "cpu")
    assert cpu.marks == {"apportioned"}
    assert cpu.source == "rapl"
    assert cpu.joules == pytest.approx(80 * 0.2 / 0.8, rel=0.3)
    assert cpu.low == 0, "what of it was whose, nobody can say"
    assert cpu.high == pytest.approx(80)


# ── GPUs


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither GPUs nor a word about them, before the test and after it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield
    forget_nvml()


def scripted_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that Zeus reads, in the first place of the list: no test waits, and none is late on a busy machine."""
    now = [1000.0]
    monkeypatch.setattr("zeus.monitor.energy.time", lambda: now[0])
    return now


def uuid(n: int) -> str:
    return f"GPU-{n}1111111-2222-3333-4444-555555555555"


@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_joules_of_a_scripted_power_curve_are_its_integral(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = scripted_clock(monkeypatch)

    def joules(t: float) -> float:  # 200 W, swinging by 150 W within 7 s
        return 200 * t - 150 * 7 / (2 * math.pi) * math.cos(2 * math.pi * t / 7)

    FakeNvml([FakeGpu(joules, lambda t: 0.0)], clock=lambda: now[0]).install(monkeypatch.setattr)
    metered = meter(tmp_path, 0)
    for seconds in (0.5, 3.0, 11.0, 0.25):
        before = now[0]
        now[0] += seconds
        energy = metered.lap(sync=False)
        assert energy.sources["gpu"] == "nvml"
        assert energy.component("gpu") == pytest.approx(joules(now[0]) - joules(before), rel=0.01)
    assert abs(metered.close()[1]["gpu"]) < 0.01, "the laps add up to the whole"


@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_a_window_shorter_than_the_counters_period_is_marked_not_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = scripted_clock(monkeypatch)
    FakeNvml([constant(300, period=3600)], clock=lambda: now[0]).install(monkeypatch.setattr)
    metered = meter(tmp_path, 0)
    now[0] += 0.05
    energy = metered.lap(sync=False)
    gpu = next(reading for reading in energy.readings if reading.component == "gpu")
    assert gpu.joules == pytest.approx(300 * 0.05)
    assert gpu.marks == {"approximate"}


@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_windows_that_were_approximated_do_not_count_again_when_the_counter_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = scripted_clock(monkeypatch)
    FakeNvml([constant(100, period=0.1)], clock=lambda: now[0]).install(monkeypatch.setattr)
    metered = meter(tmp_path, 0)
    total = 0.0
    for _ in range(150):
        now[0] += 0.02
        total += metered.lap(sync=False).component("gpu")
    one_step = 100 * 0.1  # of the counter
    assert total == pytest.approx(100 * 150 * 0.02, abs=one_step)


@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_a_gpu_that_others_use_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([constant(100, processes=2)]).install(monkeypatch.setattr)
    metered = meter(tmp_path, 0)
    time.sleep(0.02)
    energy = metered.lap(sync=False)
    assert energy.marks == {"shared"}
    (gpu,) = (reading for reading in energy.readings if reading.component == "gpu")
    assert (gpu.low, gpu.high) == (0, gpu.joules), "all of it may have been theirs"


@pytest.mark.parametrize(
    ("visible", "used", "counted"),
    [
        (None, (0,), {0}),
        (None, (1,), {1}),
        ("1", (0,), {1}),
        ("2,0", (0, 1), {2, 0}),
        ("1,-1,0", (0,), {1}),  # CUDA stops at the first that is no device
        (uuid(1), (0,), {1}),
        ("GPU-2", (0,), {2}),  # the beginning of a UUID, as CUDA allows
        (f"{uuid(2)},{uuid(0)}", (1,), {0}),
    ],
)
@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_only_the_devices_of_this_run_are_counted(
    visible: str | None, used: tuple[int, ...], counted: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = scripted_clock(monkeypatch)
    gpus = [constant(10 ** (n + 1), uuid=uuid(n)) for n in range(3)]
    nvml = FakeNvml(gpus, clock=lambda: now[0]).install(monkeypatch.setattr)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    metered = meter(tmp_path, *used)
    assert metered.missing.keys() == {"cpu", "dram"}, metered.missing
    now[0] += 2
    joules = metered.lap(sync=False).component("gpu")
    assert joules == pytest.approx(sum(10 ** (n + 1) for n in counted) * 2)
    assert nvml.asked == counted
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible, "left as it was"


@pytest.mark.parametrize("visible", ["", "-1", "7", "none", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "GPU-99999999"])
@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_devices_that_cannot_be_measured_are_unknown_not_zero(
    visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeNvml([constant(100, uuid=uuid(0))]).install(monkeypatch.setattr)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    metered = meter(tmp_path, 0)
    assert "gpu" in metered.unmeasured
    assert "gpu" not in metered.lap(sync=False).sources
    without = meter(tmp_path)
    assert without.unmeasured == {}, "a run that uses no GPU misses none"


@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_an_idle_machine_is_measured_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert idle_watts(1e9) == {}, "an estimate has no idle part; nobody waits for it"
    now = scripted_clock(monkeypatch)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("greenseg.energy.idle.time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr("greenseg.energy.meter.time", SimpleNamespace(monotonic=lambda: now[0]))
    FakeNvml([constant(55)], clock=lambda: now[0]).install(monkeypatch.setattr)
    assert idle_watts(10, (0,)) == {"gpu": pytest.approx(55)}


@pytest.mark.usefixtures("rapl_root", "no_cuda")
def test_a_recorded_measurement_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zeus.monitor
    from zeus.utils.testing import ReplayZeusMonitor

    FakeNvml([constant(1)]).install(monkeypatch.setattr)
    log = tmp_path / "zeus.csv"
    log.write_text(
        "start_time,window_name,elapsed_time,gpu0_energy\n0,lap,2.0,120.5\n2,lap,1.0,60.25\n3,whole,3,180.75\n"
    )

    class Replay(ReplayZeusMonitor):  # type: ignore[misc]
        def __init__(self, **_: object) -> None:
            super().__init__(log_file=str(log), ignore_sync_execution=True)
            self.soc_is_present = False

    monkeypatch.setattr(zeus.monitor, "ZeusMonitor", Replay)
    metered = meter(tmp_path, 0)
    assert metered.lap(sync=False).component("gpu") == 120.5
    assert metered.lap(sync=False).component("gpu") == 60.25


# ── the process tree


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
    marked = Energy(1.0, (Reading("gpu", 10.0, "nvml", 0.0, 20.0, frozenset({"shared"})),)) + first
    assert marked.readings[1] == Reading("gpu", 110.0, "nvml", 100.0, 120.0, frozenset({"shared"}))
    assert (marked.low, marked.high) == (110.0, 130.0)
    assert Energy.from_json(marked.to_json()) == marked
