"""The queue on this machine: real runs, each of them forked, that are made to fail, stop, hang and share."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from greenseg.energy import Energy
from greenseg.energy.reading import APPORTIONED
from greenseg.failures import Failure
from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.launch.local import Local
from greenseg.launch.queue import Policy, Queue
from greenseg.launch.slots import Slots
from greenseg.launch.stop import Stop
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests.energy.fakes import FakeRapl
from tests.runs import lines_of, recorded

COLD = subprocess.Popen
"""A Python of its own, see `conftest.py`."""

Act = Callable[[Job, dict[str, Any]], None]


class Audience:
    """Remembers what happened, and does something at an event."""

    def __init__(self, act: Act | None = None) -> None:
        self.outcomes: list[tuple[Job, Outcome]] = []
        self._act = act

    def start(self, job: Job) -> None:
        pass

    def event(self, job: Job, event: dict[str, Any]) -> None:
        if self._act:
            self._act(job, event)

    def end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes.append((job, outcome))


def job(phantom: Path, root: Path, **values: Any) -> Job:
    small = {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "epochs": 1}
    settings = Settings.of(small | {"batch_size": 16, "accelerator": "cpu"} | values)
    return Job(settings, RunDirectory(root / "sweep" / settings.slug))


def launch(*jobs: Job, act: Act | None = None, slots: int = 2, warm: bool = True, **policy: Any) -> Audience:
    """Carry jobs out; returns what happened."""
    audience = Audience(act)
    Queue(Local(Slots((), slots, slots), warm), Stop(), audience, Policy(**policy)).carry_out(jobs)
    return audience


def in_the_second_epoch_of(target: Job, do: Callable[[int], None]) -> Act:
    """Do something with the process of a run, once."""
    done: list[int] = []

    def act(job: Job, event: dict[str, Any]) -> None:
        if job is target and event.get("epoch", 0) >= 1 and not done:
            done.append(recorded(job.run)["attempts"][-1]["pid"])
            do(done[0])

    return act


def whole(lines: list[dict[str, Any]]) -> list[int]:
    """Epochs in order, each once; only one that was in flight may have been done twice."""
    epochs = [line["epoch"] for line in lines]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(epochs))
    assert len(epochs) <= len(set(epochs)) + 1
    return sorted(set(epochs))


def outcome_of(audience: Audience, wanted: Job) -> Outcome:
    return [outcome for job, outcome in audience.outcomes if job is wanted][-1]


def test_a_forked_run_is_bit_for_bit_that_of_a_fresh_process(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked, fresh = job(phantom, tmp_path / "forked", epochs=2), job(phantom, tmp_path / "fresh", epochs=2)
    launch(forked)
    monkeypatch.setattr(subprocess, "Popen", COLD)  # it imports everything itself
    launch(fresh, warm=False)
    results = [[(e["train_loss"], e["dice"], e["volume_dice"]) for e in lines_of(j.run)] for j in (forked, fresh)]
    assert len(results[0]) == 2
    assert results[0] == results[1]
    # The imports were paid once, by the server: they stand in the record, and are no part of the run.
    assert recorded(forked.run)["context"]["imports"]["joules"]["cpu"]["estimate"] > 0
    assert "imports" not in recorded(fresh.run)["context"]
    startups = [recorded(j.run)["energy"]["phases"]["startup"]["joules"]["cpu"]["estimate"] for j in (forked, fresh)]
    assert startups[0] < startups[1] / 2


def test_a_crash_ends_one_run_and_is_tried_again_as_often_as_told(phantom: Path, tmp_path: Path) -> None:
    victim, other = job(phantom, tmp_path, epochs=3), job(phantom, tmp_path, epochs=3, seed=1)
    crash = in_the_second_epoch_of(victim, lambda pid: os.kill(pid, signal.SIGSEGV))
    audience = launch(victim, other, act=crash, retries=1)
    crashed, again = [outcome for job, outcome in audience.outcomes if job is victim]
    assert (crashed.status, crashed.kind, crashed.again) == ("failed", Failure.CRASH, True)
    assert "SIGSEGV" in crashed.reason
    assert again.status == "finished"
    assert outcome_of(audience, other).status == "finished"
    record = recorded(victim.run)
    assert [attempt["status"] for attempt in record["attempts"]] == ["killed", "finished"]
    assert "error" not in record
    assert whole(lines_of(victim.run)) == [0, 1, 2], "it went on where it was"


def test_a_kill_for_want_of_memory_is_an_answer(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = 0

    def kernel_kills(pid: int) -> None:
        nonlocal kills
        kills += 1
        os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr("greenseg.launch.local.out_of_memory_kills", lambda: kills)
    victim = job(phantom, tmp_path, epochs=3)
    audience = launch(victim, act=in_the_second_epoch_of(victim, kernel_kills), retries=1)
    ((_, outcome),) = audience.outcomes
    assert (outcome.status, outcome.kind, outcome.again) == ("failed", Failure.OUT_OF_MEMORY, False)
    assert recorded(victim.run)["error"]["kind"] == "out_of_memory"


def test_a_run_that_hangs_and_one_that_takes_too_long_are_ended(phantom: Path, tmp_path: Path) -> None:
    hung, slow = job(phantom, tmp_path, epochs=2), job(phantom, tmp_path, epochs=1000, seed=1)
    hang = in_the_second_epoch_of(hung, lambda pid: os.kill(pid, signal.SIGSTOP))
    audience = launch(hung, act=hang, no_progress=3)
    outcome = outcome_of(audience, hung)
    assert (outcome.status, outcome.kind, outcome.reason) == ("failed", Failure.NO_PROGRESS, "no progress for 3 s")
    audience = launch(slow, timeout=5)
    outcome = outcome_of(audience, slow)
    assert (outcome.status, outcome.kind, outcome.reason) == ("failed", Failure.TIMEOUT, "took longer than 5 s")
    record = recorded(slow.run)
    assert record["error"]["kind"] == "timeout"
    assert record["attempts"][0]["status"] == "interrupted", "it was asked first"
    assert record["metrics"]["joules"] > 0


def test_a_loss_that_is_no_number_ends_the_run(phantom: Path, tmp_path: Path) -> None:
    wild = job(phantom, tmp_path, epochs=50, optimizer="sgd", lr=100.0, weight_decay=10.0, schedule="constant")
    audience = launch(wild, retries=3)
    ((_, outcome),) = audience.outcomes
    assert (outcome.status, outcome.kind) == ("failed", Failure.DIVERGED)
    assert len(lines_of(wild.run)) < 50
    assert lines_of(wild.run)[-1]["train_loss"] is None


def test_an_error_keeps_its_message_and_the_end_of_the_log(phantom: Path, tmp_path: Path) -> None:
    broken = job(phantom, tmp_path)
    broken.run.create(broken.settings)
    broken.run.last_checkpoint.mkdir()
    audience = launch(broken, retries=1)
    assert [outcome.again for _, outcome in audience.outcomes] == [True, False]
    error = recorded(broken.run)["error"]
    assert error["kind"] == "error"
    assert error["type"] == "IsADirectoryError"
    assert error["log"].splitlines()[-1].endswith(f"{error['type']}: {error['message']}")
    assert broken.run.log.read_text().rstrip().endswith(error["log"])


def test_no_new_run_starts_once_the_energy_is_spent(phantom: Path, tmp_path: Path) -> None:
    jobs = [job(phantom, tmp_path, seed=seed) for seed in range(3)]
    audience = Audience()
    queue = Queue(Local(Slots((), 1, 1), warm=True), Stop(), audience, Policy(max_energy=0.5))
    queue.carry_out(jobs)
    assert [outcome.status for _, outcome in audience.outcomes] == ["finished"]
    assert "max_energy is 0.5 J" in queue.halted
    paid = Queue(Local(Slots((), 1, 1), warm=True), Stop(), audience, Policy(max_energy=0.5), {"earlier": 1.0})
    paid.carry_out(jobs[1:])
    assert len(audience.outcomes) == 1, "what earlier runs of the sweep cost counts"


def test_when_the_server_is_killed_its_runs_go_on_in_a_new_one(phantom: Path, tmp_path: Path) -> None:
    jobs = [job(phantom, tmp_path, epochs=3, seed=seed) for seed in range(2)]
    killed = in_the_second_epoch_of(jobs[0], lambda pid: os.kill(psutil.Process(pid).ppid(), signal.SIGKILL))
    audience = launch(*jobs, act=killed)
    assert [outcome.status for _, outcome in audience.outcomes if not outcome.again] == ["finished", "finished"]
    for each in jobs:
        assert whole(lines_of(each.run)) == [0, 1, 2]
        assert recorded(each.run)["attempts"][-1]["status"] == "finished"


def test_forked_runs_read_rapl_and_share_its_counter(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every Python program that is started here, Zeus' helpers among them, looks for RAPL in a folder of ours.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"from zeus.device.cpu import rapl\nrapl.RAPL_DIR = {str(tmp_path / 'rapl')!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    rapl = FakeRapl(tmp_path / "rapl")
    over = threading.Event()
    used = 0.0

    def draw() -> None:
        nonlocal used
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # this thread alone: a counter does not wait for a core
        while not over.wait(0.02):
            rapl.use(1.0)
            used += 1.0

    jobs = [job(phantom, tmp_path, epochs=4, seed=seed) for seed in range(2)]
    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        launch(*jobs)
    finally:
        over.set()
        drawing.join()
    assert [recorded(j.run)["ran"]["threads"] for j in jobs] == [1, 1]
    energies = [Energy.from_json(recorded(j.run)["energy"]["total"]) for j in jobs]
    for energy in energies:
        assert energy.sources["cpu"] == "rapl"
        assert APPORTIONED in energy.marks
    assert 0 < sum(energy.component("cpu") for energy in energies) < used, "no joule was counted twice"


def test_what_another_sweep_did_since_the_plan_is_not_done_again(phantom: Path, tmp_path: Path) -> None:
    mine = job(phantom, tmp_path)
    launch(mine)
    before = (mine.run.path / "run.json").read_text()
    # Planned before that, under another name: the same run has one directory.
    other = Job(mine.settings, RunDirectory(tmp_path / "other" / mine.settings.slug))
    audience = launch(other)
    assert outcome_of(audience, other).status == "finished"
    assert (mine.run.path / "run.json").read_text() == before
    assert other.run.path == mine.run.path
    with mine.run.claim():  # as a process that trains it has
        (mine.run.path / "run.json").write_text(json.dumps(json.loads(before) | {"status": "running"}))
        assert outcome_of(launch(mine), mine).status == "busy"
    start = time.monotonic()
    assert outcome_of(launch(mine), mine).status == "finished", "a dead process's claim is taken over"
    assert time.monotonic() - start < 120
