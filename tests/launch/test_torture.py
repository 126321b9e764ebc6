"""kill -9 of runs, of what they are forked from and of the sweep itself, until the sweep is done.

`GREENSEG_KILLS=60 pytest tests/launch/test_torture.py` is the long form; `GREENSEG_KILLS_SEED` repeats its choices.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from greenseg.report.reader import read_runs
from greenseg.runs.directory import find_runs
from tests import warm
from tests.conftest import Command
from tests.runs import recorded

KILLS = int(os.environ.get("GREENSEG_KILLS", "7"))
SEED = int(os.environ.get("GREENSEG_KILLS_SEED") or random.randrange(1000))
RUNS, EPOCHS = (3, 3) if KILLS < 20 else (4, KILLS // 4)


def targets(sweep: "subprocess.Popen[bytes]") -> dict[str, list[psutil.Process]]:
    """What there is to kill, by kind."""
    try:
        servers = [p for p in psutil.Process(sweep.pid).children() if p.name() == "server"]  # see `tests.warm`
        runs = [run for server in servers for run in server.children()]
    except psutil.Error:
        return {}
    return {"sweep": [psutil.Process(sweep.pid)], "server": servers, "run": runs}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]


def outcome(run: Path) -> dict[int, Any]:
    """What each epoch achieved; an epoch that was repeated must have achieved the same again."""
    achieved: dict[int, Any] = {}
    for line in lines(run):
        values = {name: line[name] for name in ("train_loss", "dice", "iou", "volume_dice")}
        assert achieved.setdefault(line["epoch"], values) == values
    return achieved


def joules(energy: dict[str, Any]) -> float:
    return sum(sum(by.values()) for by in energy["joules"].values())


@pytest.fixture
def leaves_nothing_running(tmp_path: Path) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 300
    while left := [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(tmp_path)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.2)


@pytest.mark.timeout(900 + 60 * KILLS)
@pytest.mark.usefixtures("leaves_nothing_running")
def test_a_sweep_survives_every_kill_and_ends_as_if_undisturbed(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    base = {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 16}
    sweep = {"base": base | {"epochs": EPOCHS, "accelerator": "cpu"}, "seeds": list(range(RUNS))}
    (tmp_path / "torture.yaml").write_text(yaml.safe_dump(sweep))
    command = ["sweep", "torture.yaml", "--jobs", "2", "--retry-failed"]
    undisturbed = greenseg(*command, "--out", "undisturbed", timeout=600 + 10 * RUNS * EPOCHS)
    assert undisturbed.returncode == 0, undisturbed.stderr

    choose = random.Random(SEED)
    killed = dict.fromkeys(("run", "server", "sweep"), 0)
    starts = 0
    while True:
        with (tmp_path / "output").open("ab") as output:
            running = warm.Popen(
                [sys.executable, "-m", "greenseg", *command], cwd=tmp_path, stdout=output, stderr=output
            )
        starts += 1
        while running.poll() is None and sum(killed.values()) < KILLS:
            wanted = choose.choice(["run", "run", "server", "sweep"])
            pause = time.monotonic() + choose.uniform(0, 1)
            while running.poll() is None and (time.monotonic() < pause or not targets(running).get(wanted)):
                time.sleep(0.02)
            victims = targets(running).get(wanted) if running.poll() is None else None
            if victims:
                os.kill(choose.choice(victims).pid, signal.SIGKILL)
                killed[wanted] += 1
        if running.wait(timeout=600 + 10 * RUNS * EPOCHS) == 0:
            break
        assert running.returncode in (1, 3, -signal.SIGKILL), (tmp_path / "output").read_text()
        assert starts < 20 + 3 * KILLS, (tmp_path / "output").read_text()
    print(f"seed {SEED}: killed {killed}, started {starts} times, {RUNS} runs of {EPOCHS} epochs")
    assert sum(killed.values()) == KILLS, "the sweep was over too soon to say anything"
    for sign in ("Traceback", "error:"):
        assert sign not in (tmp_path / "output").read_text()

    expected = {run.path.name: outcome(run.path) for run in find_runs([tmp_path / "undisturbed"])}
    directories = find_runs([tmp_path / "runs"])
    assert {run.path.name: outcome(run.path) for run in directories} == expected, "the same table"
    assert len(directories) == len(expected) == RUNS
    runs, damaged = read_runs(directories)
    assert not damaged
    for run in runs:
        assert run.status == "finished"
        written, attempts = lines(run.directory.path), recorded(run.directory)["attempts"]
        assert [line["epoch"] for line in {line["epoch"]: line for line in written}.values()] == list(range(EPOCHS))
        assert [attempt["status"] for attempt in attempts].count("finished") == 1, "done exactly once"
        # An attempt goes on after the last whole epoch; only one whose checkpoint was cut short is done again.
        for before, after in itertools.pairwise(written):
            assert after["epoch"] in (before["epoch"], before["epoch"] + 1)
            assert after["epoch"] > before["epoch"] or after["attempt"] > before["attempt"]
        # No joule is lost: every attempt has at least those of its epochs, and the run those of its attempts.
        for number, attempt in enumerate(attempts):
            epochs = [line for line in written if line["attempt"] == number]
            spent = sum(joules(energy) for energy in attempt["energy"].values())
            assert spent >= sum(joules(line[phase]) for line in epochs for phase in ("train", "validation")) - 1e-3
        total = sum(joules(energy) for attempt in attempts for energy in attempt["energy"].values())
        assert run.metrics.joules == pytest.approx(total)
