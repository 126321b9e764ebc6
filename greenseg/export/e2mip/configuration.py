"""The settings that the jury's machine trains with: those of a run, as they were requested."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from greenseg.errors import UserError
from greenseg.optimizers import OPTIMIZERS
from greenseg.precisions import PRECISIONS
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record
from greenseg.settings import NEUTRAL, Settings
from greenseg.strategies import STRATEGIES

TRAINING_DATA = "/mnt/training_data"
"""Where the jury mounts the training data."""


@dataclass(frozen=True)
class _Reset:
    """A setting that returns to its neutral value in a submission.

    Attributes:
        why: the reason, for the user; empty if nobody needs to know.
    """

    why: str = ""


_RESET = {
    "channels": _Reset(),  # of another layout
    "labels": _Reset("the challenge's masks have one label"),
    "folds": _Reset("cross-validation is for choosing; the challenge's data and validation_share decide"),
    "fold": _Reset(),
    "split_from": _Reset("the challenge has other subjects"),
    "test_share": _Reset("the jury tests on subjects of its own, so none is kept from training"),
    "power_limit": _Reset("the container may not set limits of GPUs"),
    "gpu_clock": _Reset("the container may not lock clocks of GPUs"),
}


def for_the_jury(run: RunDirectory, record: Record) -> tuple[Settings, list[str]]:
    """The settings of a submission, and a sentence for each that differs from the run's.

    What was `auto` in the run is `auto` again: the jury's machine is another one. All else is as it was requested,
    the seed included, except what refers to the run's own data or needs the rights of an administrator.

    Raises:
        UserError: the challenge cannot run this configuration: several classes, channels or machines, or packages
            that the image lacks.
    """
    requested = NEUTRAL | record.settings
    problems = [f"{run.path}: {problem}; the challenge needs another configuration" for problem in _unfit(record)]
    if problems:
        raise UserError(problems)
    changed = {name for name in _RESET if requested[name] != NEUTRAL[name]}
    notes = [
        f"{name} is {_text(NEUTRAL[name])}, not {_text(requested[name])}: {_RESET[name].why}"
        for name in _RESET
        if name in changed and _RESET[name].why
    ]
    values = requested | {name: NEUTRAL[name] for name in _RESET} | {"data": TRAINING_DATA, "layout": "auto"}
    return Settings.of(values), notes


def extras(settings: Settings) -> list[str]:
    """The extras of greenseg that the settings need."""
    needed = {OPTIMIZERS[settings.optimizer].extra, STRATEGIES[settings.strategy].extra}
    return sorted(filter(None, needed | ({"carbon"} if settings.country else set())))


def _unfit(record: Record) -> list[str]:
    settings: Mapping[str, Any] = NEUTRAL | record.settings
    problems = []
    if record.data and len(record.data.classes) > 1:
        problems.append(f"segments {len(record.data.classes)} classes, and the challenge has one")
    if record.data and (record.data.channels or 1) > 1:
        problems.append(f"has {record.data.channels} channels, and images of the challenge have one")
    if settings["nodes"] > 1:
        problems.append(f"trains on {settings['nodes']} nodes, and the jury has one machine")
    if (precision := PRECISIONS.get(settings["precision"])) and precision.package:
        problems.append(f"precision {settings['precision']} needs {precision.package}, which the image lacks")
    if STRATEGIES[settings["strategy"]].extra:
        problems.append(f"strategy {settings['strategy']} needs CUDA's compiler, which the image lacks")
    return problems


def _text(value: Any) -> str:
    return "empty" if value == "" else f"{value}"
