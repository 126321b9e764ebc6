"""The schema of a run's record, run.json, and of a line of its epochs.jsonl; where both are read.

Readers get today's shape, whatever version of greenseg wrote the file. Fields that this version does not know survive
reading and writing. A part that is not what greenseg writes counts as absent; `Record.damage` names it.

Fields that a file lacks have their default here, and are not written. Durations are in seconds, energy in joules,
distances in mm, memory in GB, times in UTC (ISO 8601).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from greenseg.data.epoch import slices_per_epoch
from greenseg.energy.reading import EnergyJson
from greenseg.settings import Settings, trained_anywhere

Status = Literal["new", "running", "finished", "failed", "interrupted"]
_STATUSES = get_args(Status)
SCHEMA = 1

_SETTINGS = frozenset(Settings.model_fields)


class BadRecord(Exception):
    """A run's record is damaged; the message names the file and what is wrong."""


class NewerRecord(BadRecord):
    """A later version of greenseg wrote the record; it is whole, and must not be written over."""


Name = Annotated[str, SkipValidation]
"""A key: JSON has no others. Unlike pydantic, Python keeps bytes of file names that are no UTF-8."""

Range = Annotated[list[float], Field(min_length=3, max_length=3)]
"""A figure, its low and its high end."""

Watts = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Constants of an estimate: watts of a busy core, and of a GB of memory; each with its low and high end."""

Energies = dict[str, EnergyJson]
"""Phase → energy, as `Energy.to_json` writes it."""

Scores = dict[Name, float | None]
"""Subject → score; None where it is not defined."""


class Part(BaseModel):
    """A JSON object of known fields, and perhaps others, which are kept."""

    # Most parts are read as parts of a record only: built when first needed, they cost nothing before.
    model_config = ConfigDict(extra="allow", frozen=True, strict=True, defer_build=True)

    def given(self) -> dict[str, Any]:
        """The fields that it has, unknown ones included."""
        return {name: value for name, value in self if name in self.model_fields_set}

    def to_json(self) -> dict[str, Any]:
        """What stands in the file."""
        return self.model_dump(exclude_unset=True, by_alias=True)


class Constants(Part):
    """What an attempt estimates its energy with."""

    core_watts: Range | None = None
    gb_watts: Range | None = None

    @property
    def watts(self) -> Watts | None:
        """Both; None where they are unknown."""
        if self.core_watts is None or self.gb_watts is None:
            return None
        (core, core_low, core_high), (gb, gb_low, gb_high) = self.core_watts, self.gb_watts
        return (core, core_low, core_high), (gb, gb_low, gb_high)


class Check(Part):
    """Whether the phases of an attempt add up to one window over all of them."""

    difference: dict[str, float] = Field(default_factory=dict)
    """Component, or `seconds` → share by which they differ."""
    ok: bool = True


class Attempt(Part):
    """One process that trained the run. `killed`: it ended without a word."""

    model_config = ConfigDict(frozen=False)

    status: str = "running"
    started: str | None = None
    host: str | None = None
    pid: int | None = None
    cpu: str | None = None
    estimate: Constants | None = None
    ended: str | None = None
    energy: Energies | None = None
    check: Check | None = None
    started_over: str | None = None
    """Why it could not go on from the last checkpoint."""

    @property
    def identity(self) -> str:
        """What tells it from other attempts: process, host and start."""
        return f"{self.started} {self.host} {self.pid}"


class Error(Part):
    """Why a run failed, or was interrupted."""

    kind: str | None = None
    """One of `Failure`; a later version may have others."""
    type: str = ""
    message: str = ""
    log: str | None = None
    """The end of run.log."""


class Ran(Part):
    """What happened, where that can differ from what was asked for."""

    precision: str | None = None
    accelerator: str | None = None
    strategy: str | None = None
    devices: int = Field(1, ge=1)
    """On each node."""
    nodes: int = Field(1, ge=1)
    threads: int | None = None
    workers: int | None = None
    batch_size: int | None = Field(None, ge=1)
    """Slices, on each device."""
    lr: float | None = None
    effective_batch_size: int | None = None
    """Slices that a step takes, over all devices and accumulated batches."""
    power_limit: int | float | list[int | float] | None = None
    """W, of each GPU where they differ."""
    gpu_clock: int | float | list[int | float] | None = None
    """MHz, likewise."""


class TriedBatch(Part):
    """A batch size that was tried."""

    batch_size: int
    joules_per_slice: float | None = None
    seconds_per_slice: float | None = None
    out_of_memory: bool = False


class TriedRate(Part):
    """A learning rate that was tried, and the loss at it."""

    lr: float
    loss: float


class TriedWorkers(Part):
    """Seconds of a training step, and of loading a batch by number of workers."""

    step: float
    batch: dict[str, float]


class Probes(Part):
    """What was measured to choose settings that were `auto`."""

    batch_size: list[TriedBatch] | None = None
    lr: list[TriedRate] | None = None
    workers: TriedWorkers | None = None


class Memory(Part):
    """Most memory in use: of the host, and as tensors on the GPU."""

    host_gb: float | None = None
    gpu_gb: float | None = None


class Pause(Part):
    """The pause before a run, and temperatures of the GPUs at its end, in °C."""

    seconds: float
    temperatures: list[float] = Field(default_factory=list)


class Context(Part):
    """What surrounded a run: its place in the order of a sweep, and what was measured outside of it."""

    order: str | None = None
    position: int | None = None
    idle_watts: dict[str, float] | None = None
    """Component → watts, of a GPU, or of the CPU or the DRAM of a machine."""
    cool_down: Pause | None = None
    imports: EnergyJson | None = None
    """Of the process that it was forked from; shared by all runs forked from it."""


class Hardware(Part):
    """The machine of the last attempt."""

    host: str | None = None
    system: str | None = None
    cpu: str | None = None
    cores: int | None = None
    memory_gb: float | None = None
    gpus: list[str] | None = None
    python: str | None = None


class EnergyMethod(Constants):
    """How energy was measured in the last attempt, and why where it was not."""

    sensors_missing: dict[str, str] = Field(default_factory=dict)
    """Component → why it has no sensor."""
    unmeasured: dict[str, str] = Field(default_factory=dict)
    """Component → why its joules are unknown."""
    basis: str | None = None
    """Where the constants come from."""


class Network(Part):
    """The network."""

    parameters: int | float | None = Field(None, title="parameters of the network")


class Data(Part):
    """The slices that were trained on."""

    cache: str = ""
    """Name of the slices in the slice cache."""
    slices: dict[str, int] = Field(default_factory=dict)
    """Split → slices."""
    slices_per_epoch: dict[str, int] | None = None
    """Split → slices of an epoch, which may leave some out or take some twice."""
    bytes: int | None = None
    subjects: dict[str, list[Name]] = Field(default_factory=dict)
    """Split → subjects."""
    preparation: EnergyJson | Annotated[dict[str, float], Field(max_length=0)] | None = None
    """Of making them; empty where that was not measured."""


class Surface(Part):
    """HD95, of the predictions of one epoch."""

    epoch: int | None = None
    hd95: float | None = None
    volume_hd95: Scores = Field(default_factory=dict)


class RunEnergy(Part):
    """Energy of all attempts."""

    total: EnergyJson
    phases: Energies


class ToDice(Part):
    """Joules until a target Dice was reached; None where it was not."""

    dice: float
    joules: float | None


class Carbon(Part):
    """Greenhouse gases, in g CO2 equivalent."""

    grams: float
    grams_per_kwh: int | float
    pue: float


class Cost(Part):
    """Price, in the currency of the price of a kWh."""

    price: float
    price_per_kwh: float
    pue: float


class Metrics(Part):
    """What a run achieved and cost, as `greenseg.runs.summary` computes it."""

    model_config = ConfigDict(frozen=False)

    seconds: float | None = None
    joules: float | None = None
    joules_low: float | None = None
    joules_high: float | None = None
    epochs: int | None = None
    dice: float | None = None
    iou: float | None = None
    volume_dice: Scores = Field(default_factory=dict)
    best_epoch: int = 0
    joules_after_best: float | None = None
    last_dice: float | None = None
    hd95: float | None = None
    volume_hd95: Scores = Field(default_factory=dict)
    measured_epochs: int | None = None
    joules_per_epoch: float | None = None
    joules_per_slice: float | None = None
    joules_per_inference: float | None = None
    energy_delay_product: float | None = None
    """In J·s."""
    watts: float | None = None
    joules_above_idle: dict[str, float] = Field(default_factory=dict)
    energy_to_dice: ToDice | None = None
    co2e: Carbon | None = None
    cost: Cost | None = None


class Record(Part):
    """What run.json says of a run. Its parts are frozen, and replaced whole."""

    model_config = ConfigDict(frozen=False)

    schema_: int = Field(SCHEMA, alias="schema", le=SCHEMA)
    status: Status
    id: str | None = None
    """By which its copies are known; see `known_as`."""
    identity: str | None = None
    configuration: str | None = None
    settings: dict[str, Any]
    """Resolved; those that its version did not know are absent."""
    started: str | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    ran: Ran = Ran()
    probes: Probes = Probes()
    memory: Memory = Memory()
    context: Context = Context()
    hardware: Hardware = Hardware()
    versions: dict[str, str] = Field(default_factory=dict)
    """Package → version."""
    energy_method: EnergyMethod = Field(default_factory=EnergyMethod)
    content: str | None = None
    files: str | None = None
    preprocessing: int | None = None
    network: Network = Network()
    data: Data | None = None
    surface: Surface = Field(default_factory=Surface)
    error: Error | None = None
    unrestored: list[str] | None = None
    """Limits of GPUs that could not be put back, with the repair."""
    ended: str | None = None
    energy: RunEnergy | None = None
    metrics: Metrics = Field(default_factory=Metrics)

    @property
    def known_as(self) -> str:
        """What copies of the run share: its id, or, in records of earlier versions, what tells its first attempt apart.

        Empty where nothing tells it from other runs.
        """
        first = self.attempts[0] if self.attempts else Attempt()
        if self.id or None in (first.pid, first.host, first.started):
            return self.id or ""
        return f"{first.identity} {trained_anywhere(self.settings)}"

    @property
    def damage(self) -> str:
        """The first part that is not what greenseg writes, in words; empty where all are."""
        others = self.model_extra
        return next((_complaint(name, others[name]) for name in _NAMES if name in others), "") if others else ""

    def unknown(self) -> dict[str, Any]:
        """The fields that this version does not know."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in _NAMES}

    def keep(self, others: Mapping[str, Any]) -> None:
        """Add fields that are unknown, or damaged, to be written back as they are."""
        assert self.model_extra is not None
        self.model_extra.update(others)

    def to_json(self) -> dict[str, Any]:
        """What stands in the file: damaged parts as they were, unless they have been replaced since."""
        others = self.model_extra or {}
        for name in self.model_fields_set & others.keys() & Record.model_fields.keys():
            del others[name]
        return super().to_json()

    @classmethod
    def from_json(cls, value: object) -> "Record":
        """A record from plain values, in today's shape.

        Raises:
            NewerRecord: a later version wrote it; the message says by what that is known.
            BadRecord: it is no record at all.
        """
        if isinstance(value, dict) and (why := _newer(value)):
            raise NewerRecord(
                f"a later version of greenseg{_version(value)} wrote it ({why}). Update greenseg to read it"
            )
        if not isinstance(value, dict) or not isinstance(value.get("settings"), dict) or "status" not in value:
            raise BadRecord("not a record of a run")
        try:
            return _in_todays_shape(cls.model_validate(value))
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors(include_url=False)}
        record = cls.model_validate({name: part for name, part in value.items() if name not in wrong})
        record.keep({str(name): value[name] for name in wrong})
        return _in_todays_shape(record)


