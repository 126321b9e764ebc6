"""The plan: where runs stand, and what is left."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from greenseg.runs.costs import Range
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.sweep.file import read_sweep
from greenseg.sweep.plan import Plan, Prediction, make_plan
from tests.conftest import Command
from tests.runs import Json, energy, epoch, record, write, write_record


def plan(folder: Path, text: str, **options: Any) -> Plan:
    file = folder / "s.yaml"
    file.write_text(text)
    return make_plan(read_sweep(file), folder / "runs", **options)


def finished(values: Json, joules: float, seconds: float, **more: Any) -> Json:
    return record(values, total=energy(seconds, cpu_estimate=joules), **more)


def test_where_runs_stand(tmp_path: Path) -> None:
    here = tmp_path / "runs" / "elsewhere"
    write(here, record({"seed": 0}))
    write(here, record({"seed": 1}, "failed", error="ValueError"))
    write(here, record({"seed": 2}, "interrupted"))
    write(here, record({"seed": 3}, "running"))  # its process is gone
    damaged = write(here, record({"seed": 4}))
    (damaged.path / "run.json").write_text('{"status')
    write(here, record({"seed": 9}))  # of no concern
    text = "seeds: [0, 1, 2, 3, 4, 5]\n"
    found = plan(tmp_path, text)
    assert [run.status for run in found.runs] == [
        "finished", "failed", "interrupted", "interrupted", "damaged", "new",
    ]  # fmt: skip
    assert found.counts == {"finished": 1, "failed": 1, "interrupted": 2, "damaged": 1, "new": 1}
    assert [run.settings.seed for run in found.todo] == [2, 3, 4, 5]
    assert [run.settings.seed for run in plan(tmp_path, text, retry_failed=True).todo] == [1, 2, 3, 4, 5]
    assert found.runs[0].directory.path.parent == here
    assert found.runs[5].directory.path == tmp_path / "runs" / "s" / Settings.of({"seed": 5}).slug
    assert str(damaged.path) in found.runs[4].problem
    assert found.joules == pytest.approx(3 * 1050)


def test_a_run_that_another_process_trains_is_running(tmp_path: Path) -> None:
    run = write(tmp_path / "runs" / "s", record({}, "running"))
    with run.claim():
        found = plan(tmp_path, "seeds: [0]")
    assert (found.counts, list(found.todo)) == ({"running": 1}, [])


def test_a_run_is_known_by_what_it_trains(tmp_path: Path) -> None:
    """Renaming, defaults, order, settings that its version did not know, accounting: nothing is trained again."""
    old = record({"epochs": 3, "lr": 0.5})
    for name in ("channels_last", "augment", "workers"):
        del old["settings"][name]
    run = RunDirectory(tmp_path / "runs" / "old" / Settings.of({"epochs": 3, "lr": 0.5}).slug)
    run.create(Settings.of({"epochs": 3, "lr": 0.5}))
    write_record(run, old)
    for text in (
        "base: {lr: 0.5, epochs: 3}",
        "name: new\nbase: {epochs: 3, workers: 0, channels_last: true, augment: strong}\ngrid: {lr: [0.5]}",
        "base: {lr: 0.5, epochs: 3, pue: 1.5}",
    ):
        (found,) = plan(tmp_path, text).runs
        assert found.status == "finished"
        assert found.outdated == ("pue" in text)
    (other,) = plan(tmp_path, "base: {lr: 0.5, epochs: 4}").runs
    assert other.status == "new"


def test_a_directory_whose_record_is_of_another_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Identities have eight digits: of many runs, two may have the same."""
    settings = Settings.of({"epochs": 3})
    other = RunDirectory(tmp_path / "runs" / "s" / f"other-{settings.identity}")
    other.create(settings)
    write_record(other, record({"epochs": 7}))
    (found,) = plan(tmp_path, "base: {epochs: 3}").runs
    assert (found.status, found.directory.path.name) == ("new", settings.slug)
    write(tmp_path / "runs" / "s", record({"epochs": 3}))
    (found,) = plan(tmp_path, "base: {epochs: 3}").runs
    assert (found.status, found.directory.path.name) == ("finished", settings.slug)


GRID = "base: {epochs: 10}\ngrid: {encoder: [resnet18, resnet34], lr: [1, 2]}\nseeds: [0, 1]\n"


def test_nothing_is_predicted_from_nothing(tmp_path: Path) -> None:
    assert plan(tmp_path, GRID).left is None


def test_what_is_left_is_predicted_from_repeats_then_from_like_runs_then_from_all(tmp_path: Path) -> None:
    here = tmp_path / "runs" / "s"
    # 10 J and 1 s an epoch; the repeat of each with seed 1 is predicted from it
    write(here, finished({"encoder": "resnet18", "lr": 1, "epochs": 10}, 100, 10))
    write(here, finished({"encoder": "resnet18", "lr": 2, "epochs": 10}, 200, 20))
    found = plan(tmp_path, GRID)
    assert len(found.todo) == 6
    # 2 repeats, and 4 runs of resnet34 as all
    assert found.left == Prediction(
        Range(10 + 20 + 4 * 15, 10 + 20 + 4 * 10, 10 + 20 + 4 * 20),
        Range(100 + 200 + 4 * 150, 100 + 200 + 4 * 100, 100 + 200 + 4 * 200),
        2,
        {"repeats": 2, "all": 4},
    )
    # One of resnet34: the others of resnet34 are like it. Twice the epochs take twice as much.
    write(here, finished({"encoder": "resnet34", "lr": 1, "epochs": 10}, 1000, 100))
    found = plan(tmp_path, GRID.replace("epochs: 10", "epochs: 20"))
    assert found.left is None, "those are other runs"
    found = plan(tmp_path, GRID.replace("base: {epochs: 10}\n", "").replace("lr:", "epochs: [10, 20], lr:"))
    assert found.left is not None
    assert found.left.by == {"repeats": 9, "alike": 4}
    assert found.left.joules.mean == pytest.approx(
        100 + 200 + 2 * (200 + 400)  # resnet18: repeats of 10 epochs, both seeds of 20
        + 1000 + 2 * 2000  # resnet34, lr 1
        + 2 * 1000 + 2 * 2000  # resnet34, lr 2
    )  # fmt: skip


