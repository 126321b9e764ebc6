"""Random kills of everything that a sweep on Slurm consists of, until the sweep is done.

`GREENSEG_KILLS=100 pytest tests/launch/test_slurm_torture.py` is the long form; `GREENSEG_KILLS_SEED` repeats its
choices. Nothing is trained: `tests.launch.stub` is in the place of training.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from greenseg.runs.directory import find_runs
from tests.launch import stub
from tests.slurm import Slurm, running, wait_for

KILLS = int(os.environ.get("GREENSEG_KILLS", "9"))
SEED = int(os.environ.get("GREENSEG_KILLS_SEED") or random.randrange(1000))
RUNS, EPOCHS, EPOCH_SECONDS = (8, 4, 0.3) if KILLS < 20 else (40, 10, 2.0)
WORKERS = 4


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    """Two nodes that are quick to kill jobs, and to start them again."""
    with running(2, CPUS=2, PREEMPTION=1, EXPIRE_SECONDS=1, KILL_WAIT=3) as found:
        yield found


class Sweep:
    """A sweep on Slurm, and the command that follows it.

    Args:
        folder: its folder.
        slurm: the Slurm.
        phantom: its data.
    """

    def __init__(self, folder: Path, slurm: Slurm, phantom: Path) -> None:
        self.folder, self._slurm = folder, slurm
        base = {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0}
        sweep = {
            "base": base | {"epochs": EPOCHS, "accelerator": "cpu"},
            "seeds": [*range(RUNS)],
            "slurm": {"array": WORKERS, "partition": "main", "mem": "500M", "time": "1h"},
        }
        (folder / "shared.yaml").write_text(yaml.safe_dump(sweep))
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(stub.SITE)
        self._variables = slurm.environment | {
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), *filter(None, sys.path)]),
            stub.EPOCH_SECONDS: str(EPOCH_SECONDS),
        }
        self.output = folder / "output"

    def command(self) -> "subprocess.Popen[bytes]":
        """Start the command that starts and follows workers."""
        arguments = ["sweep", "shared.yaml", "--launcher", "slurm", "--retry-failed"]
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "greenseg", *arguments], cwd=self.folder, stdout=output, stderr=output,
                env=os.environ | self._variables,
            )  # fmt: skip

    # ── what can happen; each returns whether it has

    def a_run_is_killed(self) -> bool:
        return self._kill("greenseg.training", "server") or self._kill("server")

    def a_worker_is_killed(self) -> bool:
        return self._kill("greenseg sweep")

    def a_script_is_killed(self) -> bool:
        return self._kill("slurm_script")

    def a_task_is_cancelled(self) -> bool:
        return self._task("scancel")

    def a_task_is_requeued(self) -> bool:
        return self._task("scontrol", "requeue")

    def a_node_fails(self) -> bool:
        return self._daemon(f"slurmd.{random.choice(self._slurm.nodes)}")

    def the_controller_fails(self) -> bool:
        return self._daemon("slurmctld")

    def a_task_is_preempted(self) -> bool:
        with suppress(RuntimeError):
            self._slurm.submit("sleep 0.5", "--partition=urgent", "--nodes=1", "--exclusive")
            return True
        return False

    def _task(self, *command: str) -> bool:
        tasks = [task for task, state in self._slurm.squeue().items() if state == "RUNNING" and "_" in task]
        if tasks:
            self._slurm.run(*command, random.choice(tasks), check=False)
        return bool(tasks)

    def _daemon(self, name: str) -> bool:
        self._slurm.kill(name)
        time.sleep(random.uniform(0, 1))
        self._slurm.up()
        return True

    def processes(self) -> list[psutil.Process]:
        """All processes of the sweep."""
        return [p for p in psutil.process_iter(["cmdline", "name", "cwd"]) if p.info["cwd"] == str(self.folder)]

    def _kill(self, *words: str) -> bool:
        wanted = [
            p for p in self.processes()
            if any(word in " ".join(p.info["cmdline"] or []) or word in (p.info["name"] or "") for word in words)
            and "--launcher slurm" not in " ".join(p.info["cmdline"] or [])
        ]  # fmt: skip
        if wanted:
            with suppress(psutil.NoSuchProcess):
                random.choice(wanted).kill()
        return bool(wanted)


@pytest.mark.process
@pytest.mark.timeout(600 + 30 * KILLS)
def test_a_sweep_on_slurm_survives_everything(tmp_path: Path, slurm: Slurm, phantom: Path) -> None:
    random.seed(SEED)
    sweep = Sweep(tmp_path, slurm, phantom)
    happens: dict[Callable[[], bool], int] = {  # the last three can always happen, the others only while tasks run
        sweep.a_run_is_killed: 5, sweep.a_worker_is_killed: 5, sweep.a_script_is_killed: 3,
        sweep.a_task_is_cancelled: 3, sweep.a_task_is_requeued: 5, sweep.a_task_is_preempted: 2,
        sweep.a_node_fails: 1, sweep.the_controller_fails: 1,
    }  # fmt: skip
    happened: Counter[str] = Counter()
    starts = 0
    while True:
        following = sweep.command()
        starts += 1
        while following.poll() is None and happened.total() < KILLS:
            time.sleep(random.uniform(0, 2))
            if random.random() < 0.05:
                following.kill()
                happened["the command is killed"] += 1
            elif (what := random.choices([*happens], [*happens.values()])[0])():
                happened[what.__name__.replace("_", " ")] += 1
        if following.wait(timeout=600) == 0:
            break
        assert following.returncode in (1, 2, 3, -signal.SIGKILL), sweep.output.read_text()
        assert starts < 20 + 3 * KILLS, sweep.output.read_text()
    print(f"seed {SEED}: {dict(happened)}; started {starts} times, {RUNS} runs of {EPOCHS} epochs")
    assert happened.total() == KILLS, "the sweep was over too soon to say anything"
    assert "Traceback" not in sweep.output.read_text()
    assert wait_for(lambda: not sweep.processes()), "nothing runs on"

    runs = find_runs([tmp_path / "runs"])
    assert len(runs) == RUNS
    for run in runs:
        record, lines = run.record(), run.epochs()
        assert record
        assert record.status == "finished"
        assert [attempt.status for attempt in record.attempts].count("finished") == 1, "done exactly once"
        assert sorted({line.epoch for line in lines}) == [*range(EPOCHS)]
        for before, after in itertools.pairwise(lines):
            assert after.epoch == before.epoch + 1, "no epoch is lost, and none is trained again"
