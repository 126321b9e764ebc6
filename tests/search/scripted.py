"""An executor that trains nothing: it writes the epochs of scripted curves, and can be killed at any of them."""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Self

from greenseg.errors import ExitCode
from greenseg.launch.executor import Ended, Force, Handle, Job, Said
from greenseg.launch.slots import Slot, Slots
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Epoch, Record
from greenseg.settings import Settings
from tests.runs import energy, epoch, record

Script = Callable[[Settings], Sequence[tuple[float, float]]]
"""Settings → Dice and joules of each epoch."""


class Killed(BaseException):
    """The whole sweep was killed."""


class Scripted:
    """Writes scripted epochs.

    Args:
        script: the curve of each run.
        failing: whether a run fails after its first epoch.
        draw: of random kills; None for no kills.
    """

    def __init__(
        self, script: Script, failing: Callable[[Settings], bool] = lambda settings: False, draw: Random | None = None
    ) -> None:
        self.slots = Slots((), 2, 2)
        self.epochs: list[tuple[str, int]] = []
        self._script, self._failing, self._draw = script, failing, draw
        self._ended: list[Ended] = []
        self._attempts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def problems(self, runs: Sequence[Settings]) -> list[str]:
        return []

    def prepare(self, job: Job, wanted: Callable[[], bool]) -> bool:
        return True

    def start(self, job: Job, slot: Slot) -> Handle:
        self._attempts += 1
        made = self._record(job)
        curve = self._script(job.settings)
        number = len(made["attempts"]) - 1
        done = len({line.epoch for line in job.run.epochs()})
        again = bool(done and self._draw and self._draw.random() < 0.3)  # killed between a line and its checkpoint
        total, before = 0.0, "resumption" if done else "startup"
        until = min(job.until or len(curve), 1 if self._failing(job.settings) else len(curve))
        for i in range(done - again, until):
            if self._draw and self._draw.random() < 0.08:
                raise Killed
            dice, joules = curve[i]
            joules *= 1.5 if i < done else 1.0
            total += joules
            train = energy(1, cpu_estimate=joules)
            so_far = {before: energy(1, cpu_estimate=7), "train": energy(1, cpu_estimate=total)}
            nothing = energy(0, cpu_estimate=0)
            line = epoch(i, number, dice=dice, train=train, validation=nothing, so_far=so_far)
            job.run.append_epoch(Epoch.model_validate(line))
            self.epochs.append((job.settings.identity, i))
        status = "failed" if self._failing(job.settings) else "finished" if until == len(curve) else "paused"
        made["status"] = made["attempts"][-1]["status"] = status
        made["attempts"][-1]["energy"] = {before: energy(1, cpu_estimate=7), "train": energy(1, cpu_estimate=total)}
        job.run.write_record(Record.from_json(made))
        self._ended.append(Ended(self._attempts, ExitCode.FAILED if status == "failed" else ExitCode.OK))
        return self._attempts

    def wait(self, seconds: float) -> Iterable[Said | Ended]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self, handle: Handle, force: Force) -> None:
        pass

    def _record(self, job: Job) -> dict[str, Any]:
        """Begin an attempt; returns the record."""
        before = job.run.record()
        made = before.to_json() if before else record(job.settings.resolved(), "running") | {"attempts": []}
        made.pop("metrics", None)
        made.pop("energy", None)
        made["status"], made["context"] = "running", {"search": job.context.get("search")}
        attempt = {"status": "running", "started": f"{id(self)} {self._attempts}", "host": "here", "pid": 1}
        made["attempts"] = [*made["attempts"], attempt]
        job.run.write_record(Record.from_json(made))
        return made


def runs_of(root: Any) -> list[RunDirectory]:
    return [RunDirectory(path.parent) for path in sorted(root.glob("*/*/config.yaml"))]