def test_of_an_interrupted_run_only_the_rest_is_left(tmp_path: Path) -> None:
    here = tmp_path / "runs" / "s"
    write(here, finished({"epochs": 10}, 100, 10))
    killed = record({"epochs": 10, "seed": 1}, "running")
    write(here, killed, [epoch(0), epoch(1), epoch(2)])
    found = plan(tmp_path, "base: {epochs: 10}\nseeds: [0, 1]\n")
    assert found.left is not None
    assert found.left.joules == Range(70, 70, 70)
    assert found.left.seconds == Range(7, 7, 7)
    assert found.joules == pytest.approx(100 + 42), "what the killed attempt had counted at its last epoch"


# ── as a user sees it

TEXT = """
grid: {batch_size: [1, 2, 3], lr: [1, 1.0, 2]}
exclude:
  - {batch_size: 1, lr: 2}
  - {batch_size: 3}
  - {batch_size: 3, lr: 1}
seeds: [0, 1]
max_energy: 2 kWh
"""


def test_a_dry_run_shows_the_plan_and_touches_nothing(greenseg: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TEXT)
    shown = greenseg("sweep", "s.yaml", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    for text in (
        "Sweep s: 6 runs (6 new), 6 to do",
        "Excluded 1 combination: batch_size 1, lr 2.0 (s.yaml:4:5)",
        "Excluded 3 combinations: batch_size 3 (s.yaml:5:5)",
        "Excluded 0 combinations: batch_size 3, lr 1.0 (s.yaml:6:5)",
        "Merged 4 duplicates",
        "unknown until a run of this sweep has finished",
        "No new run starts after 7,200 kJ; 0 J spent so far",
        "1  new     batch_size 1, lr 1.0, seed 0",
    ):
        assert text in shown.stdout
    assert all(len(line) <= 100 for line in shown.stdout.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]

    write(tmp_path / "runs" / "s", finished({"batch_size": 1, "lr": 1}, 300, 30))
    shown = greenseg("sweep", "s.yaml", "--dry-run")
    assert "6 runs (1 finished, 5 new), 5 to do" in shown.stdout
    assert "Time left: 2:30 min, one run at a time" in shown.stdout
    assert "Joules left: 1,500 J; predicted from 1 finished run" in shown.stdout
    write(tmp_path / "runs" / "s", finished({"batch_size": 1, "lr": 1, "seed": 1}, 900, 60))
    shown = greenseg("sweep", "s.yaml", "--dry-run")
    assert "Time left: 3:00 min (2:00 min to 4:00 min), one run" in shown.stdout
    assert "Joules left: 2,400 J (1,200 J to 3,600 J); predicted from 2 finished runs" in shown.stdout
    assert all(len(line) <= 100 for line in shown.stdout.splitlines())
    shutil.rmtree(tmp_path / "runs")
    write(tmp_path / "runs" / "s", finished({"batch_size": 1, "lr": 1}, 300, 30))
    found = json.loads(greenseg("sweep", "s.yaml", "--dry-run", "--json").stdout)
    assert found["counts"] == {"finished": 1, "new": 5}
    assert (found["runs"], found["todo"], found["duplicates"]) == (6, 5, 4)
    assert found["excluded"][1] == {"where": "s.yaml:5:5", "rule": {"batch_size": 3}, "combinations": 3}
    assert found["left"]["joules"] == {"mean": 1500.0, "low": 1500.0, "high": 1500.0}
    assert found["left"]["from"] == 1
    assert found["joules"] == 300
    assert found["settings"]["epochs"] == 30
    first = found["order"][0]
    assert first["settings"] == {"batch_size": 1, "lr": 1.0, "seed": 0}
    assert first["status"] == "finished"
    assert (tmp_path / first["directory"] / "run.json").exists()
    assert greenseg("sweep", "s.yaml", "--set", "epochs=3", "--dry-run", "--json").returncode == 0


def test_a_long_plan_is_shown_by_its_ends(greenseg: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("grid: {batch_size: {from: 1, to: 1000, step: 1}}\n")
    shown = greenseg("sweep", "s.yaml", "--dry-run").stdout
    assert "980 more; --json shows all" in shown
    assert len(shown.splitlines()) < 30
    assert "1000  new" in shown
    (tmp_path / "s.yaml").write_text("grid: {batch_size: {from: 1, to: 21, step: 1}}\n")
    shown = greenseg("sweep", "s.yaml", "--dry-run").stdout
    assert "more;" not in shown
    assert [line.split()[0] for line in shown.splitlines()[-21:]] == [str(number) for number in range(1, 22)]
