"""`greenseg sweep` as the worker of a job: its time, its nodes, and its request to start the job again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.runs.directory import RunDirectory, find_runs
from tests import warm
from tests.conftest import Command
from tests.runs import recorded

JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
WORKER = JOB | {"GREENSEG_WORKER": "1"}


def ends_in(seconds: float) -> dict[str, str]:
    """The variables of a job of an hour that has so many seconds left."""
    end = int(time.time() + seconds)
    return {"SLURM_JOB_START_TIME": str(end - 3600), "SLURM_JOB_END_TIME": str(end)}


def write_sweep(folder: Path, phantom: Path, **sweep: Any) -> Path:
    small = {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 16}
    base = small | {"accelerator": "cpu", "epochs": 1} | sweep.pop("base", {})
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"name": "s", "base": base, **sweep}))
    return folder / "sweep.yaml"


def runs(folder: Path) -> list[RunDirectory]:
    return find_runs([folder / "runs"]) if (folder / "runs").exists() else []


@pytest.mark.parametrize(("variables", "code"), [(WORKER, 75), (JOB, 3)])
def test_what_does_not_fit_is_left_to_the_next_start(
    variables: dict[str, str], code: int, greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    file = write_sweep(tmp_path, phantom, seeds=[0, 1])
    late = greenseg("sweep", file, **variables, **ends_in(-5))
    assert late.returncode == code, late.stdout + late.stderr
    assert "1 run left" in late.stderr
    (first,) = runs(tmp_path)
    assert recorded(first)["status"] == "finished", "the first run of a job starts anyway"
    if code == 75:
        whole = greenseg("sweep", file, **variables, **ends_in(3000))
        assert whole.returncode == 0, whole.stdout + whole.stderr
        assert len(runs(tmp_path)) == 2


def test_a_worker_that_is_asked_to_stop_asks_for_another_start(phantom: Path, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, phantom, base={"epochs": 300, "batch_size": 4})
    arguments = [sys.executable, "-m", "greenseg", "sweep", str(file)]
    with warm.Popen(
        arguments, cwd=tmp_path, env=os.environ | WORKER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        deadline = time.monotonic() + 300
        while not list(tmp_path.rglob("epochs.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        output, _ = worker.communicate(timeout=300)
    assert worker.returncode == 75, output
    assert time.monotonic() - asked < 60, "a job has longer"
    assert "next start of this job" in output
    (run,) = runs(tmp_path)
    assert recorded(run)["status"] == "interrupted"
    assert recorded(run)["attempts"][0]["job"] == "slurm 17"


def test_runs_for_other_numbers_of_nodes_are_left_to_other_jobs(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    grid = {"nodes": [1, 2]}
    file = write_sweep(tmp_path, phantom, base={"strategy": "ddp"}, grid=grid, keep="none", measure=True)
    refused = greenseg("sweep", file)
    assert refused.returncode == 2
    assert "nodes 2: a sweep uses one machine only" in refused.stderr
    three = greenseg("sweep", file, **WORKER | {"SLURM_JOB_NUM_NODES": "3"})
    assert three.returncode == 3, three.stderr
    assert "2 runs left to jobs with another number of nodes" in three.stdout
    assert not runs(tmp_path)
    one = greenseg("sweep", file, **WORKER)
    assert one.returncode == 3, one.stderr
    assert "training" not in one.stderr
    (run,) = runs(tmp_path)
    assert recorded(run)["settings"]["nodes"] == 1
    assert "measured" not in recorded(run), "the sweep is not done"
    assert (run.path / "checkpoints" / "best.ckpt").exists()
