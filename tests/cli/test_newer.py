"""Runs of a later version are left alone: reported as such, never retrained, never written over."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_content import EARLIER, sweep
from tests.conftest import Command
from tests.versions.blocks import write_blocks

NEWER: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a later schema": lambda record: record | {"schema": 2},
    "a schema of another kind": lambda record: record | {"schema": "2.1"},
    "other keys": lambda record: {"schema": 2, "state": "finished", "wanted": record["settings"]},
    "an unknown status": lambda record: record | {"status": "suspended"},
    "an unknown setting": lambda record: record | {"settings": record["settings"] | {"pruning": 0.5}},
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER / "runs" / "old", tmp_path / "runs" / "s")).parent


def rewrite(runs: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    (path,) = runs.glob("s/*/run.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return path


@pytest.mark.parametrize("what", NEWER)
def test_the_report_leaves_it_out_and_says_why(what: str, greenseg: Command, runs: Path) -> None:
    path = rewrite(runs, NEWER[what])
    shown = greenseg("report", runs)
    assert shown.returncode == 1
    assert "later version" in shown.stderr
    assert str(path) in shown.stderr
    assert "Traceback" not in shown.stderr


def test_it_is_neither_trained_nor_written_over(greenseg: Command, runs: Path, tmp_path: Path) -> None:
    path = rewrite(runs, NEWER["a later schema"])
    before = path.read_bytes()
    write_blocks(tmp_path / "data")
    file = sweep(tmp_path, epochs=6)
    assert "1 newer" in greenseg("sweep", file, "--dry-run").stdout
    for refused in (greenseg("sweep", file), greenseg("train", "--config", path.with_name("config.yaml"), "--again")):
        assert refused.returncode == 2
        assert "--out" in refused.stderr
    assert path.read_bytes() == before


def test_values_that_are_not_known_here_are_reported_as_they_are(greenseg: Command, runs: Path) -> None:
    rewrite(runs, lambda record: record | {"settings": record["settings"] | {"precision": "fp4", "encoder": "later"}})
    shown = greenseg("report", runs, "--format", "json")
    assert shown.returncode == 0, shown.stderr
    (row,) = json.loads(shown.stdout)["configurations"]
    assert row["settings"]["precision"] == "fp4"
