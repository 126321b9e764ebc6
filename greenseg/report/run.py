"""One run, as its directory tells."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from greenseg.energy import Energy
from greenseg.energy.reading import ESTIMATE
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Attempt, BadRecord, Epoch, Metrics, Ran, Record, Watts, not_written
from greenseg.runs.summary import restated
from greenseg.settings import Settings, neutral

if TYPE_CHECKING:
    from greenseg.data.content import Content

NEUTRAL = {name: neutral(name) for name, field in Settings.model_fields.items() if not field.exclude}
"""Settings as a greenseg had them that did not know them yet."""

WRONG = (LookupError, TypeError, ValueError, AttributeError)
"""What comes of settings that are not there, or of another type, and of epochs of attempts that are not."""

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
    def of(cls, record: Record) -> Self:
        """What this record says; nothing where it does not."""
        slices, subjects = (record.data.cache, record.data.subjects) if record.data else ("", {})
        members = [(name, *subjects[name]) for name in sorted(subjects)]
        split = hashlib.sha256(repr(members).encode()).hexdigest()[:16] if members else ""
        if record.content is None:
            return cls("", "", slices, split)
        version = record.preprocessing
        return cls(f"{record.content} {version}", f"{record.files} {version}", slices, split)

    def named(self, content: "Content") -> Self:
        """The same, where this is the content that the record does not tell."""
        version = content.preprocessing
        return replace(self, digest=f"{content.digest} {version}", files=f"{content.files} {version}")


def check(directory: RunDirectory, record: Record) -> None:
    """Look at all parts of a record that a report reads.

    Raises:
        BadRecord: one is missing or of another type.
    """
    whole = {
        "settings": record.settings.keys() >= {"encoder", "decoder"},
        "configuration": record.configuration is not None,
    }
    lacking = [not_written(part) for part, is_whole in whole.items() if not is_whole]
    if what := next(filter(None, [record.damage, *lacking]), ""):
        raise BadRecord(f"{directory.path / 'run.json'}: damaged: {what}")


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
    record: Record = field(repr=False)
    content: TrainedOn = field(default_factory=TrainedOn, repr=False)
    watts: frozenset[Watts] = field(default=frozenset(), repr=False)
    restated: tuple[Watts, ...] = ()
    attempts: tuple[str, ...] = field(default=(), repr=False)

    def history(self) -> tuple[list[Attempt], list[Epoch]]:
        """Its attempts, and its lines of epochs.jsonl, with estimates by the constants of the report.

        Raises:
            BadRecord: a file is damaged.
        """
        epochs, record = self.directory.epochs(), self.record
        if self.restated and (whole := self.directory.record()):
            return restated(whole, epochs, self.restated)
        return record.attempts or [Attempt(energy=record.energy.phases if record.energy else {})], epochs

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for; settings that its greenseg did not know yet have the values that do what it did."""
        return MappingProxyType(NEUTRAL | self.record.settings)

    @property
    def ran(self) -> Ran:
        """What happened, where it can differ from what was asked for: precision, accelerator, devices …"""
        return self.record.ran

    @property
    def metrics(self) -> Metrics:
        """Dice, IoU, joules, seconds …"""
        return self.record.metrics

    @cached_property
    def energy(self) -> Energy:
        """Energy of all attempts."""
        return Energy.from_json(self.record.energy.total) if self.record.energy else Energy()

    @property
    def unmeasured(self) -> list[str]:
        """Components whose joules are not known."""
        return list(self.record.energy_method.unmeasured)

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
        error = self.record.error
        return _FAILURES.get(error.kind or "", error.type) if error else ""

    @property
    def hardware(self) -> str:
        """The processors that it ran on."""
        hardware = self.record.hardware
        cores = "?" if hardware.cores is None else hardware.cores
        return ", ".join([f"{hardware.cpu or 'unknown CPU'} ({cores} cores)", *(hardware.gpus or [])])
