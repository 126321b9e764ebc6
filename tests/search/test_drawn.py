"""A search that draws configurations, over run directories with scripted curves: kills, failures, second tries."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log10
from pathlib import Path
from random import Random
from typing import Any

import pytest

from greenseg.cli.draws_view import lines_of, search_json
from greenseg.cli.search_view import sentences
from greenseg.errors import UserError
from greenseg.launch.executor import jobs_of
from greenseg.launch.queue import Queue
from greenseg.launch.stop import Stop
from greenseg.search.account import accounts
from greenseg.search.drawn import ROUND, Draws
from greenseg.settings import Settings
from greenseg.sweep.file import SAMPLERS, Searching, Sweep
from greenseg.sweep.grid import Axis, Between, Branch, Space
from tests.launch.test_queue import Audience
from tests.search.scripted import Killed, Scripted, runs_of

pytest.importorskip("optuna", reason="needs the extra 'search'")

EPOCHS = 4
LR = Axis(("lr",), (), Between(1e-4, 1e-1, log=True))
TIED = Axis(
    ("optimizer", "weight_decay"),
    (Branch(tuple({"optimizer": name, "weight_decay": decay} for name, decay in (("adamw", 0.01), ("sgd", 0.0)))),),
)
BATCH = Axis(("batch_size",), (), Between(4, 64, log=True, unit=1))
BASE = {"data": "phantom", "model": "enet", "epochs": EPOCHS, "schedule": "constant"}


@pytest.fixture(autouse=True)
def _no_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data do not matter, and are not read."""
    monkeypatch.setattr("greenseg.data.content.Contents.of", lambda self, settings: None)


def sweep(
    axes: tuple[Axis, ...] = (LR, TIED, BATCH),
    seeds: tuple[int, ...] = (),
    base: dict[str, Any] | None = None,
    **how: Any,
) -> Sweep:
    searching = replace(Searching("optuna", sampler="tpe", configurations=30), **how)
    return Sweep("s", (), search=searching, space=Space(BASE | (base or {}), axes, seeds))


def script(settings: Settings) -> list[tuple[float, float]]:
    """The best rate is 0.01, AdamW is better, and large batches are cheap."""
    best = 0.9 - 0.2 * abs(log10(float(settings.lr)) + 2) - 0.1 * (settings.optimizer == "sgd") - 0.01 * settings.seed
    return [(best * (i + 1) / EPOCHS, 100 / int(settings.batch_size)) for i in range(EPOCHS)]


def carry_out(root: Path, executor: Scripted, planned: Sweep, retry: bool = False) -> Draws:
    """What `greenseg sweep` does; returns the search."""
    draws = Draws(planned, root, retry)
    queue = Queue(executor, Stop(), Audience())
    jobs = jobs_of(draws.plan().runs)
    queue.carry_out(draws.jobs(jobs, queue.outcomes, lambda now, jobs: None, lambda: False))
    assert len(jobs) == len({job.run.path for job in jobs})
    return draws


def settings_of(draws: Draws) -> list[dict[str, Any]]:
    return [draw.values for now in draws.rounds() for draw in now.draws]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_configurations_are_drawn_and_each_trains_to_its_end(sampler: str, tmp_path: Path) -> None:
    executor = Scripted(script)
    draws = carry_out(tmp_path, executor, sweep(sampler=sampler))
    assert draws.next() is None
    drawn = settings_of(draws)
    assert len(drawn) == 30
    assert len({repr(values) for values in drawn}) == 30
    assert Counter(i for _, i in executor.epochs) == dict.fromkeys(range(EPOCHS), 30)
    assert [len(now.draws) for now in draws.rounds()] == [ROUND, ROUND, ROUND, 30 - 3 * ROUND]
    for values in drawn:
        assert 1e-4 <= values["lr"] <= 1e-1
        assert float(f"{values['lr']:.6g}") == values["lr"]
        assert values["batch_size"] in range(4, 65)
        assert (values["optimizer"], values["weight_decay"]) in (("adamw", 0.01), ("sgd", 0.0))
    why = [draw.why for now in draws.rounds() for draw in now.draws]
    assert (why[0] == "start: random") == (sampler != "random")
    assert len(set(why[ROUND:])) == 1


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_learn_from_earlier_rounds(sampler: str, tmp_path: Path) -> None:
    """Of the configurations after the start, more are good than of those drawn at random: the sampler has the study."""
    planned = sweep(sampler=sampler, configurations=64)
    drawn = settings_of(carry_out(tmp_path, Scripted(script), planned))
    assert settings_of(carry_out(tmp_path / "2", Scripted(script), planned)) == drawn

    def near(values: list[dict[str, Any]]) -> float:
        return sum(abs(log10(each["lr"]) + 2) < 0.5 for each in values) / len(values)

    assert near(drawn[ROUND:]) > 0.5, "at random, a third is near the best"


