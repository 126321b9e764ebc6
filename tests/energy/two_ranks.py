"""A Lightning project of two ranks on two fake GPUs, run by test_monitor as a program; prints what it cost as JSON.

With NODES=2 each rank is a node, and started as such.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

from greenseg.energy import Energy, EnergyMeter, EnergyMonitor
from greenseg.energy.neighbours import Neighbours
from tests.energy.fakes import FakeNvml, constant, look_for_rapl_in

WATTS = (100.0, 250.0)


class Meter(EnergyMeter):
    """Reads a fake GPU, though the network is on the CPU."""

    def on(self, gpus: Sequence[int]) -> EnergyMeter:
        return self

    def lap(self, *, sync: bool = True) -> Energy:
        return super().lap(sync=False)


class Slow(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.05)  # epochs long enough for ranks that wait for their turn on a busy machine
        return super().training_step(batch, batch_idx)


if __name__ == "__main__":
    nodes = int(os.environ.get("NODES", 1))
    rank = int(os.environ.get("LOCAL_RANK" if nodes == 1 else "NODE_RANK", 0))
    FakeNvml([constant(watts) for watts in WATTS]).install()
    root = Path(sys.argv[1])
    if len(sys.argv) > 2:  # with RAPL, whose counter another process advances
        look_for_rapl_in(root)
    monitor = EnergyMonitor(Meter([rank], neighbours=Neighbours(root / "meters")))
    pl.Trainer(
        accelerator="cpu",
        devices=2 // nodes,
        num_nodes=nodes,
        strategy="ddp",
        max_epochs=2,
        callbacks=[monitor],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(Slow())
    if rank == 0:
        epochs = [
            {"train": epoch.train.to_json(), "validation": epoch.validation.to_json()} for epoch in monitor.epochs
        ]
        phases = {name: energy.to_json() for name, energy in monitor.phases.items()}
        print(json.dumps({"epochs": epochs, "phases": phases}), flush=True)
    os._exit(0)  # gloo's threads may abort a process that winds down in the usual way
