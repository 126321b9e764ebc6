"""Response time of the command, against an empty Python program."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

RUNS = 7


def main() -> None:
    """Print the seconds of `--help` and of a sweep with a mistake, and their ratios to `python -c pass`."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.yaml")
        wrong.write_text("grid:\n  precison: [32-true]\n")
        commands = {
            "python -c pass": ["-c", "pass"],
            "greenseg --help": ["-m", "greenseg", "--help"],
            "greenseg sweep wrong.yaml": ["-m", "greenseg", "sweep", str(wrong)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, arguments in commands.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
                seconds[name].append(time.perf_counter() - start)
    floor = median(seconds["python -c pass"])
    for name, times in seconds.items():
        print(f"{name:28} {median(times):6.3f} s   {median(times) / floor:5.1f} × python -c pass")