@pytest.mark.parametrize(("sampler", "seeds"), [("tpe", ()), ("nsga2", ()), ("tpe", (0, 1))])
def test_killed_many_times_it_draws_the_same(sampler: str, seeds: tuple[int, ...], tmp_path: Path) -> None:
    planned = sweep(sampler=sampler, seeds=seeds, seed=5, joules=4000.0)
    whole = search_json(carry_out(tmp_path / "whole", Scripted(script), planned))
    draw, kills = Random(0), 0
    while True:
        try:
            killed = carry_out(tmp_path / "killed", Scripted(script, draw=draw), planned)
            break
        except Killed:
            kills += 1
    assert kills >= 5
    assert search_json(killed) == whole
    assert all(each["left"] == 0 for each in whole["rounds"])
    assert search_json(Draws(planned, tmp_path / "killed")) == whole, "derived from the records again"
    assert settings_of(Draws(replace(planned, search=Searching("optuna", seed=6, sampler=sampler, configurations=9)),
                             tmp_path / "killed")) != settings_of(killed)[:9]  # fmt: skip


def test_every_configuration_runs_with_every_seed_and_counts_by_their_mean(tmp_path: Path) -> None:
    bad: set[str] = set()
    planned = sweep(seeds=(0, 7), configurations=10)
    first = settings_of(Draws(planned, tmp_path))[3]

    def failing(settings: Settings) -> bool:
        if settings.seed == 7 and settings.lr == first["lr"]:
            bad.add(settings.identity)
        return settings.identity in bad

    draws = carry_out(tmp_path, Scripted(script, failing=failing), planned)
    assert draws.next() is None
    assert len(runs_of(tmp_path)) == 20
    for draw in (draw for now in draws.rounds() for draw in now.draws):
        result, finished = draws.result(draw)
        curves = [script(run.settings) for run in draw.runs if run.settings.identity not in bad]
        assert finished == len(curves)
        assert result
        assert result[0] == pytest.approx(sum(curve[-1][0] for curve in curves) / finished)
    record = runs_of(tmp_path)[0].record()
    assert record
    assert record.context.search
    assert (record.context.search.method, record.context.search.sampler, record.context.search.runs) == (
        "optuna",
        "tpe",
        20,
    )
    (account,) = accounts(runs_of(tmp_path))
    assert (account.runs, account.finished, account.failed) == (20, 19, 1)
    assert account.grid is None
    assert "of 20 runs, 19 finished" in sentences(account)[0]


def test_the_budget_ends_the_search(tmp_path: Path) -> None:
    planned = sweep(joules=2000.0, configurations=1000)
    draws = carry_out(tmp_path, Scripted(script), planned)
    assert draws.next() is None
    assert "budget" in draws.done
    spent = sum(each["joules"] for now in search_json(draws)["rounds"] for each in now["draws"])
    assert 0.7 * 2000 < spent < 1.3 * 2000
    more = carry_out(tmp_path, Scripted(script), sweep(joules=3000.0, configurations=1000))
    assert settings_of(more)[: len(settings_of(draws))] == settings_of(draws)
    assert len(settings_of(more)) > len(settings_of(draws))


