"""`greenseg sweep` with workers in the background and on a real Slurm, with a stub in place of training."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.launchers.launcher import Submission
from greenseg.launchers.submissions import Submissions, states
from greenseg.runs.directory import find_runs
from greenseg.sweep.file import read_sweep
from tests.launch import stub
from tests.runs import recorded
from tests.slurm import Slurm, wait_for

ROOT = Path(__file__).parents[2]


class Sweep:
    """A sweep of four runs in a folder of its own, whose workers train stubs."""

    def __init__(self, folder: Path, phantom: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.file = folder / "four.yaml"
        base = {"data": str(phantom), "image_size": 32, "spacing": 8.0, "epochs": 3, "accelerator": "cpu"}
        self.content: dict[str, Any] = {"base": base, "seeds": [0, 1, 2, 3], "slurm": {"array": 2, "mem": "1G"}}
        self.write()

    def write(self, **changes: Any) -> None:
        self.content |= changes
        self.file.write_text(yaml.safe_dump(self.content))

    def start(self, *options: str, act: str = "finish", **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "greenseg", "sweep", str(self.file), *options], cwd=self.folder, text=True,
            env=os.environ | self.environment | {stub.ACT: act} | variables,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *options: str, act: str = "finish", code: int | None = 0, **variables: str) -> str:
        process = self.start(*options, act=act, **variables)
        said, _ = process.communicate(timeout=120)
        assert code is None or process.returncode == code, said
        assert "Traceback" not in said
        return said

    @property
    def submissions(self) -> Submissions:
        return Submissions(self.folder / "runs" / "four")

    def attempts(self) -> list[list[str]]:
        """The status of each attempt at each run."""
        runs = find_runs([self.folder / "runs"])
        return [[attempt["status"] for attempt in recorded(run)["attempts"]] for run in runs]

    def states(self, submission: Submission) -> list[str]:
        """The phase of each worker of a submission."""
        return [str(worker.phase) for worker in states([submission])]

    def running(self) -> int:
        """Number of runs that have ended an epoch."""
        return len([*self.folder.rglob("epochs.jsonl")])


@pytest.fixture
def sweep(tmp_path: Path, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """Workers of this machine."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(stub.SITE)
    sweep = Sweep(tmp_path, phantom, {"PYTHONPATH": f"{site}:{ROOT}", "COLUMNS": "100", "NO_COLOR": "1"})
    yield sweep
    sweep.submissions.cancel(sweep.submissions.open())


