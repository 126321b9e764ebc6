"""A Lightning callback that measures the energy of every epoch."""

import time
from dataclasses import dataclass
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

from greenseg.energy.meter import EnergyMeter
from greenseg.energy.neighbours import machine
from greenseg.energy.reading import Energy, side_by_side

STARTUP, PREPARATION, PROBE, OTHER = "startup", "preparation", "probe", "other"
COMPRESSION = "compression"
RESUMPTION = "resumption"
TRAIN, VALIDATION, TEST = "train", "validation", "test"

_REFRESH_SECONDS = 2.0


@dataclass(frozen=True)
class EpochEnergy:
    """Energy of one epoch over all devices and ranks, with training and validation separate."""

    epoch: int
    train: Energy
    validation: Energy

    @property
    def total(self) -> Energy:
        """Training and validation together."""
        return self.train + self.validation


class EnergyMonitor(pl.Callback):
    """Measures the joules of every epoch, by component and with their source, in any Lightning project.

    Phases follow each other without gaps: `startup`, `train`, `validation`, `test`, and `other` for the time between
    them (checkpoints, other callbacks). The caller starts `preparation` of data, `probe`, for measurements that choose
    settings, and `compression` of a network. With several ranks, each counts its own GPU, and one process per node
    counts CPU and DRAM. Epochs, phases and total are sums over all ranks, and the same on each.

    A run that was paused starts up once more, only because of the pause: with `resumes`, all phases before its training
    are the phase `resumption`.

    It logs `train_joules` and `validation_joules` per epoch to the trainer's loggers.

    Args:
        meter: the meter to read; by default, the set-up of the training creates one for the device of this rank. An
            earlier meter also counts imports and data preparation.
        resumes: whether this attempt goes on after a pause.
    """

    def __init__(self, meter: EnergyMeter | None = None, resumes: bool = False) -> None:
        self.epochs: list[EpochEnergy] = []
        self._meter = meter
        self._before = dict.fromkeys((STARTUP, PREPARATION, PROBE), RESUMPTION) if resumes else {}
        self._phase = self._before.get(STARTUP, STARTUP)
        self._mine: dict[str, Energy] = {}  # phases of this rank
        self._epoch: dict[str, Energy] = {}  # phases of this rank in the current epoch
        self._all: dict[str, Energy] | None = None  # phases of all ranks, as of the last gathering
        self._since: dict[str, Energy] = {}  # phases of this rank since then
        self._last_lap = time.monotonic()

    # ── results

    @property
    def meter(self) -> EnergyMeter:
        """The meter in use.

        Raises:
            RuntimeError: training has not been set up yet.
        """
        if self._meter is None:
            raise RuntimeError("EnergyMonitor has no meter before the trainer sets it up")
        return self._meter

    @property
    def phases(self) -> dict[str, Energy]:
        """Energy of each phase so far.

        With several ranks, it covers all of them until the end of the last epoch or stage, and this rank since then.
        """
        if self._all is None:
            return dict(self._mine)
        names = dict.fromkeys([*self._all, *self._since])
        return {phase: self._all.get(phase, Energy()) + self._since.get(phase, Energy()) for phase in names}

    @property
    def total(self) -> Energy:
        """Energy of all phases so far."""
        return sum(self.phases.values(), Energy())

    # ── phases that the caller starts

    def preparation(self) -> None:
        """Start the phase `preparation`. Needs an existing meter."""
        self._enter(PREPARATION)

    def startup(self) -> None:
        """Start the phase `startup`, which lasts until training starts."""
        self._enter(STARTUP)

    def probe(self) -> Energy:
        """Start the phase `probe`; returns the energy since the last change of phase or the last call."""
        return self._enter(PROBE)

    def compression(self) -> None:
        """Start the phase `compression`, which lasts until training or a test starts, or until the end."""
        self._enter(COMPRESSION)

    def test(self) -> None:
        """Start the phase `test`, which lasts until the end."""
        self._enter(TEST)

    def close(self) -> dict[str, float]:
        """End measuring; returns the difference between the phases of this rank and one window over all of them.

        The values are shares of the window, by component and for its seconds; see `EnergyMeter.close`.
        """
        last, difference = self.meter.close()
        self._count(last)
        return difference

    # ── hooks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.runs_on(trainer.strategy.root_device)
        self._share_out()
        self._enter(self._phase)

    def runs_on(self, device: torch.device) -> None:
        """Measure the GPU that this device is, or none if it is a CPU; Lightning's set-up calls it."""
        gpus = (device.index or 0,) if device.type == "cuda" else ()
        if self._meter is None:
            self._meter = EnergyMeter(gpus)
            self._last_lap = time.monotonic()
        elif self._meter.gpus != gpus:
            self._enter(self._phase)
            # The assumed GPU is not the one of this rank, so its energy does not belong to this run.
            self._mine = {phase: energy.without("gpu") for phase, energy in self._mine.items()}
            self._meter = self._meter.on(gpus)
        if device.type not in ("cpu", "cuda"):
            self.meter.has_unmeasured_gpu(f"no sensor is known for a device of type {device.type}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enter(TRAIN)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Lightning does not call on_train_epoch_start after a validation in mid-epoch, or after loading a checkpoint.
        if self._phase != TRAIN:
            self._enter(TRAIN)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Updates the displayed total, without waiting for the GPU.
        if time.monotonic() - self._last_lap > _REFRESH_SECONDS:
            self._enter(TRAIN, sync=False)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._enter(VALIDATION)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._enter(OTHER)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enter(OTHER)
        ranks = self._gather()
        epoch = EpochEnergy(trainer.current_epoch, *(_sum_phase([e for _, e in ranks], p) for p in (TRAIN, VALIDATION)))
        self.epochs.append(epoch)
        self._epoch = {}
        joules = {"train_joules": epoch.train.joules, "validation_joules": epoch.validation.joules}
        pl_module.log_dict(joules, rank_zero_only=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enter(TEST)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enter(OTHER)
        self._gather()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enter(OTHER)
        self._gather()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._meter is not None:  # the other ranks may be gone: nothing is gathered
            self._enter(OTHER, sync=False)

    # ── inside

    def _enter(self, phase: str, *, sync: bool = True) -> Energy:
        """Add the energy since the last call to the current phase, and start another phase."""
        energy = self.meter.lap(sync=sync)
        self._count(energy)
        self._phase, self._last_lap = self._before.get(phase, phase), time.monotonic()
        return energy

    def _count(self, energy: Energy) -> None:
        """Add energy to the current phase."""
        for account in (self._mine, self._epoch, self._since):
            account[self._phase] = account.get(self._phase, Energy()) + energy

    def _share_out(self) -> None:
        """Decide which rank of a node counts CPU and DRAM."""
        here, pid = machine(), psutil.Process().pid
        ranks = _all_gather((here, pid))
        on_this_node = [other for place, other in ranks if place == here]
        others = set(on_this_node) - {pid}
        # Lightning starts the other ranks of a node as children of the first, so that its process tree includes them.
        descends = any(parent.pid in others for parent in psutil.Process().parents())
        measured_by_package = "cpu" not in self.meter.missing  # RAPL counts the node, whichever rank asks
        if descends or (measured_by_package and pid != on_this_node[0]):
            self.meter.leave_cpu_to_another()
            # Another rank has also counted this rank's CPU and DRAM so far.
            self._mine = {phase: energy.without("cpu").without("dram") for phase, energy in self._mine.items()}
        _all_gather(None)  # all ranks have left before any continues to count

    def _gather(self) -> list[tuple[dict[str, Energy], dict[str, Energy]]]:
        """Phases of every rank, of the run and of the current epoch; updates the sums over ranks."""
        ranks = _all_gather((self._mine, self._epoch))
        if len(ranks) > 1:
            names = dict.fromkeys(phase for mine, _ in ranks for phase in mine)
            self._all = {phase: _sum_phase([mine for mine, _ in ranks], phase) for phase in names}
            self._since = {}
        return ranks


def _sum_phase(ranks: list[dict[str, Energy]], phase: str) -> Energy:
    return side_by_side(rank.get(phase, Energy()) for rank in ranks)


def _all_gather(value: Any) -> list[Any]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered
