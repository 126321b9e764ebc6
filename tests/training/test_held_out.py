"""The test part of a run: predicted once, after training, with the network of the best validation epoch."""

import json
from pathlib import Path

import pytest

from greenseg import yamlfile
from greenseg.data.phantom import write_phantom
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record
from tests.conftest import SMALL, Command


@pytest.fixture(scope="module")
def with_test_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(out, 4, seed=1, test=2)
    return out


def only_record(runs: Path) -> tuple[Path, Record]:
    (run,) = (runs / "train").iterdir()
    record = RunDirectory(run).record()
    assert record
    return run, record


def test_the_figures_are_those_of_predict_and_evaluate(with_test_part: Path, greenseg: Command, tmp_path: Path) -> None:
    done = greenseg("train", "--data", with_test_part, *SMALL)
    assert done.returncode == 0, done.stderr
    run, record = only_record(tmp_path / "runs")
    assert record.data
    assert record.test.epoch == record.metrics.best_epoch
    assert record.test.content
    assert not {*record.test.volume_dice} & {name for names in record.data.subjects.values() for name in names}

    compared = greenseg("evaluate", run, "--data", with_test_part, "--json", "s.json")
    assert compared.returncode == 0, compared.stderr
    cases = json.loads((tmp_path / "s.json").read_text())["metric_per_case"]
    dice = {case["subject"]: case["metrics"]["1"]["Dice"] for case in cases}
    hd95 = {case["subject"]: case["metrics"]["1"]["HD95"] for case in cases}
    assert record.test.volume_dice == {name: pytest.approx(dice[name]) for name in record.test.volume_dice}
    assert record.test.volume_hd95 == {name: pytest.approx(hd95[name]) for name in record.test.volume_dice}
    validation = record.validation
    assert validation.volume_dice == {name: pytest.approx(dice[name]) for name in validation.volume_dice}, "likewise"
    assert validation.volume_hd95 == {name: pytest.approx(hd95[name]) for name in validation.volume_dice}
    assert "2 of 6 subjects" not in compared.stdout, "nothing knows the test part"

    assert record.energy
    joules = {phase: energy["joules"] for phase, energy in record.energy.phases.items()}
    assert joules["test"]["cpu"]["estimate"] > 0
    others = sum(each["cpu"]["estimate"] for phase, each in joules.items() if phase != "test")
    assert record.energy.total["joules"]["cpu"]["estimate"] == pytest.approx(others)
    (attempt,) = record.attempts
    assert attempt.check
    assert attempt.check.ok


def test_the_test_part_changes_nothing_else(with_test_part: Path, greenseg: Command, tmp_path: Path) -> None:
    without = tmp_path / "without"
    without.mkdir()
    for name in ("training_data", "validation_data"):
        if (with_test_part / name).exists():
            (without / name).symlink_to(with_test_part / name)
    for data in (with_test_part, without):
        assert greenseg("train", "--data", data, *SMALL, "--out", tmp_path / data.name).returncode == 0
    (_, one), (_, other) = only_record(tmp_path / "phantom"), only_record(tmp_path / "without")
    assert one.content == other.content
    assert one.validation == other.validation
    assert one.metrics.epoch_dice == other.metrics.epoch_dice
    assert other.test.epoch is None
    assert other.energy
    assert "test" not in other.energy.phases


def test_a_damaged_test_file_costs_only_the_test_figures(greenseg: Command, tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", 3, seed=2, test=1)
    (mask,) = (tmp_path / "data" / "test_data" / "masks").iterdir()
    mask.write_bytes(mask.read_bytes()[:200])
    done = greenseg("train", "--data", tmp_path / "data", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "no figures of the test part" in done.stdout + done.stderr
    _, record = only_record(tmp_path / "runs")
    assert record.status == "finished"
    assert record.test.dice is None
    assert record.test.problem
    assert mask.name in record.test.problem


def test_without_the_best_network_the_figures_of_its_epochs_stay(
    with_test_part: Path, greenseg: Command, tmp_path: Path
) -> None:
    """A run that was interrupted at its end, and whose best.ckpt was lost before it continued."""
    base = dict(zip((name[2:].replace("-", "_") for name in SMALL[::2]), map(yamlfile.parse, SMALL[1::2]), strict=True))
    sweep = {"name": "train", "base": base | {"data": str(with_test_part)}, "keep": "all"}
    (tmp_path / "train.yaml").write_text(json.dumps(sweep))
    assert greenseg("sweep", "train.yaml").returncode == 0
    run, record = only_record(tmp_path / "runs")
    record.status = "running"
    RunDirectory(run).write_record(record)
    RunDirectory(run).best_checkpoint.write_bytes(b"damaged")
    done = greenseg("sweep", "train.yaml")
    assert done.returncode == 0, done.stderr
    assert "no figures in the pixels of the files" in done.stdout + done.stderr
    _, record = only_record(tmp_path / "runs")
    assert record.status == "finished"
    assert record.metrics.on_grid
    assert record.metrics.dice == record.metrics.epoch_dice
