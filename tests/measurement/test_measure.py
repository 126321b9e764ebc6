"""`greenseg measure`, as a user runs it: a real network, real slices, real signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from greenseg import locks
from greenseg.runs.attempt import Machine, Recording
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Context, EnergyMethod, Hardware
from greenseg.runs.summary import apply_accounting
from greenseg.settings import Settings
from tests import warm
from tests.conftest import Command
from tests.runs import Json, recorded

SHORT = ("--seconds", "0.2")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunDirectory:
    """A finished run of its own."""
    return RunDirectory(shutil.copytree(trained, tmp_path / "runs" / "a"))


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A measured run."""
    copy = RunDirectory(shutil.copytree(trained, tmp_path_factory.mktemp("measured") / "a"))
    done = command(copy.path.parent, "measure", copy.path, *SHORT).communicate(timeout=300)
    assert "measured" in recorded(copy), done
    return copy


def command(folder: Path, *arguments: str | Path, **variables: str) -> "subprocess.Popen[str]":
    return warm.Popen(
        [sys.executable, "-m", "greenseg", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def test_what_is_measured(measured: RunDirectory) -> None:
    record = recorded(measured)
    found = record["measured"]
    assert (found["runtime"], found["precision"], found["device"]) == ("torch", "32-true", "cpu")
    assert torch.__version__.startswith(found["version"])
    assert found["hardware"]["cores"] >= 1
    assert "short" in found["marks"]
    assert found["batch_1"]["batch_size"] == 1
    assert found["best"]["batch_size"] == min(found["tried"], key=lambda each: each["joules_per_slice"])["batch_size"]
    for window in (found["batch_1"], found["best"]):
        assert window["energy"]["seconds"] == pytest.approx(window["seconds"], abs=1e-5)
        assert window["seconds"] >= 0.2
        assert window["slices"] % window["batch_size"] == 0
        assert 0 < window["p50_ms"] <= window["p95_ms"]
        if found["energy_method"]["sensors_missing"].keys() >= {"cpu"}:
            watts = found["energy_method"]["core_watts"][0]
            assert window["energy"]["joules"]["cpu"]["estimate"] == pytest.approx(window["cpu_seconds"] * watts)
    state = torch.load(measured.best_checkpoint, weights_only=True)["state_dict"]
    weights = sum(value.numel() * value.element_size() for name, value in state.items() if name.startswith("network."))
    assert found["bytes"] == weights
    assert found["slices_per_volume"] == record["data"]["slices"]["validation"], "there is one validation volume"


def test_a_measured_run_in_the_report(greenseg: Command, measured: RunDirectory) -> None:
    found = measured.record()
    assert found
    assert found.measured
    done = greenseg("report", measured.path, "--format", "json", "--energy", "inference-volume", "--and", "latency")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["configurations"][0]["figures"]
    best, slow = found.measured.best, found.measured.batch_1
    assert best
    assert slow
    assert figures["inference"]["mean"] == pytest.approx(best.joules_per_slice)
    volume = best.joules_per_slice * found.measured.slices_per_volume  # type: ignore[operator]
    assert figures["inference-volume"]["mean"] == pytest.approx(volume)
    assert figures["latency"]["mean"] == pytest.approx(slow.p50_ms)
    assert figures["size"]["mean"] == found.measured.bytes
    assert figures["cpu-seconds"]["mean"] == pytest.approx(best.cpu_seconds / best.slices)
    for heading in ("J/volume", "CPU s/slice", "latency ms", "size MB"):
        assert heading in greenseg("report", measured.path, COLUMNS="200").stdout


def test_a_run_without_a_measurement_names_the_command(greenseg: Command, run: RunDirectory) -> None:
    done = greenseg("report", run.path, "--energy", "inference")
    assert done.returncode == 2
    assert "greenseg measure" in done.stderr
    assert "validation-slice" in done.stderr
    assert "J/volume" not in greenseg("report", run.path, COLUMNS="200").stdout


def test_once_is_enough_and_again_replaces_it(greenseg: Command, measured: RunDirectory) -> None:
    before = (measured.path / "run.json").read_bytes()
    done = greenseg("measure", measured.path, "--json")
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, line["status"]) == (0, "already")
    assert line["measured"] == recorded(measured)["measured"]
    assert (measured.path / "run.json").read_bytes() == before
    done = greenseg("measure", measured.path, "--again", "--json", *SHORT)
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, line["status"]) == (0, "measured")
    after = recorded(measured)
    assert after["measured"] == line["measured"]
    assert after["measured"]["batch_1"] != json.loads(before)["measured"]["batch_1"]
    rest: Json = json.loads(before)
    assert {**after, "measured": None} == {**rest, "measured": None}


