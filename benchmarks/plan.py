"""Planning of 100,000 combinations and resuming of 10,000 finished runs: the whole command, against a bare floor.

Times are CPU seconds (user and system), which hardly depend on other processes, and wall-clock seconds.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from greenseg import yamlfile
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.sweep.file import read_sweep

TURNS = 5

AXES: dict[str, list[Any]] = {
    "lr": [round(1e-4 * (i + 1), 6) for i in range(10)],
    "weight_decay": [round(1e-3 * i, 6) for i in range(10)],
    "batch_size": list(range(2, 12)),
    "image_size": [32 * (i + 1) for i in range(10)],
    "validation_share": [round(0.05 * (i + 1), 3) for i in range(10)],
}


def command(*arguments: str | Path, out: Path, cwd: Path) -> tuple[float, float]:
    """Run `greenseg …` with its output in a file; returns wall-clock seconds and CPU seconds."""
    start = time.perf_counter()
    with out.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "greenseg", *map(str, arguments)], stdout=file, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"greenseg {' '.join(map(str, arguments))}: exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock seconds and CPU seconds of a Python function."""
    start, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - before


def compare(what: str, ours: Callable[[], tuple[float, float]], floor: str, bare: Callable[[], object]) -> None:
    """Measure the command and its floor in turns, and print both."""
    times: list[tuple[float, float]] = []
    floors: list[tuple[float, float]] = []
    for _ in range(TURNS):
        times.append(ours())
        floors.append(clocked(bare))
    wall, process = (median(values) for values in zip(*times, strict=True))
    floor_wall, floor_process = (median(values) for values in zip(*floors, strict=True))
    print(f"{what}: {process:.2f} CPU s, {wall:.2f} s wall clock", flush=True)
    print(f"  floor, {floor}: {floor_process:.2f} CPU s, {floor_wall:.2f} s; ratio {process / floor_process:.1f}")


def plan(folder: Path) -> None:
    """100,000 combinations, 50 rules."""
    rng = random.Random(1)
    rules = []
    for _ in range(50):
        rule = {name: rng.choice(AXES[name]) for name in rng.sample(list(AXES), rng.choice([2, 3]))}
        rules.append(rule)
    file = folder / "big.yaml"
    file.write_text(yamlfile.dump({"grid": AXES, "exclude": rules}))

    def product() -> list[dict[str, Any]]:
        return [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]

    compare(
        "plan 100,000 combinations with 50 rules, --dry-run --json",
        lambda: command("sweep", file, "--dry-run", "--json", out=folder / "plan.json", cwd=folder),
        "a dictionary per item of itertools.product",
        product,
    )
    found = json.loads((folder / "plan.json").read_text())
    dropped = sum(rule["combinations"] for rule in found["excluded"])
    print(f"  {found['runs']} runs, {dropped} combinations excluded")
    assert found["runs"] + dropped == 100_000


def resume(folder: Path) -> None:
    """10,000 finished runs: one is trained, and the others get copies of its record."""
    sweep: dict[str, Any] = {
        "base": {"model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8, "epochs": 2, "accelerator": "cpu"},
        "grid": {"lr": [round(1e-5 * (i + 1), 7) for i in range(100)]},
    }
    file = folder / "done.yaml"
    file.write_text(yamlfile.dump(sweep | {"grid": {"lr": [1e-5]}}))
    command("sweep", file, out=folder / "out.txt", cwd=folder)
    (trained,) = (folder / "runs" / "done").iterdir()
    record = json.loads((trained / "run.json").read_text())
    file.write_text(yamlfile.dump(sweep | {"seeds": list(range(100))}))
    for settings in read_sweep(file).runs:
        write(RunDirectory(folder / "runs" / "done" / settings.slug), settings, record)
    records = [str(path) for path in (folder / "runs").rglob("run.json")]

    def read() -> None:
        for path in records:
            with open(path, encoding="utf-8") as text:  # noqa: PTH123  (the floor)
                json.load(text)

    compare(
        "resume 10,000 finished runs, --dry-run",
        lambda: command("sweep", file, "--dry-run", out=folder / "out.txt", cwd=folder),
        "json.load of each run.json",
        read,
    )
    said = (folder / "out.txt").read_text()
    assert "10000 runs (10000 finished), 0 to do" in said, said
    wall, process = command("sweep", file, out=folder / "out.txt", cwd=folder)
    print(f"  the same with its table of 100 configurations: {process:.2f} CPU s, {wall:.2f} s wall clock")


def write(run: RunDirectory, settings: Settings, record: dict[str, Any]) -> None:
    """Make a run directory with the record of another run."""
    run.path.mkdir(parents=True, exist_ok=True)
    names = {"identity": settings.identity, "configuration": settings.configuration}
    (run.path / "run.json").write_text(json.dumps(record | names | {"settings": settings.resolved()}, indent=2))


def main() -> None:
    """Print both measurements and their ratios to the floors."""
    with tempfile.TemporaryDirectory() as folder:
        plan(Path(folder))
        resume(Path(folder))
