"""The record of a run against a counter whose joules are known: the whole program, Zeus in it, on a fake RAPL tree."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from greenseg.energy import Energy
from greenseg.launch.prepare import prepare
from greenseg.report.labels import source
from greenseg.report.reader import read_runs
from greenseg.report.results import by_configuration
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests.energy.fakes import FakeRapl

PROGRAM = """
import os
import sys
from pathlib import Path
from tests import warm
from tests.energy.fakes import look_for_rapl_in
from greenseg.training.program import run_and_exit

if __name__ == "__main__":
    warm.meet_in(Path(os.environ[warm.METERS]))
    look_for_rapl_in(Path(sys.argv[2]))
    run_and_exit(Path(sys.argv[1]))
"""


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


WATTS = {"package-0": 60.0, "dram-0": 6.0}


def test_every_window_of_the_record_has_the_joules_that_the_counter_gave(phantom: Path, tmp_path: Path) -> None:
    settings = Settings.of(
        {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 64, "spacing": 4.0, "epochs": 3}
    )
    prepare([settings], lambda text: None, lambda done, total: None)
    run = RunDirectory(tmp_path / "run")
    run.create(settings)
    root = tmp_path / "powercap"
    rapl = FakeRapl(root)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    cores = sorted(os.sched_getaffinity(0))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    used, slowest = dict.fromkeys(WATTS, 0.0), 0.0
    began = last = time.monotonic()
    running = subprocess.Popen(
        [sys.executable, str(program), str(run.path), str(root)],
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:]),  # the counter needs a core of its own to be on time
    )
    while running.poll() is None:
        now = time.monotonic()
        slowest, last = max(slowest, now - last), now
        for zone, watts in WATTS.items():
            joules = watts * (now - began) - used[zone]
            rapl.use(joules, zone)
            used[zone] += joules
        time.sleep(0.001)
    assert running.returncode == 0
    deadline = time.monotonic() + 300
    while left := [p.pid for p in psutil.process_iter() if group_of(p.pid) == running.pid]:
        assert time.monotonic() < deadline, f"Zeus' helpers outlive the run: {left}"
        time.sleep(0.1)

    record = json.loads((run.path / "run.json").read_text())
    epochs = [json.loads(line) for line in (run.path / "epochs.jsonl").read_text().splitlines()]
    windows: dict[str, dict[str, Any]] = {"total": record["energy"]["total"], **record["energy"]["phases"]}
    windows |= {f"{phase} {line['epoch']}": line[phase] for line in epochs for phase in ("train", "validation")}
    assert len(windows) == 1 + 5 + 6
    late = 2 * slowest  # the fake counter moves in steps; the real one does so every millisecond
    for name, window in windows.items():
        energy = Energy.from_json(window)
        assert energy.sources == {"cpu": "rapl", "dram": "rapl"}, name
        for component, watts in (("cpu", WATTS["package-0"]), ("dram", WATTS["dram-0"])):
            expected = pytest.approx(watts * energy.seconds, rel=0.01, abs=watts * late)
            assert energy.component(component) == expected, name
    assert record["attempts"][0]["check"]["ok"], "the phases add up to one window over all of them"

    (result,) = by_configuration(read_runs([run])[0])
    assert source(result) == "rapl", "measured, and nothing of it estimated"
