"""`measure: true` in a sweep: every network is measured after the last run, also when the command is repeated."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.runs.directory import find_runs
from tests import warm
from tests.conftest import Command
from tests.runs import recorded


@pytest.fixture
def file(tmp_path: Path, phantom: Path) -> Path:
    base = {
        "data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 32,
        "epochs": 1, "accelerator": "cpu",
    }  # fmt: skip
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"base": base, "seeds": [0, 1], "measure": {"seconds": 0.2, "accelerator": "cpu"}}))
    return path


def events(done: "subprocess.CompletedProcess[str]", kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, done.stdout.splitlines()) if event["event"] == kind]


def test_a_sweep_measures_after_its_last_run_and_goes_on(greenseg: Command, file: Path, tmp_path: Path) -> None:
    planned = json.loads(greenseg("sweep", file, "--dry-run", "--json").stdout)
    assert planned["measure"]["runs"] == 2
    assert planned["measure"]["seconds"] > 0
    assert "To measure afterwards: 2 runs" in greenseg("sweep", file, "--dry-run").stdout

    done = greenseg("sweep", file, "--json")
    assert done.returncode == 0, done.stderr
    kinds = [event["event"] for event in map(json.loads, done.stdout.splitlines())]
    assert kinds[-3:] == ["measure", "measure", "sweep"]
    measured = events(done, "measure")
    runs = find_runs([tmp_path / "runs"])
    assert {event["directory"] for event in measured} == {str(run.path.relative_to(tmp_path)) for run in runs}
    assert all(event["status"] == "measured" and event["joules_per_volume"] > 0 for event in measured)
    assert events(done, "sweep")[0]["measured"] == 2

    before = [recorded(run) for run in runs]
    again = greenseg("sweep", file, COLUMNS="200")
    assert again.returncode == 0, again.stderr
    assert "J/volume" in again.stdout
    assert [recorded(run) for run in runs] == before, "measured once"

    # One is left: its measurement is lost, then interrupted, then fails, then done.
    lost = runs[0].path / "run.json"
    written = before[0]
    del written["measured"]
    lost.write_text(json.dumps(written))
    slow = yaml.safe_load(file.read_text()) | {"measure": {"seconds": 300, "accelerator": "cpu"}}
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(slow | {"name": "two"}))
    running = warm.Popen(
        [sys.executable, "-m", "greenseg", "sweep", "slow.yaml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert running.stdout
    assert any("trying batch sizes" in line for line in running.stdout)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert (running.returncode, "Interrupted" in output) == (130, True), output
    assert "measured" not in recorded(runs[0])

    best = runs[0].best_checkpoint
    content = best.read_bytes()
    best.write_bytes(b"no checkpoint")
    failed = greenseg("sweep", file, "--json")
    assert failed.returncode == 1
    assert str(best.relative_to(tmp_path)) in events(failed, "measure")[0]["reason"]
    best.write_bytes(content)
    done = greenseg("sweep", file, "--json")
    assert (done.returncode, len(events(done, "measure"))) == (0, 1)
    assert "measured" in recorded(runs[0])
