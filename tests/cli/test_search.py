"""`search` in a sweep file, with real runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from greenseg.runs.directory import find_runs
from tests.cli.test_keep import BASE as ONE_EPOCH
from tests.cli.test_keep import sweep_file
from tests.conftest import Command
from tests.runs import recorded

BASE = ONE_EPOCH | {"epochs": 5}


def test_a_searched_sweep_pauses_explains_reports_and_can_be_finished(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    grid = {"lr": [1e-2, 1e-7], "optimizer": ["adamw", "sgd"]}
    file = sweep_file(tmp_path, {"base": BASE | {"data": str(phantom)}, "grid": grid, "search": {"budget": "70 %"}})
    planned = greenseg("sweep", file, "--dry-run", "--json")
    assert json.loads(planned.stdout)["search"]["share"] == 0.7, planned.stderr
    done = greenseg("sweep", file, "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(event["runs"] for event in events if event["event"] == "round") == 4
    runs = {run.path: recorded(run) for run in find_runs([tmp_path / "runs"])}
    paused = [path for path, record in runs.items() if record["status"] == "paused"]
    assert paused
    assert len(runs) == 4
    for path in paused:
        assert (path / "checkpoints" / "last.ckpt").exists()
        assert runs[path]["context"]["search"]["until"] == runs[path]["metrics"]["epochs"] == 3

    said = greenseg("sweep", file, COLUMNS="300").stdout
    assert "Search in s: of 4 runs" in said
    assert "3/5" in said
    explained = json.loads(greenseg("sweep", file, "--explain", "--json").stdout)
    assert [each["left"] for each in explained["rounds"]] == [0] * len(explained["rounds"])
    assert "every configuration" in greenseg("sweep", file, "--explain").stdout

    rest = greenseg("sweep", file, "--search", "none")
    assert rest.returncode == 0, rest.stderr
    assert all(recorded(run)["status"] == "finished" for run in find_runs([tmp_path / "runs"]))
    again = greenseg("sweep", file)
    assert again.returncode == 0, again.stderr
    one = find_runs([tmp_path / "runs"])[0]
    assert [line.epoch for line in one.epochs()] == [0, 1, 2, 3, 4], "no epoch was trained twice"


@pytest.mark.parametrize(
    ("search", "problems"),
    [
        ("halvin", ["s.yaml:", "'halvin'", "halving"]),
        ({"method": "halving", "budget": "0 %"}, ["budget", "share above 0 %"]),
        ({"budget": "3 apples", "seeed": 1}, ["budget", "seed"]),
        ({"objectives": ["hd95", "total"]}, ["objectives", "dice"]),
        ({"seed": -1}, ["seed", "-1"]),
    ],
)
def test_a_wrong_search_is_refused(search: Any, problems: list[str], greenseg: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, {"base": BASE, "seeds": [0, 1], "search": search})
    refused = greenseg("sweep", file)
    assert refused.returncode == 2
    assert all(problem in refused.stderr for problem in problems), refused.stderr


def test_a_search_takes_no_compressed_runs(greenseg: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, {"base": BASE, "grid": {"prune": [0.3, 0.5]}, "search": "halving"})
    refused = greenseg("sweep", file)
    assert refused.returncode == 2
    assert "compress" in refused.stderr
    assert "s.yaml:" in refused.stderr
    assert greenseg("sweep", file, "--search", "none", "--dry-run").returncode == 0
    assert "--search halve" in greenseg("sweep", file, "--search", "halve").stderr
    plain = sweep_file(tmp_path, {"base": BASE, "seeds": [0, 1]})
    assert "no search" in greenseg("sweep", plain, "--explain").stderr


def test_configurations_are_drawn_resumed_and_explained(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra 'search'")
    grid = {"lr": {"from": 1e-4, "to": 1e-1, "log": True}, "optimizer": ["adamw", "sgd"]}
    search = {"method": "optuna", "configurations": 9}
    base = BASE | {"data": str(phantom), "epochs": 1}
    file = sweep_file(tmp_path, {"base": base, "grid": grid, "search": search})
    planned = json.loads(greenseg("sweep", file, "--dry-run", "--json").stdout)
    assert (planned["runs"], planned["search"]["configurations"], planned["search"]["combinations"]) == (8, 9, None)
    (now,) = planned["search"]["rounds"]
    shown = greenseg("sweep", file, "--dry-run", COLUMNS="300").stdout
    assert all(f"lr {draw['settings']['lr']}, optimizer" in shown for draw in now["draws"])

    done = greenseg("sweep", file, "--json", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["number"], event["runs"]) for event in events if event["event"] == "round"] == [(0, 8), (1, 1)]
    records = [recorded(run) for run in find_runs([tmp_path / "runs"])]
    assert [record["status"] for record in records] == ["finished"] * 9
    parts = [record["context"]["search"] for record in records]
    assert sorted((part["round"], part["why"]) for part in parts)[-2:] == [(0, "start: random"), (1, "drawn by TPE")]
    assert {part["method"] for part in parts} == {"optuna"}
    assert sorted(record["context"]["position"] for record in records) == [*range(9)]

    explained = json.loads(greenseg("sweep", file, "--explain", "--json").stdout)
    draws = [draw for each in explained["rounds"] for draw in each["draws"]]
    assert draws[:8] == [draw | {key: draws[i][key] for key in ("dice", "joules", "finished")}
                         for i, draw in enumerate(now["draws"])]  # fmt: skip
    assert {draw["settings"]["lr"] for draw in draws} == {record["settings"]["lr"] for record in records}
    text = greenseg("sweep", file, "--explain", COLUMNS="300").stdout
    assert all(f"lr {draw['settings']['lr']}" in text for draw in draws)

    again = greenseg("sweep", file, COLUMNS="300")
    assert again.returncode == 0, again.stderr
    assert "of 9 runs, 9 finished" in again.stdout
    assert "whole grid" not in again.stdout
    assert len(find_runs([tmp_path / "runs"])) == 9
    refused = greenseg("sweep", file, "--search", "none")
    assert refused.returncode == 2
    assert "--search none: lr" in refused.stderr
