"""Workers in jobs of a real Slurm: `greenseg sweep FILE`, as the script of a job starts it."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.settings import read_config
from tests.runs import lines_of, recorded
from tests.slurm import Slurm, wait_for

SETTINGS = {
    "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8, "batch_size": 16, "accelerator": "cpu",
    "workers": 0,
}  # fmt: skip

SCRIPT = """
{python} -m greenseg sweep {file} --out {out} &
trap 'kill -TERM $!' TERM USR1
for _ in 1 2 3; do wait $!; code=$?; done
date +%s.%N
exit $code
"""
"""The last `wait` is for the end itself: a trapped signal ends an earlier one."""


class Sweep:
    """A sweep whose workers are jobs."""

    def __init__(self, slurm: Slurm, folder: Path, **sweep: Any) -> None:
        self._slurm, self._file, self._out = slurm, folder / "sweep.yaml", folder / "runs"
        base = SETTINGS | sweep.pop("base", {})
        self._file.write_text(yaml.safe_dump({"name": "shared", "base": base, **sweep}))
        self._root = Path(__file__).parents[2]

    def submit(self, *options: str, script: str = SCRIPT, **variables: str) -> str:
        """Start a worker; returns the ID of its job."""
        # One core each: threads of two processes that wait for the same core spin.
        python = f"env PYTHONPATH={self._root} taskset -c {sorted(os.sched_getaffinity(0))[0]} {sys.executable}"
        made = script.format(python=python, file=self._file, out=self._out)
        given = {"GREENSEG_WORKER": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"} | variables
        exports = ",".join(["ALL", *(f"{name}={value}" for name, value in given.items())])
        return self._slurm.submit(made, "--ntasks-per-node=1", f"--export={exports}", *options)

    def end(self, job: str) -> tuple[int, str]:
        """Wait for a job; returns the exit code of its script, and its output."""
        self._slurm.wait(job, seconds=300)
        return int(self._slurm.show(job)["ExitCode"].partition(":")[0]), self.output(job)

    def output(self, job: str) -> str:
        """The output of a job so far."""
        return (self._slurm.home / f"slurm-{job}.out").read_text()

    def runs(self, **settings: Any) -> list[RunDirectory]:
        """The runs that exist, with these settings."""
        found = find_runs([self._out]) if self._out.exists() else []
        return [run for run in found if settings.items() <= read_config(run.path / "config.yaml").items()]


def test_a_run_on_two_nodes_stops_in_mid_epoch_and_continues_in_the_next_job(
    slurm: Slurm, phantom: Path, tmp_path: Path
) -> None:
    base = {"data": str(phantom), "epochs": 3, "nodes": 2, "strategy": "ddp"}
    sweep = Sweep(slurm, tmp_path, base=base)
    job = sweep.submit("--nodes=2")
    began = wait_for(lambda: [run for run in sweep.runs() if (run.path / "epochs.jsonl").exists()], 300)
    assert began, sweep.output(job)
    slurm.run("scancel", "--batch", "--signal=TERM", job)
    asked = time.time()
    code, output = sweep.end(job)
    assert code == 75, output
    assert float(output.split()[-1]) - asked < 60, "a job has longer"
    (run,) = began
    stopped = recorded(run)
    assert stopped["status"] == stopped["attempts"][0]["status"] == "interrupted"
    assert stopped["attempts"][0]["job"] == f"slurm {job}"
    assert stopped["attempts"][0]["energy"]["train"]["joules"]["cpu"]["estimate"] > 0

    other = sweep.submit("--nodes=1")
    code, output = sweep.end(sweep.submit("--nodes=2"))
    assert code == 0, output
    done = recorded(run)
    assert done["status"] == "finished"
    assert (done["ran"]["nodes"], done["ran"]["effective_batch_size"]) == (2, 32)
    assert [line["epoch"] for line in lines_of(run)] == [0, 1, 2]
    assert len(done["attempts"]) == 2
    code, output = sweep.end(other)
    assert code == 3
    assert "1 run left to jobs with another number of nodes" in output


def test_a_job_knows_its_time_limit_and_its_nodes(slurm: Slurm) -> None:
    ask = "from greenseg import batch_job; print(batch_job.limit().left, batch_job.limit().seconds, batch_job.nodes())"
    script = f"cd {Path(__file__).parents[2]}; {sys.executable} -c '{ask}'; srun -n 2 {sys.executable} -c '{ask}'"
    job = slurm.submit(script, "--nodes=2", "--time=5")
    assert slurm.wait(job) == "COMPLETED"
    batch, *tasks = (slurm.home / f"slurm-{job}.out").read_text().splitlines()
    left, seconds, nodes = map(float, batch.split())
    assert 200 < left <= 300
    assert (seconds, nodes) == (300, 2)
    assert [line.split()[-1] for line in tasks] == ["1", "1"], "each task has its own node"


def test_how_runs_on_two_nodes_end(slurm: Slurm, phantom: Path, tmp_path: Path) -> None:
    base = {"data": str(phantom), "epochs": 300, "nodes": 2, "strategy": "ddp"}
    sweep = Sweep(slurm, tmp_path, base=base, seeds=[0, 1])

    def steps(job: str) -> list[str]:
        return slurm.run("squeue", "-h", "-s", "-j", job, "-o", "%i").split()

    def begun(number: int, job: str) -> RunDirectory:
        """The run that is the so manieth to begin, once it trains in a job."""
        assert wait_for(lambda: len(sweep.runs()) == number, 300), sweep.output(job)
        run = max(sweep.runs(), key=lambda run: (run.path / "config.yaml").stat().st_mtime)

        def attempt() -> dict[str, Any]:
            record = run.record()
            return {} if record is None else record.to_json()["attempts"][-1]

        assert wait_for(lambda: attempt().get("job") == f"slurm {job}" and lines_of(run), 300), sweep.output(job)
        return run

    job = sweep.submit("--nodes=2", script=SCRIPT.replace("trap", f"echo $! > {tmp_path}/worker; trap") + "sleep 100")
    first = begun(1, job)
    assert f"{job}.0" in steps(job)
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)
    assert wait_for(lambda: f"{job}.0" not in steps(job), 60), "it ends with its worker"
    assert first.status() == "interrupted"
    slurm.run("scancel", job)
    slurm.wait(job)

    job = sweep.submit("--nodes=2")
    assert begun(1, job) == first
    os.kill(rank(1, job), signal.SIGKILL)
    second = begun(2, job)
    error = recorded(first)["error"]
    assert (first.status(), error["kind"], error["message"]) == ("failed", "crash", "killed by SIGKILL")
    os.kill(recorded(second)["attempts"][-1]["pid"], signal.SIGSTOP)
    for _ in range(2):
        slurm.run("scancel", "--batch", "--signal=TERM", job)
        time.sleep(1)
    code, output = sweep.end(job)
    assert code == 75, output
    assert second.status() == "interrupted"


def rank(number: int, job: str) -> int:
    """The process of this rank of the run in a job."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={number}".encode(), b"SLURM_STEP_ID=0"}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes().split(b"\0")
            if b"greenseg.training" in command and wanted <= set(variables):
                return int(process.name)
    raise LookupError(f"no rank {number} in job {job}")
