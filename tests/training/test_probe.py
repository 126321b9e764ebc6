"""workers, batch_size, lr: auto"""

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.data import cache
from greenseg.data.loader import Batch, SliceDataset, TrainingBatches
from greenseg.energy import Energy, EnergyMeter
from greenseg.energy.reading import Reading
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.training import events, probe
from greenseg.training.module import Segmentation
from greenseg.training.run import train
from tests.conftest import SMALL, Command
from tests.runs import recorded
from tests.training.spawned import shapes


@pytest.fixture(scope="module")
def slices(phantom: Path) -> cache.Slices:
    return cache.prepare(Settings.of({"data": str(phantom), "image_size": 32, "spacing": 8.5}))


def chosen(slices: cache.Slices, seconds: dict[int, float], step: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """What is chosen where these are the seconds a batch, by number of workers."""
    settings = Settings.of({"model": "mobilenetv3-tiny-unet", "image_size": 32, "accelerator": "cpu", "batch_size": 8})
    monkeypatch.setattr(probe, "usable_cores", lambda: 4)
    monkeypatch.setattr(probe.Trial, "steps", lambda self, batch, seconds: (2, 2 * step))
    monkeypatch.setattr(probe, "_batch_seconds", lambda dataset, batches, number: seconds[number])
    data = SliceDataset(slices, "train")
    number, measured = probe.workers(settings, data)
    assert measured.step == step
    assert {int(n): s for n, s in measured.batch.items()}.items() <= seconds.items()
    return number


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({0: 0.001, 1: 9, 2: 9, 4: 9}, 0),  # not noticed in the training process: nothing else is tried
        ({0: 0.05, 1: 0.08, 2: 9, 4: 9}, 1),  # the fewest that keep up
        ({0: 0.5, 1: 0.4, 2: 0.09, 4: 0.01}, 2),
        ({0: 0.5, 1: 0.9, 2: 0.3, 4: 0.2}, 4),  # none keeps up: the fastest
        ({0: 0.15, 1: 0.9, 2: 0.9, 4: 0.9}, 0),  # handing over costs more than it gains
    ],
)
def test_the_fewest_that_keep_the_device_busy(
    seconds: dict[int, float], number: int, slices: cache.Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(slices, seconds, 0.1, monkeypatch) == number


def test_what_auto_chose_and_measured_is_recorded(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    metrics = []
    for workers in ("auto", "0"):
        result = greenseg("train", "--data", phantom, *SMALL, "--workers", workers)
        assert result.returncode == 0, result.stderr
    for path in (tmp_path / "runs" / "train").glob("*/run.json"):
        written = json.loads(path.read_text())
        metrics.append(written["metrics"]["volume_dice"])
        if written["settings"]["workers"] == "auto":
            assert written["ran"]["workers"] in (0, 1, 2, 4, 8, 16, 32)
            measured = written["probes"]["workers"]
            assert measured["step"] > 0
            assert str(written["ran"]["workers"]) in measured["batch"]
        else:
            assert written["ran"]["workers"] == 0
            assert written["probes"] == {}
    assert metrics[0] == metrics[1], "trying changes nothing of what is trained"


def test_slices_reach_a_process_that_was_spawned(slices: cache.Slices) -> None:
    data = SliceDataset(slices, "train")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=shapes, args=(data, queue))
    process.start()
    try:
        assert queue.get(timeout=600) == ((2, 1, 32, 32), float(data[[0, 1]]["image"].sum()))
    finally:
        process.join()
    loader = torch.utils.data.DataLoader(
        data,
        sampler=TrainingBatches(len(data), 8, seed=0),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    assert next(iter(loader))["image"].shape == (8, 1, 32, 32)


# ── batch_size: auto


class Joules:
    """A meter that knows what every step costs; stands for the machine's."""

    def __init__(self, of_a_step: dict[int, float]) -> None:
        self.of_a_step, self.used = of_a_step, 0.0

    def steps(self, trial: object, batch: Batch, seconds: float) -> tuple[int, float]:
        size = len(batch["image"])
        if size not in self.of_a_step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        count = 3 if seconds else 1
        self.used += self.of_a_step[size] * (count + 1)  # one more, before the clock starts
        return count, 0.1 * count

    def measure(self) -> Energy:
        used, self.used = self.used, 0.0
        return Energy(1.0, (Reading("gpu", used, "nvml", used, used),))


@pytest.mark.parametrize(
    ("of_a_step", "chosen", "tried"),
    [
        ({2: 10, 4: 12, 8: 16, 16: 40, 32: 90}, 8, [2, 4, 8, 16, 32]),  # not the largest that fits
        ({2: 10, 4: 12, 8: 16}, 8, [2, 4, 8, 16]),  # the largest that fits: 16 runs out of memory
        ({2: 10, 4: 40, 8: 90, 16: 1}, 2, [2, 4, 8]),  # twice worse: larger ones are given up
    ],
)
def test_the_batch_size_of_fewest_joules_a_slice(
    of_a_step: dict[int, float], chosen: int, tried: list[int], phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.of({"model": "mobilenetv3-tiny-unet", "image_size": 32, "accelerator": "cpu"})
    joules = Joules(of_a_step)
    slices = cache.prepare(Settings.of({"data": str(phantom), "image_size": 32, "spacing": 8.5}))
    data = SliceDataset(slices, "train")
    monkeypatch.setattr(type(data), "__len__", lambda self: 130)
    monkeypatch.setattr(probe.Trial, "steps", lambda self, batch, seconds: joules.steps(self, batch, seconds))
    size, table = probe.batch_size(settings, data, joules.measure)
    assert (size, [row.batch_size for row in table]) == (chosen, tried)
    for row in table:
        if row.batch_size in of_a_step:
            assert row.joules_per_slice == pytest.approx(of_a_step[row.batch_size] / row.batch_size)
        else:
            assert row.out_of_memory


def test_a_batch_size_that_was_tried_is_recorded_with_its_joules(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    result = greenseg("train", "--data", phantom, *SMALL, "--batch-size", "auto")
    assert result.returncode == 0, result.stderr
    assert "with the fewest joules per slice" in result.stdout
    (path,) = (tmp_path / "runs" / "train").glob("*/run.json")
    written = json.loads(path.read_text())
    tried = {row["batch_size"]: row["joules_per_slice"] for row in written["probes"]["batch_size"]}
    assert written["ran"]["batch_size"] == min(tried, key=tried.__getitem__)
    assert written["energy"]["phases"]["probe"]["seconds"] > 1


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("bf16-true", torch.bfloat16)]
)
def test_what_is_tried_has_the_precision_of_the_run(
    precision: str, dtype: torch.dtype, slices: cache.Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()

    def loss(self: Segmentation, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        seen.add(logits.dtype)
        return logits.float().mean()

    monkeypatch.setattr(Segmentation, "loss", loss)
    data = SliceDataset(slices, "train")
    run = Settings.of({"model": "contextnet", "image_size": 32, "accelerator": "cpu", "precision": precision})
    probe.Trial(run).steps(data[[0, 1]], 0)
    probe.learning_rate(run, data)
    assert seen == {dtype}


def how_it_computes() -> dict[str, Any]:
    return {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only_warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills_memory": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "threads": torch.get_num_threads(),
    }


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run is a process of its own, and sets what holds for all of it."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    before = how_it_computes()
    yield
    torch.set_float32_matmul_precision(before["matmul_precision"])
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["only_warns"])
    torch.utils.deterministic.fill_uninitialized_memory = before["fills_memory"]  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = before["cudnn_benchmark"]
    torch.set_num_threads(before["threads"])


@pytest.mark.usefixtures("_as_before")
def test_what_is_tried_computes_as_the_run_does(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_METER_SECONDS", 0.0)
    monkeypatch.setenv(events.THREADS, "1")
    torch.set_num_threads(2)
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    tried: list[dict[str, Any]] = []
    trained: list[dict[str, Any]] = []
    seeds: list[int] = []
    loss_of = Segmentation.loss_of

    def watched(self: Segmentation, batch: Batch) -> torch.Tensor:
        seeds.append(torch.initial_seed())
        (tried if self._trainer is None else trained).append(how_it_computes())
        return loss_of(self, batch)

    monkeypatch.setattr(Segmentation, "loss_of", watched)
    run = RunDirectory(tmp_path / "run")
    values = {"model": "contextnet", "width": 0.25, "data": str(phantom), "image_size": 32, "spacing": 8.5}
    auto = {"batch_size": "auto", "lr": "auto", "workers": "auto"}
    options = Settings.of(values | auto | {"accelerator": "cpu", "epochs": 1, "matmul_precision": "medium", "seed": 7})
    run.create(options)
    train(run, options, EnergyMeter(), rank=0)
    assert set(recorded(run)["probes"]) == set(auto)
    assert seeds[0] == 7, "before anything is tried, too"
    assert trained[0] == {
        "matmul_precision": "medium", "deterministic": True, "only_warns": True, "fills_memory": False,
        "cudnn_benchmark": False, "cublas": ":4096:8", "threads": 1,
    }  # fmt: skip
    assert all(how == trained[0] for how in [*tried, *trained])
    assert len(tried) > 40


# ── lr: auto


@settings(deadline=None, max_examples=50)
@given(st.floats(-4, 0), st.floats(0.1, 3), st.integers(0, 2**32 - 1))
def test_the_learning_rate_is_that_of_the_steepest_fall(middle: float, drop: float, seed: int) -> None:
    """Losses fall along a sigmoid around a learning rate, with some noise, and go up after that."""
    rates = np.geomspace(1e-5, 10, 49)
    from_there = np.log10(rates) - middle
    losses = 4 - drop / (1 + np.exp(-5 * from_there)) + 2 * np.clip(from_there - 1, 0, None)
    losses += np.random.default_rng(seed).normal(0, drop / 100, len(losses))
    found = probe.steepest(rates.tolist(), [*losses[:-1], float("nan")])
    assert abs(np.log10(found) - middle) <= 0.25


def test_too_few_losses_still_give_a_learning_rate() -> None:
    assert probe.steepest([1e-5], [float("nan")]) == 1e-5
    assert 1e-5 <= probe.steepest([1e-5, 1e-4, 1e-3], [1.0, 0.9, 0.5]) <= 1e-3


def test_a_learning_rate_is_tried_where_no_batch_holds_brain(
    slices: cache.Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last batch of one slice is left out of an epoch, and the only brain may be there."""
    gather = SliceDataset.__getitem__

    def without_brain(self: SliceDataset, positions: list[int]) -> Batch:
        batch = gather(self, positions)
        return batch | {"mask": torch.zeros_like(batch["mask"])}

    monkeypatch.setattr(SliceDataset, "__getitem__", without_brain)
    run = Settings.of({"model": "contextnet", "image_size": 32, "accelerator": "cpu"})
    rate, tried = probe.learning_rate(run, SliceDataset(slices, "train"))
    assert tried[0].lr <= rate <= tried[-1].lr


@pytest.mark.parametrize("optimizer", ["adamw", "sophia", "schedule-free-adamw"])
def test_a_learning_rate_that_was_tried_is_recorded_and_kept(
    optimizer: str, greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    base = {
        "data": str(phantom), "model": "contextnet", "image_size": 32, "spacing": 8, "batch_size": 32, "epochs": 2,
        "accelerator": "cpu", "lr": "auto", "optimizer": optimizer, "schedule": "constant",
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps({"base": base, "keep": "all"}))
    result = greenseg("sweep", "s.yaml")
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "runs" / "s").glob("*/run.json")
    shown = greenseg("train", "--config", path.parent / "config.yaml")
    assert "at the steepest fall of the loss" in shown.stdout
    written = json.loads(path.read_text())
    tried = written["probes"]["lr"]
    assert tried[0]["lr"] < written["ran"]["lr"] < tried[-1]["lr"]
    assert written["settings"]["lr"] == "auto"
    assert written["energy"]["phases"]["probe"]["joules"]["cpu"]["estimate"] > 0
    last = torch.load(path.parent / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == written["ran"]["lr"]
