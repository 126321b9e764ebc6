"""A run is followed by what it writes."""

import json
from pathlib import Path
from typing import Any

from greenseg.launch.follow import Follower
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests.runs import append, write_record

ENERGY = {"train": {"seconds": 1.0, "joules": {"cpu": {"estimate": 2.0}}}}


def begin(run: RunDirectory, *earlier: dict[str, Any]) -> None:
    attempts = [*earlier, {"status": "running", "host": "here", "pid": len(earlier), "started": "today"}]
    write_record(run, {"schema": 1, "status": "running", "settings": Settings().resolved(), "attempts": attempts})


def line(epoch: int, attempt: int) -> dict[str, Any]:
    shown = {"epoch": epoch, "train_loss": 0.5, "dice": 0.5, "iou": 0.4, "seconds": 1.0}
    nothing = {"seconds": 0.0, "joules": {}}
    return shown | {"attempt": attempt, "attempt_so_far": ENERGY, "train": ENERGY["train"], "validation": nothing}


def found(follower: Follower) -> list[tuple[int, float]]:
    return [(event["epoch"], event["joules"]) for event in follower.epochs()]


def test_epochs_of_this_attempt_each_once_and_with_all_joules(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create(Settings())
    before = Follower(run)
    assert found(before) == [], "it has not begun"
    begin(run)
    append(run, line(0, 0))
    assert found(before) == [(0, 2.0)]
    again = Follower(run)
    assert found(again) == [], "the last attempt is an earlier one"
    begin(run, {"status": "killed", "host": "here", "pid": 0, "started": "yesterday", "energy": ENERGY})
    append(run, line(1, 1))
    assert found(again) == [(1, 4.0)]
    with (run.path / "epochs.jsonl").open("ab") as file:
        file.write(json.dumps(line(2, 1)).encode()[:-9])
    assert found(again) == [], "it is still being written"
    append(run, line(2, 1))
    assert found(again) == [(2, 4.0)]


def test_a_run_that_starts_over_is_followed_from_its_new_beginning(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create(Settings())
    begin(run)
    for epoch in range(3):
        append(run, line(epoch, 0))
    (run.path / "run.json").write_text("{")  # the reason to start over
    follower = Follower(run)
    assert found(follower) == []
    run.clear()
    begin(run)
    append(run, line(0, 0))
    assert found(follower) == [(0, 2.0)]
