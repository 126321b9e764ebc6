"""`keep` in a sweep file, and what is left on disk after `greenseg train` and `greenseg sweep`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenseg.runs.directory import find_runs
from tests.conftest import SMALL, Command
from tests.runs import record, recorded
from tests.runs.test_disk import FILES, files, with_files

BASE = {
    "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 32, "epochs": 1,
    "accelerator": "cpu",
}  # fmt: skip


def sweep_file(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_without_networks_the_reports_stay_and_predict_says_why(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    base = BASE | {"data": str(phantom)}
    measure = {"seconds": 0.2, "accelerator": "cpu"}
    file = sweep_file(tmp_path, {"base": base, "seeds": [0, 1], "keep": "none", "measure": measure})
    done = greenseg("sweep", file, "--json")
    assert done.returncode == 0, done.stderr
    runs = find_runs([tmp_path / "runs"])
    assert [(files(run), recorded(run)["deleted"]) for run in runs] == [(set(), "keep: none")] * 2
    assert all(recorded(run)["measured"]["bytes"] for run in runs), "measured first"
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["freed_bytes"] > 3 * sum(recorded(run)["measured"]["bytes"] for run in runs)

    before = [recorded(run) for run in runs]
    again = greenseg("sweep", file)
    assert again.returncode == 0, again.stderr
    assert "2 finished), 0 to do" in again.stdout
    assert "J/volume" in greenseg("report", "runs", COLUMNS="200").stdout
    assert [recorded(run) for run in runs] == before

    path = runs[0].path.relative_to(tmp_path)
    refused = greenseg("predict", path, "-i", phantom, "-o", "masks")
    assert refused.returncode == 2
    assert f"{path}: its network was deleted on purpose (keep: none)" in refused.stderr
    command = refused.stderr.rpartition("train the run again: greenseg ")[2].split()
    assert greenseg("measure", path, "--again").returncode == 2

    # A run that would compress it is refused before anything starts.
    child = sweep_file(tmp_path, {"base": base | {"prune": 0.5, "finetune_epochs": 1}, "seeds": [0, 1]})
    refused = greenseg("sweep", child)
    assert refused.returncode == 2
    assert refused.stderr.count("keep: none") == 2
    config = ["--config", path / "config.yaml", "--prune", "0.5", "--finetune-epochs", "1"]
    assert "keep: none" in greenseg("train", *config).stderr
    assert [recorded(run) for run in find_runs([tmp_path / "runs"])] == before

    back = greenseg(*command)
    assert back.returncode == 0, back.stderr
    assert files(runs[0]) == {"best.ckpt"}
    assert "deleted" not in recorded(runs[0])
    assert recorded(runs[0])["metrics"]["dice"] == before[0]["metrics"]["dice"]


@pytest.mark.parametrize("keep", ["best", "front", "none", "all", None])
def test_what_finished_runs_of_a_sweep_keep(keep: str | None, greenseg: Command, tmp_path: Path) -> None:
    good = {"lr": 0.001}
    runs = {
        "good": with_files(tmp_path / "runs" / "s", record(good, dice=0.9)),
        "good, less so": with_files(tmp_path / "runs" / "s", record(good | {"seed": 1}, dice=0.7)),
        "beaten": with_files(tmp_path / "runs" / "s", record({"lr": 0.002}, dice=0.6)),
        "beaten, too": with_files(tmp_path / "runs" / "s", record({"lr": 0.002, "seed": 1}, dice=0.5)),
        "elsewhere": with_files(tmp_path / "runs" / "other", record({"lr": 0.003}, dice=0.4)),
    }
    content = {"grid": {"lr": [0.001, 0.002, 0.003]}, "seeds": [0, 1], "keep": keep}
    failed = with_files(tmp_path / "runs" / "s", record({"lr": 0.003, "seed": 1}, "failed", error="ValueError"))
    done = greenseg("sweep", sweep_file(tmp_path, {k: v for k, v in content.items() if v is not None}))
    assert done.returncode == 1, done.stderr
    assert "0 to do" in done.stdout
    whole, best, none = {*FILES}, {*FILES} - {"last.ckpt"}, {"shape.json"}
    kept = {name: files(run) for name, run in runs.items()}
    assert (kept.pop("elsewhere"), files(failed)) == (whole, whole)
    expected = {"best": [best] * 4, "front": [best, best, none, none], "none": [none] * 4, "all": [whole] * 4}
    assert [*kept.values()] == expected[keep or "best"]
    assert ("Freed" in done.stdout) == (keep != "all")


def test_networks_stay_until_the_sweep_is_done(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    base = BASE | {"data": str(phantom)}
    file = sweep_file(tmp_path, {"base": base, "seeds": [0, 1], "keep": "none", "max_energy": 0.001})
    assert greenseg("sweep", file).returncode == 3
    (run,) = (run for run in find_runs([tmp_path / "runs"]) if run.status() == "finished")
    assert files(run) == {"best.ckpt"}


def test_a_single_run_has_its_network_alone(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    assert greenseg("train", "--data", phantom, *SMALL).returncode == 0
    (run,) = find_runs([tmp_path / "runs"])
    assert files(run) == {"best.ckpt"}