@pytest.fixture
def on_slurm(sweep: Sweep, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Workers of a Slurm."""
    for variable, value in slurm.environment.items():
        monkeypatch.setenv(variable, value)
    slurm.idle()
    return sweep


def test_a_sweep_on_slurm_is_submitted_followed_and_reported(on_slurm: Sweep) -> None:
    said = on_slurm.run("--launcher", "slurm")
    assert "2 workers" in said
    assert "4 finished" not in said
    assert all(f"done [{number}/4]" in said for number in range(1, 5))
    assert "1 configuration, 4 runs" in said, "the report"
    assert on_slurm.attempts() == [["finished"]] * 4
    assert all(recorded(run)["attempts"][0]["job"].startswith("slurm ") for run in find_runs([on_slurm.folder]))
    assert "4 runs (4 finished)" in on_slurm.run()
    assert len(on_slurm.submissions.all()) == 1


def test_the_command_on_the_login_node_imports_no_torch(on_slurm: Sweep) -> None:
    (on_slurm.folder / "site" / "sitecustomize.py").write_text("")
    on_slurm.write(slurm={"setup": ["exit 0"]})  # no worker starts
    process = on_slurm.start("--launcher", "slurm", PYTHONPROFILEIMPORTTIME="1")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "4 runs left" in said
    assert "| greenseg.launch.watch" in said.replace("|   ", "| ").replace("  ", "")
    assert not [line for line in said.splitlines() if line.startswith("import time:") and line.endswith(" torch")]


def test_detached_workers_are_followed_later_cancelled_and_submitted_again(on_slurm: Sweep) -> None:
    said = on_slurm.run("--launcher", "slurm", "--detach", act="last")
    assert "job" in said
    assert wait_for(lambda: on_slurm.running() == 2)
    assert "two" not in on_slurm.run("--launcher", "slurm", "--detach"), "they live"
    assert len(on_slurm.submissions.all()) == 1
    following = on_slurm.start()
    assert following.stdout
    assert wait_for(lambda: "Workers: 2 running" in following.stdout.readline())  # type: ignore[union-attr]
    following.send_signal(signal.SIGINT)
    rest, _ = following.communicate(timeout=60)
    assert (following.returncode, "--cancel" in rest) == (130, True)
    assert on_slurm.running() == 2, "they run on"

    on_slurm.run("--cancel")
    assert on_slurm.submissions.open() == []
    assert on_slurm.attempts() == [["interrupted"]] * 2
    said = on_slurm.run()
    assert sorted(on_slurm.attempts()) == [["finished"]] * 2 + [["interrupted", "finished"]] * 2
    assert len(on_slurm.submissions.all()) == 2, "the last launcher is the default"


def test_workers_whose_cancellation_failed_can_still_be_cancelled(on_slurm: Sweep) -> None:
    path = f"{_failing(on_slurm.folder, 'scancel')}:{os.environ['PATH']}"
    on_slurm.run("--launcher", "slurm", "--detach", act="last")
    assert wait_for(lambda: on_slurm.running() == 2)
    (first,) = on_slurm.submissions.all()
    assert "try again later" in on_slurm.run("--cancel", code=2, PATH=path)
    said = on_slurm.run("--detach", act="last")
    assert f"have not stopped yet ({first.job})" in said.replace("\n", " ")
    assert "Started 2 workers" in said
    said = on_slurm.run("--cancel")
    assert on_slurm.submissions.open() == []
    assert set(on_slurm.states(first)) == {"ended"}


def _failing(folder: Path, *names: str) -> Path:
    """A folder with commands that fail."""
    tools = folder / "failing"
    tools.mkdir()
    for name in names:
        (tools / name).write_text("#!/bin/sh\necho no answer >&2\nexit 1\n")
        (tools / name).chmod(0o755)
    return tools


def test_events_of_workers_as_json(on_slurm: Sweep) -> None:
    on_slurm.write(seeds=[0])
    lines = on_slurm.run("--launcher", "slurm", "--json").splitlines()
    events = [json.loads(line) for line in lines]
    assert (events[0]["event"], events[0]["workers"]) == ("submitted", 1)
    states = [event["state"] for event in events if event["event"] == "worker"]
    assert list(dict.fromkeys(states))[-1] == "ended"
    (last,) = [event for event in events if event["event"] == "worker" and event["state"] == "ended"]
    assert (last["cause"], last["exit_code"], last["batch_job"][:6]) == ("done", 0, "slurm ")
    assert [event["event"] for event in events if "run" in event] == ["start", "epoch", "epoch", "epoch", "end"]
    assert events[-1] == {
        "event": "sweep", "name": "four", "finished": 1, "failed": 0, "unfinished": 0, "freed_bytes": 0, "exit_code": 0,
    }  # fmt: skip


def test_a_run_that_fails_and_is_tried_again(on_slurm: Sweep) -> None:
    on_slurm.write(seeds=[0, 1])
    assert "failed [1/2]" in on_slurm.run("--launcher", "slurm", act="fail", code=1)
    assert on_slurm.attempts() == [["failed"], ["failed"]]
    on_slurm.run(code=1)
    assert on_slurm.attempts() == [["failed"], ["failed"]], "it is left alone"
    on_slurm.run("--retry-failed")
    assert on_slurm.attempts() == [["failed", "finished"]] * 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_is_killed_at_the_submission_submits_nothing_twice(on_slurm: Sweep, moment: str) -> None:
    site = on_slurm.folder / "site" / "sitecustomize.py"
    kill = "os.kill(os.getpid(), 9)"
    calls = [kill, "start(self, s)"] if moment == "before" else ["start(self, s)", kill]
    site.write_text(
        f"{stub.SITE}import os\nfrom greenseg.launchers import slurm\nstart = slurm.Slurm.start\n"
        f"def start_and_die(self, s):\n    {calls[0]}\n    {calls[1]}\nslurm.Slurm.start = start_and_die\n"
    )
    on_slurm.run("--launcher", "slurm", code=-9)
    (submission,) = on_slurm.submissions.all()
    assert submission.job is None
    site.write_text(stub.SITE)
    on_slurm.run("--launcher", "slurm")
    assert on_slurm.attempts() == [["finished"]] * 4
    names = [each.name for each in on_slurm.submissions.all()]
    assert len(names) == 1
    assert (names == [submission.name]) == (moment == "after")


def test_a_search_on_slurm(on_slurm: Sweep) -> None:
    on_slurm.content["base"]["epochs"] = 4
    on_slurm.write(search={"method": "halving", "seed": 0})
    said = on_slurm.run("--launcher", "slurm")
    assert "all 4 runs of the grid have finished" in said
    assert on_slurm.attempts() == [["finished"]] * 4


def test_workers_in_the_background_of_this_machine(sweep: Sweep) -> None:
    said = sweep.run("--launcher", "local", "--detach", "--jobs", "2", act="last")
    assert "1 worker" in said
    assert wait_for(lambda: sweep.running() == 2)
    sweep.run("--cancel")
    assert sweep.attempts() == [["interrupted"]] * 2
    sweep.run("--detach")
    said = sweep.run()
    assert sorted(sweep.attempts()) == [["finished"]] * 2 + [["interrupted", "finished"]] * 2
    assert "1 configuration, 4 runs" in said
    assert "No workers" in sweep.run("--cancel")


def test_workers_in_the_background_of_another_host(sweep: Sweep) -> None:
    sweep.write(seeds=[0])
    submissions = sweep.submissions
    folder = submissions.folder
    folder.mkdir(parents=True)
    away = Submission("local", folder, "four", ["greenseg"], "/", 1, host="elsewhere", job="1")
    away.file(".json").write_text(away.to_json())
    assert "cancelled only there" in sweep.run("--cancel", code=2)
    assert "elsewhere may share" in sweep.run()
    assert sweep.attempts() == [["finished"]]
    assert [each.ended for each in submissions.all()] == [False], "as far as this host knows"


JOB: dict[str, Any] = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1"}


def test_a_job_of_the_user_cancels_workers_and_does_not_detach_by_itself(sweep: Sweep) -> None:
    assert "--launcher" in sweep.run("--detach", code=2, **JOB)
    sweep.run("--detach", act="last")
    assert wait_for(lambda: sweep.running() == 1)
    assert "have stopped" in sweep.run("--cancel", **JOB)
    assert sweep.attempts() == [["interrupted"]]


@pytest.mark.parametrize("options", [["--detach"], ["--launcher", "slurm"]])
def test_a_worker_starts_no_workers(sweep: Sweep, options: list[str]) -> None:
    assert "not in a worker" in sweep.run(*options, code=2, GREENSEG_WORKER="slurm-1_0")


def test_the_script_is_shown_and_nothing_is_written(on_slurm: Sweep) -> None:
    on_slurm.write(
        slurm={"time": "4h", "partition": "main", "array": 20, "max_parallel": 2, "setup": ["module load x"]}
    )
    said = on_slurm.run("--launcher", "slurm", "--dry-run")
    for line in ("--array=0-3%2", "--time=0-04:00:00", "--partition=main", "--requeue"):
        assert f"#SBATCH {line}\n" in said
    assert "\nmodule load x\n" in said
    (script,) = json.loads(on_slurm.run("--launcher", "slurm", "--dry-run", "--json"))["scripts"]
    assert "#SBATCH --array=0-3%2\n" in script
    assert not (on_slurm.folder / "runs").exists()


def test_a_plan_changes_nothing_and_needs_no_scheduler(on_slurm: Sweep) -> None:
    folder = on_slurm.submissions.folder
    folder.mkdir(parents=True)
    tools = _failing(on_slurm.folder, "squeue", "sacct")
    begun = Submission("slurm", folder, "four", ["greenseg"], "/", 2, job="1")
    cut_off = Submission("slurm", folder, "four", ["greenseg"], "/", 2)
    for each in (begun, cut_off):
        each.file(".json").write_text(each.to_json())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    said = on_slurm.run("--dry-run", PATH=f"{tools}:{os.environ['PATH']}")
    assert "unknown which workers live" in said.replace("\n", " ")
    assert "#SBATCH" not in said
    assert "#SBATCH" in on_slurm.run("--dry-run"), "no worker lives"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_runs_of_several_nodes_have_an_array_of_their_own(on_slurm: Sweep) -> None:
    on_slurm.write(grid={"nodes": [1, 2], "strategy": ["ddp"]}, slurm={"array": 3})
    scripts = json.loads(on_slurm.run("--launcher", "slurm", "--dry-run", "--json"))["scripts"]
    assert ["#SBATCH --nodes=1\n" in script for script in scripts] == [True, False]
    assert all(line in scripts[1] for line in ("#SBATCH --nodes=2\n", "#SBATCH --array=0-2\n"))


def test_a_login_node_needs_no_gpu(on_slurm: Sweep) -> None:
    on_slurm.content["base"]["accelerator"] = "gpu"
    on_slurm.write()
    assert "no GPU" in on_slurm.run(code=2)
    assert "Started 2 workers" in on_slurm.run("--launcher", "slurm", "--detach")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--launcher", "slrum"], "did you mean 'slurm'?"),
        (["--detach", "--cancel"], "--detach, --cancel"),
        (["--launcher", "slurm", "--gpus", "0"], "--gpus"),
    ],
)
def test_options_that_are_wrong(sweep: Sweep, options: list[str], expected: str) -> None:
    assert expected in sweep.run(*options, code=2)


def test_without_slurm_it_says_so(sweep: Sweep, tmp_path: Path) -> None:
    said = sweep.run("--launcher", "slurm", code=2, PATH=str(tmp_path))
    assert "needs sbatch, squeue, scancel" in said
    assert not (tmp_path / "runs").exists()


def test_a_partition_that_is_wrong(on_slurm: Sweep) -> None:
    on_slurm.write(slurm={"partition": "nowhere"})
    assert "invalid partition" in on_slurm.run("--launcher", "slurm", code=2)
    assert on_slurm.submissions.all() == []


def test_workers_read_a_copy_that_has_the_same_runs(tmp_path: Path, phantom: Path) -> None:
    (tmp_path / "base.yaml").write_text("base: {model: mobilenet-unet, seed: 7}")
    file = tmp_path / "some.yaml"
    file.write_text(
        "base: [base.yaml, {epochs: 5}]\ngrid: {lr: {from: 0.001, to: 0.004, times: 2}, optimizer: [adamw, sgd]}\n"
        "exclude: [{optimizer: sgd, lr: 0.001}]\nseeds: [0, 1]\norder: shuffled\nslurm: {array: 2}\n"
    )
    sweep = read_sweep(file, ["batch_size=4"], search="halving")
    copy = tmp_path / "elsewhere" / "copy.yaml"
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(dict(sweep.resolved)))
    again = read_sweep(copy)
    assert [run.identity for run in again.runs] == [run.identity for run in sweep.runs]
    assert (again.name, again.search, again.order) == (sweep.name, sweep.search, sweep.order)
