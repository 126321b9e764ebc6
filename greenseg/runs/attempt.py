"""Writes the record of a run: by the process of an attempt, or by another one if that process was killed."""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from greenseg.batch_job import job_id
from greenseg.energy import Energy
from greenseg.energy.slurm import NodeCounter
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import (
    SCHEMA,
    Attempt,
    Check,
    Constants,
    Context,
    EnergyMethod,
    Epoch,
    Error,
    Hardware,
    Memory,
    Record,
    SlurmNode,
    Status,
)
from greenseg.runs.summary import account_for_attempts, summary
from greenseg.settings import Settings

_TOLERANCE = 0.01  # share by which the phases may differ from one window over all of them
_GO_ON = ("content", "files", "preprocessing", "data", "ran", "probes", "memory")


@dataclass(frozen=True)
class Machine:
    """The machine and software of an attempt.

    Attributes:
        hardware: processors and memory.
        versions: package → version.
        method: the way of measuring energy.
    """

    hardware: Hardware
    versions: dict[str, str]
    method: EnergyMethod


class Recording:
    """The record of a run during an attempt of this process. Only rank 0 writes it.

    Args:
        run: an existing directory, locked by the caller.
        settings: settings of the run.
        machine: the machine of this attempt.
        context: context of this attempt; added to that of earlier attempts.
        writes: whether this process writes run.json.
        launch: identity of the launch of all ranks, for which the others wait; None if there is none.

    Attributes:
        writes: whether this process writes run.json.
        record: record of the run; `save` writes changes to it.
        earlier_id: `id` of the previous record; None if it had none.
    """

    def __init__(
        self,
        run: RunDirectory,
        settings: Settings,
        machine: Machine,
        context: Context,
        writes: bool = True,
        launch: str | None = None,
    ) -> None:
        self._run, self.writes = run, writes
        self._node = NodeCounter() if writes else None
        before = run.record() or _new(settings, "new")
        started = now()
        hardware, method = machine.hardware, machine.method
        attempt = Attempt(
            status="running", started=started, pid=os.getpid(),
            host=hardware.host, cpu=hardware.cpu,  # another attempt may have run on another host
            estimate=Constants(core_watts=method.core_watts, gb_watts=method.gb_watts),
        )  # fmt: skip
        if job := job_id():
            attempt.job = job
        if launch:
            attempt.launch = launch
        self.earlier_id = before.id
        self.record = record = _new(settings, "running")
        record.keep(before.unknown())
        for name in _GO_ON:
            if name in before.model_fields_set:
                setattr(record, name, getattr(before, name))
        record.id = before.id or uuid.uuid4().hex
        record.started = before.started or started
        record.attempts = [*account_for_attempts(before.attempts, run.epochs()), attempt]
        record.context = Context(**before.context.given() | context.given())
        record.hardware, record.versions, record.energy_method = hardware, machine.versions, method
        self.save()

    @property
    def attempt(self) -> Attempt:
        """The attempt of this process."""
        return self.record.attempts[-1]

    @property
    def earlier(self) -> list[Attempt]:
        """Earlier attempts."""
        return self.record.attempts[:-1]

    def save(self) -> None:
        """Write run.json."""
        if self.writes:
            self._run.write_record(self.record)

    def end(
        self,
        status: Status,
        phases: Mapping[str, Energy],
        difference: dict[str, float],
        memory: Memory,
        error: Error | None = None,
        unrestored: Sequence[str] = (),
    ) -> None:
        """Record the end of the attempt and of the run.

        Args:
            status: status of both.
            phases: phase → energy of the attempt.
            difference: component or `seconds` → share by which the phases differ from one window over all of them.
            memory: peak over all attempts.
            error: reason if it did not finish.
            unrestored: a message for each GPU limit that was not restored.
        """
        attempt, record = self.attempt, self.record
        attempt.status, attempt.ended = status, now()
        attempt.energy = {phase: energy.to_json() for phase, energy in phases.items()}
        within = all(abs(share) <= _TOLERANCE for share in difference.values())
        attempt.check = Check(difference=difference, ok=within)
        if self._node and (counted := self._node.read()):
            attempt.slurm_node = SlurmNode(**asdict(counted))
        record.status, record.ended, record.memory = status, now(), memory
        if error:
            record.error = error
        if unrestored:
            record.unrestored = list(unrestored)
        record.energy, record.metrics = summary(record, self._run.epochs())
        self.save()


def completed(
    record: Record | None,
    epochs: Sequence[Epoch],
    settings: Settings,
    error: Error | None = None,
    unrestored: Sequence[str] = (),
) -> Record:
    """The record of a run whose process is gone, with the parts that the process did not write.

    Args:
        record: last record from the process; None if it wrote none.
        epochs: lines of epochs.jsonl.
        settings: settings of the run.
        error: reason of its failure; None if it did not fail.
        unrestored: a message for each GPU limit that was not restored.
    """
    record = record or _new(settings, "interrupted")
    if error:
        record.status, record.error = "failed", error
    if unrestored:
        record.unrestored = list(unrestored)
    record.attempts = account_for_attempts(record.attempts, epochs)
    record.energy, record.metrics = summary(record, epochs)
    return record


def reopen(run: RunDirectory) -> bool:
    """Let a failed run be tried again, once, by whichever process takes it; returns whether it was possible."""
    with run.claim() as mine:
        record = mine.record() if mine else None
        if mine is None or record is None or record.status != "failed":
            return False
        record.status = "interrupted"
        mine.write_record(record)
    return True


def _new(settings: Settings, status: Status) -> Record:
    return Record(
        schema=SCHEMA, status=status, identity=settings.identity, configuration=settings.configuration,
        settings=settings.resolved(), attempts=[],
    )  # fmt: skip


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
