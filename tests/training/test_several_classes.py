"""Runs of several classes and channels: they learn, and go on; a class counts where it is; nothing counts elsewhere."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from greenseg.classes import BINARY, IGNORED
from greenseg.data import cache
from greenseg.data.loader import SliceDataset
from greenseg.inference import subject as inference
from greenseg.inference.of_run import RunPredictor
from greenseg.report.reader import read_runs
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.training import events, probe
from greenseg.training.figures import predictor_of, validate
from greenseg.training.module import Segmentation
from greenseg.training.predictions import predicted
from greenseg.training.task import Task
from tests.metrics.reference import dice_of, hd95_of, record_of
from tests.runs import lines_of, recorded
from tests.training.test_resume import Photographer, different
from tests.training.tissue import CLASSES, tissue, train_on


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run is a process of its own, and sets what holds for all of it."""
    monkeypatch.setenv(events.THREADS, "1")
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)


def settings_of(phantom: Path, **values: Any) -> Settings:
    base = {
        "model": "mobilenetv3-tiny-unet", "data": str(phantom), "image_size": 32, "spacing": 8, "epochs": 8,
        "accelerator": "cpu", "batch_size": 8, "augment": "none", "lr": 0.01,
    }  # fmt: skip
    return Settings.of(base | values)


def predictor_for(run: RunDirectory, settings: Settings, slices: cache.Slices) -> RunPredictor:
    """The network of the best epoch, as the run had it."""
    record = recorded(run)
    best, precision = record["metrics"]["best_epoch"], record["ran"]["precision"]
    return predictor_of(run, settings, slices, best, torch.device("cpu"), precision)


def best_masks(run: RunDirectory, slices: cache.Slices) -> np.ndarray:
    """The classes on the grid that the network of the best epoch predicts for the validation subjects."""
    predictor = predictor_for(run, Settings.of(recorded(run)["settings"]), slices)
    return np.concatenate(
        [
            inference.classes_of(inference.predict(predictor, slices.images[s["first"] :][: s["slices"]], 8))
            for s in slices.subjects("validation")
        ]
    )


def test_a_run_learns_all_classes_and_records_each(phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom)
    slices = tissue(settings, tmp_path / "slices")
    run = train_on(slices, settings, tmp_path / "run")
    record = recorded(run)
    metrics = record["metrics"]
    assert metrics["dice"] > 0.7
    assert list(metrics["classes"]) == list(CLASSES.names)
    assert min(scores["dice"] for scores in metrics["classes"].values()) > 0.5, "each of them"
    assert record["data"]["classes"] == {"csf": "1", "grey_matter": "2", "white 2%": "3+4"}
    assert record["data"]["channels"] == 2
    best = lines_of(run)[metrics["best_epoch"]]
    assert {name: scores["dice"] for name, scores in best["classes"].items()} == {
        name: scores["dice"] for name, scores in metrics["classes"].items()
    }

    # All values again, from the predictions alone.
    predictions, validation = best_masks(run, slices), slices.subjects("validation")
    for number, name in enumerate(CLASSES.names, 1):
        scores, start = metrics["classes"][name], 0
        for subject in validation:
            rows = slice(subject["first"], subject["first"] + subject["slices"])
            truth = slices.masks[rows]
            known = truth != IGNORED
            mine = (predictions[start : start + subject["slices"]] == number) & known
            start += subject["slices"]
            (volume,) = subject["volumes"]
            spacing = (volume["distance"], settings.spacing, settings.spacing)
            assert scores["volume_dice"][subject["name"]] == pytest.approx(dice_of(mine, truth == number))
            assert scores["volume_hd95"][subject["name"]] == pytest.approx(hd95_of(mine, truth == number, spacing))
        for mean, of_subjects in (("dice", "volume_dice"), ("hd95", "volume_hd95")):
            assert scores[mean] == pytest.approx(fmean(scores[of_subjects].values()))
    for score in ("dice", "iou", "hd95"):
        assert metrics[score] == pytest.approx(fmean(scores[score] for scores in metrics["classes"].values()))
    for score in ("volume_dice", "volume_hd95"):
        for name, value in metrics[score].items():
            assert value == pytest.approx(fmean(scores[score][name] for scores in metrics["classes"].values()))


def test_the_figures_of_a_run_are_those_of_the_files_and_its_epochs_those_of_the_grid(
    phantom: Path, tmp_path: Path
) -> None:
    """Of phantoms whose pixels are not those of the grid, which cuts some of them off."""
    settings = settings_of(phantom, epochs=4, spacing=2)
    slices = cache.prepare(settings)
    with pytest.MonkeyPatch.context() as patch:
        photographer = Photographer(patch, tmp_path / "copies")
        run = train_on(slices, settings, tmp_path / "run")
    record, lines = recorded(run), lines_of(run)
    metrics, found, best = record["metrics"], record["validation"], record["metrics"]["best_epoch"]
    assert found == json.loads(json.dumps(validate(predictor_for(run, settings, slices), slices, best, 8).given()))
    for score in ("dice", "iou", "hd95", "volume_dice", "volume_hd95"):
        assert metrics[score] == found[score]
    assert metrics["on_grid"] is False
    assert metrics["epoch_dice"] == lines[best]["dice"] == max(line["dice"] for line in lines)
    assert metrics["last_dice"] == lines[-1]["dice"]

    # What the grid holds, at its best, is less than what the files hold.
    rows = [row for s in slices.subjects("validation") for row in range(s["first"], s["first"] + s["slices"])]
    assert 0.2 < record_of(slices, slices.masks[rows], 0)["dice"] < 0.99

    (killed,), _ = read_runs([RunDirectory(photographer.copies["epoch 1 last.ckpt"])])
    assert (killed.metrics.on_grid, killed.metrics.dice) == (True, max(line["dice"] for line in lines[:2]))


@pytest.mark.parametrize("values", [{}, {"loss": "lovasz", "precision": "bf16-mixed", "augment": "strong"}])
def test_a_stopped_run_ends_as_if_undisturbed(values: dict[str, Any], phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom, epochs=3, batch_size=32, model="contextnet", width=0.25, **values)
    slices = tissue(settings, tmp_path / "slices")
    with pytest.MonkeyPatch.context() as patch:
        photographer = Photographer(patch, tmp_path / "copies")
        whole = train_on(slices, settings, tmp_path / "whole")
    resumed = train_on(slices, settings, photographer.copies["epoch 1 last.ckpt"])
    assert different(whole, resumed) == []
    assert [line["classes"] for line in lines_of(resumed)] == [line["classes"] for line in lines_of(whole)]
    assert recorded(resumed)["metrics"]["classes"] == recorded(whole)["metrics"]["classes"]


def test_a_single_class_may_have_pixels_without_annotation_and_several_channels(phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom)
    slices = tissue(settings, tmp_path / "slices", classes=BINARY)
    run = train_on(slices, settings, tmp_path / "run")
    record = recorded(run)
    assert record["metrics"]["dice"] > 0.7
    assert record["data"]["channels"] == 2
    assert "classes" not in record["metrics"].keys() | record["validation"].keys() | lines_of(run)[0].keys()
    predictions, scores = best_masks(run, slices), []
    rows = [row for s in slices.subjects("validation") for row in range(s["first"], s["first"] + s["slices"])]
    truth, subjects = slices.masks[rows], slices.subjects("validation")
    ends = np.cumsum([subject["slices"] for subject in subjects])
    for mine, true in zip(np.split(predictions, ends[:-1]), np.split(truth, ends[:-1]), strict=True):
        scores.append(dice_of((mine == 1) & (true != IGNORED), true == 1))
    assert list(record["metrics"]["volume_dice"].values()) == pytest.approx(scores)


def test_a_class_that_no_validation_subject_has_is_left_out(phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom, epochs=2)
    run = train_on(tissue(settings, tmp_path / "slices", absent=2), settings, tmp_path / "run")
    metrics = recorded(run)["metrics"]
    absent = metrics["classes"].pop("grey_matter")
    assert absent["dice"] is absent["iou"] is absent["hd95"] is None
    assert {*absent["volume_dice"].values(), *absent["volume_hd95"].values()} == {None}
    for score in ("dice", "iou", "hd95"):
        assert metrics[score] == pytest.approx(fmean(scores[score] for scores in metrics["classes"].values()))


def test_an_epoch_without_any_dice_is_no_best_epoch(phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom, epochs=1)
    slices = tissue(settings, tmp_path / "slices")
    masks = np.fromfile(slices.folder / "masks.u8", np.uint8).reshape(slices.index["shape"])
    for subject in slices.subjects("validation"):
        masks[subject["first"] : subject["first"] + subject["slices"]] = 0
    masks.tofile(slices.folder / "masks.u8")
    run = train_on(slices, settings, tmp_path / "run")
    assert lines_of(run)[0]["dice"] is None
    assert "dice" not in recorded(run)["metrics"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_measure_all_classes_as_one_does(strategy: str, phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom, model="contextnet", width=0.25, epochs=2, devices=2, strategy=strategy)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    written = json.dumps(settings.resolved())
    done = subprocess.run(
        [*torchrun, "-m", "tests.training.tissue", written, str(tmp_path)],
        cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = RunDirectory(tmp_path / "run")
    record = recorded(run)
    assert (record["status"], record["ran"]["devices"]) == ("finished", 2)

    slices = tissue(settings, tmp_path / "slices")
    validation = SliceDataset(slices, "validation")
    module = Segmentation(settings, validation.subjects, Task.of(slices)).eval()
    module.load_state_dict(torch.load(run.best_checkpoint, weights_only=True)["state_dict"])
    with torch.no_grad():
        for position in range(0, len(validation), 8):
            batch = validation[list(range(position, min(position + 8, len(validation))))]
            module.overlap.update(predicted(module(batch["image"])), batch["mask"], batch["subject"])
    scores = module.overlap.compute()
    assert record["metrics"]["dice"] == pytest.approx(float(scores["dice"]), abs=1e-6)
    for name, dice in zip(CLASSES.names, scores["class_dice"].tolist(), strict=True):
        assert record["metrics"]["classes"][name]["dice"] == pytest.approx(dice, abs=1e-6)


def test_auto_measures_with_all_channels_and_classes(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_METER_SECONDS", 0.05)
    monkeypatch.setattr(probe, "_TRY_SECONDS", 0.05)
    values = {"batch_size": "auto", "lr": "auto", "workers": "auto", "epochs": 1}
    settings = settings_of(phantom, model="contextnet", width=0.25, **values)
    record = recorded(train_on(tissue(settings, tmp_path / "slices"), settings, tmp_path / "run"))
    assert record["status"] == "finished"
    assert {"batch_size", "lr", "workers"} <= record["probes"].keys()


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "sophia", "loss": "dice_ce"}, {"optimizer": "sophia", "loss": "tversky"},
        {"gradient_checkpointing": True}, {"channels_last": False}, {"freeze_encoder": 1}, {"loss": "focal"},
    ],
)  # fmt: skip
def test_what_changes_a_network_goes_with_classes(values: dict[str, Any], phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom, epochs=1, batch_size=32, **values)
    record = recorded(train_on(tissue(settings, tmp_path / "slices"), settings, tmp_path / "run"))
    assert record["status"] == "finished"
    assert record["metrics"]["dice"] > 0