_NAMES = [field.alias or name for name, field in Record.model_fields.items()]


class Epoch(Part):
    """A line of epochs.jsonl: an epoch, as one attempt trained it."""

    epoch: int
    attempt: int
    train_loss: float | None = None
    dice: float | None
    iou: float | None = None
    volume_dice: Scores = Field(default_factory=dict)
    seconds: float | None = None
    train: EnergyJson
    validation: EnergyJson
    attempt_so_far: Energies
    """Phase → energy of the attempt until the end of this epoch."""


def read_record(text: bytes) -> Record:
    """The record that is the content of a run.json, in today's shape.

    Raises:
        NewerRecord: a later version wrote it; the message says by what that is known.
        BadRecord: it is not what greenseg writes.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return Record.from_json(_parsed(text))  # says what is wrong, and keeps what is not
    return _in_todays_shape(record) if record.settings.keys() <= _SETTINGS else Record.from_json(_parsed(text))


def read_epoch(line: bytes) -> Epoch:
    """A line of epochs.jsonl.

    Raises:
        BadRecord: it is not what greenseg writes.
    """
    try:
        return Epoch.model_validate_json(line)
    except ValidationError:
        value = _parsed(line)
    try:
        return Epoch.model_validate(value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise BadRecord(f"not an epoch of a run: {where or value!r}") from None


def _parsed(text: bytes) -> object:
    """JSON as Python reads it: unlike pydantic, with bytes of file names that are no UTF-8."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(str(error)) from None


