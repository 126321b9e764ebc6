"""Optimizers and schedules: each trains, and goes on after an interruption as if there had been none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from greenseg.data import cache
from greenseg.data.loader import SliceDataset, ValidationBatches
from greenseg.energy import EnergyMeter
from greenseg.errors import UserError
from greenseg.machine import preflight
from greenseg.metrics.overlap import VolumeOverlap
from greenseg.models import network
from greenseg.optimizers import OPTIMIZERS as KNOWN
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings, choices, problems_of
from greenseg.training import optimization
from greenseg.training.checkpoints import Checkpoints
from greenseg.training.run import Interrupted, train
from tests.runs import lines_of, recorded

LR = {"sgd": 0.1, "lion": 3e-3, "muon": 0.02, "sophia": 0.5, "schedule-free-adamw": 0.01, "adafactor": 0.01}
OPTIMIZERS = [name for name in choices("optimizer") if name != "adamw-8bit"]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A run is a process of its own, and sets what holds for all of it."""
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


def settings_of(phantom: Path, **values: Any) -> Settings:
    base = {
        "model": "contextnet", "width": 0.25, "data": str(phantom), "image_size": 32, "spacing": 8, "epochs": 3,
        "accelerator": "cpu", "augment": "none", "batch_size": 16,
    }  # fmt: skip
    return Settings.of(base | values)


def run_of(settings: Settings, folder: Path) -> RunDirectory:
    run = RunDirectory(folder / settings.slug)
    run.create(settings)
    train(run, settings, EnergyMeter(), rank=0)
    return run


def metrics(run: RunDirectory) -> dict[str, Any]:
    written = json.loads((run.path / "run.json").read_text())
    assert written["status"] == "finished"
    return dict(written["metrics"])


