"""The schema of a run's record, run.json, and of a line of its epochs.jsonl; reads both.

Files of any earlier version are read in the present form. Unknown fields survive reading and writing. A damaged part
counts as missing; `Record.damage` names it.

A field that a file lacks has its default here, and is not written. Durations are in seconds, energy in joules,
distances in mm, memory in GB, times in UTC (ISO 8601).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from greenseg.data.epoch import slices_per_epoch
from greenseg.energy.reading import Energy, EnergyJson
from greenseg.settings import Settings, trained_anywhere

Status = Literal["new", "running", "paused", "finished", "failed", "interrupted"]
_STATUSES = get_args(Status)
SCHEMA = 1

_SETTINGS = frozenset(Settings.model_fields)


class BadRecord(Exception):
    """A run's record is damaged; the message has the file and the problem."""


class NewerRecord(BadRecord):
    """A later version of greenseg wrote the record; it is intact and must not be overwritten."""


Name = Annotated[str, SkipValidation]
"""A key. Unlike pydantic, Python keeps bytes of file names that are not UTF-8. JSON keys are always text."""

Range = Annotated[list[float], Field(min_length=3, max_length=3)]
"""A value, its low and its high end."""

Watts = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Constants of an estimate: watts per busy core and per GB of memory, each with its low and high end."""

Energies = dict[str, EnergyJson]
"""Phase → energy, as `Energy.to_json` writes it."""

Scores = dict[Name, float | None]
"""Subject → score; None if undefined."""


class Part(BaseModel):
    """A JSON object with known fields; unknown fields are kept."""

    # Most parts are only read within a record. Their own validators are built on first use, at no cost before.
    model_config = ConfigDict(extra="allow", frozen=True, strict=True, defer_build=True)

    def given(self) -> dict[str, Any]:
        """The fields that are set, including unknown ones."""
        return {name: value for name, value in self if name in self.model_fields_set}

    def to_json(self) -> dict[str, Any]:
        """The content of the file, as plain values."""
        return self.model_dump(exclude_unset=True, by_alias=True)


class Constants(Part):
    """Constants of the estimate of an attempt."""

    core_watts: Range | None = None
    gb_watts: Range | None = None

    @property
    def watts(self) -> Watts | None:
        """Both; None if one is unknown."""
        if self.core_watts is None or self.gb_watts is None:
            return None
        (core, core_low, core_high), (gb, gb_low, gb_high) = self.core_watts, self.gb_watts
        return (core, core_low, core_high), (gb, gb_low, gb_high)


class Check(Part):
    """Comparison of the sum of an attempt's phases with one window over all of them."""

    difference: dict[str, float] = Field(default_factory=dict)
    """Component or `seconds` → share by which they differ."""
    ok: bool = True


class SlurmNode(Part):
    """Joules that Slurm's own sensors counted on all nodes of a step during an attempt, with everything else on them.

    They have the source `slurm-node`. They are beside the readings of greenseg: in no total, and never compared.
    """

    joules: float
    seconds: float
    """Length of the window: the attempt without the imports before it."""
    step: str
    """Such as `17.batch`."""


class Attempt(Part):
    """A process that trained the run. Status `killed`: it ended without recording its end."""

    model_config = ConfigDict(frozen=False)

    status: str = "running"
    started: str | None = None
    host: str | None = None
    pid: int | None = None
    job: str | None = None
    """The batch job of the process, such as `slurm 17_3`; see `greenseg.batch_job`."""
    launch: str | None = None
    """Identity of the launch of all its ranks; see `greenseg.machine.cores.launch_of`."""
    cpu: str | None = None
    estimate: Constants | None = None
    ended: str | None = None
    energy: Energies | None = None
    check: Check | None = None
    slurm_node: SlurmNode | None = None
    started_over: str | None = None
    """Why it could not continue from the last checkpoint."""

    @property
    def identity(self) -> str:
        """Identifies an attempt: start, host and process."""
        return f"{self.started} {self.host} {self.pid}"


class Error(Part):
    """Why a run failed or was interrupted."""

    kind: str | None = None
    """One of `Failure`; a later version may have others."""
    type: str = ""
    message: str = ""
    log: str | None = None
    """The end of run.log."""


