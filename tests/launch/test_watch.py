"""Runs that other processes carry out are watched by their directories."""

from pathlib import Path
from typing import Any

import pytest

from greenseg.launch.executor import Job
from greenseg.launch.judge import Outcome
from greenseg.launch.watch import Watch, record_out_of_memory
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests.runs import recorded, write_record

JOB = "slurm 100_0"


def begin(folder: Path, seed: int = 0, status: str = "running", attempts: int = 1) -> RunDirectory:
    """A run on another node."""
    settings = Settings.of({"seed": seed, "epochs": 1, "accelerator": "cpu"})
    run = RunDirectory(folder / settings.slug)
    if not run.path.exists():
        run.create(settings)
    each = [{"status": status, "host": "node1", "pid": 7 + n, "started": "today", "job": JOB} for n in range(attempts)]
    write_record(run, {"schema": 1, "status": status, "settings": settings.resolved(), "attempts": each})
    return run


def test_runs_of_a_job_that_was_killed_for_its_memory_have_failed(tmp_path: Path) -> None:
    whole, damaged, other = begin(tmp_path), begin(tmp_path, 1), begin(tmp_path, 2, "finished")
    (damaged.path / "epochs.jsonl").write_text("damaged\n")
    assert record_out_of_memory([whole, damaged, other], JOB) == [whole]
    assert recorded(whole)["error"]["kind"] == "out_of_memory"
    assert recorded(damaged)["status"] == "running"


def test_a_run_that_the_next_worker_has_taken_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    claim = RunDirectory.claim

    def claim_late(self: RunDirectory, *arguments: Any) -> Any:
        begin(tmp_path, status="finished", attempts=2)
        return claim(self, *arguments)

    monkeypatch.setattr(RunDirectory, "claim", claim_late)
    assert record_out_of_memory([run], JOB) == []
    assert recorded(run)["status"] == "finished"


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def start(self, job: Job) -> None:
        self.told.append(("start", job.settings.seed))

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Epochs are of no interest here."""

    def end(self, job: Job, outcome: Outcome) -> None:
        self.told.append((outcome.status, job.settings.seed))


def test_runs_that_have_ended_are_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("greenseg.launch.watch._clock", lambda: now[0])
    runs = [begin(tmp_path, 0, "failed"), begin(tmp_path, 1)]
    listener = Listener()
    jobs = [Job(Settings.of(recorded(run)["settings"]), run) for run in runs]
    watch = Watch(jobs, tmp_path, False, listener)
    watch.look()
    begin(tmp_path, 0, attempts=2)
    begin(tmp_path, 1, "finished")
    now[0] += 1
    watch.look()
    assert listener.told == [("start", 1), ("finished", 1)]
    now[0] += 30
    watch.look()
    assert listener.told[2:] == [("start", 0)]
    begin(tmp_path, 0, "finished", attempts=2)
    begin(tmp_path, 1, attempts=2)
    now[0] += 1
    watch.look(at_all=True)
    assert listener.told[3:] == [("finished", 0), ("start", 1)]
