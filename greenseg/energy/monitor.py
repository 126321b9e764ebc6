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
TRAIN, VALIDATION, TEST = "train", "validation", "test"

_REFRESH_SECONDS = 2.0


@dataclass(frozen=True)
class EpochEnergy:
    """What one epoch cost, over all devices and ranks; training and validation apart."""

    epoch: int
    train: Energy
    validation: Energy

    @property
    def total(self) -> Energy:
        """Training and validation together."""
        return self.train + self.validation


class EnergyMonitor(pl.Callback):
    """Measures the joules of every epoch, by component and with their source, in any Lightning project.

    Phases follow each other without gaps: `startup`, `train`, `validation`, `test`, and `other` for what is between
    them (checkpoints, other callbacks); `preparation`, of data, and `probe`, where settings are chosen by trying them,
    begin where the caller says so. With several ranks, each counts the GPU that it drives, and one process of a node
    counts CPU and DRAM; epochs, phases and total are sums over all ranks, and the same on each.

    Logs `train_joules` and `validation_joules` of every epoch to the trainer's loggers.

    Args:
        meter: the meter to read; by default one is made when training is set up, for the device of this rank. A meter
            made earlier counts imports and data preparation, too.
    """

    def __init__(self, meter: EnergyMeter | None = None) -> None:
        self.epochs: list[EpochEnergy] = []
        self._meter = meter
        self._phase = STARTUP
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

        With several ranks: of all of them up to the end of the last epoch or stage, and of this rank since then.
        """
        if self._all is None:
            return dict(self._mine)
        names = dict.fromkeys([*self._all, *self._since])
        return {phase: self._all.get(phase, Energy()) + self._since.get(phase, Energy()) for phase in names}

    @property
    def total(self) -> Energy:
        """Energy of all phases so far."""
        return sum(self.phases.values(), Energy())

    # ── phases by hand

    def preparation(self) -> None:
        """From here on, data are prepared. Needs a meter that was made before."""
        self._enter(PREPARATION)

    def startup(self) -> None:
        """From here to the start of training, it is set up."""
        self._enter(STARTUP)

    def probe(self) -> Energy:
        """From here on, something is tried; returns what was used since the last change of phase, or call of this."""
        return self._enter(PROBE)

    def close(self) -> dict[str, float]:
        """End measuring; returns by how much the phases of this rank differ from one window over all of them.

        Shares of the window, by component, and of its seconds; see `EnergyMeter.close`.
        """
        self._enter(OTHER, sync=False)
        return self.meter.close()

    # ── hooks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        device = trainer.strategy.root_device
        gpus = (device.index or 0,) if device.type == "cuda" else ()
        if self._meter is None:
            self._meter = EnergyMeter(gpus)
            self._last_lap = time.monotonic()
        elif self._meter.gpus != gpus:
            self._enter(self._phase)
            # The GPU that was guessed is not the one of this rank: what it drew is not this run's.
            self._mine = {phase: energy.without("gpu") for phase, energy in self._mine.items()}
            self._meter = self._meter.on(gpus)
        if device.type not in ("cpu", "cuda"):
            self.meter.has_unmeasured_gpu(f"no sensor is known for a device of type {device.type}")
        self._share_out()
        self._enter(self._phase)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enter(TRAIN)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Training goes on after a validation in mid-epoch, or after a checkpoint was loaded: then Lightning does not
        # call on_train_epoch_start.
        if self._phase != TRAIN:
            self._enter(TRAIN)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Keeps the total that is shown fresh, without waiting for the GPU.
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
        """Book what was used since the last call on the phase that was open, and open another."""
        energy = self.meter.lap(sync=sync)
        for account in (self._mine, self._epoch, self._since):
            account[self._phase] = account.get(self._phase, Energy()) + energy
        self._phase, self._last_lap = phase, time.monotonic()
        return energy

    def _share_out(self) -> None:
        """Decide which rank of a node counts CPU and DRAM."""
        here, pid = machine(), psutil.Process().pid
        ranks = _all_gather((here, pid))
        on_this_node = [other for place, other in ranks if place == here]
        others = set(on_this_node) - {pid}
        # Lightning starts the other ranks of a node as children of the first, whose process tree then holds them all.
        descends = any(parent.pid in others for parent in psutil.Process().parents())
        measured_by_package = "cpu" not in self.meter.missing  # RAPL counts the node, whichever rank asks
        if descends or (measured_by_package and pid != on_this_node[0]):
            self.meter.leave_cpu_to_another()
            # What this rank has booked so far, another has as well.
            self._mine = {phase: energy.without("cpu").without("dram") for phase, energy in self._mine.items()}
        _all_gather(None)  # all have left before anybody counts on

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
