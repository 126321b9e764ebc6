"""`greenseg train`, as a user runs it: real Trainer, real files, real signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import warm
from tests.conftest import SMALL, Command


def only_run(folder: Path) -> Path:
    (config,) = folder.rglob("config.yaml")
    return config.parent


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]


def test_train_records_what_was_asked_what_ran_and_what_it_cost(
    greenseg: Command, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))  # else other tests may have prepared the slices
    arguments = ["train", "--data", phantom, *SMALL, "--precision", "16-mixed"]
    first = greenseg(*arguments)
    assert first.returncode == 0, first.stderr
    for text in ("Dice", "IoU", "cpu energy", "dram energy", "source: estimate", "parameters", "2,197,969"):
        assert text in first.stdout
    assert "used precision bf16-mixed, not 16-mixed" in first.stdout

    run = only_run(tmp_path / "runs")
    written = record(run)
    assert written["status"] == "finished"
    assert written["settings"]["precision"] == "16-mixed"
    assert written["ran"]["precision"] == "bf16-mixed"
    assert written["network"]["parameters"] == 2_197_969
    assert written["energy"]["total"]["joules"]["cpu"]["estimate"] > 0
    assert written["energy"]["total"]["joules"]["dram"]["estimate"] > 0
    assert written["data"]["preparation"]["joules"]["cpu"]["estimate"] > 0
    assert [line["epoch"] for line in epochs(run)] == [0, 1]
    assert all(
        line[phase]["joules"]["cpu"]["estimate"] > 0 for line in epochs(run) for phase in ("train", "validation")
    )
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt"}
    assert "epoch 2/2" in (run / "run.log").read_text()

    # Phases follow each other without gaps: they add up to the time from start to end.
    phases = written["energy"]["phases"]
    assert set(phases) >= {"startup", "preparation", "train", "validation", "other"}
    (attempt,) = written["attempts"]
    assert attempt["check"]["ok"], "the phases add up to one window over all of them, within 1 %"
    assert set(attempt["check"]["difference"]) == {"seconds", "cpu"}
    assert sum(phase["seconds"] for phase in phases.values()) == pytest.approx(written["metrics"]["seconds"])

    again = greenseg(*arguments)
    assert again.returncode == 0
    assert "Already trained" in again.stdout
    assert record(run) == written

    from_config = greenseg("train", "--config", run / "config.yaml")
    assert "Already trained" in from_config.stdout, "config.yaml is the same configuration"

    priced = greenseg(*arguments, "--price-per-kwh", "0.5", "--carbon-intensity", "100", "--pue", "1.5")
    assert "Already trained" in priced.stdout, "what is accounted for is not what is trained"
    kwh = written["metrics"]["joules"] / 3.6e6
    assert record(run)["metrics"]["cost"]["price"] == pytest.approx(kwh * 1.5 * 0.5)
    assert record(run)["metrics"]["co2e"]["grams"] == pytest.approx(kwh * 1.5 * 100)
    assert "g CO2e" in priced.stdout

    elsewhere = greenseg(*arguments, "--out", "elsewhere")
    assert elsewhere.returncode == 0
    repeated = record(only_run(tmp_path / "elsewhere"))
    assert set(written["metrics"]["volume_hd95"]) == set(written["metrics"]["volume_dice"])
    for metric in ("dice", "iou", "volume_dice", "hd95", "volume_hd95", "last_dice"):
        assert repeated["metrics"][metric] == written["metrics"][metric], "same configuration, same seed, same metrics"

    retrained = greenseg(*arguments, "--again")
    assert retrained.returncode == 0, retrained.stderr
    assert len(record(run)["attempts"]) == 1, "what was there before is forgotten"
    assert (run / "run.log").read_text().count("epoch 2/2") == 1, "and what is printed now is kept"

    table = greenseg("report", "runs", "elsewhere")
    assert table.returncode == 0
    assert "16-mixed → bf16-mixed" in table.stdout
    assert "estimate" in table.stdout


def start(tmp_path: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    return warm.Popen(
        [sys.executable, "-m", "greenseg", *map(str, arguments)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_epochs(folder: Path, number: int) -> Path:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for file in folder.rglob("epochs.jsonl"):
            if file.read_text().count("\n") >= number:
                return file.parent
        time.sleep(0.02)
    raise TimeoutError(f"no {number} epochs in {folder}")


@pytest.fixture(scope="module")
def undisturbed(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    """Arguments of a training, and the record of one that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    arguments = ["train", "--data", str(phantom), *SMALL, "--epochs", "8"]
    running = start(folder, *arguments)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 0, output
    return arguments, record(only_run(folder))


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_a_stopped_run_goes_on_and_ends_as_if_undisturbed(
    how: str, greenseg: Command, undisturbed: tuple[list[str], dict[str, Any]], tmp_path: Path
) -> None:
    arguments, expected = undisturbed
    running = start(tmp_path, *arguments)
    run = wait_for_epochs(tmp_path / "runs", 2)
    if how == "interrupt":
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=600)
        assert running.returncode == 130, output
        assert "the same command continues" in output
        assert "Traceback" not in output
        assert record(run)["status"] == "interrupted"
    else:
        running.kill()
        os.kill(record(run)["attempts"][-1]["pid"], signal.SIGKILL)
        running.communicate(timeout=600)
    before = epochs(run)
    assert 2 <= len(before) < 8

    resumed = greenseg(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "Continuing" in resumed.stdout
    after = record(run)
    assert after["status"] == "finished"
    assert len(after["attempts"]) == 2
    assert after["attempts"][0]["status"] == ("interrupted" if how == "interrupt" else "killed")
    assert sorted({line["epoch"] for line in epochs(run)}) == list(range(8))
    # Nothing that was spent is forgotten: the total is that of both attempts.
    spent = [
        sum(j for phase in attempt["energy"].values() for by in phase["joules"].values() for j in by.values())
        for attempt in after["attempts"]
    ]
    assert min(spent) > 0
    assert after["metrics"]["joules"] == pytest.approx(sum(spent))

    for metric in ("dice", "last_dice", "best_epoch", "hd95"):
        assert after["metrics"][metric] == expected["metrics"][metric]


def test_a_run_that_is_killed_is_reported_with_its_reason(phantom: Path, tmp_path: Path) -> None:
    running = start(tmp_path, "train", "--data", phantom, *SMALL, "--epochs", "200")
    run = wait_for_epochs(tmp_path / "runs", 2)
    os.kill(record(run)["attempts"][-1]["pid"], signal.SIGKILL)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 1
    assert "killed by SIGKILL" in output
    killed = record(run)
    assert killed["status"] == "failed"
    assert killed["metrics"]["joules"] > 0, "what its finished epochs cost is kept"


@pytest.mark.parametrize("how", ["its terminal is closed", "its launcher is killed"])
def test_no_run_goes_on_unseen(how: str, greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", str(phantom), *SMALL, "--model", "enet", "--epochs", "500"]
    running = start(tmp_path, *arguments)
    run = wait_for_epochs(tmp_path / "runs", 2)
    pid = record(run)["attempts"][-1]["pid"]
    if how == "its terminal is closed":
        again = greenseg(*arguments)
        assert again.returncode == 3
        assert f"Process {pid} on {socket.gethostname()} is training this run" in again.stderr
        for _ in range(2):  # by the kernel, and by the shell
            running.send_signal(signal.SIGHUP)
    else:
        running.kill()
    running.communicate(timeout=600)
    assert running.returncode == (130 if how == "its terminal is closed" else -signal.SIGKILL)
    deadline = time.monotonic() + 300
    while record(run)["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert record(run)["status"] == "interrupted", "so that the same command goes on"
    assert 2 <= len(epochs(run)) < 500
    assert (run / "run.log").read_text().count("UserWarning: max_unpooling2d") == 1, "what torch says at every step"


@pytest.mark.parametrize(("strategy", "ran"), [("ddp", "DDPStrategy"), ("fsdp", "ModelParallelStrategy")])
def test_two_processes_train_as_one_run_and_are_counted_once(
    strategy: str, ran: str, greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    sweep = {
        "base": {"data": str(phantom), "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "epochs": 2},
        "grid": {"strategy, devices, accelerator": [["auto", 1, "auto"], [strategy, 2, "cpu"]]},
    }
    (tmp_path / "ddp.yaml").write_text(yaml.safe_dump(sweep))
    one_core = {min(os.sched_getaffinity(0))}
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one_core)  # on one core, CPU seconds counted twice would exceed the clock
    try:
        done = greenseg("sweep", "ddp.yaml", **{warm.COLD: "greenseg.training"})
    finally:
        os.sched_setaffinity(0, everywhere)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {
        r["settings"]["devices"]: (path.parent, r) for path in tmp_path.rglob("run.json") for r in [record(path.parent)]
    }
    assert set(runs) == {1, 2}, "the second process never was a sweep of its own"
    folder, two = runs[2]
    assert two["ran"]["devices"] == 2
    assert two["ran"]["strategy"] == ran
    assert len(epochs(folder)) == 2
    cpu_seconds = {
        devices: r["energy"]["total"]["joules"]["cpu"]["estimate"] / r["energy_method"]["core_watts"][0]
        for devices, (_, r) in runs.items()
    }
    # The run's own process is forked with its modules, and the second one has to import them: that is counted, too.
    assert cpu_seconds[2] > 3 * cpu_seconds[1]
    assert cpu_seconds[2] < 1.05 * two["metrics"]["seconds"]

    # One process, given the network that two have trained, measures the same figures.
    script = f"""
import json, sys, torch, pytorch_lightning as pl
from pathlib import Path
from greenseg.settings import Settings
from greenseg.data import cache
from greenseg.data.loader import SliceDataset, ValidationBatches, loader
from greenseg.training.module import Segmentation
from greenseg.runs.directory import RunDirectory
from greenseg.training.figures import predictor_of, validate
settings = Settings.of(json.loads(sys.argv[1]))
slices = cache.prepare(settings)
data = SliceDataset(slices, "validation")
module = Segmentation(settings, data.subjects)
module.load_state_dict(torch.load({str(folder / "checkpoints" / "best.ckpt")!r}, weights_only=False)["state_dict"])
trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)
trainer.validate(module, loader(data, ValidationBatches(len(data), 8), 0, False), verbose=False)
run, best = RunDirectory(Path({str(folder)!r})), {two["metrics"]["best_epoch"]}
predictor = predictor_of(run, settings, slices, best, torch.device("cpu"), "32-true")
found = validate(predictor, slices, best, 8)
print(float(trainer.callback_metrics["dice"]), found.dice, found.hd95)
"""
    one = {**two["settings"], "devices": 1, "strategy": "auto"}
    alone = warm.run(
        [sys.executable, "-c", script, json.dumps(one)], capture_output=True, text=True, check=True, timeout=600
    )
    on_grid, dice, hd95 = map(float, alone.stdout.split()[-3:])
    assert on_grid == pytest.approx(two["metrics"]["epoch_dice"], abs=1e-6)
    assert dice == pytest.approx(two["metrics"]["dice"], abs=1e-6)
    assert hd95 == pytest.approx(two["metrics"]["hd95"])


def slices_in(cache: Path) -> list[Path]:
    """Whatever the cache holds of slices, whole or not; locks are empty files."""
    return sorted(path for path in (cache / "slices").glob("*") if path.suffix != ".lock")


def break_nothing(root: Path) -> None:
    shutil.rmtree(root)


def drop_a_mask(root: Path) -> None:
    next((root / "training_data" / "masks").iterdir()).unlink()


def shrink_a_mask(root: Path) -> None:
    import SimpleITK as sitk

    path = sorted((root / "training_data" / "masks").iterdir())[0]
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, 1:], str(path))


def cut_an_image(root: Path) -> None:
    path = sorted((root / "training_data" / "images").iterdir())[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite_an_image(root: Path) -> None:
    sorted((root / "training_data" / "images").iterdir())[0].write_bytes(b"not an image" * 50)


@pytest.mark.parametrize(
    ("damage", "named", "remedy"),
    [
        (break_nothing, "broken", "no such folder"),
        (drop_a_mask, "training_data/images", "image without mask; expected"),
        (shrink_a_mask, "training_data/masks", "differs from its image's"),
        (cut_an_image, "training_data/images", "damaged or truncated"),
        (overwrite_an_image, "training_data/images", "nor a known image"),
    ],
)
def test_wrong_data_is_one_message_and_writes_nothing(
    damage: Any, named: str, remedy: str, greenseg: Command, phantom: Path, tmp_path: Path, cache: Path
) -> None:
    data = tmp_path / "broken"
    shutil.copytree(phantom, data)
    damage(data)
    before = slices_in(cache)
    result = greenseg("train", "--data", "broken", *SMALL)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error:") == 1
    assert named in result.stderr
    assert remedy in result.stderr
    assert not (tmp_path / "runs").exists()
    assert slices_in(cache) == before


def test_settings_that_cannot_be_are_all_named_at_once(greenseg: Command, tmp_path: Path) -> None:
    result = greenseg("train", "--batch-size", "0", "--precision", "bf16-mixd", "--encoder", "resnet17")
    assert result.returncode == 2
    for text in ("batch_size", "did you mean 'bf16-mixed'?", "did you mean 'resnet18'?"):
        assert text in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_pretrained_weights_out_of_reach_are_said_at_once(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    waited = []

    def say_nothing(server: socket.socket) -> None:
        connection, _ = server.accept()
        began = time.monotonic()
        while connection.recv(4096):  # until the other side has enough of it
            pass
        waited.append(time.monotonic() - began)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub_thread = threading.Thread(target=say_nothing, args=(silent,), daemon=True)
        hub_thread.start()
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = greenseg(
            "train", "--data", phantom, "--encoder-weights", "imagenet", HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "hub"),
            HF_HUB_OFFLINE="0",
        )  # fmt: skip
        hub_thread.join(timeout=600)
    assert result.returncode == 2
    assert "mobilenet_v2" in result.stderr
    assert "leave out --encoder-weights" in result.stderr
    assert waited[0] < 5
    assert not (tmp_path / "runs").exists()
