"""Runs in a folder that several hosts share, whose locks each host sees alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.energy import Energy
from greenseg.report.reader import read_runs
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.runs.record import Attempt
from greenseg.runs.summary import last_of_each
from tests.hosts import Host, Hosts
from tests.slurm import wait_for

pytestmark = pytest.mark.process

LEASE = "8"
"""Seconds of a lease; long enough for a busy machine."""


@pytest.fixture
def sweep_file(tmp_path: Path, phantom: Path) -> Path:
    """Writes a sweep of small runs with many epochs."""
    base = {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 16}
    path = tmp_path / "shared.yaml"
    path.write_text(yaml.safe_dump({"base": base | {"epochs": 60, "accelerator": "cpu"}, "seeds": [0]}))
    return path


def sweep(host: Host, file: Path) -> subprocess.Popen[Any]:
    """Start a sweep on a host."""
    return host.run(
        [sys.executable, "-m", "greenseg", "sweep", file, "--json"],
        cwd=file.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"GREENSEG_LEASE": LEASE, "NO_COLOR": "1"},
    )  # fmt: skip


def ended(process: subprocess.Popen[Any]) -> list[dict[str, Any]]:
    """The ends of runs that a sweep prints, once it has ended; its own end comes last."""
    out, err = process.communicate(timeout=400)
    events = [json.loads(line) for line in out.splitlines()]
    ends = [event for event in events if event["event"] in ("end", "sweep")]
    assert ends, err
    return ends


def the_run(folder: Path) -> RunDirectory:
    (run,) = find_runs([folder / "runs"])
    return run


def has_epochs(folder: Path, number: int) -> bool:
    return len([run for run in find_runs([folder / "runs"]) if len(run.epochs()) >= number]) == 1


def test_hosts_leave_living_runs_to_each_other_and_take_over_those_of_a_dead_one(
    hosts: Hosts, tmp_path: Path, sweep_file: Path
) -> None:
    one, two = hosts("one"), hosts("two")
    first = sweep(one, sweep_file)
    assert wait_for(lambda: has_epochs(tmp_path, 2), seconds=300)
    assert the_run(tmp_path).status() == "running", "a third host, such as a login node"
    end, sweep_end = ended(sweep(two, sweep_file))
    assert (end["status"], sweep_end["exit_code"]) == ("busy", 3)
    assert first.poll() is None
    one.kill()
    epochs = len(the_run(tmp_path).epochs())
    *_, end, sweep_end = ended(sweep(two, sweep_file))
    assert (end["status"], sweep_end["exit_code"]) == ("finished", 0)
    run = the_run(tmp_path)
    record = run.record()
    assert record
    assert [(attempt.host, attempt.status) for attempt in record.attempts] == [("one", "killed"), ("two", "finished")]
    assert [line.epoch for line in run.epochs()] == [*range(60)], "no finished epoch is trained again"
    assert [line.attempt for line in run.epochs()] == [0] * epochs + [1] * (60 - epochs)


def test_a_host_that_is_paused_beyond_its_lease_and_wakes_up_leaves_one_result_and_its_joules_count(
    hosts: Hosts, tmp_path: Path, sweep_file: Path
) -> None:
    one, two = hosts("one"), hosts("two")
    first = sweep(one, sweep_file)
    assert wait_for(lambda: has_epochs(tmp_path, 2), seconds=300)
    one.pause()
    run = the_run(tmp_path)
    before = run.epochs()
    second = sweep(two, sweep_file)
    assert wait_for(lambda: run.earlier_owners() and len(run.epochs()) > len(before) + 2, seconds=300)
    one.resume()
    ends = {"one": ended(first), "two": ended(second)}
    assert [[event.get("status") for event in ends[name][:-1]][-1] for name in ("one", "two")] == ["busy", "finished"]
    assert [ends[name][-1]["exit_code"] for name in ("one", "two")] == [3, 0]

    record, (earlier,) = run.record(), run.earlier_owners()
    theirs = earlier.record()
    assert record
    assert theirs
    assert record.status == "finished"
    assert [line.epoch for line in last_of_each(run.epochs())] == [*range(60)]
    assert (run.path / "takeovers").exists()
    assert [attempt.host for attempt in record.attempts] == ["one", "two"]
    late = theirs.attempts[0]
    assert late.identity == record.attempts[0].identity
    assert (late.status, record.attempts[0].status) == ("interrupted", "killed")
    ((reported,), _) = read_runs([run])
    counted = sum(energy(each) for each in (late, record.attempts[1]))
    assert counted > sum(energy(each) for each in record.attempts)
    assert reported.metrics.joules == pytest.approx(counted)
    assert reported.metrics.epochs == 60


def energy(attempt: Attempt) -> float:
    """Joules of an attempt."""
    return sum(Energy.from_json(phase).joules for phase in (attempt.energy or {}).values())