class Ran(Part):
    """Values in effect, for settings whose values can differ from the requested ones."""

    precision: str | None = None
    accelerator: str | None = None
    strategy: str | None = None
    devices: int = Field(1, ge=1)
    """Per node."""
    nodes: int = Field(1, ge=1)
    threads: int | None = None
    workers: int | None = None
    batch_size: int | None = Field(None, ge=1)
    """Slices per device."""
    lr: float | None = None
    effective_batch_size: int | None = None
    """Slices per step, over all devices and accumulated batches."""
    runtime: str | None = None
    """Engine of the predictions of a converted network."""
    in_8_bits: float | None = None
    """Share of the convolutions that were computed in 8 bits."""
    power_limit: int | float | list[int | float] | None = None
    """W; a list if the GPUs differ."""
    gpu_clock: int | float | list[int | float] | None = None
    """MHz; a list if the GPUs differ."""


class TriedBatch(Part):
    """Measurement of a batch size."""

    batch_size: int
    joules_per_slice: float | None = None
    seconds_per_slice: float | None = None
    out_of_memory: bool = False


class TriedRate(Part):
    """A learning rate of the range test, with its loss."""

    lr: float
    loss: float


class TriedWorkers(Part):
    """Seconds per training step, and seconds to load a batch for each number of workers."""

    step: float
    batch: dict[str, float]


class Probes(Part):
    """Measurements to choose the values of settings that were `auto`."""

    batch_size: list[TriedBatch] | None = None
    lr: list[TriedRate] | None = None
    workers: TriedWorkers | None = None


class Memory(Part):
    """Peak memory: of the host, and of tensors on the GPU."""

    host_gb: float | None = None
    gpu_gb: float | None = None


class Pause(Part):
    """The pause before a run, and the temperatures of the GPUs at its end, in °C."""

    seconds: float
    temperatures: list[float] = Field(default_factory=list)


class Searched(Part):
    """The part of a run in a search; see `greenseg.search`."""

    method: str
    round: int
    """Number of the round that started the last attempt, from 0."""
    until: int
    """Number of epochs that the run has at the end of the round."""
    why: str = ""
    repeat: int = 0
    """Number of the run among those that differ only in the seed, from 0."""
    runs: int = 0
    """Number of runs of the grid."""
    joules: float | None = None
    """Budget; see `greenseg.sweep.file.Searching`."""
    share: float | None = None
    seed: int = 0
    sampler: str = ""
    """What drew the configuration; empty if none is drawn."""


class Context(Part):
    """The context of a run: its position in a sweep, and measurements outside the run."""

    order: str | None = None
    position: int | None = None
    idle_watts: dict[str, float] | None = None
    """Component → watts per GPU, or of the CPU or DRAM of a machine."""
    cool_down: Pause | None = None
    search: Searched | None = None
    imports: EnergyJson | None = None
    """Of the process that the run was forked from; all its forks share them."""


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
    """The way of measuring energy in the last attempt, with reasons for missing measurements."""

    sensors_missing: dict[str, str] = Field(default_factory=dict)
    """Component → why it has no sensor."""
    unmeasured: dict[str, str] = Field(default_factory=dict)
    """Component → why its joules are unknown."""
    basis: str | None = None
    """Source of the constants."""


class Network(Part):
    """The network."""

    parameters: int | float | None = Field(None, title="parameters of the network")


class Data(Part):
    """The slices of the run."""

    cache: str = ""
    """Name of their folder in the slice cache."""
    slices: dict[str, int] = Field(default_factory=dict)
    """Split → number of slices."""
    slices_per_epoch: dict[str, int] | None = None
    """Split → number of slices per epoch, which may leave some out or use some twice."""
    bytes: int | None = None
    subjects: dict[str, list[Name]] = Field(default_factory=dict)
    """Split → subjects."""
    preparation: EnergyJson | Annotated[dict[str, float], Field(max_length=0)] | None = None
    """Energy of making them; empty if it was not measured."""
    classes: dict[Name, str] = Field(default_factory=dict)
    """Class → labels of the masks that form it, in the order of their numbers; only of several classes or channels."""
    channels: int | None = None
    """Number of channels of an image; only of several classes or channels."""
    windows: dict[str, list[float]] = Field(default_factory=dict)
    """Number of a channel in Hounsfield units, from 0 → the values that became 0 and 1."""


