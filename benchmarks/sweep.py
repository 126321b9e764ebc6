"""Overhead of a sweep: 8 one-epoch runs of a small network, against other ways to run them.

`GREENSEG_PEERS=/path/to/python` names a Python with greenseg's dependencies, hydra-core, hydra-joblib-launcher and
ray[tune]. Without it, the benchmark compares only the ways without these packages.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from greenseg.data.phantom import write_phantom
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.sweep.file import read_sweep

RUNS = 8
PEERS = os.environ.get("GREENSEG_PEERS", "")


@dataclass(frozen=True)
class Way:
    """A way to carry out runs.

    Attributes:
        name: name in the table.
        isolated: whether each run has its own process.
        jobs: number of runs at a time.
        run: carries them out.
        greenseg: whether it makes the directories itself.
    """

    name: str
    isolated: bool
    jobs: int
    run: Callable[[Path, list[Path]], None]
    greenseg: bool = False


def call(*command: str | Path, **variables: str) -> None:
    """Run a program without showing its output."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=os.environ | variables, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} …: {done.returncode}\n{done.stdout}\n{done.stderr}")


def ours(jobs: int) -> Callable[[Path, list[Path]], None]:
    """`greenseg sweep`."""
    return lambda folder, _: call(
        sys.executable, "-m", "greenseg", "sweep", folder / "sweep.yaml", "--out", folder / "runs", "--jobs", str(jobs)
    )


def a_process_each(folder: Path, directories: list[Path]) -> None:
    """A new Python process per run, as in a shell loop."""
    for directory in directories:
        call(sys.executable, "-m", "greenseg.training", directory)


def hydra(*options: str, **variables: str) -> Callable[[Path, list[Path]], None]:
    """Hydra's multirun."""
    return lambda folder, directories: call(
        PEERS,
        "-m",
        "benchmarks.peers.hydra_app",
        "--multirun",
        f"+directory={','.join(map(str, directories))}",
        f"hydra.sweep.dir={folder / 'hydra'}",
        *options,
        **variables,
    )


def ray(folder: Path, directories: list[Path]) -> None:
    """Ray Tune."""
    call(PEERS, "-m", "benchmarks.peers.ray_app", *directories, RAY_STORAGE=str(folder / "ray"))


WAYS = [
    Way("greenseg sweep", True, 1, ours(1), greenseg=True),
    Way("a Python process per run", True, 1, a_process_each),
    Way("greenseg sweep --jobs 2", True, 2, ours(2), greenseg=True),
]
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
PEER_WAYS = [
    Way("Hydra, basic launcher", False, 1, hydra()),
    Way("Hydra, joblib launcher, 2 jobs", False, 2, hydra(*JOBLIB, GREENSEG_THREADS="1")),
    Way("Ray Tune", True, 1, ray),
]


def times(run: RunDirectory) -> tuple[float, float]:
    """Times of the first step and of the end of a run of one epoch, from its files, which all ways write alike."""
    epochs, record = run.path / "epochs.jsonl", run.path / "run.json"
    assert json.loads(record.read_text())["status"] == "finished"
    return epochs.stat().st_mtime - (run.epochs()[0].seconds or 0.0), record.stat().st_mtime


def cpu_before(run: RunDirectory) -> float:
    """CPU seconds of start-up and preparation, before the first step; they hardly depend on other processes."""
    record = run.record()
    assert record
    assert record.energy
    assert record.energy_method.core_watts
    phases = (record.energy.phases[phase] for phase in ("startup", "preparation"))
    joules = sum(phase["joules"]["cpu"].get("estimate", math.nan) for phase in phases)
    return float(joules / record.energy_method.core_watts[0])


def measure(way: Way, folder: Path, sweep: dict[str, Any]) -> dict[str, float]:
    """Seconds of: wall clock; training alone; from the end of a run to the first step of the next; CPU before it."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    directories = []
    if not way.greenseg:
        for settings in read_sweep(folder / "sweep.yaml").runs:
            run = RunDirectory(folder / "runs" / "sweep" / settings.slug)
            run.create(settings)
            directories.append(run.path)
    start = time.time()
    way.run(folder, directories)
    wall = time.time() - start
    spans = sorted(times(run) for run in find_runs([folder / "runs"]))
    assert len(spans) == RUNS
    ends = sorted(end for _, end in spans)
    gaps = [first - ends[i] for i, (first, _) in enumerate(spans[way.jobs :])]
    cpu = median(cpu_before(run) for run in find_runs([folder / "runs"]))
    training = sum(end - first for first, end in spans) / way.jobs
    return {"wall": wall, "training": training, "gap": median(gaps), "cpu": cpu}


def main() -> None:
    """Print a table of all ways, in order of their overhead."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantom(folder / "data", 5, seed=1)
        os.environ["GREENSEG_CACHE"] = str(folder / "cache")
        base = {"data": str(folder / "data"), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0}
        sweep = {"base": base | {"epochs": 1, "accelerator": "cpu"}, "seeds": list(range(RUNS))}
        (folder / "warm.yaml").write_text(yaml.safe_dump(sweep | {"seeds": [99]}))
        call(sys.executable, "-m", "greenseg", "sweep", folder / "warm.yaml", "--out", folder / "warm")
        found, imports = {}, []
        for way in [*WAYS, *(PEER_WAYS if PEERS else [])]:
            start = time.time()
            call(sys.executable, "-c", "import greenseg.training.run")
            imports.append(time.time() - start)
            found[way.name] = measure(way, folder / way.name.replace(" ", "-").replace(",", ""), sweep), way
            print(f"   measured: {way.name}", flush=True)
    one_import = median(imports)
    print(f"{RUNS} runs of one epoch; one import of the stack: {one_import:.2f} s")
    print(f"{'':32} own process   wall s   training s   overhead per run   end → first step   × ours   CPU s")
    first = found[WAYS[0].name][0]["gap"]
    for name, (seconds, way) in found.items():
        beside = (seconds["wall"] - seconds["training"] - one_import) / RUNS
        print(
            f"{name:32} {'yes' if way.isolated else 'no':>11} {seconds['wall']:8.2f} {seconds['training']:12.2f} "
            f"{beside:16.3f} s {seconds['gap']:16.3f} s {seconds['gap'] / first:8.1f} "
            f"{seconds['cpu']:7.2f}"
        )
    if not PEERS:
        print("Hydra and Ray Tune are missing: set GREENSEG_PEERS to a Python with both.")
