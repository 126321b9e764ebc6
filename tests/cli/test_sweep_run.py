"""`greenseg sweep` while it runs: what it prints, how it is stopped, what it leaves when the disk is full."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.machine.cores import usable_cores
from greenseg.runs.directory import find_runs
from tests import warm
from tests.conftest import Command
from tests.runs import lines_of, recorded


@pytest.fixture
def sweep_file(tmp_path: Path, phantom: Path) -> Path:
    """Two small runs, side by side in `--jobs 2`."""
    base = {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 16}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"base": base | {"epochs": 2, "accelerator": "cpu"}, "seeds": [0, 1]}))
    return path


def with_epochs(sweep_file: Path, epochs: int) -> Path:
    sweep = yaml.safe_load(sweep_file.read_text())
    sweep["base"]["epochs"] = epochs
    sweep_file.write_text(yaml.safe_dump(sweep))
    return sweep_file


def start(folder: Path, *arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    return warm.Popen(
        [sys.executable, "-m", "greenseg", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def wait_for_epochs(folder: Path, runs: int) -> None:
    deadline = time.monotonic() + 300
    while len(list(folder.rglob("epochs.jsonl"))) < runs and time.monotonic() < deadline:
        time.sleep(0.05)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("run.json"))]


def test_events_as_json_and_nothing_at_all(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    done = greenseg("sweep", sweep_file, "--json", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events].count("start") == 2
    epochs = [event for event in events if event["event"] == "epoch"]
    assert sorted(event["epoch"] for event in epochs) == [0, 0, 1, 1], "as in epochs.jsonl"
    told = {"event", "run", "directory", "epoch", "train_loss", "dice", "iou", "seconds", "joules"}
    assert {frozenset(event) for event in epochs} == {frozenset(told)}
    ends = [event for event in events if event["event"] == "end"]
    assert {end["status"] for end in ends} == {"finished"}
    assert all(end["joules"] > 0 and (tmp_path / end["directory"] / "run.json").exists() for end in ends)
    assert events[-1].pop("freed_bytes") > 0
    assert events[-1] == {
        "event": "sweep", "name": "two", "finished": 2, "failed": 0, "unfinished": 0, "exit_code": 0,
    }  # fmt: skip
    assert {record["ran"]["threads"] for record in records(tmp_path)} == {max(1, usable_cores() // 2)}
    quiet = greenseg("sweep", sweep_file, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_runs_go_on_where_nobody_reads_and_the_environment_is_large(sweep_file: Path, tmp_path: Path) -> None:
    running = start(
        tmp_path, "sweep", sweep_file, env=os.environ | {f"LARGE_{i}": "x" * 100_000 for i in range(4)}
    )  # a message to the process that forks runs may have 208 kB
    assert running.stdout
    assert running.stdout.readline().startswith("Sweep two: 2 runs (2 new), 2 to do")
    running.stdout.close()  # `| head -1`
    assert running.wait(timeout=600) == 0
    assert [record["status"] for record in records(tmp_path)] == ["finished", "finished"]
    assert all("imports" in record["context"] for record in records(tmp_path)), "they were forked"


def test_ctrl_c_once_keeps_every_finished_epoch_and_twice_ends_at_once(
    greenseg: Command, sweep_file: Path, tmp_path: Path
) -> None:
    with_epochs(sweep_file, 500)
    running = start(tmp_path, "sweep", sweep_file, "--jobs", "2", start_new_session=True)
    wait_for_epochs(tmp_path, 2)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the sweep, and to nobody else
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 130, output
    assert output.count("interrupted") >= 2
    assert "Traceback" not in output
    assert [record["status"] for record in records(tmp_path)] == ["interrupted", "interrupted"]
    assert all((run.path / "checkpoints" / "last.ckpt").exists() for run in find_runs([tmp_path / "runs"]))
    before = {run.path: len(lines_of(run)) for run in find_runs([tmp_path / "runs"])}

    running = start(tmp_path, "sweep", sweep_file, "--jobs", "2")
    deadline = time.monotonic() + 300
    while any(len(lines_of(run)) == before[run.path] for run in find_runs([tmp_path / "runs"])):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for run in find_runs([tmp_path / "runs"]):
        os.kill(recorded(run)["attempts"][-1]["pid"], signal.SIGSTOP)  # deaf to anything gentle
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 130, output
    assert "Traceback" not in output
    for run in find_runs([tmp_path / "runs"]):
        assert run.status() == "interrupted"
        epochs = [line["epoch"] for line in lines_of(run)]
        assert sorted(set(epochs)) == list(range(max(epochs) + 1))
        assert len(epochs) <= len(set(epochs)) + 1, "no more than the epoch in flight was done again"


def test_a_full_disk_is_said_and_truncates_no_record(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    # No file may grow beyond 5 MB: records fit, checkpoints do not, and the error is that of a full quota.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, before[1]))
    try:
        running = start(tmp_path, "sweep", sweep_file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 3, output
    assert "File too large" in output
    assert "No new run was started" in output
    assert "Traceback" not in output
    (record,) = records(tmp_path)
    assert (record["status"], record["error"]["kind"]) == ("interrupted", "disk_full")
    assert record["metrics"]["joules"] > 0
    assert not list(tmp_path.rglob(".*.ckpt")), "nothing that is in the way is left"

    done = greenseg("sweep", sweep_file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 interrupted, 1 new" in done.stdout


def test_a_file_system_without_room_leaves_valid_records(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        (small / "ballast").write_bytes(b"x" * (40 << 10))
        full = greenseg("sweep", sweep_file, "--out", "small/runs")
        assert full.returncode in (1, 3), full.stdout + full.stderr
        assert "No space left on device" in full.stdout + full.stderr
        assert "Traceback" not in full.stdout + full.stderr
        for path in small.rglob("*.json"):
            json.loads(path.read_text())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_sweeps_of_different_names_never_train_a_run_twice(
    greenseg: Command, sweep_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(sweep_file.read_text())
    both = [start(tmp_path, "sweep", tmp_path / name) for name in ("two.yaml", "other.yaml")]
    for process in both:
        output, _ = process.communicate(timeout=600)
        assert process.returncode in (0, 3), output
    found = records(tmp_path)
    assert [record["status"] for record in found] == ["finished", "finished"], "one directory each"
    assert [len(record["attempts"]) for record in found] == [1, 1]
    assert greenseg("sweep", sweep_file).returncode == 0


def test_on_a_terminal_every_running_run_has_a_line(sweep_file: Path, tmp_path: Path) -> None:
    with_epochs(sweep_file, 6)
    ours, its = pty.openpty()
    running = warm.Popen(
        [sys.executable, "-m", "greenseg", "sweep", str(sweep_file), "--jobs", "2"],
        cwd=tmp_path, env=os.environ | {"COLUMNS": "120", "TERM": "xterm"}, stdin=its, stdout=its, stderr=its,
    )  # fmt: skip
    os.close(its)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the terminal is closed
            break
        shown += chunk
        if not chunk:
            break
    os.close(ours)
    text = shown.decode(errors="replace")
    assert running.wait(timeout=600) == 0, text
    for sign in ("[1/2]", "[2/2]", "epoch 3/6", " W", "left", "0/2 done", "Front so far", "Dice against energy"):
        assert sign in text


def test_gpus_that_are_not_here_are_a_mistake(greenseg: Command, sweep_file: Path, tmp_path: Path) -> None:
    wrong = greenseg("sweep", sweep_file, "--gpus", "77")
    assert wrong.returncode == 2
    assert "--gpus: no GPU '77'" in wrong.stderr
    assert not (tmp_path / "runs").exists()
