"""Limits of GPUs: set while a run trains, put back whatever ends it. On a faked driver, with Zeus itself in between."""

import contextlib
import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from greenseg.errors import UserError
from greenseg.failures import Failure
from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.launch.local import Local
from greenseg.launch.queue import Queue
from greenseg.launch.slots import Slots
from greenseg.launch.stop import Stop
from greenseg.machine import claims, gpus, preflight
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.settings import Settings
from tests import warm
from tests.conftest import Command
from tests.energy.fakes import FakeGpu, FakeNvml, constant, forget_nvml
from tests.runs import lines_of, recorded

FOUND = 350_000  # mW; what the fake GPU has at first


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where limits are noted; a cache of its own, and no GPU but those that a test makes."""
    for name in ("CUDA_VISIBLE_DEVICES", "ZEUSD_SOCK_PATH", "ZEUSD_HOST_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "limits"
    forget_nvml()


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-0000-0000-0000-000000000000"


def gpu(number: int = 0, **options: Any) -> FakeGpu:
    return constant(100, uuid=uuid(number), **options)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A driver with one GPU, for this process alone."""
    return FakeNvml([gpu()]).install(monkeypatch.setattr)


def notes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def leave_behind(folder: Path, before: Any, boot: str | None = None) -> Path:
    """What a process that is dead noted of the first GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() if boot is None else boot
    file = folder / f"{uuid(0)}.json"
    file.write_text(json.dumps({"pid": 1, "boot": boot, "before": before}))
    return file


# ── set and put back


@pytest.mark.parametrize("how", [None, RuntimeError, KeyboardInterrupt])
def test_limits_are_set_for_every_gpu_and_what_was_found_is_put_back(
    how: type[BaseException] | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml([gpu(0), gpu(1, limits=(100, 300, 290)), gpu(2)]).install(monkeypatch.setattr)
    unrestored: list[str] = []
    with contextlib.suppress(RuntimeError, KeyboardInterrupt):  # noqa: SIM117
        with claims.limited({"power_limit": 200, "gpu_clock": 1000}, 2, unrestored) as ran:
            assert ran == {"power_limit": 200, "gpu_clock": 1005}, "the nearest clock that the GPU has"
            assert [nvml.power_limit(n) for n in range(3)] == [200_000, 200_000, FOUND]
            assert [nvml.locked_clock(n) for n in range(3)] == [1005, 1005, 0]
            assert [file.stem for file in notes(folder)] == [uuid(0), uuid(1)]
            if how:
                raise how
    assert [nvml.power_limit(n) for n in range(3)] == [FOUND, 290_000, FOUND]
    assert [nvml.locked_clock(n) for n in range(3)] == [0, 0, 0]
    assert notes(folder) == []
    assert unrestored == []


def test_gpus_that_end_up_different_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([gpu(0), gpu(1, clocks=(300, 990))]).install(monkeypatch.setattr)
    with claims.limited({"gpu_clock": 1000}, 2, []) as ran:
        assert ran == {"gpu_clock": [1005, 990]}


def test_the_gpus_that_the_run_sees_are_meant(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.gpus = [gpu(0), gpu(1), gpu(2)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"2,{uuid(1)[:12]}")
    with claims.limited({"power_limit": 200}, 1, []):
        assert [nvml.power_limit(n) for n in range(3)] == [FOUND, FOUND, 200_000]


def test_a_run_that_sets_nothing_changes_nothing(nvml: FakeNvml, folder: Path) -> None:
    with claims.limited({}, 1, []) as ran, claims.limited({}, 1, []):  # two of them share the GPU
        assert ran == {}
    with claims.limited({}, 0, []) as ran:  # on the CPU
        assert ran == {}
    assert nvml.history == []
    assert notes(folder) == []


def test_a_limit_that_is_refused_leaves_nothing_behind(nvml: FakeNvml, folder: Path) -> None:
    nvml.permission = False
    for wanted in ({"power_limit": 200}, {"gpu_clock": 1005}):
        unrestored: list[str] = []
        with pytest.raises(UserError, match=r"GPU 0 refuses it"), claims.limited(wanted, 1, unrestored):
            pass
        assert (unrestored, notes(folder)) == ([], [])


def test_what_cannot_be_put_back_is_said_with_its_repair(
    nvml: FakeNvml, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unrestored: list[str] = []
    with claims.limited({"power_limit": 200, "gpu_clock": 1005}, 1, unrestored):
        nvml.permission = False
    (note,) = notes(folder)
    repair = (
        f"To fix it: sudo nvidia-smi -i {uuid(0)} -pl 350 && sudo nvidia-smi -i {uuid(0)} -rgc && rm '{note}'"
    )  # fmt: skip
    (message,) = unrestored
    assert message.startswith("GPU 0: could not restore power_limit (Insufficient Permissions) and gpu_clock (")
    assert message.endswith(repair)
    assert message in capsys.readouterr().err
    # Until it is repaired nobody trains there: neither limit nor joules would be what they are said to be.
    for wanted in ({}, {"power_limit": 300}):
        with pytest.raises(UserError, match="could not restore"), claims.limited(wanted, 1, []):
            pass
    nvml.permission = True
    assert claims.restore() == []
    assert (nvml.power_limit(0), nvml.locked_clock(0), notes(folder)) == (FOUND, 0, [])


# ── what a dead process left


def test_what_a_dead_process_left_is_put_back_by_the_next(nvml: FakeNvml, folder: Path) -> None:
    leave_behind(folder, {"power_limit": 275_000, "gpu_clock": None})
    with claims.limited({"power_limit": 200}, 1, []):
        assert nvml.power_limit(0) == 200_000
    assert nvml.power_limit(0) == 275_000, "what was there before the first of them"
    assert ((0, "clock", 0) in nvml.history, notes(folder)) == (True, [])
    leave_behind(folder, {"power_limit": 250_000})
    with claims.limited({}, 1, []):
        assert nvml.power_limit(0) == 250_000
    leave_behind(folder, {"power_limit": 225_000})
    assert claims.restore(pid=77) == []
    assert nvml.power_limit(0) == 250_000, "that was another process's"
    assert claims.restore(pid=1) == []
    assert (nvml.power_limit(0), notes(folder)) == (225_000, [])


def test_a_gpu_that_is_not_visible_is_put_back_too(
    nvml: FakeNvml, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.gpus = [gpu(0), gpu(1)]
    leave_behind(folder, {"power_limit": 275_000})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert claims.restore() == []
    assert nvml.power_limit(0) == 275_000
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_machine_that_restarted_has_forgotten_limits(nvml: FakeNvml, folder: Path) -> None:
    leave_behind(folder, {"power_limit": 275_000}, boot="an earlier one")
    assert claims.restore() == []
    assert (nvml.history, notes(folder)) == ([], [])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"pid": 1, "boot": "", "before": {"power_limit": "all"}}', '{"before": {"voltage": 1}}'],
)
def test_a_damaged_note_is_said_and_nothing_is_guessed(text: str, nvml: FakeNvml, folder: Path) -> None:
    file = leave_behind(folder, {})
    file.write_text(text)
    (message,) = claims.restore()
    assert message.startswith(f"GPU 0: {file} is damaged")
    assert f"nvidia-smi -i {uuid(0)} -pl" in message
    with pytest.raises(UserError, match="is damaged"), claims.limited({"power_limit": 200}, 1, []):
        pass
    assert claims.blocked(["0"], alone=False) == [message]
    assert nvml.history == []


HOLDER = """
import sys, time
from pathlib import Path
from greenseg.machine import claims
from tests.energy.fakes import FakeNvml, constant

FakeNvml([constant(100, uuid=sys.argv[1])], registers=Path(sys.argv[2])).install()
with claims.limited({"power_limit": 200, "gpu_clock": 1005} if sys.argv[3] == "sets" else {}, 1, []):
    print("holds", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(registers: Path, does: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has the GPU, and `sets` limits or `trains` only."""
    command = [sys.executable, "-c", HOLDER, uuid(0), str(registers), does]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with warm.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


def test_a_living_owner_is_respected_and_a_dead_one_is_succeeded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PATIENCE_SECONDS", 0.2)
    nvml = FakeNvml([gpu()], registers=tmp_path / "registers.json").install(monkeypatch.setattr)
    with holder(tmp_path / "registers.json", "sets") as process:
        assert (nvml.power_limit(0), nvml.locked_clock(0)) == (200_000, 1005)
        assert claims.restore() == []
        assert preflight.no_permission() is None
        for wanted in ({}, {"power_limit": 300}):
            with pytest.raises(UserError) as caught, claims.limited(wanted, 1, []):
                pass
            (message,) = caught.value.problems
            assert message.startswith(
                f"GPU 0: another run of greenseg uses it (process {process.pid} has set its limits"
            )
            assert claims.blocked([uuid(0)[:12]], alone=bool(wanted)) == [message]
        assert nvml.history == [(0, "power", 200_000), (0, "clock", 1005)], "by its owner, and by nobody else"
        process.kill()
        process.wait()
        assert (nvml.power_limit(0), len(notes(folder))) == (200_000, 1)
        assert claims.restore(process.pid) == []
    assert (nvml.power_limit(0), nvml.locked_clock(0), notes(folder)) == (FOUND, 0, [])


def test_no_limit_is_set_under_a_run_that_set_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_PATIENCE_SECONDS", 0.2)
    nvml = FakeNvml([gpu()], registers=tmp_path / "registers.json").install(monkeypatch.setattr)
    with holder(tmp_path / "registers.json", "trains"):
        with claims.limited({}, 1, []):
            pass
        with pytest.raises(UserError, match="it trains there"), claims.limited({"power_limit": 200}, 1, []):
            pass
        assert claims.blocked(["0"], alone=False) == []
        assert claims.blocked(["0"], alone=True) != []
    assert nvml.history == []


# ── before anything starts


def refused(monkeypatch: pytest.MonkeyPatch, number: int = 1, **values: Any) -> list[str]:
    monkeypatch.setattr(gpus, "count", lambda: number)
    monkeypatch.setattr(gpus, "apple", lambda: False)
    try:
        preflight.check(Settings.of(values))
    except UserError as error:
        return error.problems
    return []


def test_limits_that_gpus_do_not_take_are_refused(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, power_limit=100, gpu_clock=210) == []
    assert refused(monkeypatch, power_limit=400, gpu_clock=1410) == []
    assert refused(monkeypatch, power_limit=99, gpu_clock=1411) == [
        "power_limit 99: GPU 0 supports 100 to 400 W",
        "gpu_clock 1411: GPU 0 supports 210 to 1410 MHz",
    ]
    nvml.gpus = [gpu(0), gpu(1, limits=(150, 300, 300), clocks=())]
    monkeypatch.setattr("zeus.device.gpu._gpus", None)
    assert refused(monkeypatch, number=2, power_limit=350, gpu_clock=300) == [
        "power_limit 350: GPU 1 supports 150 to 300 W",
        "gpu_clock 300: GPU 1 does not support it (Not Supported)",
    ]
    assert [
        value for _, what, value in nvml.history if (what, value) not in (("power", FOUND), ("power", 300_000))
    ] == []


def test_without_permission_limits_are_refused_with_the_remedy(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.permission = False
    assert refused(monkeypatch) == []
    for values in ({"power_limit": 200}, {"gpu_clock": 1005}):
        (message,) = refused(monkeypatch, **values)
        assert message.startswith("limits of GPU 0: no permission to set them; run greenseg as root (in a")
        assert "ZEUSD_SOCK_PATH" in message
    assert len(refused(monkeypatch, power_limit=50)) == 2, "all problems at once"


@pytest.mark.parametrize("values", [{}, {"accelerator": "cpu"}, {"accelerator": "gpu"}])
def test_without_a_gpu_to_train_on_limits_are_refused(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeus.device.gpu._gpus", None)
    number = 1 if values.get("accelerator") == "cpu" else 0
    assert refused(monkeypatch, number, power_limit=200, **values)[-1] == (
        "power_limit 200: needs an NVIDIA GPU, and none is available"
    )


def test_runs_that_would_share_a_gpu_must_not_limit_it(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "count", lambda: 1)
    plain, limit = Settings(), Settings.of({"power_limit": 200})
    preflight.check_gpus([plain, plain], ["0"], Slots(["0"], 8, 2).each)
    preflight.check_gpus([plain, limit], ["0"], Slots(["0"], 8).each)
    preflight.check_gpus([Settings.of({"accelerator": "cpu"}), plain], ["0"], 2)
    with pytest.raises(UserError) as caught:
        preflight.check_gpus([plain, limit], ["0"], Slots(["0"], 8, 2).each)
    (message,) = caught.value.problems
    assert message.startswith("--jobs: 2 runs would share a GPU")
    assert message.endswith("Leave --jobs out, or use at most 1, for one run per GPU")


# ── real runs


@pytest.fixture
def everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A driver with two GPUs for this process and every Python that is started from it; all see the same limits."""
    registers = tmp_path / "registers.json"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            from pathlib import Path
            from tests.energy.fakes import FakeNvml, constant
            gpus = [constant(100, uuid=uuid) for uuid in {[uuid(0), uuid(1)]}]
            FakeNvml(gpus, registers=Path({str(registers)!r})).install()
        """)
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))
    monkeypatch.setenv(warm.SITE, str(site))
    monkeypatch.setattr(subprocess, "Popen", warm.Popen)
    return FakeNvml([gpu(0), gpu(1)], registers=registers).install(monkeypatch.setattr)


SMALL = {"model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 16}


class Audience:
    """Remembers the limits at every epoch and at the end of each run, and ends runs by signals."""

    def __init__(self, nvml: FakeNvml, signals: dict[int, int]) -> None:
        self._nvml, self._signals = nvml, signals
        self.while_training: set[tuple[int, int]] = set()
        self.outcomes: dict[int, Outcome] = {}
        self.after: list[tuple[int, int]] = []

    def _limits(self) -> tuple[int, int]:
        return self._nvml.power_limit(0), self._nvml.locked_clock(0)

    def start(self, job: Job) -> None:
        self.after.append(self._limits())

    def event(self, job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            self.while_training.add(self._limits())
            if event["epoch"] >= 1 and (number := self._signals.pop(job.settings.seed, None)):
                os.kill(recorded(job.run)["attempts"][-1]["pid"], number)

    def end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.settings.seed] = outcome
        self.after.append(self._limits())


def test_limits_are_put_back_however_a_run_ends(
    everywhere: FakeNvml, phantom: Path, tmp_path: Path, folder: Path
) -> None:
    wanted = {"power_limit": 200, "gpu_clock": 1000}
    jobs = []
    for seed in range(5):
        values = SMALL | wanted | {"data": str(phantom), "epochs": 2 if seed in (0, 4) else 500, "seed": seed}
        settings = Settings.of(values)
        jobs.append(Job(settings, RunDirectory(tmp_path / "sweep" / settings.slug)))
    jobs[4].run.create(jobs[4].settings)
    jobs[4].run.last_checkpoint.mkdir()  # it ends by an exception
    audience = Audience(everywhere, {1: signal.SIGTERM, 2: signal.SIGINT, 3: signal.SIGKILL})
    Queue(Local(Slots(["0"], 2), warm=True), Stop(), audience).carry_out(jobs)
    assert audience.while_training == {(200_000, 1005)}
    assert set(audience.after) == {(FOUND, 0)}, "after each run, before the next one starts"
    assert notes(folder) == []
    statuses = [audience.outcomes[seed].status for seed in range(5)]
    assert statuses == ["finished", "interrupted", "interrupted", "failed", "failed"]
    assert audience.outcomes[3].kind == Failure.CRASH
    ran = recorded(jobs[0].run)["ran"]
    assert (ran["power_limit"], ran["gpu_clock"]) == (200, 1005)
    assert "unrestored" not in recorded(jobs[0].run)


def test_what_could_not_be_put_back_stands_in_the_record(
    everywhere: FakeNvml, phantom: Path, tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    forbidden = tmp_path / "forbidden"

    class Forbids(Audience):
        def event(self, job: Job, event: dict[str, Any]) -> None:
            if event["event"] == "step":
                forbidden.touch()

    settings = Settings.of(SMALL | {"data": str(phantom), "epochs": 2, "power_limit": 200})
    job = Job(settings, RunDirectory(tmp_path / "sweep" / settings.slug))
    Queue(Local(Slots(["0"], 2), warm=True), Stop(), Forbids(everywhere, {})).carry_out([job])
    record = recorded(job.run)
    assert record["status"] == "finished"
    (message,) = record["unrestored"]
    assert message in job.run.log.read_text()
    assert message in capfd.readouterr().err
    (note,) = notes(folder)
    assert message.endswith(f"To fix it: sudo nvidia-smi -i {uuid(0)} -pl 350 && rm '{note}'")
    forbidden.unlink()
    assert claims.restore() == []
    assert everywhere.power_limit(0) == FOUND


def test_one_of_several_ranks_sets_each_gpu_once(
    everywhere: FakeNvml, phantom: Path, tmp_path: Path, folder: Path
) -> None:
    values = {"data": str(phantom), "epochs": 1, "devices": 2, "strategy": "ddp", "power_limit": 200}
    settings = Settings.of(SMALL | values)
    job = Job(settings, RunDirectory(tmp_path / "sweep" / settings.slug))
    Queue(Local(Slots(["0", "1"], 2)), Stop(), Audience(everywhere, {})).carry_out([job])
    record = recorded(job.run)
    assert record["status"] == "finished"
    assert (record["ran"]["devices"], record["ran"]["power_limit"]) == (2, 200)
    assert sorted(everywhere.history) == [(n, "power", value) for n in (0, 1) for value in (200_000, FOUND)]
    assert notes(folder) == []


def wait(until: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_limits_are_put_back_when_the_sweep_is_killed(
    everywhere: FakeNvml, phantom: Path, greenseg: Command, tmp_path: Path, folder: Path
) -> None:
    base = SMALL | {"data": str(phantom), "epochs": 500, "power_limit": 200, "gpu_clock": 1000}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"base": base}))

    def started(epochs: int) -> tuple["subprocess.Popen[bytes]", psutil.Process]:
        sweep = warm.Popen(
            [sys.executable, "-m", "greenseg", "sweep", "s.yaml", "-q"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        wait(lambda: any(len(lines_of(run)) > epochs for run in find_runs([tmp_path / "runs"])))
        (run,) = find_runs([tmp_path / "runs"])
        assert (everywhere.power_limit(0), everywhere.locked_clock(0)) == (200_000, 1005)
        return sweep, psutil.Process(recorded(run)["attempts"][-1]["pid"])

    sweep, run = started(0)
    refused = greenseg("train", *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()))
    assert refused.returncode == 2
    assert f"error: GPU 0: another run of greenseg uses it (process {run.pid} has set its limits)" in refused.stderr
    sweep.kill()  # its run is asked to end, and puts them back itself
    sweep.wait()
    wait(lambda: not notes(folder))
    assert (everywhere.power_limit(0), everywhere.locked_clock(0)) == (FOUND, 0)
    run.wait(30)

    sweep, run = started(len(lines_of(find_runs([tmp_path / "runs"])[0])))
    for process in (run.parent(), run, psutil.Process(sweep.pid)):  # nobody is left to do so
        assert process
        process.kill()
    sweep.wait()
    wait(lambda: not run.is_running())
    assert (everywhere.power_limit(0), everywhere.locked_clock(0), len(notes(folder))) == (200_000, 1005, 1)
    doctor = greenseg("doctor", "--idle", "0")
    assert doctor.returncode == 0, doctor.stderr
    assert "power_limit 100 to 400, gpu_clock 210 to 1410 (now 350); you may set them" in " ".join(
        doctor.stdout.split()
    )
    assert (everywhere.power_limit(0), everywhere.locked_clock(0), notes(folder)) == (FOUND, 0, [])

    shared = greenseg("sweep", "s.yaml", "--jobs", "2", "--gpus", "0")
    assert shared.returncode == 2
    assert "error: --jobs: 2 runs would share a GPU" in shared.stderr


# ── through zeusd


class Zeusd(http.server.BaseHTTPRequestHandler):
    """What of the daemon's HTTP is asked for here; it sets the limits of a fake driver as root would."""

    driver: FakeNvml
    groups: tuple[str, ...] = ("gpu-read", "gpu-control")

    def do_GET(self) -> None:
        found = {"gpus": [{"id": 0, "name": "Fake"}], "cpus": [], "auth_required": False}
        self._answer(found | {"enabled_api_groups": self.groups})

    def do_POST(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        what, value = {
            "/gpu/set_power_limit": ("power", "power_limit_mw"),
            "/gpu/set_gpu_locked_clocks": ("clock", "max_clock_mhz"),
            "/gpu/reset_gpu_locked_clocks": ("clock", ""),
        }[url.path]
        self.driver.permission = True
        self.driver._set(int(asked["gpu_ids"]), what, int(asked.get(value, 0)))
        self.driver.permission = False
        self._answer({})

    def _answer(self, value: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_zeusd_sets_limits_where_greenseg_must_not(
    nvml: FakeNvml, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.permission = False
    socket = f"{tmp_path}/zeusd.sock"
    handler = type("Handler", (Zeusd,), {"driver": nvml})
    with socketserver.ThreadingUnixStreamServer(socket, handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("ZEUSD_SOCK_PATH", socket)
        assert refused(monkeypatch, power_limit=200, gpu_clock=1000) == []
        with claims.limited({"power_limit": 200, "gpu_clock": 1000}, 1, []) as ran:
            assert ran == {"power_limit": 200, "gpu_clock": 1005}
            assert (nvml.power_limit(0), nvml.locked_clock(0)) == (200_000, 1005)
        assert (nvml.power_limit(0), nvml.locked_clock(0), notes(folder)) == (FOUND, 0, [])
        server.shutdown()