def test_accounting_keeps_a_measurement_and_more_training_drops_it(measured: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(shutil.copytree(measured.path, tmp_path / "a"))
    before = recorded(run)
    settings = Settings.of(before["settings"])
    assert apply_accounting(run, settings.model_copy(update={"pue": 1.5})) == ""
    assert recorded(run)["settings"]["pue"] == 1.5
    assert recorded(run)["measured"] == before["measured"]
    Recording(run, settings, Machine(Hardware(), {}, EnergyMethod()), Context())
    assert "measured" not in recorded(run)


def test_a_second_measurement_waits(run: RunDirectory, cache: Path) -> None:
    (path,) = cache.glob("measure-*.lock")  # of an earlier measurement
    with locks.hold(path) as mine:
        assert mine
        waiting = command(run.path.parent, "measure", run.path, *SHORT)
        wait_for(waiting, "waiting for another measurement")
        assert "measured" not in recorded(run)
    output, _ = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, output
    assert "measured" in recorded(run)


def test_nothing_is_measured_beside_a_training(greenseg: Command, run: RunDirectory, tmp_path: Path) -> None:
    script = "from greenseg.energy import EnergyMeter; m = EnergyMeter(); print('on', flush=True); input()"
    with warm.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        wait_for(other, "on")
        done = greenseg("measure", run.path, *SHORT)
        assert done.returncode == 3
        assert str(other.pid) in done.stderr
        assert "measured" not in recorded(run)
        other.communicate("\n", timeout=60)
    with run.claim() as mine:
        assert mine
        done = greenseg("measure", run.path, *SHORT)
        assert done.returncode == 3
        assert str(run.path) in done.stderr


@pytest.mark.parametrize("how", ["Ctrl-C", "killed", "crashed"])
def test_a_measurement_that_does_not_end_leaves_the_record(how: str, run: RunDirectory) -> None:
    before = (run.path / "run.json").read_bytes()
    process = command(run.path.parent, "measure", run.path, "--seconds", "200")
    wait_for(process, "trying batch sizes")
    if how == "crashed":
        children = psutil.Process(process.pid).children(recursive=True)
        (child,) = [each for each in children if "measurement" in f"{each.name()} {each.cmdline()}"]
        child.send_signal(signal.SIGSEGV)
    else:
        process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == {"Ctrl-C": 130, "killed": -9, "crashed": 1}[how], output
    assert ("signal 11" in output) == (how == "crashed")
    deadline = time.monotonic() + 20
    while run.in_use() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not run.in_use(), "its process has ended"
    assert (run.path / "run.json").read_bytes() == before


def change(run: RunDirectory, **values: Any) -> None:
    written = recorded(run)
    (run.path / "run.json").write_text(json.dumps(written | values))


def test_what_cannot_be_measured_is_refused(greenseg: Command, run: RunDirectory, tmp_path: Path) -> None:
    for arguments, told in (
        (["nowhere"], "nowhere: no such run directory"),
        ([tmp_path / "runs" / "a" / "checkpoints"], "no runs here"),
        ([run.path, "--seconds", "0"], "--seconds 0"),
        ([run.path, "--accelerator", "cup"], "did you mean 'cpu'"),
    ):
        done = greenseg("measure", *arguments)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    settings = recorded(run)["settings"]
    change(run, settings=settings | {"data": str(tmp_path / "gone")})
    done = greenseg("measure", run.path, *SHORT, GREENSEG_CACHE=str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "not in the slice cache" in done.stderr
    assert str(tmp_path / "gone") in done.stderr
    assert greenseg("measure", run.path, *SHORT).returncode == 0, "the slices are in the cache"
    change(run, status="interrupted")
    done = greenseg("measure", run.path, "--again")
    assert (done.returncode, "interrupted" in done.stderr) == (2, True)
