"""`greenseg sweep` and `greenseg report`, as a user runs them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from greenseg.report.units import joules
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests import warm
from tests.conftest import Command


@pytest.fixture
def sweep_file(tmp_path: Path, phantom: Path) -> Path:
    """Three runs of about a second."""
    base = {"data": str(phantom), "image_size": 32, "spacing": 8.0, "epochs": 2, "accelerator": "cpu", "batch_size": 32}
    grid = {"encoder": ["mobilenetv3-tiny", "efficientnet-b0", "tu-tinynet_e"]}
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump({"name": "trial", "base": base, "grid": grid}))
    return path


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_one_failure_does_not_stop_the_rest_and_nothing_is_done_twice(
    greenseg: Command, sweep_file: Path, tmp_path: Path
) -> None:
    second = Settings.of(yaml.safe_load(sweep_file.read_text())["base"] | {"encoder": "efficientnet-b0"})
    broken = RunDirectory(tmp_path / "runs" / "trial" / second.slug)
    broken.create(second)
    broken.last_checkpoint.mkdir()
    first = greenseg("sweep", sweep_file)
    assert first.returncode == 1, "some run failed"
    assert "3 runs (3 new), 3 to do" in first.stdout
    assert "failed [2/3] efficientnet-b0-unet" in first.stdout
    assert "IsADirectoryError" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    table = first.stdout[first.stdout.index("Dice against energy") :]
    for text in ("3 configurations, 3 runs", "encoder", "J/epoch", "total J", "seconds", "estimate", "●"):
        assert text in table
    assert "decoder" not in table, "only axes that differ"
    assert all(len(line) <= 100 for line in table.splitlines())

    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert sorted(r["status"] for r in records) == ["failed", "finished", "finished"]
    for finished in (r["metrics"] for r in records if r["status"] == "finished"):
        line = f"Dice {finished['dice']:.3f}, {joules(finished['joules'])}"
        assert line in first.stdout, "the joules of the record, to the end of the run"
    assert {str(path.parent.parent.relative_to(tmp_path)) for path in tmp_path.rglob("run.json")} == {"runs/trial"}

    before = state(tmp_path / "runs")
    again = greenseg("sweep", sweep_file)
    assert "(2 finished, 1 failed), 0 to do" in again.stdout
    assert again.returncode == 1
    assert again.stdout[again.stdout.index("Dice against energy") :] == table
    assert state(tmp_path / "runs") == before, "nothing was done, nothing was written"

    report = greenseg("report", "runs")
    assert report.returncode == 0
    assert report.stdout == table

    # A value more: only what is new runs. The sweep's name and the order of its keys are not what is trained.
    more = yaml.safe_load(sweep_file.read_text())
    more["grid"] = {"encoder": ["tu-tinynet_e", "mobilenetv3-tiny"]}
    more["seeds"] = [0, 1]
    more["name"] = "renamed"
    sweep_file.write_text(yaml.safe_dump(more, sort_keys=False))
    grown = greenseg("sweep", sweep_file)
    assert "4 runs (2 finished, 2 new), 2 to do" in grown.stdout
    assert grown.returncode == 0, grown.stdout + grown.stderr
    assert "2 configurations, 4 runs" in grown.stdout


def test_an_interrupted_sweep_goes_on_where_it_stopped(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    sweep = yaml.safe_load(sweep_file.read_text())
    sweep["base"]["epochs"] = 5
    sweep["grid"] = {"encoder": ["mobilenetv3-tiny"], "batch_size": [16, 32]}
    sweep_file.write_text(yaml.safe_dump(sweep))
    running = warm.Popen(
        [sys.executable, "-m", "greenseg", "sweep", str(sweep_file)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("epochs.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 130, output
    assert "the same command continues" in output
    assert "Traceback" not in output
    (record,) = (json.loads(path.read_text()) for path in tmp_path.rglob("run.json"))
    assert record["status"] == "interrupted"

    resumed = greenseg("sweep", sweep_file)
    assert "2 runs (1 interrupted, 1 new), 2 to do" in resumed.stdout
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr


def test_a_run_that_another_process_trains_is_left_to_it(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    sweep = yaml.safe_load(sweep_file.read_text())
    sweep["base"]["epochs"] = 10
    sweep["grid"] = {"encoder": ["mobilenetv3-tiny"]}
    sweep_file.write_text(yaml.safe_dump(sweep))
    command = [sys.executable, "-m", "greenseg", "sweep", str(sweep_file)]
    first = warm.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("epochs.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = greenseg("sweep", sweep_file)
    assert "1 run (1 running), 0 to do" in second.stdout
    first.communicate(timeout=600)
    assert first.returncode == 0
    (record,) = (json.loads(path.read_text()) for path in tmp_path.rglob("run.json"))
    assert len(record["attempts"]) == 1


def test_two_sweeps_at_once_share_the_work(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    sweep = yaml.safe_load(sweep_file.read_text())
    sweep["grid"] = {"encoder": ["mobilenetv3-tiny"], "batch_size": [16, 32]}
    sweep_file.write_text(yaml.safe_dump(sweep))
    command = [sys.executable, "-m", "greenseg", "sweep", str(sweep_file)]
    both = [warm.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert all("2 runs (2 new), 2 to do" in output for output in outputs), "they were to overlap"
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert [record["status"] for record in records] == ["finished", "finished"]
    assert [len(record["attempts"]) for record in records] == [1, 1], "nothing was trained twice"
    assert greenseg("sweep", sweep_file).returncode == 0


def test_every_mistake_in_a_sweep_is_named_with_its_line(greenseg: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nbase:\n  epochs: many\n  epochs: 3\ngrid:\n  precison: [32-true]\n  batch_size: []\nseed: [0]\n"
    )
    result = greenseg("sweep", "bad.yaml")
    assert result.returncode == 2
    assert "bad.yaml:4:3: duplicate key 'epochs'" in result.stderr
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nbase:\n  epochs: many\ngrid:\n  precison: [32-true]\n  batch_size: []\nsed: [0]\n"
    )
    result = greenseg("sweep", "bad.yaml")
    assert result.returncode == 2
    for text in ("bad.yaml:3:3:", "bad.yaml:5:3:", "did you mean 'precision'?", "bad.yaml:6:3:", "bad.yaml:7:1:"):
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_data_that_a_sweep_cannot_read_is_said_before_anything_starts(
    greenseg: Command, sweep_file: Path, tmp_path: Path
) -> None:
    sweep = yaml.safe_load(sweep_file.read_text())
    sweep["base"]["data"] = "nowhere"
    sweep_file.write_text(yaml.safe_dump(sweep))
    result = greenseg("sweep", sweep_file)
    assert result.returncode == 2
    assert "nowhere: no such folder" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_damaged_record_is_named_and_the_rest_reported(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    sweep = yaml.safe_load(sweep_file.read_text())
    sweep["grid"] = {"encoder": ["mobilenetv3-tiny"], "batch_size": [16, 32]}
    sweep_file.write_text(yaml.safe_dump(sweep))
    assert greenseg("sweep", sweep_file).returncode == 0
    damaged, whole = sorted(tmp_path.rglob("run.json"))
    damaged.write_text(damaged.read_text()[:200])
    report = greenseg("report", "runs")
    assert report.returncode == 1
    assert str(damaged.relative_to(tmp_path)) in report.stderr
    assert "1 configuration, 1 run" in report.stdout
    # The sweep trains it again, and nothing else.
    before = whole.read_bytes()
    assert greenseg("sweep", sweep_file).returncode == 0
    assert json.loads(damaged.read_text())["status"] == "finished"
    assert whole.read_bytes() == before


def test_report_without_runs_says_what_to_do(greenseg: Command, tmp_path: Path) -> None:
    assert greenseg("report").returncode == 2
    (tmp_path / "runs").mkdir()
    result = greenseg("report")
    assert result.returncode == 2
    assert "greenseg sweep" in result.stderr
