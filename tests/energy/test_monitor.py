"""EnergyMonitor in a Lightning project that is not ours."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger

from greenseg.energy import EnergyMonitor
from greenseg.energy.estimate import Model
from tests import warm
from tests.conftest import free_port
from tests.energy.fakes import FakeRapl


def trainer(**options: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**(defaults | options))


def test_every_epoch_is_measured_training_and_validation_apart() -> None:
    monitor = EnergyMonitor()
    trainer(callbacks=[monitor]).fit(BoringModel())
    assert [epoch.epoch for epoch in monitor.epochs] == [0, 1, 2]
    for epoch in monitor.epochs:
        for window in (epoch.train, epoch.validation):
            assert window.sources == {"cpu": "estimate", "dram": "estimate"}
            assert window.seconds > 0
            assert window.joules > 0, "0 J is never what a training cost"
    for name, phase in (("train", monitor.phases["train"]), ("validation", monitor.phases["validation"])):
        assert sum(getattr(epoch, name).joules for epoch in monitor.epochs) == pytest.approx(phase.joules)
    assert monitor.total.joules == pytest.approx(sum(phase.joules for phase in monitor.phases.values()))


def test_validation_in_mid_epoch_is_not_training() -> None:
    monitor = EnergyMonitor()
    trainer(callbacks=[monitor], max_epochs=1, val_check_interval=0.25).fit(BoringModel())
    (epoch,) = monitor.epochs
    assert epoch.train.joules > 0
    assert epoch.validation.joules > 0
    assert epoch.total.seconds <= monitor.total.seconds


def test_a_training_without_validation_and_a_test_afterwards() -> None:
    class NoValidation(BoringModel):
        validation_step = None  # type: ignore[assignment]
        val_dataloader = None  # type: ignore[assignment]

    monitor = EnergyMonitor()
    fit = trainer(callbacks=[monitor])
    fit.fit(NoValidation())
    assert len(monitor.epochs) == 3
    assert monitor.epochs[0].validation.joules == 0
    fit.test(BoringModel(), verbose=False)
    assert monitor.phases["test"].joules > 0


def test_what_an_epoch_cost_before_a_crash_is_kept() -> None:
    class Crash(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 1:
                raise RuntimeError("out of something")
            return super().training_step(batch, batch_idx)

    monitor = EnergyMonitor()
    with pytest.raises(RuntimeError, match="out of something"):
        trainer(callbacks=[monitor]).fit(Crash())
    assert len(monitor.epochs) == 1
    assert monitor.total.joules > monitor.epochs[0].total.joules


def test_joules_reach_the_loggers(tmp_path: Any) -> None:
    logger = CSVLogger(tmp_path)
    trainer(callbacks=[EnergyMonitor()], logger=logger).fit(BoringModel())
    (metrics,) = tmp_path.rglob("metrics.csv")
    assert "train_joules" in metrics.read_text()
    assert "validation_joules" in metrics.read_text()


def test_the_training_itself_is_unchanged() -> None:
    def weights(callbacks: list[pl.Callback]) -> torch.Tensor:
        pl.seed_everything(0, verbose=False)
        model = BoringModel()
        trainer(callbacks=callbacks).fit(model)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights([]), weights([EnergyMonitor()]))


@pytest.mark.parametrize(("rapl", "nodes"), [(False, 1), (True, 1), (True, 2)])
def test_with_two_ranks_every_device_is_counted_once(rapl: bool, nodes: int, tmp_path: Path) -> None:
    root = tmp_path / "powercap"
    root.mkdir()
    arguments = [sys.executable, "-m", "tests.energy.two_ranks", str(root), *(["rapl"] if rapl else [])]
    counter = FakeRapl(root)
    began = time.monotonic()
    printed = tmp_path / "printed"
    with printed.open("w") as out:
        environment = os.environ | {"NODES": str(nodes)}
        if nodes > 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        every = [
            warm.Popen(
                arguments, cwd=Path(__file__).parents[2], stdout=out, start_new_session=True,
                env=environment | ({"NODE_RANK": str(node)} if nodes > 1 else {}),
            )
            for node in range(nodes)
        ]  # fmt: skip
    running = every[0]
    used, watts = 0.0, 50.0
    while running.poll() is None:
        joules = watts * (time.monotonic() - began) - used
        counter.use(joules)
        used += joules
        time.sleep(0.005)
    for process in every:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the second rank, should it wind down for long
    assert running.returncode == 0
    found = json.loads(next(line for line in printed.read_text().splitlines() if line.startswith("{")))
    windows = [epoch["train"] for epoch in found["epochs"]] + [found["phases"]["train"]]
    assert len(found["epochs"]) == 2
    for window in windows:
        # Both GPUs, each for as long as its rank trained: 100 W + 250 W.
        assert window["joules"]["gpu"]["nvml"] == pytest.approx(350 * window["seconds"], rel=0.02)
        if rapl:  # one package, read by two ranks, is one package
            assert window["joules"]["cpu"]["rapl"] == pytest.approx(watts * window["seconds"], rel=0.05)
        else:
            most = len(os.sched_getaffinity(0)) * window["seconds"]
            assert window["joules"]["cpu"]["estimate"] < 1.1 * most * Model.of_this_machine().core_watts[0]
