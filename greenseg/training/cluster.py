"""Lightning on a cluster: how the processes of a run find each other, and who heeds signals.

Lightning guesses both from the variables of Slurm, which every process in a job has. In a run with a single task, it
then waits for tasks that nobody starts, and its own handlers save another checkpoint and requeue the job.
"""

import os
import signal
import warnings

import pytorch_lightning as pl
from lightning_fabric.plugins import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from greenseg.machine.cores import node_rank, started_by_srun, started_by_torchrun
from greenseg.machine.signals import STOP_SIGNALS
from greenseg.settings import Settings


def cluster_environment(settings: Settings) -> ClusterEnvironment:
    """The way in which the processes of a run find each other: that of srun or torchrun, if it has started them all."""
    # Lightning recommends srun wherever it is installed.
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    if started_by_torchrun():
        return TorchElasticEnvironment()
    if started_by_srun(settings):
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(settings.devices))  # Lightning demands it
        return SLURMEnvironment(auto_requeue=False)
    if settings.processes > 1:
        os.environ["NODE_RANK"] = str((node_rank() or 0) if settings.nodes > 1 else 0)
    return LightningEnvironment()


class OwnSignals(pl.Callback):
    """Keeps the handlers of stop signals that this process had before `Trainer.fit`.

    With several ranks, Lightning's handler of SIGTERM waits for all ranks in the middle of a step.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # Lightning has set its own
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
