"""Runs the named benchmarks, or all of them."""

import sys

from benchmarks import calibration, classes, cli, data, energy, plan, predict, report, slurm, speed, subjects, sweep
from benchmarks.search import main as search

BENCHMARKS = {
    "cli": cli.main,
    "speed": speed.main,
    "classes": classes.main,
    "energy": energy.main,
    "data": data.main,
    "plan": plan.main,
    "predict": predict.main,
    "report": report.main,
    "calibration": calibration.main,
    "subjects": subjects.main,
    "search": search.main,
    "sweep": sweep.main,
    "slurm": slurm.main,
}

if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(unknown)}; valid: {', '.join(BENCHMARKS)}")
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"── {name}: {BENCHMARKS[name].__module__}", flush=True)
        BENCHMARKS[name]()
