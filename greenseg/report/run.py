"""A run of a report, from its directory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from greenseg.energy import Energy, Reading
from greenseg.energy.reading import ESTIMATE, SHARED
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Attempt, BadRecord, Epoch, Metrics, Ran, Record, Watts, not_written
from greenseg.runs.summary import TEST, restated
from greenseg.settings import NEUTRAL

if TYPE_CHECKING:
    from greenseg.data.content import Content

WRONG = (LookupError, TypeError, ValueError, AttributeError)
"""Errors from settings that are missing or of a wrong type, and from epochs of missing attempts."""

Way = frozenset[str]
"""Ways in which the joules of a component are known."""

OF_NODE = "shared"
"""Way: the joules are those of all jobs on a node. The part of the others is unknown, so nothing compares with them."""

_FAILURES = {
    "out_of_gpu_memory": "out of GPU memory",
    "out_of_memory": "out of memory",
    "timeout": "timed out",
    "no_progress": "no progress",
    "crash": "crashed",
    "diverged": "diverged",
    "parent": "parent failed",
}
"""Kind of failure → its name for the user."""


@dataclass(frozen=True)
class TrainedOn:
    """The content of a run's data, from its record.

    Attributes:
        digest, files: as in `Content`, with the version of the preprocessing; empty if unknown.
        slices, split: names of the slices and of the split, as hex digits; records of earlier versions have only these.
    """

    digest: str = ""
    files: str = ""
    slices: str = ""
    split: str = ""

    @classmethod
    def of(cls, record: Record) -> Self:
        """The content in a record; empty if the record has none."""
        slices, subjects = (record.data.cache, record.data.subjects) if record.data else ("", {})
        members = [(name, *subjects[name]) for name in sorted(subjects)]
        split = hashlib.sha256(repr(members).encode()).hexdigest()[:16] if members else ""
        if record.content is None:
            return cls("", "", slices, split)
        version = record.preprocessing
        return cls(f"{record.content} {version}", f"{record.files} {version}", slices, split)

    def named(self, content: "Content") -> Self:
        """The same, with a content that the record does not have."""
        version = content.preprocessing
        return replace(self, digest=f"{content.digest} {version}", files=f"{content.files} {version}")


def check(directory: RunDirectory, record: Record) -> None:
    """Check all parts of a record that a report reads.

    Raises:
        BadRecord: a part is missing or damaged.
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
    """A run of a report, from its directory.

    Attributes:
        directory: directory of the run.
        status: see `RunDirectory.status`.
        record: content of run.json without `data`, and without `attempts` if one has it all; if the run did not
            finish, its summary goes up to the last finished epoch.
        content: content of its data.
        watts: constants of its estimates; several if its attempts differ, none if unknown.
        attempts: identities of its attempts.
        validation_slices: number of slices in a pass over the validation subjects; None if unknown.
        restated: for each attempt, constants that its estimates are converted to; empty if they are unchanged. Files
            always have the original estimates.
    """

    directory: RunDirectory
    status: str
    record: Record = field(repr=False)
    content: TrainedOn = field(default_factory=TrainedOn, repr=False)
    watts: frozenset[Watts] = field(default=frozenset(), repr=False)
    restated: tuple[Watts, ...] = ()
    attempts: tuple[str, ...] = field(default=(), repr=False)
    validation_slices: int | None = None

    def history(self) -> tuple[list[Attempt], list[Epoch]]:
        """Its attempts and its lines of epochs.jsonl, with estimates by the constants of the report.

        Raises:
            BadRecord: a file is damaged.
        """
        epochs, record = self.directory.epochs(), self.record
        if self.restated and (whole := self.directory.record()):
            return restated(whole, epochs, self.restated)
        return record.attempts or [Attempt(energy=record.energy.phases if record.energy else {})], epochs

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The requested settings; those that its version did not have get the value that keeps its behaviour."""
        return MappingProxyType(NEUTRAL | self.record.settings)

    @property
    def ran(self) -> Ran:
        """Values in effect that can differ from the requested ones: precision, accelerator, devices …"""
        return self.record.ran

    @cached_property
    def metrics(self) -> Metrics:
        """Dice, IoU, joules, seconds …"""
        return self.record.metrics

    @cached_property
    def energy(self) -> Energy:
        """Energy of all attempts and of the ancestors, without the phase `test`."""
        return Energy.from_json(self.record.energy.total) if self.record.energy else Energy()

    @property
    def own_joules(self) -> float:
        """Joules of the run itself, without its ancestors: what a sum over runs adds up."""
        own, _ = self.metrics.own
        return self.energy.joules if own is None else own

    @cached_property
    def tested(self) -> Energy | None:
        """Energy of predicting the test part, which `energy` does not include; None without one."""
        phases = self.record.energy.phases if self.record.energy else {}
        return Energy.from_json(phases[TEST]) if TEST in phases else None

    @property
    def inference_joules(self) -> float | None:
        """Joules of one inference of a whole part: of the test part or, without one, of the validation slices."""
        if self.tested:
            return self.tested.joules
        each, slices = self.metrics.joules_per_inference, self.validation_slices
        return None if each is None or slices is None else each * slices

    @property
    def unmeasured(self) -> list[str]:
        """Components with unknown joules."""
        return list(self.record.energy_method.unmeasured)

    @cached_property
    def ways(self) -> dict[str, Way]:
        """Component → ways of its joules: `measured`, `estimated`, both (for parts of it), `shared` or `unknown`."""
        return ways_of(self.energy, self.unmeasured)

    @property
    def failure(self) -> str:
        """Reason of its failure, such as `out of GPU memory`; empty if it did not fail or the reason is unknown."""
        error = self.record.error
        return _FAILURES.get(error.kind or "", error.type) if error else ""

    @property
    def hardware(self) -> str:
        """The processors of the run."""
        hardware = self.record.hardware
        cores = "?" if hardware.cores is None else hardware.cores
        return ", ".join([f"{hardware.cpu or 'unknown CPU'} ({cores} cores)", *(hardware.gpus or [])])


def _is_of_node(reading: Reading) -> bool:
    return SHARED in reading.marks and reading.component in ("cpu", "dram")


def ways_of(energy: Energy, unmeasured: Sequence[str]) -> dict[str, Way]:
    """Component → ways of its joules; see `Run.ways`.

    Args:
        energy: the joules.
        unmeasured: components with unknown joules.
    """
    ways = {component: frozenset({"unknown"}) for component in unmeasured}
    for reading in energy.readings:
        way = "estimated" if reading.source == ESTIMATE else OF_NODE if _is_of_node(reading) else "measured"
        ways[reading.component] = ways.get(reading.component, frozenset()) | {way}
    return ways