class ClassScores(Part):
    """Quality of one of several classes: means over subjects, and the values of the subjects; None if undefined."""

    dice: float | None = None
    iou: float | None = None
    volume_dice: Scores = Field(default_factory=dict)
    hd95: float | None = None
    volume_hd95: Scores = Field(default_factory=dict)


Classes = dict[Name, ClassScores]
"""Class → quality, in the order of their numbers; empty for a single class."""


class Surface(Part):
    """HD95 of the predictions of an epoch."""

    epoch: int | None = None
    hd95: float | None = None
    volume_hd95: Scores = Field(default_factory=dict)
    classes: Classes = Field(default_factory=dict)


class Quality(Part):
    """Quality of the predictions of one epoch, each volume in its own geometry; None if undefined.

    Scores are those of subjects, or their means; see `greenseg.metrics.volumes`.
    """

    epoch: int | None = None
    """The epoch of the network."""
    dice: float | None = None
    iou: float | None = None
    hd95: float | None = None
    volume_dice: Scores = Field(default_factory=dict)
    volume_iou: Scores = Field(default_factory=dict)
    volume_hd95: Scores = Field(default_factory=dict)
    classes: Classes = Field(default_factory=dict)
    """Only of several classes."""


class Tested(Quality):
    """Quality on the test part, which neither trained nor chose anything."""

    content: str | None = None
    """Digest of its files."""
    slices: int | None = None
    problem: str | None = None
    """Why there are no figures, although there is a test part."""


class Ancestor(Part):
    """A run whose network a run comes from or learns from."""

    role: Literal["parent", "teacher"] = "parent"
    identity: str = ""
    """`Settings.identity` of the run."""
    id: str = ""
    """The id in its record."""
    directory: str = ""
    dice: float | None = None
    """Of its network, per volume of the validation subjects."""
    energy: EnergyJson | None = None
    """Of its own attempts, without its ancestors and without the phase `test`."""
    cpu: str | None = None
    estimate: Constants | None = None
    """Constants of its estimates, if all its attempts have the same."""


class Lineage(Part):
    """The runs whose joules are part of the cost of a run's network, each once, the parent first."""

    ancestors: list[Ancestor] = Field(default_factory=list)

    @property
    def parents(self) -> list[Ancestor]:
        """The run whose network this one compresses, then its own parent, and so on."""
        return [each for each in self.ancestors if each.role == "parent"]

    def counted(self, teacher_shared: bool) -> list[Ancestor]:
        """The ancestors whose joules the total includes."""
        return [each for each in self.ancestors if not (teacher_shared and each.role == "teacher")]


class RunEnergy(Part):
    """Energy of all attempts, and of each phase. The total includes the phases of ancestors, but not `test`."""

    total: EnergyJson
    phases: Energies


class Window(Part):
    """Prediction with batches of one size, over and over, for a while."""

    batch_size: int
    slices: int
    seconds: float
    energy: EnergyJson
    cpu_seconds: float
    """CPU seconds of the process and its descendants."""
    p50_ms: float
    """Median duration of a batch, in ms."""
    p95_ms: float
    """95th percentile of it."""

    @property
    def joules_per_slice(self) -> float:
        """Joules of all components per predicted slice."""
        return Energy.from_json(self.energy).joules / self.slices


