"""`greenseg runs`: what lies on the disk, and what can go."""

import json
from pathlib import Path

import pytest

from greenseg.report import units
from greenseg.runs.directory import RunDirectory
from tests.conftest import Command
from tests.runs import record, recorded, write
from tests.runs.test_disk import FILES, files, with_files

LAST, NETWORKS = FILES["last.ckpt"], sum(FILES.values()) - FILES["last.ckpt"] - FILES["shape.json"]


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, RunDirectory]:
    folder = tmp_path / "runs"
    parent = with_files(folder / "a", record({"seed": 1}, dice=0.75))
    return {
        "finished": with_files(folder / "a", record({"seed": 0}, dice=0.8125)),
        "parent": parent,
        "interrupted": with_files(folder / "a", record({"seed": 2}, "interrupted")),
        "child": write(folder / "b", record({"seed": 1, "prune": 0.5}, "failed", error="ValueError")),
        "begun": write(folder / "b", record({"seed": 4}, "running")),
    }


def size(run: RunDirectory) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())


def test_list_shows_every_run_and_what_can_go(greenseg: Command, runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    shown = greenseg("runs", "list", COLUMNS="200")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line for line in lines if line in ("runs/a", "runs/b")] == ["runs/a", "runs/b"], "a table per sweep"
    (line,) = (line for line in lines if runs["finished"].path.name in line)
    for text in ("finished", "0.812", f"{LAST} B"):
        assert text in line
    (line,) = (line for line in lines if runs["interrupted"].path.name in line)
    assert f"{LAST} B" not in line
    assert "5 runs" in lines[-1]
    assert f"{2 * LAST} B" in lines[-1]

    told = json.loads(greenseg("runs", "list", "runs", "--json").stdout)
    assert (told["bytes"], told["reclaimable_bytes"]) == (sum(map(size, runs.values())), 2 * LAST)
    by_run = {tmp_path / run["run"]: run for run in told["runs"]}
    assert by_run[runs["finished"].path] == {
        "run": str(runs["finished"].path.relative_to(tmp_path)), "status": "finished", "dice": 0.8125,
        "bytes": size(runs["finished"]), "reclaimable_bytes": LAST,
    }  # fmt: skip
    assert by_run[runs["begun"].path]["status"] == "interrupted", "its process is gone"

    (runs["begun"].path / "run.json").write_text("{")
    damaged = greenseg("runs", "list", "runs/b")
    assert damaged.returncode == 1
    assert "damaged" in damaged.stdout
    assert str(runs["begun"].path.relative_to(tmp_path)) in damaged.stderr
    assert greenseg("runs", "list", "runs/a/none").returncode == 2


def test_prune_deletes_only_what_nobody_needs(greenseg: Command, runs: dict[str, RunDirectory]) -> None:
    state = {name: (files(run), recorded(run)) for name, run in runs.items()}

    def now() -> dict[str, tuple[set[str], object]]:
        return {name: (files(run), recorded(run)) for name, run in runs.items()}

    shown = greenseg("runs", "prune", "--keep", "none", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert f"Would free {units.size(2 * LAST + NETWORKS)}" in shown.stdout
    assert now() == state

    with runs["parent"].claim() as claimed:
        assert claimed
        held = greenseg("runs", "prune")
    assert held.returncode == 3
    assert runs["parent"].path.name in held.stderr
    assert f"Freed {LAST} B" in held.stdout
    done = greenseg("runs", "prune", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["bytes"] == LAST
    last = {"last.ckpt"}
    for name in ("finished", "parent"):
        assert now()[name] == (state[name][0] - last, state[name][1])
    assert {name: found for name, found in now().items() if name not in ("finished", "parent")} == {
        name: found for name, found in state.items() if name not in ("finished", "parent")
    }

    gone = greenseg("runs", "prune", "runs/a", "--keep", "none")
    assert gone.returncode == 0, gone.stderr
    assert f"Freed {NETWORKS} B" in gone.stdout
    assert "Kept the network of" in gone.stdout, "of the parent, which a run of another sweep needs"
    assert files(runs["finished"]) == {"shape.json"}
    assert recorded(runs["finished"])["deleted"] == "greenseg runs prune --keep none"
    assert now()["parent"] == (state["parent"][0] - last, state["parent"][1])
    assert now()["interrupted"] == state["interrupted"]
    assert "Freed 0 B" in greenseg("runs", "prune").stdout