def test_a_failure_stops_nothing_and_a_second_try_changes_no_earlier_round(tmp_path: Path) -> None:
    planned = sweep(configurations=24)
    bad = {values["lr"] for values in settings_of(Draws(planned, tmp_path))[2:4]}

    def failing(settings: Settings) -> bool:
        return settings.lr in bad

    failed = carry_out(tmp_path, Scripted(script, failing=failing), planned)
    assert failed.next() is None
    assert len(settings_of(failed)) == 24
    assert sum(each["dice"] is None for now in search_json(failed)["rounds"] for each in now["draws"]) == 2

    executor = Scripted(script)
    tried = carry_out(tmp_path, executor, planned, retry=True)
    assert {identity for identity, _ in executor.epochs} == {run for now in search_json(failed)["rounds"]
        for each in now["draws"] if each["dice"] is None for run in each["runs"]}  # fmt: skip
    assert settings_of(tried) == settings_of(failed)
    assert Draws(planned, tmp_path).next() is None
    further = settings_of(Draws(sweep(configurations=32), tmp_path))
    assert further[:24] == settings_of(failed)
    assert len(further) == 32


def test_a_second_try_that_was_killed_goes_on(tmp_path: Path) -> None:
    planned = sweep(configurations=16)
    bad = settings_of(Draws(planned, tmp_path))[0]["lr"]
    failed = carry_out(tmp_path, Scripted(script, failing=lambda settings: settings.lr == bad), planned)
    draw, retry = Random(1), True
    for _ in range(100):
        try:
            carry_out(tmp_path, Scripted(script, draw=draw), planned, retry)
            break
        except Killed:
            retry = False  # it is interrupted now, no longer failed
    assert [run.status() for run in runs_of(tmp_path)] == ["finished"] * 16
    assert settings_of(Draws(planned, tmp_path)) == settings_of(failed)


def test_duplicates_cost_nothing_and_end_the_search(tmp_path: Path) -> None:
    executor = Scripted(script)
    draws = carry_out(
        tmp_path, executor, sweep(axes=(TIED, Axis(("batch_size",), (Branch(({"batch_size": 4}, {"batch_size": 8})),))))
    )
    assert draws.next() is None
    assert len(settings_of(draws)) == draws.space.size == 4
    assert len(executor.epochs) == 4 * EPOCHS
    assert "every combination" in draws.done
    assert any("every combination" in line for line in lines_of(draws))
    few = Axis(("batch_size",), (), Between(4, 6, log=False, unit=1))
    draws = carry_out(tmp_path / "few", Scripted(script), sweep(axes=(few,)))
    assert sorted(values["batch_size"] for values in settings_of(draws)) == [4, 5, 6]
    assert "none was valid and new" in draws.done


def test_invalid_configurations_are_drawn_again(tmp_path: Path) -> None:
    folds = Axis(("folds",), (), Between(0, 3, log=False, unit=1))
    fold = Axis(("fold",), (Branch(({"fold": 0}, {"fold": 1})),))
    drawn = settings_of(Draws(sweep(axes=(LR, folds, fold)), tmp_path))
    assert len(drawn) == ROUND
    assert all(values["folds"] > 1 or not values["fold"] for values in drawn)
    with pytest.raises(UserError, match="none is valid"):
        Draws(sweep(axes=(LR,), base={"fold": 1}), tmp_path).next()


@pytest.mark.parametrize(
    "then", [lambda root: None, lambda root: carry_out(root, Scripted(script), sweep(configurations=8))]
)
def test_the_next_round_is_told_before_it_begins(then: Callable[[Path], Any], tmp_path: Path) -> None:
    then(tmp_path)
    draws = Draws(sweep(), tmp_path)
    now = draws.next()
    assert now
    assert len(now.left) == ROUND
    said = "\n".join(lines_of(draws))
    assert f"Next is round {now.number}" in said
    assert all(f"lr {draw.values['lr']}" in said for draw in now.draws)  # type: ignore[attr-defined]
    assert [run.status for run in draws.plan().todo] == ["new"] * ROUND
