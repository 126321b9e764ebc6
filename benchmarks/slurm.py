"""A sweep on a Slurm of two nodes, against this machine alone, and against a job for each run. Needs root and Slurm.

The nodes are both on this machine, with a core each (see `tests.slurm`). So all ways have the same two cores, and their
times tell the cost of the scheduler and of new interpreters.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from benchmarks.sweep import call, cpu_before, times
from greenseg.data.phantom import write_phantom
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.sweep.file import read_sweep
from tests.slurm import Slurm, running

RUNS = 40
NODES = 2
PIN = "taskset --pid --cpu-list $((${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID} % 2)) $$ > /dev/null"
"""Keeps a job to one core, as Slurm does on clusters (`task/affinity`, `task/cgroup`)."""


@dataclass(frozen=True)
class Figures:
    """Figures of a way.

    Attributes:
        wall: seconds from the command to the end of the last run.
        overhead: seconds per run and worker outside of training: from the first step of a run to its end.
        gap: median of the seconds between the end of a run and the first step of the next one, per worker.
        cpu: median of the CPU seconds of a run before its first step.
        dice: name of a run → Dice.
    """

    wall: float
    overhead: float
    gap: float
    cpu: float
    dice: Mapping[str, float | None]


def on_this_machine(folder: Path, slurm: Slurm) -> None:
    """`greenseg sweep`, with as many runs at a time as there are nodes."""
    call(*_sweep(folder), "--jobs", str(NODES))


def by_launcher(folder: Path, slurm: Slurm) -> None:
    """`greenseg sweep --launcher slurm`, with a worker on each node."""
    call(*_sweep(folder), "--launcher", "slurm", **slurm.environment)


def a_job_each(folder: Path, slurm: Slurm) -> None:
    """A job for each run, with a Python of its own."""
    for settings in read_sweep(folder / "sweep.yaml").runs:
        run = RunDirectory(folder / "runs" / "sweep" / settings.slug)
        run.create(settings)
        script = f"{PIN}; exec {sys.executable} -m greenseg.training {run.path}"
        slurm.submit(script, f"--chdir={Path.cwd()}", f"--output={run.path}.log")
    while any(state in ("PENDING", "RUNNING", "COMPLETING") for state in slurm.squeue().values()):
        time.sleep(0.5)


def _sweep(folder: Path) -> list[str]:
    return [sys.executable, "-m", "greenseg", "sweep", str(folder / "sweep.yaml"), "--out", str(folder / "runs")]


WAYS: dict[str, Callable[[Path, Slurm], None]] = {
    f"greenseg sweep --jobs {NODES}": on_this_machine,
    "greenseg sweep --launcher slurm": by_launcher,
    "a job for each run": a_job_each,
}


def measure(way: Callable[[Path, Slurm], None], folder: Path, sweep: Mapping[str, Any], slurm: Slurm) -> Figures:
    """Carry out the sweep in a new folder."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(dict(sweep)))
    start = time.time()
    way(folder, slurm)
    runs = [*find_runs([folder / "runs"])]
    spans = sorted(times(run) for run in runs)
    assert len(spans) == len(sweep["seeds"])
    ends = sorted(end for _, end in spans)
    wall = ends[-1] - start
    return Figures(
        wall=wall,
        overhead=(wall * NODES - sum(end - first for first, end in spans)) / len(spans),
        gap=median(first - ends[i] for i, (first, _) in enumerate(spans[NODES:])),
        cpu=median(cpu_before(run) for run in runs),
        dice={run.path.name: _record(run)["metrics"]["dice"] for run in runs},
    )


def _record(run: RunDirectory) -> Any:
    return json.loads((run.path / "run.json").read_bytes())


def main(runs: int = RUNS) -> None:
    """Print a table of all ways, and whether they have the same Dice."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            slurm = stack.enter_context(running(NODES, CPUS=1))
        except pytest.skip.Exception as missing:
            print(missing)
            return
        write_phantom(folder / "data", 5, seed=1)
        os.environ["GREENSEG_CACHE"] = str(folder / "cache")
        base = {"data": str(folder / "data"), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0}
        launching = {"slurm": {"array": NODES, "cpus_per_task": 1, "mem": "1G", "setup": [PIN]}}
        sweep = {"base": base | {"epochs": 1, "accelerator": "cpu"}, "seeds": list(range(runs)), **launching}
        (folder / "warm").mkdir()
        (folder / "warm" / "sweep.yaml").write_text(yaml.safe_dump(sweep | {"seeds": [999]}))
        on_this_machine(folder / "warm", slurm)  # prepares the slices
        print(f"{runs} runs of one epoch on {NODES} nodes with a core each")
        print(f"{'':32}   wall s   overhead per run   end → first step   CPU s before it   Dice as in the first row")
        dice: Mapping[str, float | None] = {}
        for name, way in WAYS.items():
            figures = measure(way, folder / way.__name__, sweep, slurm)
            dice = dice or figures.dice
            same = sum(figures.dice[run] == dice[run] for run in dice)
            print(
                f"{name:32} {figures.wall:8.1f} {figures.overhead:16.2f} s {figures.gap:16.2f} s {figures.cpu:17.2f} "
                f"{same:16} of {runs}",
                flush=True,
            )