class Measured(Part):
    """The cost of prediction with the network of the run, from `greenseg measure`."""

    date: str | None = None
    seconds: float | None = None
    """Duration of the measurement, with its trials."""
    hardware: Hardware = Hardware()
    """The machine that predicted, which may be another one than that of the training."""
    runtime: str = "torch"
    """The engine that ran."""
    version: str | None = None
    """Version of the engine."""
    precision: str = ""
    """Numeric precision as it ran."""
    device: str = "cpu"
    threads: int | None = None
    bytes: int | None = None
    """Size of the network on disk."""
    slices_per_volume: float | None = None
    """Mean number of slices of a validation volume."""
    batch_1: Window | None = None
    """Slice by slice."""
    best: Window | None = None
    """With the number of slices per batch that takes the fewest joules per slice."""
    tried: list[TriedBatch] = Field(default_factory=list)
    """Short trials that chose this number."""
    energy_method: EnergyMethod = Field(default_factory=EnergyMethod)
    marks: list[str] = Field(default_factory=list)
    """Caveats; see `greenseg.measurement`."""

    @property
    def joules_per_slice(self) -> float | None:
        """Joules per slice with the best batch size."""
        return self.best.joules_per_slice if self.best else None

    @property
    def joules_per_volume(self) -> float | None:
        """Joules per slice × mean number of slices of a validation volume."""
        each, slices = self.joules_per_slice, self.slices_per_volume
        return None if each is None or slices is None else each * slices


class ToDice(Part):
    """Joules until the run reached a target Dice; None if it did not."""

    dice: float
    joules: float | None


class Carbon(Part):
    """Greenhouse gases, in g CO2 equivalent."""

    grams: float
    grams_per_kwh: int | float
    pue: float


class Cost(Part):
    """Price, in the currency of the price per kWh."""

    price: float
    price_per_kwh: float
    pue: float


class Metrics(Part):
    """Quality and cost of a run, from `greenseg.runs.summary`."""

    model_config = ConfigDict(frozen=False)

    seconds: float | None = None
    joules: float | None = None
    own_seconds: float | None = None
    own_joules: float | None = None
    """Without the ancestors; None if there is none."""
    joules_low: float | None = None
    joules_high: float | None = None
    epochs: int | None = None
    dice: float | None = None
    iou: float | None = None
    volume_dice: Scores = Field(default_factory=dict)
    on_grid: bool = True
    """Whether the figures are those on the training grid: of an earlier version, or of a run that did not finish."""
    epoch_dice: float | None = None
    """Dice of the best epoch on the training grid, which chose it."""
    best_epoch: int = 0
    joules_after_best: float | None = None
    last_dice: float | None = None
    """Dice of the last epoch, on the training grid."""
    hd95: float | None = None
    volume_hd95: Scores = Field(default_factory=dict)
    classes: Classes = Field(default_factory=dict)
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

    @property
    def own(self) -> tuple[float | None, float | None]:
        """Joules and seconds of the run itself, without its ancestors."""
        return (self.joules, self.seconds) if self.own_joules is None else (self.own_joules, self.own_seconds)


class Head(Part):
    """The part of a record that a plan needs. Reading it alone takes less than half the time."""

    model_config = ConfigDict(frozen=False, extra="ignore")

    schema_: int = Field(SCHEMA, alias="schema", le=SCHEMA)
    status: Status
    settings: dict[str, Any]
    """Resolved; without the settings that its version did not have."""
    content: str | None = None
    preprocessing: int | None = None
    metrics: Metrics = Field(default_factory=Metrics)


