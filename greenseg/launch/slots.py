"""Assigns GPUs and shares of the CPU to runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from greenseg.settings import Settings
from greenseg.training.events import THREADS


@dataclass(frozen=True)
class Slot:
    """The resources of a run.

    Attributes:
        gpus: its visible GPUs, as in CUDA_VISIBLE_DEVICES; empty for a run on the CPU.
        threads: number of threads for a run on the CPU; None with a GPU.
    """

    gpus: tuple[str, ...]
    threads: int | None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the run."""
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return variables | ({THREADS: str(self.threads)} if self.threads else {})


class Slots:
    """One run per GPU at a time, or `devices` GPUs for one run; without a GPU, one run at a time.

    Args:
        gpus: the GPUs to use, as in CUDA_VISIBLE_DEVICES.
        cores: number of CPU cores to share.
        jobs: largest number of runs at a time; if it exceeds the number of GPUs, runs share them. Default: one per GPU,
            or one on the CPU.

    Attributes:
        gpus: the GPUs to use.
        most: largest number of runs at a time.
        each: largest number of runs at a time on one GPU.
    """

    def __init__(self, gpus: Sequence[str], cores: int, jobs: int | None = None) -> None:
        self.gpus = tuple(gpus)
        self.most = jobs or max(len(gpus), 1)
        self.each = -(-self.most // len(gpus)) if gpus else 0
        self._load = dict.fromkeys(gpus, 0)
        self._most_on_cpu = jobs or 1
        self._threads = max(1, cores // self._most_on_cpu)
        self._on_cpu = self._running = 0

    @property
    def full(self) -> bool:
        """Whether all slots are taken."""
        return self._running >= self.most

    def take(self, settings: Settings) -> Slot | None:
        """A slot for a run, or None if none is free."""
        if self.full:
            return None
        if settings.accelerator == "cpu" or not self._load:
            if self._on_cpu >= self._most_on_cpu:
                return None
            self._on_cpu += 1
            self._running += 1
            return Slot((), self._threads)
        free = sorted((gpu for gpu, load in self._load.items() if load < self.each), key=self._load.__getitem__)
        # A run that needs more GPUs than exist gets all of them, and Lightning reports the problem.
        needed = min(settings.devices, len(self._load))
        if len(free) < needed:
            return None
        chosen = tuple(gpu for gpu in self._load if gpu in free[:needed])
        for gpu in chosen:
            self._load[gpu] += 1
        self._running += 1
        return Slot(chosen, None)

    def give_back(self, slot: Slot) -> None:
        """Free the slot of a run that has ended."""
        self._running -= 1
        if slot.gpus:
            for gpu in slot.gpus:
                self._load[gpu] -= 1
        else:
            self._on_cpu -= 1