def chosen(optimizer: str) -> dict[str, Any]:
    schedule = "constant" if optimizer == "schedule-free-adamw" else "onecycle"
    return {"optimizer": optimizer, "schedule": schedule, "lr": LR.get(optimizer, 0.01)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(optimizer: str, phantom: Path, tmp_path: Path) -> None:
    run = run_of(settings_of(phantom, **chosen(optimizer)), tmp_path)
    losses = [line["train_loss"] for line in lines_of(run)]
    assert losses[-1] < 0.95 * losses[0]
    weights = torch.load(run.best_checkpoint, weights_only=True)["state_dict"]
    (state,) = torch.load(run.last_checkpoint, weights_only=True)["optimizer_states"]
    assert values(state) / values(weights) == pytest.approx(KNOWN[optimizer].states, abs=0.3)


def values(of: Any) -> int:
    """Number of values in all tensors."""
    if isinstance(of, dict):
        return sum(map(values, of.values()))
    return of.numel() if isinstance(of, torch.Tensor) else 0


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_one_pass_over_all_parameters_takes_the_same_steps(name: str, phantom: Path) -> None:
    settings = settings_of(phantom, **chosen(name))
    networks = []
    for fused in (True, False):
        torch.manual_seed(0)
        networks.append(network.build(settings))
        steps = optimization.optimizer(networks[-1], settings, steps=3)
        assert all(group["fused"] for group in steps.param_groups)
        for group in steps.param_groups:
            group["fused"] = fused
        for _ in range(3):
            for parameter in networks[-1].parameters():
                parameter.grad = torch.randn_like(parameter)
            steps.step()
    for ours, plain in zip(*(net.parameters() for net in networks), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-5)


def test_a_deterministic_run_does_not_fill_memory_in_vain(phantom: Path, tmp_path: Path) -> None:
    run_of(settings_of(phantom, epochs=1), tmp_path)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


@pytest.mark.parametrize("optimizer", ["schedule-free-adamw", "sophia"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    optimizer: str, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(phantom, **chosen(optimizer))
    whole = run_of(settings, tmp_path / "whole")

    def interrupt(self: Checkpoints, trainer: Any, module: Any) -> None:
        self._save(trainer, "last.ckpt", weights_only=False)
        raise Interrupted("SIGINT")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_epoch_end", interrupt)
        with pytest.raises(Interrupted):
            run_of(settings, tmp_path / "parts")
    parts = run_of(settings, tmp_path / "parts")
    assert [line["attempt"] for line in lines_of(parts)] == [0, 1, 1]
    for one, other in zip(lines_of(whole), lines_of(parts), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        assert other["dice"] == pytest.approx(one["dice"], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["schedule-free-adamw", "adamw"])
def test_the_best_network_is_the_one_that_was_validated(optimizer: str, phantom: Path, tmp_path: Path) -> None:
    settings = settings_of(phantom, **chosen(optimizer))
    run = run_of(settings, tmp_path)
    weights = torch.load(run.best_checkpoint, weights_only=True)["state_dict"]
    net = network.build(settings)
    net.load_state_dict({k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")})
    net.eval()
    validation = SliceDataset(cache.prepare(settings), "validation")
    overlap = VolumeOverlap(validation.subjects)
    with torch.no_grad():
        for positions in ValidationBatches(len(validation), 8):
            batch = validation[positions]
            overlap.update(net(batch["image"]) > 0, batch["mask"], batch["subject"])
    assert float(overlap.compute()["dice"]) == pytest.approx(metrics(run)["epoch_dice"], abs=1e-6)


@pytest.mark.parametrize("schedule", choices("schedule"))
def test_every_schedule_trains(schedule: str, phantom: Path, tmp_path: Path) -> None:
    for optimizer in ("sgd", "adafactor"):  # with and without a momentum to cycle
        run_of(settings_of(phantom, optimizer=optimizer, schedule=schedule, epochs=2), tmp_path)


def test_accumulated_batches_are_one_larger_batch(phantom: Path, tmp_path: Path) -> None:
    """Without batch normalisation and dropout it would be exact; here the numbers of steps tell."""
    steps, taken = {}, {}
    for accumulate in (1, 3, 1000):
        run = run_of(settings_of(phantom, accumulate=accumulate, epochs=1), tmp_path)
        steps[accumulate] = torch.load(run.last_checkpoint, weights_only=True)["global_step"]
        taken[accumulate] = recorded(run)["ran"]["effective_batch_size"]
    assert steps[3] == -(-steps[1] // 3)
    assert steps[1000] == 1
    slices = recorded(run)["data"]["slices"]["train"]
    assert (taken[3], taken[1000]) == (3 * taken[1], slices), "an epoch's end is the end of a step"


def test_a_clipped_gradient_changes_little(phantom: Path, tmp_path: Path) -> None:
    losses = {}
    for clip in (0.0, 1e-6):
        values = {"optimizer": "sgd", "schedule": "constant", "lr": 0.1, "gradient_clip": clip}
        losses[clip] = [line["train_loss"] for line in lines_of(run_of(settings_of(phantom, **values), tmp_path))]
    assert losses[1e-6][-1] > losses[0.0][-1]


def test_gradient_checkpointing_changes_no_result(phantom: Path, tmp_path: Path) -> None:
    values = {"model": "mobilenetv3-tiny-unet", "width": 1.0, "epochs": 2}
    plain = run_of(settings_of(phantom, **values), tmp_path)
    forgetful = run_of(settings_of(phantom, gradient_checkpointing=True, **values), tmp_path)
    assert [line["train_loss"] for line in lines_of(forgetful)] == [line["train_loss"] for line in lines_of(plain)]
    assert metrics(forgetful)["volume_dice"] == metrics(plain)["volume_dice"]
    one, other = (torch.load(run.best_checkpoint, weights_only=True)["state_dict"] for run in (plain, forgetful))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_stops_early_and_tells_what_came_after_its_best(phantom: Path, tmp_path: Path) -> None:
    run = run_of(settings_of(phantom, lr=1e-9, weight_decay=0.0, epochs=9, early_stopping=2), tmp_path)
    found = metrics(run)
    assert found["epochs"] == len(lines_of(run)) < 9
    assert found["epochs"] == found["best_epoch"] + 3
    wasted = [
        sum(line[phase]["joules"]["cpu"]["estimate"] for phase in ("train", "validation")) for line in lines_of(run)
    ]
    assert found["joules_after_best"] >= sum(wasted[found["best_epoch"] + 1 :]) > 0


def test_a_frozen_encoder_learns_from_the_epoch_on_in_which_it_is_thawed(phantom: Path, tmp_path: Path) -> None:
    weights, losses = {}, {}
    for frozen in (0, 1, 2):
        settings = settings_of(phantom, model="mobilenetv3-tiny-unet", width=1.0, epochs=2, freeze_encoder=frozen)
        run = run_of(settings, tmp_path)
        weights[frozen] = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
        losses[frozen] = [line["train_loss"] for line in lines_of(run)]
    pl.seed_everything(0, verbose=False)
    untrained = network.build(settings).state_dict()
    encoder = [name for name in untrained if name.startswith("encoder.")]
    assert all(torch.equal(weights[2][f"network.{name}"], untrained[name]) for name in encoder)
    assert not all(torch.equal(weights[0][f"network.{name}"], untrained[name]) for name in encoder)
    assert losses[1][0] == losses[2][0] != losses[0][0]
    assert losses[1][1] != losses[2][1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "schedule-free-adamw"}, ("optimizer: schedule-free-adamw ", " schedule: constant")),
        ({"optimizer": "sophia", "precision": "16-mixed"}, ("optimizer: sophia ", " with precision: 16-mixed")),
        ({"optimizer": "sophia", "compile": True}, ("optimizer: sophia ", " with compile: true")),
        ({"optimizer": "sophia", "devices": 2}, ("optimizer: sophia ", " with devices: more than 1")),
        ({"gradient_checkpointing": True, "compile": True}, ("gradient_checkpointing: ", " with compile: true")),
        ({"gradient_checkpointing": True, "optimizer": "sophia"}, ("gradient_checkpointing: ", " optimizer: sophia")),
        ({"freeze_encoder": 1, "devices": 2}, ("freeze_encoder: ", " with devices: more than 1")),
        ({"freeze_encoder": 1, "model": "enet"}, ("freeze_encoder: enet ", " no encoder to freeze")),
    ],
)
def test_what_an_optimizer_does_not_go_with(values: dict[str, Any], message: tuple[str, str]) -> None:
    (problem,) = problems_of(values)
    assert str(problem).startswith(message[0])
    assert str(problem).endswith(message[1])


def test_8_bit_adam_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = problems_of({"optimizer": "adamw-8bit"})
    assert "pip install 'greenseg[8bit]'" in str(problem)


def test_8_bit_adam_without_a_gpu_is_refused_before_anything_starts() -> None:
    run = Settings.model_validate({"optimizer": "adamw-8bit", "accelerator": "cpu"})
    with pytest.raises(UserError, match="adamw-8bit: works on CUDA, not on CPUs"):
        preflight.check(run)