class Record(Head):
    """The content of run.json. Its parts are frozen: replace them as a whole."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    """Shared by its copies; see `known_as`."""
    identity: str | None = None
    configuration: str | None = None
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
    files: str | None = None
    network: Network = Network()
    lineage: Lineage = Field(default_factory=Lineage)
    data: Data | None = None
    surface: Surface = Field(default_factory=Surface)
    """Of the validation subjects on the training grid; later versions have `validation` instead."""
    validation: Quality = Field(default_factory=Quality)
    """Of the validation subjects, at the best epoch."""
    test: Tested = Field(default_factory=Tested)
    measured: Measured | None = None
    """Of this network: a run that trains on drops it."""
    deleted: str | None = None
    """Why its network was deleted after it had finished, such as `keep: none`."""
    error: Error | None = None
    unrestored: list[str] | None = None
    """A message with the fix for each GPU limit that was not restored."""
    ended: str | None = None
    energy: RunEnergy | None = None

    @property
    def known_as(self) -> str:
        """An identifier that copies of the run share: its id or, in earlier versions, start, host and process of the
        first attempt with the training settings. Empty if nothing distinguishes it from other runs.
        """
        first = self.attempts[0] if self.attempts else Attempt()
        if self.id or None in (first.pid, first.host, first.started):
            return self.id or ""
        return f"{first.identity} {trained_anywhere(self.settings)}"

    @property
    def damage(self) -> str:
        """A message about the first damaged part; empty if there is none."""
        others = self.model_extra
        return next((_complaint(name, others[name]) for name in _NAMES if name in others), "") if others else ""

    def unknown(self) -> dict[str, Any]:
        """The fields that this version does not have."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in _NAMES}

    def keep(self, others: Mapping[str, Any]) -> None:
        """Add unknown or damaged fields, to write them back unchanged."""
        assert self.model_extra is not None
        self.model_extra.update(others)

    def to_json(self) -> dict[str, Any]:
        """The content of the file, as plain values: damaged parts unchanged, unless they were replaced."""
        others = self.model_extra or {}
        for name in self.model_fields_set & others.keys() & Record.model_fields.keys():
            del others[name]
        return super().to_json()

    @classmethod
    def from_json(cls, value: object) -> "Record":
        """A record from plain values, in the present form.

        Raises:
            NewerRecord: a later version wrote it; the message has the evidence.
            BadRecord: it is not a record.
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
    """A line of epochs.jsonl: an epoch of an attempt."""

    epoch: int
    attempt: int
    train_loss: float | None = None
    dice: float | None
    iou: float | None = None
    volume_dice: Scores = Field(default_factory=dict)
    classes: Classes = Field(default_factory=dict)
    seconds: float | None = None
    train: EnergyJson
    validation: EnergyJson
    attempt_so_far: Energies
    """Phase → energy of the attempt up to the end of this epoch."""


def read_record(text: bytes) -> Record:
    """The record from the text of a run.json, in the present form.

    Raises:
        NewerRecord: a later version wrote it; the message has the evidence.
        BadRecord: it is not a record.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return Record.from_json(_parsed(text))  # names the damaged parts and keeps the others
    return _in_todays_shape(record) if record.settings.keys() <= _SETTINGS else Record.from_json(_parsed(text))


def read_head(text: bytes) -> Head:
    """The head of a record, or all of the record if only that shows its problem.

    Raises:
        NewerRecord: a later version wrote it; the message has the evidence.
        BadRecord: it is not a record.
    """
    try:
        head = Head.model_validate_json(text)
    except ValidationError:
        return read_record(text)
    return head if head.settings.keys() <= _SETTINGS else read_record(text)


def read_epoch(line: bytes) -> Epoch:
    """A line of epochs.jsonl.

    Raises:
        BadRecord: it is damaged.
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
    """JSON as Python reads it: unlike pydantic, it keeps bytes of file names that are not UTF-8."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(str(error)) from None


def _newer(record: dict[str, Any]) -> str:
    """The evidence that a record is of a later version; empty if it is not."""
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
    """A record of an earlier version, with the later fields that can be derived from it."""
    if any(attempt.estimate is None or attempt.cpu is None for attempt in record.attempts):
        # It has the CPU and the constants of the last attempt only. Another host may have another CPU.
        method, last = record.energy_method, record.attempts[-1]
        constants = Constants(core_watts=method.core_watts, gb_watts=method.gb_watts) if method.watts else None
        record.attempts = [
            _completed(attempt, constants, record.hardware.cpu if attempt.host == last.host else None)
            for attempt in record.attempts
        ]
    data, ran = record.data, record.ran
    if data and data.slices_per_epoch is None and "train" in data.slices and ran.batch_size:
        # It has all slices, including those that an epoch drops.
        train = slices_per_epoch(data.slices["train"], ran.batch_size, ran.devices * ran.nodes)
        record.data = data.model_copy(update={"slices_per_epoch": data.slices | {"train": train}})
    return record


def _completed(attempt: Attempt, constants: Constants | None, cpu: str | None) -> Attempt:
    known = {"estimate": attempt.estimate or constants, "cpu": attempt.cpu or cpu}
    return attempt.model_copy(update={name: value for name, value in known.items() if value is not None})


_WRONG_NUMBERS = ("float_type", "int_type", "int_from_float")


def _complaint(name: str, value: object) -> str:
    """The problem of a part of a record."""
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
    """The message about a missing or damaged part of a record."""
    return f"'{part}' is missing or damaged"
