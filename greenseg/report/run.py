"""One run, as its directory tells."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NoReturn, Self

from greenseg.energy import Energy
from greenseg.energy.reading import ESTIMATE
from greenseg.runs.directory import BadRecord, RunDirectory
from greenseg.runs.summary import Watts, restated
from greenseg.settings import Settings, neutral

NEUTRAL = {name: neutral(name) for name, field in Settings.model_fields.items() if not field.exclude}
"""Settings as a greenseg had them that did not know them yet."""

WRONG = (KeyError, TypeError, ValueError, AttributeError)
"""What comes of a record whose parts are missing, or of another type."""

Way = frozenset[str]
"""How the joules of a component are known."""

_FAILURES = {
    "out_of_gpu_memory": "out of GPU memory",
    "out_of_memory": "out of memory",
    "timeout": "timed out",
    "no_progress": "no progress",
    "crash": "crashed",
    "diverged": "diverged",
}
"""Kinds of failures, as people say them."""


def restated_by_attempt(
    record: Mapping[str, Any], epochs: list[dict[str, Any]], watts: Sequence[Watts]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Attempts and epochs of a run, the estimates of each attempt by constants of its own; see `summary.restated`."""
    by_watts = {one: restated(record, epochs, one) for one in set(watts)}
    attempts = [by_watts[one][0][number] for number, one in enumerate(watts)]
    return attempts, [by_watts[watts[line["attempt"]]][1][i] for i, line in enumerate(epochs)]


@dataclass(frozen=True)
class TrainedOn:
    """What a record says of the content that its run was trained on.

    Attributes:
        digest, files: as `Content` has them, with the version of the preprocessing; empty where they are unknown.
        slices, split: what records of earlier versions have instead: names of the slices and of the split, hex digits.
    """

    digest: str = ""
    files: str = ""
    slices: str = ""
    split: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """What this record says; nothing where it does not."""
        data = record.get("data") or {}
        slices, subjects = str(data.get("cache", "")), data.get("subjects", {})
        members = [(name, *map(str, subjects[name])) for name in sorted(subjects)]
        split = hashlib.sha256(repr(members).encode()).hexdigest()[:16] if members else ""
        if "content" not in record:
            return cls("", "", slices, split)
        version = record.get("preprocessing")
        return cls(f"{record['content']} {version}", f"{record['files']} {version}", slices, split)


@dataclass(frozen=True)
class Run:
    """One run, as its directory tells.

    Attributes:
        directory: of the run.
        status: as `RunDirectory.status`.
        record: content of run.json but for data and a single attempt, with a summary up to the last finished epoch
            where the run did not finish.
        content: what it was trained on.
        watts: constants of its estimates; more than one where its attempts had several, none where they are unknown.
        attempts: what tells each of its attempts from others.
        restated: constants that the estimates of each attempt are restated with; empty where they are as they were
            made. Its files always have them as they were made.
    """

    directory: RunDirectory
    status: str
    record: dict[str, Any] = field(repr=False)
    content: TrainedOn = field(default_factory=TrainedOn, repr=False)
    watts: frozenset[Watts] = field(default=frozenset(), repr=False)
    restated: tuple[Watts, ...] = ()
    attempts: tuple[str, ...] = field(default=(), repr=False)

    def history(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Its attempts, and its lines of epochs.jsonl, with estimates by the constants of the report.

        Raises:
            BadRecord: a file is damaged.
        """
        epochs = self.directory.epochs()
        if self.restated:
            return restated_by_attempt(self.directory.record(), epochs, self.restated)
        attempts = self.record.get("attempts") or [{"energy": self.record.get("energy", {}).get("phases", {})}]
        return attempts, epochs

    def check(self) -> None:
        """Look at all parts of the record that a report reads.

        Raises:
            BadRecord: a part of the record is missing or of another type.
        """
        parts: dict[str, Callable[[], object]] = {
            "configuration": lambda: str.strip(self.record["configuration"]),
            "status": lambda: str.strip(self.status),
            "metrics": lambda: self.metrics,
            "energy": lambda: sum(reading.joules for reading in self.energy.readings),
            "energy_method": lambda: self.unmeasured,
            "error": lambda: self.failure,
            "attempts": lambda: [str(attempt.get("cpu")) for attempt in self.record.get("attempts") or ()],
            **{name: partial(getattr, self, name) for name in ("settings", "ran", "hardware", "versions")},
        }
        for name, read in parts.items():
            try:
                read()
            except WRONG:
                self.damaged(f"'{name}' is missing, or not what greenseg writes")
        for name, value in self.metrics.items():
            if not isinstance(value, int | float | dict | None):
                self.damaged(f"metrics: {name} is {value!r}, not a number")

    def damaged(self, what: str) -> NoReturn:
        """Raise `BadRecord` for what is wrong with its record."""
        raise BadRecord(f"{self.directory.path / 'run.json'}: damaged: {what}")

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for; settings that its greenseg did not know yet have the values that do what it did."""
        return MappingProxyType(NEUTRAL | self.record["settings"])

    @property
    def ran(self) -> dict[str, Any]:
        """What happened, where it can differ from what was asked for: precision, accelerator, devices …"""
        return dict(self.record.get("ran", {}))

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Dice, IoU, joules, seconds …"""
        return MappingProxyType(dict(self.record.get("metrics", {})))

    @cached_property
    def energy(self) -> Energy:
        """Energy of all attempts."""
        return Energy.from_json(self.record["energy"]["total"]) if "energy" in self.record else Energy()

    @property
    def unmeasured(self) -> list[str]:
        """Components whose joules are not known."""
        return list(self.record.get("energy_method", {}).get("unmeasured", {}))

    @cached_property
    def ways(self) -> dict[str, Way]:
        """Component → how its joules are known: `measured`, `estimated`, both (parts of it), `unknown`."""
        ways = {component: frozenset({"unknown"}) for component in self.unmeasured}
        for reading in self.energy.readings:
            way = "estimated" if reading.source == ESTIMATE else "measured"
            ways[reading.component] = ways.get(reading.component, frozenset()) | {way}
        return ways

    @property
    def failure(self) -> str:
        """Why it failed, such as `out of GPU memory`; empty where it did not, or no reason is known."""
        error = dict(self.record.get("error", {}))
        return _FAILURES.get(str(error.get("kind")), str(error.get("type", "")))

    @property
    def versions(self) -> dict[str, Any]:
        """Package → version that it ran with."""
        return dict(self.record.get("versions", {}))

    @property
    def hardware(self) -> str:
        """The processors that it ran on."""
        hardware = dict(self.record.get("hardware", {}))
        gpus = list(hardware.get("gpus") or [])
        return ", ".join(
            [f"{hardware.get('cpu', 'unknown CPU')} ({hardware.get('cores', '?')} cores)", *map(str, gpus)]
        )
