"""Runs that do not fit into the rest of a job."""

import time
from pathlib import Path
from typing import Any

import pytest

from greenseg.batch_job import Limit
from greenseg.launch.deadline import Deadline
from greenseg.launch.executor import Job
from greenseg.runs.costs import Costs
from greenseg.runs.directory import RunDirectory
from greenseg.runs.standing import Spent
from greenseg.settings import Settings
from tests.runs import energy, epoch, record, write


def job(root: Path, **values: Any) -> Job:
    settings = Settings.of({"epochs": 10, "accelerator": "cpu"} | values)
    return Job(settings, RunDirectory(root / "sweep" / settings.slug))


def deadline(left: float, whole: float = 1000, stop: float = 0) -> Deadline:
    costs = Costs(["precision", "batch_size"])
    costs.add(Settings.of({"precision": "32-true", "batch_size": 8}), Spent(seconds=100, joules=1, epochs=10))
    costs.add(Settings.of({"precision": "bf16-mixed", "batch_size": 8}), Spent(seconds=50, joules=1, epochs=10))
    return Deadline(Limit(time.monotonic() + left, whole), costs, stop)


@pytest.mark.parametrize(
    ("left", "stop", "fits"), [(110, 0, True), (90, 0, False), (110, 20, False), (60, 0, False), (-5, 0, False)]
)
def test_a_run_has_to_fit(left: float, stop: float, fits: bool, tmp_path: Path) -> None:
    run = job(tmp_path, precision="32-true", batch_size=8)  # 100 s
    assert deadline(left, stop=stop).fits(run, first=False) == fits
    assert deadline(left, stop=stop).fits(run, first=True), "every job makes progress"


def test_a_run_costs_as_its_repeats_or_those_like_it(tmp_path: Path) -> None:
    assert deadline(60).fits(job(tmp_path, precision="bf16-mixed", batch_size=8, seed=3), first=False)
    assert deadline(80).fits(job(tmp_path, precision="16-mixed", batch_size=4), first=False), "75 s, the mean of all"
    assert not deadline(70).fits(job(tmp_path, precision="16-mixed", batch_size=4), first=False)


def test_a_run_of_unknown_time_starts_and_one_that_fits_into_no_job_starts_only_as_the_first(tmp_path: Path) -> None:
    run = job(tmp_path, precision="32-true", batch_size=8)
    assert Deadline(Limit(time.monotonic() + 5, 1000), Costs([]), 0).fits(run, first=False)
    assert not deadline(50, whole=99).fits(run, first=False)
    assert deadline(50, whole=99).fits(run, first=True), "the next job would be too short, too"
    assert not deadline(50, whole=101).fits(run, first=False)


def test_epochs_that_a_run_has_are_not_done_again(tmp_path: Path) -> None:
    values = {"epochs": 10, "precision": "32-true", "batch_size": 8, "accelerator": "cpu"}
    begun = record(values, "interrupted", total=energy(80, cpu_estimate=1))
    run = Job(Settings.of(values), write(tmp_path, begun, [epoch(number) for number in range(4)]))  # 20 s an epoch
    assert deadline(121).fits(run, first=False)
    assert not deadline(119).fits(run, first=False)
    run.until = 5
    assert deadline(21).fits(run, first=False)
    run.start_over = True
    assert not deadline(21).fits(run, first=False)


def test_it_learns_from_runs_that_finish(tmp_path: Path) -> None:
    values = {"epochs": 4, "accelerator": "cpu"}
    done = record(values, total=energy(400, cpu_estimate=1))
    found = Deadline(Limit(time.monotonic() + 110, 1000), Costs([]), 0)
    assert found.fits(job(tmp_path, epochs=2), first=False)
    found.finished(Job(Settings.of(values), write(tmp_path, done, [epoch(number) for number in range(4)])))
    assert not found.fits(job(tmp_path, epochs=2), first=False)
    assert found.fits(job(tmp_path, epochs=1), first=False)
