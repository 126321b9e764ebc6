"""Cost of a report of many runs, against only reading their run.json; and cost of fronts of many points."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from greenseg.report.chance import front_chances, near_best
from greenseg.report.front import front, hypervolume, ranks
from greenseg.report.moderation import POSITIVE, SHARE
from greenseg.report.spreads import estimates_of, spreads_of
from greenseg.report.statistics import moments_of
from tests.runs import write_many

SIZES = (1_000, 3_000, 10_000)
TURNS = 3

FLOOR = """
import json, os, sys
for folder in os.scandir(sys.argv[1]):
    with open(folder.path + "/run.json", "rb") as file:
        json.loads(file.read())
"""
EPOCHS = FLOOR.replace("run.json", "epochs.jsonl").replace(
    "json.loads(file.read())", "[json.loads(line) for line in file]"
)


PEAK = """
import atexit, sys
def peak():
    with open("/proc/self/status") as file:  # not ru_maxrss, which a process inherits from its parent
        print(*(line.split()[1] for line in file if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(peak)
"""
COMMAND = "import runpy; sys.argv[0] = 'greenseg'; runpy.run_module('greenseg', run_name='__main__')"


def measured(program: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", PEAK + program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, int(said.split()[-1]) / 1024


def main() -> None:
    """Print seconds, CPU seconds, peak memory, and the ratio to the floor."""
    print(f"Runs of 50 epochs; medians of {TURNS} interleaved turns, each in a new process")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as parent:
            folder, page = f"{parent}/runs", f"{parent}/page.html"
            write_many(Path(folder), size)
            commands = {
                "json.loads of every run.json": [FLOOR, folder],
                "greenseg report": [COMMAND, "report", folder],
                "greenseg report --format json": [COMMAND, "report", folder, "--format", "json"],
            }
            if size == SIZES[1]:  # 1,000 configurations, with the learning curves of 3,000 runs
                commands["json.loads of every epoch"] = [EPOCHS, folder]
                commands["greenseg report --output page.html"] = [COMMAND, "report", folder, "--output", page]
            # All files are in the page cache, since they are new.
            figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
            for _ in range(TURNS):
                for name, arguments in commands.items():
                    figures[name].append(measured(*arguments))
            floor = median(cpu for _, cpu, _ in figures["json.loads of every run.json"])
            for name, taken in figures.items():
                seconds, cpu, memory = (median(values) for values in zip(*taken, strict=True))
                print(
                    f"{size:6,} runs  {name:34} {seconds:6.2f} s  {cpu:6.2f} CPU s  {memory:5.0f} MB  "
                    f"{cpu / floor:5.1f} × floor",
                    flush=True,
                )
            if Path(page).exists():
                print(f"{size:6,} runs  page.html has {Path(page).stat().st_size / 1e6:.1f} MB")
    _fronts()


def _fronts() -> None:
    random = np.random.default_rng(0)
    diagonal = np.sort(random.random(100_000))
    for name, points in {
        "100,000 points, 2 objectives": random.random((100_000, 2)),
        "100,000 points, 3 objectives": random.random((100_000, 3)),
        "100,000 points, all on the front": np.stack([diagonal, diagonal], axis=1),
        "100,000 points, ties everywhere": random.integers(0, 30, (100_000, 2)).astype(float),
    }.items():
        maximise = [True] + [False] * (points.shape[1] - 1)
        start = time.perf_counter()
        chosen = front(points, maximise)
        between = time.perf_counter()
        ranks(points, maximise)
        hypervolume(points, maximise, [0.0] + [30.0] * (points.shape[1] - 1), [30.0] + [0.0] * (points.shape[1] - 1))
        end = time.perf_counter()
        seconds = f"front {between - start:6.3f} s ({chosen.sum()} on it), ranks and hypervolume {end - between:6.3f} s"
        print(f"{name:42} {seconds}")
    repeats = [(rows + random.uniform(0.2, 0.8, 2)).tolist() for rows in random.normal(0, 0.02, (3_333, 3, 2))]
    start = time.perf_counter()
    columns = [
        spreads_of([moments_of([row[k] for row in rows]) for rows in repeats], scale)
        for k, scale in enumerate((SHARE, POSITIVE))
    ]
    between = time.perf_counter()
    estimates = estimates_of(list(zip(*columns, strict=True)), repeats)
    front_chances(estimates, [True, False])
    after = time.perf_counter()
    near_best(estimates, True)
    print(
        f"3,333 configurations × 3 repeats: spreads {between - start:.3f} s, chances {after - between:.3f} s, "
        f"those near the best {time.perf_counter() - after:.3f} s"
    )
