"""Runs read back, and repeats joined into one result for each configuration."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from greenseg.config import Settings, neutral
from greenseg.energy import Energy
from greenseg.energy.reading import ESTIMATE
from greenseg.run_directory import BadRecord, RunDirectory
from greenseg.run_summary import summary

_NEUTRAL = {name: neutral(name) for name, field in Settings.model_fields.items() if not field.exclude}


@dataclass(frozen=True)
class Run:
    """One run, as its directory tells.

    Attributes:
        directory: of the run.
        status: as `RunDirectory.status`.
        record: content of run.json, with a summary up to the last finished epoch where the run did not finish.
    """

    directory: RunDirectory
    status: str
    record: dict[str, Any] = field(repr=False)

    def check(self) -> None:
        """Look at everything that a report will look at.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: a part of the record is missing or of another type.
        """
        str.strip(self.record["configuration"])
        for value in self.metrics.values():
            if not isinstance(value, int | float | dict | None):
                raise TypeError(f"metrics: {value!r}")
        sum(reading.joules for reading in self.energy.readings)
        self.settings, self.ran, self.unmeasured, dict(self.record.get("error", {}))  # each may raise

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for; settings that its greenseg did not know yet have the values that do what it did."""
        return _NEUTRAL | dict(self.record["settings"])

    @property
    def ran(self) -> dict[str, Any]:
        """What happened, where it can differ from what was asked for: precision, accelerator, devices …"""
        return dict(self.record.get("ran", {}))

    @property
    def metrics(self) -> dict[str, Any]:
        """Dice, IoU, joules, seconds …"""
        return dict(self.record.get("metrics", {}))

    @cached_property
    def energy(self) -> Energy:
        """Energy of all attempts."""
        return Energy.from_json(self.record["energy"]["total"]) if "energy" in self.record else Energy()

    @property
    def unmeasured(self) -> list[str]:
        """Components whose joules are not known."""
        return list(self.record.get("energy_method", {}).get("unmeasured", {}))


def read_runs(directories: Iterable[RunDirectory]) -> tuple[list[Run], list[str]]:
    """The runs that have begun, and a message for each damaged one, which is left out."""
    runs, damaged = [], []
    for directory in directories:
        try:
            record = directory.record()
            if not record:
                continue
            status = directory.status(record)
            if "energy" not in record:
                record = record | summary(record, directory.epochs())
            run = Run(directory, status, record)
            run.check()
            runs.append(run)
        except (BadRecord, KeyError, TypeError, ValueError, AttributeError) as error:
            damaged.append(
                str(error) if isinstance(error, BadRecord) else f"{directory.path}: damaged record: {error!r}"
            )
    return runs, damaged


@dataclass(frozen=True)
class Result:
    """A configuration: means over those of its repeats that finished.

    Attributes:
        runs: all repeats, finished or not.
        dice, iou: means over finished repeats; None where there is none. Likewise the others.
        joules_per_epoch: training and validation of one epoch.
        joules: whole runs, all attempts.
        seconds: whole runs.
    """

    runs: tuple[Run, ...]
    dice: float | None
    iou: float | None
    joules_per_epoch: float | None
    joules: float | None
    seconds: float | None

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, without the seed."""
        return {name: value for name, value in self.runs[0].settings.items() if name != "seed"}

    @property
    def finished(self) -> list[Run]:
        """The repeats that finished."""
        return [run for run in self.runs if run.status == "finished"]

    @property
    def sources(self) -> dict[str, str]:
        """Component → source of its joules, over all finished repeats."""
        return sum((run.energy for run in self.finished), Energy()).sources

    @property
    def unmeasured(self) -> list[str]:
        """Components whose joules are not known."""
        return sorted({component for run in self.finished for component in run.unmeasured})

    @property
    def marks(self) -> frozenset[str]:
        """What must be known of its readings: approximate, shared, apportioned."""
        return frozenset(mark for run in self.finished for mark in run.energy.marks)

    @property
    def estimated(self) -> frozenset[str]:
        """Components whose joules were estimated, at least in part."""
        return frozenset(component for component, source in self.sources.items() if ESTIMATE in source)


def by_configuration(runs: Sequence[Run]) -> list[Result]:
    """Join repeats: one result for each configuration, best Dice first, those without result last."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.record["configuration"], []).append(run)
    results = [_join(group) for group in groups.values()]
    return sorted(results, key=lambda r: (r.dice is None, -(r.dice or 0), r.joules or 0))


def _join(runs: list[Run]) -> Result:
    finished = [run.metrics for run in runs if run.status == "finished"]

    def mean(name: str) -> float | None:
        values = [metrics[name] for metrics in finished if metrics.get(name) is not None]
        return fmean(values) if values else None

    return Result(tuple(runs), *(mean(name) for name in ("dice", "iou", "joules_per_epoch", "joules", "seconds")))
