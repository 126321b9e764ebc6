"""What the queue expects of every executor: the same cases for each that there is, with a stub in place of training."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from greenseg.failures import Failure
from greenseg.launch.executor import Ended, Executor, Force, Handle, Job
from greenseg.launch.follow import Follower
from greenseg.launch.judge import Outcome
from greenseg.launch.local import Local
from greenseg.launch.queue import Policy, Queue
from greenseg.launch.slots import Slot, Slots
from greenseg.launch.stop import Stop
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests.launch import stub
from tests.runs import recorded

Act = Callable[[Job, dict[str, Any]], None]


class Elsewhere:
    """As an executor of other hosts: no pipe, no exit code; it knows its runs by what they write.

    As a scheduler would, it can end any of them, and knows which of those that never began are gone.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._runs: dict[Job, Follower] = {}
        self._programs: dict[Job, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for program in self._programs.values():
            program.kill()
            program.wait()

    def problems(self, runs: Sequence[Settings]) -> list[str]:
        return []

    def prepare(self, job: Job, wanted: Callable[[], bool]) -> bool:
        return True

    def start(self, job: Job, slot: Slot) -> Handle:
        self._runs[job] = Follower(job.run)
        command = [sys.executable, "-m", "greenseg.training", str(job.run.path)]
        with job.run.log.open("ab") as log:
            environment = os.environ | job.environment()
            program = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        self._programs[job] = program
        return job

    def wait(self, seconds: float) -> Iterable[Ended]:
        time.sleep(seconds)
        for job, follower in list(self._runs.items()):
            began = (record := job.run.record()) is not None and follower.began(record)
            if not job.run.in_use() if began else self._programs[job].poll() is not None:
                del self._runs[job]
                yield Ended(job)

    def stop(self, handle: Handle, force: Force) -> None:
        assert isinstance(handle, Job)
        self._programs[handle].send_signal(signal.SIGKILL if force == Force.KILL else signal.SIGINT)


EXECUTORS: dict[str, Callable[[Slots], Executor]] = {
    "forked from a warm process": lambda slots: Local(slots, warm=True),
    "a program of its own": Local,
    "elsewhere": Elsewhere,
}


class Bench:
    """Has stubs carried out by one kind of executor, and remembers what happened."""

    def __init__(self, executor: Callable[[Slots], Executor], root: Path) -> None:
        self._executor, self._root = executor, root
        self.stop = Stop()
        self.told: list[tuple[str, Job, Any]] = []
        self.act: Act = lambda job, event: None

    def job(self, act: str, seed: int = 0, **values: Any) -> Job:
        settings = Settings.of({"epochs": 3, "accelerator": "cpu", "seed": seed} | values)
        return Job(settings, RunDirectory(self._root / "sweep" / settings.slug), context={"act": act})

    def carry_out(self, source: Iterable[Job | None], **policy: Any) -> None:
        self.stop.requests = 0
        Queue(self._executor(Slots((), 2, 2)), self.stop, self, Policy(**policy)).carry_out(source)

    def outcome(self, job: Job, **policy: Any) -> Outcome:
        self.carry_out([job], **policy)
        return self.outcomes(job)[-1]

    def outcomes(self, job: Job) -> list[Outcome]:
        return [what for kind, each, what in self.told if kind == "end" and each is job]

    def epochs(self, job: Job) -> list[int]:
        events = [what for kind, each, what in self.told if kind == "event" and each is job]
        return [event["epoch"] for event in events if event["event"] == "epoch"]

    # ── as a listener

    def start(self, job: Job) -> None:
        self.told.append(("start", job, None))

    def event(self, job: Job, event: dict[str, Any]) -> None:
        self.told.append(("event", job, event))
        self.act(job, event)

    def end(self, job: Job, outcome: Outcome) -> None:
        self.told.append(("end", job, outcome))


@pytest.fixture(params=EXECUTORS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """One for each kind of executor."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(stub.SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
    yield Bench(EXECUTORS[request.param], tmp_path / "runs")
    assert not [run for run in (tmp_path / "runs").glob("[!.]*/*") if RunDirectory(run).in_use()], "nothing runs on"


def once_after(epoch: int, do: Callable[[Job], None]) -> Act:
    done: list[Job] = []

    def act(job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] >= epoch and not done:
            done.append(job)
            do(job)

    return act


def pid_of(job: Job) -> int:
    return int(recorded(job.run)["attempts"][-1]["pid"])


def test_a_run_finishes_and_its_epochs_are_told_each_once(bench: Bench) -> None:
    job = bench.job("finish")
    job.context["order"] = "shuffled"
    assert bench.outcome(job) == Outcome("finished", joules=1.0)
    assert bench.epochs(job) == [0, 1, 2]
    told = next(what for kind, _, what in bench.told if kind == "event" and what["event"] == "epoch")
    assert told == {
        "event": "epoch", "epoch": 0, "train_loss": 0.5, "dice": 0.5, "iou": 0.4, "seconds": 0.02, "joules": 1.0,
    }  # fmt: skip
    assert recorded(job.run)["context"]["order"] == "shuffled"


def test_a_run_fails_with_its_reason_and_is_tried_again(bench: Bench) -> None:
    job = bench.job("fail")
    outcome = bench.outcome(job, retries=1)
    assert (outcome.status, outcome.kind, outcome.reason) == ("failed", Failure.ERROR, "ValueError: no licence")
    assert [outcome.again for outcome in bench.outcomes(job)] == [True, False]
    assert recorded(job.run)["error"]["log"].endswith("ValueError: no licence")


def test_a_run_is_stopped_gently_and_goes_on(bench: Bench) -> None:
    job = bench.job("last", epochs=4)

    def stop(job: Job) -> None:
        bench.stop.requests = 1

    bench.act = once_after(1, stop)
    assert bench.outcome(job).status == "interrupted"
    assert recorded(job.run)["attempts"][-1]["status"] == "interrupted", "it could say so itself"
    assert bench.epochs(job) == [0, 1]
    job.context["act"] = "finish"
    assert bench.outcome(job).status == "finished"
    assert bench.epochs(job) == [0, 1, 2, 3], "joules of earlier attempts included, epochs of theirs not repeated"
    assert bench.told[-2][2]["joules"] == 2.0


def test_a_run_that_is_deaf_is_ended_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(job: Job) -> None:
        bench.stop.requests = 2

    bench.act = once_after(2, stop)
    assert bench.outcome(bench.job("be deaf")).status == "interrupted"
    monkeypatch.setattr("greenseg.launch.queue._GRACE_SECONDS", 0.3)
    job = bench.job("be deaf", seed=1)
    outcome = bench.outcome(job, timeout=1.5)
    assert (outcome.status, outcome.kind, outcome.reason) == ("failed", Failure.TIMEOUT, "took longer than 1.5 s")
    assert recorded(job.run)["error"]["kind"] == "timeout"


def test_a_run_that_is_killed_is_a_crash(bench: Bench) -> None:
    job = bench.job("last")
    bench.act = once_after(1, lambda job: os.kill(pid_of(job), signal.SIGKILL))
    outcome = bench.outcome(job)
    assert (outcome.status, outcome.kind) == ("failed", Failure.CRASH)
    record = recorded(job.run)
    assert (record["status"], record["attempts"][-1]["status"]) == ("failed", "killed")
    assert record["metrics"]["joules"] == 1.0, "what its finished epochs cost is kept"


def test_two_runs_at_once(bench: Bench) -> None:
    jobs = [bench.job("last", seed=seed) for seed in range(3)]
    both: list[int] = []

    def when_both_run(job: Job, event: dict[str, Any]) -> None:
        if all(bench.epochs(job)[-1:] == [1] for job in jobs[:2]) and not both:
            both.extend(map(pid_of, jobs[:2]))
            for pid in both:
                os.kill(pid, signal.SIGINT)
        elif job is jobs[2] and bench.epochs(job)[-1:] == [1] and event["event"] == "epoch":
            os.kill(pid_of(job), signal.SIGINT)

    bench.act = when_both_run
    bench.carry_out(jobs)
    assert [bench.outcomes(job)[-1].status for job in jobs] == ["interrupted"] * 3
    kinds = [kind for kind, _, _ in bench.told if kind != "event"]
    assert kinds[:3] == ["start", "start", "end"], "the third one waited for its turn"


def test_a_run_that_failed_elsewhere_since_it_was_planned_is_left_alone(bench: Bench) -> None:
    job = bench.job("fail")
    assert bench.outcome(job).status == "failed"
    planned, again = bench.job("finish"), bench.job("finish")
    assert (bench.outcome(planned).status, planned.tries) == ("failed", 0)
    assert len(recorded(planned.run)["attempts"]) == 1
    again.failed = True  # as with --retry-failed
    assert bench.outcome(again).status == "finished"


def test_a_full_pipe_loses_no_epoch(bench: Bench) -> None:
    job, slept = bench.job("talk"), list[float]()

    def sleep_until_it_is_over(job: Job, event: dict[str, Any]) -> None:
        while not slept and job.run.status() == "running":
            time.sleep(0.02)
        slept.append(0.02)

    bench.act = sleep_until_it_is_over
    assert bench.outcome(job).status == "finished"
    assert bench.epochs(job) == [0, 1, 2]
    assert len(bench.told) < 3 * stub.STEPS


def test_a_source_that_decides_in_rounds_is_asked_again_when_runs_have_ended(bench: Bench) -> None:
    rounds: list[list[str]] = []

    def search() -> Iterator[Job | None]:
        for seed in (0, 2):
            jobs = [bench.job("finish", seed=seed + i) for i in range(2)]
            yield from jobs
            while any(job.run.status() != "finished" for job in jobs):
                yield None
            rounds.append([job.run.status() for job in jobs])

    bench.carry_out(search())
    assert rounds == [["finished", "finished"]] * 2
    assert [kind for kind, _, _ in bench.told].count("start") == 4
