"""`greenseg evaluate RUN --data DIR`: predictions of a trained network against the masks of a data set."""

import json
import shutil
from pathlib import Path

import pytest

from greenseg.runs.directory import RunDirectory
from tests.conftest import Command


def test_a_network_is_compared_with_the_masks_of_a_data_set(
    trained: Path, phantom: Path, greenseg: Command, tmp_path: Path
) -> None:
    done = greenseg("evaluate", trained, "--data", phantom, "--json", "s.json", "--montage", "m.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.png").exists()
    summary = json.loads((tmp_path / "s.json").read_text())
    cases = {case["name"]: case["metrics"]["1"] for case in summary["metric_per_case"]}
    assert {case["prediction_file"] for case in summary["metric_per_case"]} == {None}, "they are not kept"
    assert len(cases) == 5
    record = RunDirectory(trained).record()
    assert record
    assert record.data
    (validated,) = record.data.subjects["validation"]
    dice = record.metrics.volume_dice[validated]
    (of_volume,) = (case["Dice"] for name, case in cases.items() if validated in name)
    assert of_volume == pytest.approx(dice, abs=0.1), "on other pixels, and by probability instead of by class"
    assert "4 of 5 subjects trained this network" in done.stdout
    assert f"1 of 5 subjects chose its best epoch ({validated})" in done.stdout


def test_a_run_is_picked_from_a_sweep(trained: Path, phantom: Path, greenseg: Command) -> None:
    done = greenseg("evaluate", trained.parent, "--pick", "best", "--data", phantom)
    assert done.returncode == 0, done.stderr
    assert "Picked best: the only configuration" in done.stdout
    assert trained.name in done.stdout.replace("\n", "")


def test_wrong_combinations_are_refused(trained: Path, phantom: Path, greenseg: Command, tmp_path: Path) -> None:
    empty, gone = tmp_path / "empty", tmp_path / "gone"
    empty.mkdir()
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "checkpoints" / "best.ckpt").write_bytes(b"damaged")
    for arguments, text in (
        ((trained,), "name the reference masks"),
        ((trained, phantom, "--data", phantom), "give one of them"),
        ((trained, phantom, "--pick", "best"), "needs --data"),
        ((trained, "--data", phantom, "--labels", "1", "--allow-missing"), "--allow-missing has no effect"),
        ((gone, "--data", phantom), "no such run directory"),
        ((empty, "--data", phantom), "not a run directory"),
        ((trained.parent, "--data", phantom), "--pick"),
        ((trained.parent, "--data", phantom, "--pick", "bset"), "did you mean 'best'"),
        ((trained.parent, "--data", phantom, "--pick", "knee"), "no knee"),
        ((empty, "--data", phantom, "--pick", "best"), "no finished run"),
        ((copy, "--data", phantom), "damaged"),
        ((trained, "--data", gone), "no such folder"),
    ):
        refused = greenseg("evaluate", *arguments)
        assert (refused.returncode, refused.stdout) == (2, ""), arguments
        assert text in refused.stderr, (arguments, refused.stderr)
        assert "Traceback" not in refused.stderr
