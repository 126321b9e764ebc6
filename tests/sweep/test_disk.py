"""The disk space that a sweep needs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greenseg.sweep.disk import Disk, disk_of
from greenseg.sweep.file import read_sweep
from greenseg.sweep.plan import make_plan
from tests.conftest import Command
from tests.runs import Json, record, write

RESNET = {"encoder": "resnet18", "decoder": "unet"}
MB = 1_000_000


def disk(folder: Path, text: str, at_a_time: int = 1) -> Disk:
    file = folder / "s.yaml"
    file.write_text(text)
    return disk_of(make_plan(read_sweep(file), folder / "runs"), folder / "runs", at_a_time)


def trained(folder: Path, written: Json, network: int = 0, last: int = 0) -> int:
    """Write a run with checkpoints of these sizes; returns the size of all its files."""
    run = write(folder, written)
    for path, size in ((run.best_checkpoint, network), (run.last_checkpoint, last)):
        if size:
            path.touch()
            with path.open("r+b") as file:
                file.truncate(size)  # without blocks on the disk
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())


SWEEP = "base: {model: resnet18-unet}\nseeds: [0, 1, 2, 3]\n"


@pytest.mark.parametrize(
    ("keep", "optimizer", "at_a_time", "stay", "meanwhile"),
    [
        ("best", "adamw", 1, 3 * 10, 2 * 30),
        ("best", "sgd", 1, 3 * 10, 2 * 20),
        ("best", "adamw", 2, 3 * 10, 2 * 2 * 30),
        ("best", "adamw", 8, 3 * 10, 3 * 2 * 30),
        ("front", "adamw", 1, 3 * 10, 2 * 30),
        ("all", "adamw", 1, 3 * 40, 30),
    ],
)
def test_what_is_to_come_is_that_of_the_same_network(
    keep: str, optimizer: str, at_a_time: int, stay: int, meanwhile: int, tmp_path: Path
) -> None:
    settings = RESNET | {"optimizer": optimizer, "seed": 0}
    size = trained(tmp_path / "runs" / "s", record(settings), network=10 * MB)
    text = SWEEP.replace("unet}", f"unet, optimizer: {optimizer}}}") + f"keep: {keep}\n"
    found = disk(tmp_path, text, at_a_time)
    assert (found.done, found.more) == (size + stay * MB, (stay + meanwhile) * MB)
    assert found.unknown == ()
    assert found.free == shutil.disk_usage(tmp_path).free


def test_paused_runs_of_a_search_keep_their_last_checkpoint(tmp_path: Path) -> None:
    settings = RESNET | {"optimizer": "adamw", "seed": 0}
    size = trained(tmp_path / "runs" / "s", record(settings), network=10 * MB)
    found = disk(tmp_path, SWEEP + "search: halving\n")
    assert (found.done, found.more) == (size + (3 * 10 + 30) * MB, (3 * 10 + 30 + 2 * 30) * MB)


def test_networks_that_go_are_not_there_when_it_is_done(tmp_path: Path) -> None:
    size = trained(tmp_path / "runs" / "s", record(RESNET | {"seed": 0}), network=10 * MB)
    found = disk(tmp_path, f"{SWEEP}keep: none\n")
    assert (found.done, found.more) == (size - 10 * MB, 3 * 10 * MB + 60 * MB)


def test_an_interrupted_run_needs_only_what_it_lacks(tmp_path: Path) -> None:
    size = trained(tmp_path / "runs" / "s", record(RESNET | {"seed": 0}, "interrupted"), 10 * MB, 30 * MB)
    found = disk(tmp_path, "base: {model: resnet18-unet, seed: 0}\n")
    assert size > 40 * MB
    assert (found.done, found.more) == (10 * MB, 60 * MB)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (record(RESNET | {"lr": 0.5, "epochs": 7}), 10 * MB),
        (record(RESNET | {"decoder_width": 16}), None),
        (record({"encoder": "resnet34", "decoder": "unet"}), None),
    ],
)
def test_runs_of_other_sweeps_tell_the_size_too(other: Json, expected: int | None, tmp_path: Path) -> None:
    trained(tmp_path / "runs" / "other", other, network=10 * MB)
    found = disk(tmp_path, "base: {model: resnet18-unet}\n")
    assert (found.done or None) == expected
    assert found.unknown == (() if expected else ("resnet18-unet",))
    assert found.fits


def test_without_files_the_parameters_tell_it(tmp_path: Path) -> None:
    trained(tmp_path / "runs" / "s", record(RESNET | {"seed": 0}, parameters=2 * MB))
    assert disk(tmp_path, "base: {model: resnet18-unet, seed: 1}\n").done == 8 * MB


def test_a_compressed_network_is_at_most_as_large_as_its_parent(tmp_path: Path) -> None:
    trained(tmp_path / "runs" / "s", record(RESNET), network=10 * MB)
    text = "base: {model: resnet18-unet}\ngrid:\n  runtime, quantize: [[torch, none], [openvino, int8]]\n"
    found = disk(tmp_path, text)
    assert found.more == 10 * MB, "it is converted, not trained"


def test_a_sweep_that_does_not_fit_is_refused_and_the_plan_says_so(greenseg: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"{SWEEP}keep: all\n")
    new = greenseg("sweep", file, "--dry-run")
    assert "Disk: unknown until a run of each network has begun" in new.stdout

    trained(tmp_path / "runs" / "s", record(RESNET | {"seed": 0}), network=5 * 10**12)
    planned = greenseg("sweep", file, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "when done" in planned.stdout
    assert "--out" in planned.stderr
    told: dict[str, Any] = json.loads(greenseg("sweep", file, "--dry-run", "--json").stdout)["disk"]
    assert told["more"] == (3 * 20 + 15) * 10**12
    before = sorted(tmp_path.rglob("*"))
    refused = greenseg("sweep", file)
    assert refused.returncode == 2
    for text in (f"{told['more']:,} bytes", "are free", "keep: best", "--out"):
        assert text in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_the_estimate_needs_no_torch(tmp_path: Path) -> None:
    trained(tmp_path / "runs" / "s", record(RESNET | {"seed": 0}), network=10 * MB)
    (tmp_path / "s.yaml").write_text(SWEEP)
    code = "import sys, greenseg.cli as c; r = c._run(); print('torch' in sys.modules); sys.exit(r)"
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", "s.yaml", "--dry-run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Disk: about" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
