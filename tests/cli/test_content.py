"""A result belongs to what it was trained on: the same settings on other data are another run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.runs.directory import RunDirectory
from tests import warm
from tests.conftest import Command
from tests.runs import lines_of, recorded
from tests.versions.blocks import write_blocks

EARLIER = Path(__file__).parents[1] / "versions" / "0.1.0"
TINY = {
    "model": "enet", "width": 0.25, "image_size": 32, "spacing": 2.0, "batch_size": 2, "epochs": 1, "augment": "none",
    "lr": 0.2, "optimizer": "sgd", "schedule": "constant", "accelerator": "cpu", "data": "data",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_blocks(tmp_path / "data")


def sweep(folder: Path, *, seeds: tuple[int, ...] = (0,), grid: dict[str, Any] | None = None, **base: Any) -> Path:
    path = folder / "s.yaml"
    content = {"name": "s", "base": TINY | base, "grid": grid or {"precision": ["32-true"]}, "seeds": list(seeds)}
    path.write_text(yaml.safe_dump(content))
    return path


def shift(file: Path) -> None:
    """Other pixels: the last kilobyte comes first."""
    content = file.read_bytes()
    start = content.index(b"\n\n") + 2
    file.write_bytes(content[:start] + content[-1024:] + content[start:-1024])


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("run.json"))]


def configurations(greenseg: Command, *arguments: str | Path) -> dict[str, Any]:
    # The folders of earlier versions were written on another machine.
    shown = greenseg("report", *arguments, "--format", "json", "--allow-mixed-hardware")
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def test_other_data_under_the_same_path_are_other_runs(greenseg: Command, data: Path, tmp_path: Path) -> None:
    file = sweep(tmp_path)
    assert greenseg("sweep", file).returncode == 0
    for mask in (data / "masks").iterdir():
        shift(mask)
    sweep(tmp_path, seeds=(0, 1), grid={"precision": ["32-true", "bf16-mixed"]})
    dry = greenseg("sweep", file, "--dry-run")
    assert "4 runs (4 new), 4 to do" in dry.stdout
    assert "masks changed: img_0000, img_0001, img_0002" in dry.stderr
    assert greenseg("sweep", file).returncode == 0
    all_of_them = records(tmp_path / "runs")
    assert len(all_of_them) == 5
    assert len({record["content"] for record in all_of_them}) == 2
    assert len({record["id"] for record in all_of_them}) == 5

    report = configurations(greenseg, "runs")
    contents = [row["settings"]["content"] for row in report["configurations"]]
    assert sorted(contents.count(content) for content in set(contents)) == [1, 2]
    assert sorted(len(row["runs"]) for row in report["configurations"]) == [1, 2, 2]
    (effect,) = report["effects"]
    assert (effect["axis"], effect["quality"]["n"]) == ("precision", 2), "only runs on the same data are pairs"
    assert any("2 different contents" in warning for warning in report["warnings"])
    assert "content" in greenseg("report", "runs").stdout
    # The earlier data are back: nothing is left to do, and nothing was lost.
    for mask in (data / "masks").iterdir():
        mask.unlink()
    write_blocks(data)
    sweep(tmp_path)
    assert "1 run (1 finished), 0 to do" in greenseg("sweep", file, "--dry-run").stdout


def interrupted(folder: Path, *options: str) -> RunDirectory:
    """A run that was killed after its second epoch at the earliest."""
    program = [sys.executable, "-m", "greenseg", "train", *options]
    process = warm.Popen(program, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = list(folder.glob("runs/train/*/epochs.jsonl"))
        if found and found[0].read_text().count("\n") > 1:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    return RunDirectory(found[0].parent)


def test_a_run_does_not_go_on_with_other_data(greenseg: Command, data: Path, tmp_path: Path) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (TINY | {"epochs": 20}).items()]
    run = interrupted(tmp_path, *options)
    before = (run.path / "run.json").read_bytes()
    mask = (data / "masks/mask_0001.nrrd").read_bytes()
    shift(data / "masks/mask_0001.nrrd")
    file = sweep(tmp_path, epochs=20)
    for refused in (greenseg("train", *options), greenseg("sweep", file)):
        assert refused.returncode == 2
        assert "masks changed: img_0001" in refused.stderr
        assert "--again" in refused.stderr
        assert (run.path / "run.json").read_bytes() == before, "it may still go on with its own data"
    write_blocks(tmp_path / "more", subjects=4)
    shutil.copytree(tmp_path / "more", data, dirs_exist_ok=True)
    refused = greenseg("train", *options)
    assert (refused.returncode, "subjects added: img_0003" in refused.stderr) == (2, True)
    # Its program, too, refuses: the data may change after they were looked at.
    direct = warm.run(
        [sys.executable, "-m", "greenseg.training", str(run.path)], cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert direct.returncode == 2
    assert "subjects added: img_0003" in direct.stderr
    (run.path / "run.json").write_bytes(before)

    for extra in (data / "images/img_0003.nrrd", data / "masks/mask_0003.nrrd"):
        extra.unlink()
    (data / "masks/mask_0001.nrrd").write_bytes(mask)
    assert "Continuing" in greenseg("train", *options).stdout
    assert recorded(run)["status"] == "finished"


def test_a_run_of_an_earlier_version_stands_for_itself(greenseg: Command, data: Path, tmp_path: Path) -> None:
    """The folder was written by version 0.1.0, before runs had a content, and with another preprocessing; it stays."""
    shutil.copytree(EARLIER / "runs", tmp_path / "runs")
    (finished,) = (tmp_path / "runs/old").iterdir()
    (killed,) = (tmp_path / "runs/train").iterdir()
    best = max(json.loads(line)["dice"] for line in (finished / "epochs.jsonl").read_text().splitlines())
    rows = configurations(greenseg, "runs")["configurations"]
    assert [row["figures"].get("dice", {}).get("mean") for row in rows] == [best, None]
    assert "interrupted" in greenseg("report", "runs").stdout
    # The same data under the same path, or elsewhere: their slices would be others now. Said, trained, told apart.
    settings = yaml.safe_load((finished / "config.yaml").read_text())
    del settings["seed"]
    before = {path: path.read_bytes() for run in (finished, killed) for path in run.rglob("*") if path.is_file()}
    for place in ("data", "moved"):
        data = data.rename(tmp_path / place)
        dry = greenseg("sweep", sweep(tmp_path, seeds=(0, 1), **(settings | {"data": place})), "--dry-run")
        assert "2 runs (2 new), 2 to do" in dry.stdout
        assert "1 run finished on other content" in dry.stderr
        assert "preprocessing has version 6 now, it had version 5" in dry.stderr
    assert greenseg("sweep", tmp_path / "s.yaml").returncode == 0
    rows = [row for row in configurations(greenseg, "runs")["configurations"] if row["settings"]["epochs"] == 6]
    assert sorted(len(row["runs"]) for row in rows) == [1, 2]
    data.rename(tmp_path / "data")
    refused = greenseg("train", "--config", killed / "config.yaml")
    assert refused.returncode == 2
    assert "preprocessing has version 6 now, it had version 5" in refused.stderr
    assert "--again" in refused.stderr
    direct = warm.run(
        [sys.executable, "-m", "greenseg.training", str(killed)], cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert direct.returncode == 2
    assert "preprocessing has version 6 now, it had version 5" in direct.stderr
    del before[killed / "run.json"]  # its second attempt stands there
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_with_this_preprocessing_is_reported_and_resumed(greenseg: Command, data: Path, tmp_path: Path) -> None:
    """The folder was written before version 0.2.0. Where pixel values change again, it goes the way of `EARLIER`."""
    shutil.copytree(EARLIER.with_name("0.1.0-preprocessing-6") / "runs", tmp_path / "runs")
    (finished,) = (tmp_path / "runs/old").iterdir()
    (killed,) = (tmp_path / "runs/train").iterdir()
    best = max(json.loads(line)["dice"] for line in (finished / "epochs.jsonl").read_text().splitlines())
    rows = configurations(greenseg, "runs")["configurations"]
    assert [row["figures"].get("dice", {}).get("mean") for row in rows] == [best, None]
    # The same data under the same path, or elsewhere: it is that run, and its repeats join it.
    settings = yaml.safe_load((finished / "config.yaml").read_text())
    del settings["seed"]
    before = (finished / "run.json").read_bytes()
    data.rename(tmp_path / "moved")
    grown = greenseg("sweep", sweep(tmp_path, seeds=(0, 1), **(settings | {"data": "moved"})))
    assert "2 runs (1 finished, 1 new), 1 to do" in grown.stdout
    assert (finished / "run.json").read_bytes() == before
    assert len(configurations(greenseg, "runs")["configurations"][0]["runs"]) == 2
    (tmp_path / "moved").rename(data)
    resumed = greenseg("train", "--config", killed / "config.yaml")
    assert "Continuing" in resumed.stdout
    assert resumed.returncode == 0, resumed.stderr
    record = recorded(RunDirectory(killed))
    assert (record["status"], len(record["attempts"])) == ("finished", 2)
    assert [line["epoch"] for line in lines_of(RunDirectory(killed))] == [0, 1, 2, 2, 3], (
        "nothing but the last is repeated"
    )


def test_a_run_of_an_earlier_version_on_data_that_changed(greenseg: Command, data: Path, tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "runs", tmp_path / "runs")
    (finished,) = (tmp_path / "runs/old").iterdir()
    (killed,) = (tmp_path / "runs/train").iterdir()
    shift(data / "masks/mask_0000.nrrd")
    refused = greenseg("train", "--config", killed / "config.yaml")
    assert refused.returncode == 2
    assert "--again" in refused.stderr
    trained = greenseg("train", "--config", finished / "config.yaml", "--epochs", "6")
    assert trained.returncode == 0
    assert "finished on other content" in trained.stderr
    rows = configurations(greenseg, "runs")["configurations"]
    assert sorted(row["settings"]["content"][:7] for row in rows if row["settings"]["epochs"] == 6)[-1] == "unknown"
    assert sum(row["settings"]["epochs"] == 6 for row in rows) == 2, (
        "what it was trained on is not known: a row of its own"
    )
