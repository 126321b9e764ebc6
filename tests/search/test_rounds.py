"""A search over run directories with scripted curves: rounds, kills, failures, pauses, and what a report says of it."""

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest

from greenseg.cli.search_view import search_json, sentences, verdict_table
from greenseg.launch.executor import jobs_of
from greenseg.launch.queue import Queue
from greenseg.launch.stop import Stop
from greenseg.runs.standing import PlannedRun
from greenseg.search.account import accounts
from greenseg.search.rounds import Search
from greenseg.settings import Settings
from greenseg.sweep.file import Searching, Sweep
from greenseg.sweep.plan import make_plan
from tests.launch.test_queue import Audience
from tests.search.scripted import Killed, Scripted, runs_of

EPOCHS = 16
LRS = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3)
MODELS = ("enet", "cgnet", "fssnet", "esnet")


@pytest.fixture(autouse=True)
def _no_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data do not matter, and are not read."""
    monkeypatch.setattr("greenseg.data.content.Contents.of", lambda self, settings: None)


def settings_of(**values: Any) -> Settings:
    return Settings.of({"data": "phantom", "epochs": EPOCHS, "schedule": "constant"} | values)


def grid(seeds: int = 2, **values: Any) -> tuple[Settings, ...]:
    return tuple(
        settings_of(model=model, lr=lr, seed=seed, **values) for model in MODELS for lr in LRS for seed in range(seeds)
    )


def script(settings: Settings) -> list[tuple[float, float]]:
    """A dearer network is better, and the best rate is the same for all."""
    size = MODELS.index(settings.decoder)
    best = 0.6 + 0.08 * size - 90 * abs(float(settings.lr) - 3e-3) + 0.004 * Random(settings.identity).random()
    return [(best * (1 - math.exp(-(i + 1) / 5)), 10.0 * 2**size) for i in range(EPOCHS)]


def searched(root: Path, runs: tuple[Settings, ...], how: Searching | None = None, retry: bool = False) -> Search:
    plan = make_plan(Sweep("s", runs, search=how or Searching()), root, retry)
    assert plan.sweep.search
    return Search(plan.runs, plan.sweep.search, retry)


def carry_out(
    root: Path, executor: Scripted, runs: tuple[Settings, ...], how: Searching | None = None, retry: bool = False
) -> Search:
    """What `greenseg sweep` does; returns the search."""
    plan = make_plan(Sweep("s", runs, search=how or Searching()), root, retry)
    search = Search(plan.runs, how or Searching(), retry)
    queue = Queue(executor, Stop(), Audience())
    queue.carry_out(search.jobs(jobs_of(plan.runs), queue.outcomes, lambda now, jobs: None, lambda: False))
    return search


def test_most_runs_are_paused_and_the_front_is_found(tmp_path: Path) -> None:
    runs = grid()
    executor = Scripted(script)
    search = carry_out(tmp_path, executor, runs)
    assert search.next() is None
    assert len(executor.epochs) == len(set(executor.epochs)), "no epoch was trained twice"
    assert len(executor.epochs) < 0.7 * EPOCHS * len(runs)
    finished = {run.path.name for run in runs_of(tmp_path) if run.status() == "finished"}
    best = {settings.slug for settings in runs if settings.lr == 3e-3 and settings.seed == 0}
    assert best <= finished

    (account,) = accounts(runs_of(tmp_path))
    assert account.runs == len(runs)
    assert account.finished == len(finished)
    spent = sum(10.0 * 2 ** MODELS.index(settings.decoder) * EPOCHS + 7 for settings in runs)
    assert account.grid
    assert account.grid.mean == pytest.approx(spent, rel=0.02)
    assert account.grid.low <= spent <= account.grid.high
    assert account.joules < 0.7 * spent
    records = [record for run in runs_of(tmp_path) if (record := run.record())]
    assert account.resumptions == 7 * sum(len(record.attempts) - 1 for record in records)
    assert all(verdict.by for verdict in account.verdicts), "without a budget, nothing stays undecided"
    first, *_ = sentences(account)
    assert f"{len(finished)} finished" in first
    assert verdict_table(account).row_count == len(account.verdicts)


def test_killed_twenty_times_it_decides_the_same(tmp_path: Path) -> None:
    runs, how = grid(), Searching(share=0.3, seed=1)
    whole = search_json(carry_out(tmp_path / "whole", Scripted(script), runs, how))
    draw, kills = Random(0), 0
    while True:
        try:
            killed = carry_out(tmp_path / "killed", Scripted(script, draw=draw), runs, how)
            break
        except Killed:
            kills += 1
    assert kills >= 20
    assert search_json(killed) == whole
    assert len(whole["rounds"]) > 3
    assert not any(each["left"] for each in whole["rounds"])


def test_every_record_tells_its_round_and_why(tmp_path: Path) -> None:
    search = carry_out(tmp_path, Scripted(script), grid(seeds=1))
    last = {step.candidate.key: (now.number, step) for now in search.rounds() for step in now.steps}
    for run in runs_of(tmp_path):
        record = run.record()
        assert record
        assert record.identity
        number, step = last[record.identity]
        asked = record.context.search
        assert asked
        assert (asked.round, asked.until, asked.why) == (number, step.until, step.why)
        assert len(run.epochs()) == step.until


def test_a_failed_run_takes_no_part_until_it_is_tried_again(tmp_path: Path) -> None:
    runs = grid(seeds=1)
    bad = settings_of(model="esnet", lr=3e-3, seed=0)
    search = carry_out(tmp_path, Scripted(script, failing=lambda settings: settings == bad), runs)
    assert search.next() is None
    later = [now.steps for now in search.rounds()][1:]
    assert bad.identity not in {step.candidate.key for steps in later for step in steps}
    assert searched(tmp_path, runs).next() is None, "failed runs are left alone"

    executor = Scripted(script)
    assert carry_out(tmp_path, executor, runs, retry=True).next() is None
    assert (bad.identity, 1) in executor.epochs
    assert {identity for identity, _ in executor.epochs} <= {run.identity for run in runs}


def test_settings_with_equal_results_are_trained_to_the_end_once(tmp_path: Path) -> None:
    cheap = {0: 1.0, 2: 0.8, 4: 1.2}
    runs = tuple(settings_of(model="enet", workers=workers, lr=lr) for lr in LRS[:2] for workers in cheap)

    def by_workers(settings: Settings) -> list[tuple[float, float]]:
        scale = cheap[int(settings.workers)]
        return [(dice, joules * scale) for dice, joules in script(settings.changed(workers=0))]

    search = carry_out(tmp_path, Scripted(by_workers), runs)
    assert search.next() is None
    records = [record for run in runs_of(tmp_path) if (record := run.record())]
    assert {record.settings["workers"] for record in records if record.status == "finished"} == {2}
    (account,) = accounts(runs_of(tmp_path))
    assert all("workers 2" in verdict.by for verdict in account.verdicts)

    auto = tuple(settings.changed(lr="auto") for settings in runs[:3])
    assert len({candidate.results for candidate in searched(tmp_path / "auto", auto).candidates}) == 3


def test_the_rest_of_the_grid_can_be_trained_at_any_time(tmp_path: Path) -> None:
    runs = grid(seeds=1)
    executor = Scripted(script)
    carry_out(tmp_path, executor, runs)
    plan = make_plan(Sweep("s", runs), tmp_path)
    jobs = [job for run, job in zip(plan.runs, jobs_of(plan.runs), strict=True) if run in plan.todo]
    Queue(executor, Stop(), Audience()).carry_out(jobs)
    assert sorted(executor.epochs) == sorted((run.identity, i) for run in runs for i in range(EPOCHS))


def test_decisions_are_derived_from_the_records_again(tmp_path: Path) -> None:
    runs = tuple(settings_of(model=model, lr=lr * 1e-5) for model in MODELS[:2] for lr in range(100, 120))
    carry_out(tmp_path, Scripted(script), runs)
    before = json.dumps(search_json(searched(tmp_path, runs)))
    assert json.dumps(search_json(searched(tmp_path, runs))) == before


def test_without_runs_a_planned_search_names_its_first_round(tmp_path: Path) -> None:
    planned = [PlannedRun(settings, str(tmp_path / "s")) for settings in grid()]
    now = Search(planned, Searching()).next()
    assert now
    assert (now.number, len(now.left)) == (0, len(MODELS) * len(LRS))