def _newer(record: dict[str, Any]) -> str:
    """By what a record is known to be of a later version; empty where it is not."""
    schema, settings = record.get("schema", SCHEMA), record.get("settings")
    if schema != SCHEMA and not (isinstance(schema, int) and schema < SCHEMA):
        return f"schema {schema}; this version reads {SCHEMA}"
    if record.get("status", "new") not in _STATUSES:
        return f"unknown status {record['status']!r}"
    if isinstance(settings, dict) and not settings.keys() <= _SETTINGS:
        return f"unknown setting {', '.join(sorted(settings.keys() - _SETTINGS))}"
    return ""


def _version(record: dict[str, Any]) -> str:
    versions = record.get("versions")
    return f", {versions['greenseg']}," if isinstance(versions, dict) and "greenseg" in versions else ""


def _in_todays_shape(record: Record) -> Record:
    """A record of an earlier version with what later ones write, as far as it can be derived."""
    if any(attempt.estimate is None or attempt.cpu is None for attempt in record.attempts):
        # It had the CPU and the constants of the last attempt only. Another host may have another CPU.
        method, last = record.energy_method, record.attempts[-1]
        constants = Constants(core_watts=method.core_watts, gb_watts=method.gb_watts) if method.watts else None
        record.attempts = [
            _completed(attempt, constants, record.hardware.cpu if attempt.host == last.host else None)
            for attempt in record.attempts
        ]
    data, ran = record.data, record.ran
    if data and data.slices_per_epoch is None and "train" in data.slices and ran.batch_size:
        # It had all slices, also those that an epoch drops.
        train = slices_per_epoch(data.slices["train"], ran.batch_size, ran.devices * ran.nodes)
        record.data = data.model_copy(update={"slices_per_epoch": data.slices | {"train": train}})
    return record


def _completed(attempt: Attempt, constants: Constants | None, cpu: str | None) -> Attempt:
    known = {"estimate": attempt.estimate or constants, "cpu": attempt.cpu or cpu}
    return attempt.model_copy(update={name: value for name, value in known.items() if value is not None})


_WRONG_NUMBERS = ("float_type", "int_type", "int_from_float")


def _complaint(name: str, value: object) -> str:
    """What is wrong with a part of a record."""
    try:
        Record.model_validate({"status": "new", "settings": {}, name: value})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        inside, wrong = [str(key) for key in problem["loc"][1:]], problem["input"]
        if inside and problem["type"] in _WRONG_NUMBERS:
            part = Record.model_fields[name].annotation
            title = part.model_fields[inside[0]].title if isinstance(part, type(Part)) else None
            path = ".".join(inside)
            return f"{title}: {wrong!r} is not a number" if title else f"{name}: {path} is {wrong!r}, not a number"
    return not_written(name)


def not_written(part: str) -> str:
    """That a part of a record is damaged."""
    return f"'{part}' is missing, or not what greenseg writes"
