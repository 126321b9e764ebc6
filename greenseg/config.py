"""The settings of a run, declared once: command-line options, keys of a sweep, config.yaml and the docs follow.

A setting is a field of `Settings`: its type, default, limits and help stand here and nowhere else.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from greenseg import model_names as names
from greenseg import strategies
from greenseg.errors import UserError, did_you_mean
from greenseg.strategies import STRATEGIES

PHANTOM = "phantom"

Precision = Literal[
    "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "transformer-engine",
    "transformer-engine-float16",
]  # fmt: skip


Layout = Literal["auto", "e2mip", "nnunet", "bids", "csv"]
SCHEDULE_FREE, SOPHIA = "schedule-free-adamw", "sophia"
"""Optimizers that need more than a step."""

ACCOUNTING = "Energy"
"""Group of the settings that change what is accounted for, not what is trained: they are not part of the identity."""

REPEATS = "Repeats"
"""Group of the settings in which repeats of one configuration differ."""


def _setting(default: Any, help: str, *, group: str, neutral: Any = None, **limits: Any) -> Any:
    """A field of `Settings`.

    Args:
        neutral: the value that does what was done before the setting existed; by default, its default. Identities leave
            it out, and it never changes. When a default changes, the old one stays here: a file that does not name
            the setting then trains something else.
    """
    extra = {"group": group, "neutral": default if neutral is None else neutral}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def _country(value: str) -> str:
    from greenseg.energy.derived import carbon_intensities  # not on the way to --help

    intensities = carbon_intensities()
    if not value or value.upper() in intensities:
        return value.upper()
    if not intensities:
        raise ValueError(
            "the table of countries needs the extra: pip install 'greenseg[carbon]'; or give carbon_intensity"
        )
    raise ValueError(
        f"no country '{value}'{did_you_mean(value, list(intensities))}; valid: ISO codes such as FRA or DEU"
    )


def _labels(value: Any) -> str:
    """Canonical: whole numbers above 0, each once, ascending, with commas between them."""
    text = str(value).replace(" ", "")
    if not re.fullmatch(r"(\d{1,9}(,\d{1,9})*)?", text) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not labels written as text, such as 1,2,3")
    labels = sorted({int(label) for label in text.split(",")}) if text else []
    if 0 in labels:
        raise ValueError("0 is background; labels are above 0")
    return ",".join(map(str, labels))


def _whole_or_auto(lowest: int, highest: int) -> BeforeValidator:
    def check(value: Any) -> int | str:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            value = int(value)  # the command line does not know whether it is a number
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{value!r} is neither a whole number nor auto{did_you_mean(str(value), ['auto'])}")
        if value != "auto" and not lowest <= value <= highest:
            raise ValueError(f"{value}: must be from {lowest} to {highest}, or auto")
        return value  # type: ignore[no-any-return]

    return BeforeValidator(check)


def _positive_or_auto(highest: float) -> BeforeValidator:
    def check(value: Any) -> float | str:
        if isinstance(value, str) and value != "auto" and "_" not in value:  # Python reads 1_0 as 10
            with contextlib.suppress(ValueError):
                value = float(value)
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{value!r} is neither a number nor auto{did_you_mean(str(value), ['auto'])}")
        if value != "auto" and not 0 < value <= highest:  # NaN is neither
            raise ValueError(f"{value}: must be above 0 and at most {highest:g}, or auto")
        return value if value == "auto" else float(value)

    return BeforeValidator(check)


def _path_or_word(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    path = os.path.normpath(value)
    return f"./{path}" if path == PHANTOM != value else path  # a folder of that name is not the built-in phantom


class Settings(BaseModel):
    """Everything that decides what one run does.

    `model` is a shorthand for `encoder` and `decoder`: it fills in those that are not given. Once resolved it is
    `<encoder>-<decoder>`, and it is left out of `resolved()`. A whole network is a `decoder` with an empty `encoder`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # ── data
    data: Annotated[str, AfterValidator(_path_or_word)] = _setting(
        PHANTOM,
        "Folder of the data set, or its CSV file, or 'phantom' for the built-in data set.",
        group="Data",
    )
    layout: Layout = _setting("auto", "How the data set is laid out; auto = see what is there.", group="Data")
    labels: Annotated[str, BeforeValidator(_labels), WithJsonSchema({"type": ["string", "integer"]})] = _setting(
        "", "Labels of the masks that are brain, such as 1,2,3; empty = any above 0.", group="Data"
    )
    image_size: int = _setting(
        128, "Height and width of a slice, in pixels.", group="Data", ge=32, le=2048, multiple_of=32
    )
    spacing: float = _setting(
        1.5,
        "Size of a pixel, in mm: slices are resampled to it and cut or padded to image_size; brain that is cut off is "
        "reported.",
        group="Data",
        gt=0,
        le=100,
    )
    validation_share: float = _setting(
        0.2,
        "Share of the subjects held out for validation where the data names none.",
        group="Data",
        gt=0,
        lt=1,
    )
    split_seed: int = _setting(
        0,
        "Seed of the split where the data names none; runs with the same one validate on the same subjects.",
        group="Data",
        ge=0,
        lt=2**32,
    )
    folds: int = _setting(
        0,
        "Folds of a cross-validation: subjects are dealt to so many, whatever split the data names; 0 = none.",
        group="Data",
        ge=0,
        le=1000,
    )
    drop_empty_slices: float = _setting(
        0.0,
        "Share of the training slices without brain that is left out; validation keeps all.",
        group="Data",
        ge=0,
        le=1,
    )
    augment: Literal["none", "flips", "light", "strong"] = _setting(
        "strong",
        "Augmentation of the training slices: flips = flips and quarter turns; light, strong = flips, rotation, scale, "
        "shift, bias field, contrast, noise and blur, a little or a lot.",
        group="Data",
    )
    workers: Annotated[Annotated[int, Field(ge=0, le=256)] | Literal["auto"], _whole_or_auto(0, 256)] = _setting(
        0,
        "Processes that load data; 0 loads in the training process; auto = try, and take the fewest that keep the "
        "device busy.",
        group="Data",
    )
    batch_size: Annotated[Annotated[int, Field(ge=1, le=65536)] | Literal["auto"], _whole_or_auto(1, 65536)] = _setting(
        8,
        "Slices a step on one device; auto = try sizes, and take the one with the fewest joules a slice.",
        group="Data",
    )

    # ── network
    model: str = _setting(
        "mobilenet-unet",
        "Network as <encoder>-<decoder>, or a whole one such as enet (see `greenseg models`); fills in whichever of "
        "encoder and decoder is not given.",
        group="Network",
        exclude=True,
    )
    encoder: str = _setting(
        "",
        "Encoder (backbone) of segmentation-models-pytorch, or 'tu-' and a model of timm; empty = that of model.",
        group="Network",
    )
    decoder: str = _setting(
        "",
        f"Decoder: {', '.join(names.DECODERS)}; or a whole network, without encoder: {', '.join(names.NETWORKS)}; "
        "empty = that of model.",
        group="Network",
    )
    width: float = _setting(
        1.0, "Factor on the numbers of channels of a whole network such as enet.", group="Network", ge=0.25, le=4
    )
    encoder_weights: Literal["none", "imagenet"] = _setting(
        "none",
        "Pretrained weights of the encoder; imagenet is loaded from the Hugging Face hub.",
        group="Network",
    )

    # ── optimization
    epochs: int = _setting(30, "Passes over the training slices.", group="Optimization", ge=1, le=100_000)
    early_stopping: int = _setting(
        0, "Stop after so many epochs without a better Dice; 0 = never.", group="Optimization", ge=0, le=100_000
    )
    freeze_encoder: int = _setting(
        0,
        "First epochs in which the encoder does not learn; as many as epochs, and it never does.",
        group="Optimization",
        ge=0,
        le=100_000,
    )
    optimizer: Literal[
        "adamw", "adam", "sgd", "nadam", "lion", "adafactor", "novograd", "muon", "sophia", "schedule-free-adamw",
        "adamw-8bit",
    ] = _setting(
        "adamw",
        "Optimizer, from timm or pytorch_optimizer; muon = matrices by Muon, the rest by AdamW; schedule-free-adamw "
        "needs a constant schedule, adamw-8bit the extra '8bit'.",
        group="Optimization",
    )  # fmt: skip
    lr: Annotated[Annotated[float, Field(gt=0, le=100)] | Literal["auto"], _positive_or_auto(100)] = _setting(
        3e-3,
        "Learning rate; the highest one of the schedule; auto = try, and take the one at which the loss falls fastest.",
        group="Optimization",
    )
    weight_decay: float = _setting(0.01, "Weight decay.", group="Optimization", ge=0, le=10)
    schedule: Literal["onecycle", "cosine", "constant", "plateau"] = _setting(
        "onecycle",
        "Learning rate over the run, changed every step; plateau = halved after a tenth of all epochs without better "
        "Dice.",
        group="Optimization",
    )
    gradient_clip: float = _setting(
        0.0,
        "Largest norm of the gradient, which is scaled down to it; 0 = no limit.",
        group="Optimization",
        ge=0,
        le=1e6,
    )
    accumulate: int = _setting(
        1, "Batches whose gradients are added up for one step.", group="Optimization", ge=1, le=65536
    )

    # ── compute
    precision: Precision = _setting("32-true", "Numeric precision, as Lightning names it.", group="Compute")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = _setting("auto", "Kind of device.", group="Compute")
    devices: int = _setting(
        1, "Devices (on a CPU: processes) that train one network together.", group="Compute", ge=1, le=64
    )
    nodes: int = _setting(
        1,
        "Machines that train one network together, each with so many devices; the same command is started on each.",
        group="Compute",
        ge=1,
        le=1024,
    )
    strategy: strategies.Name = _setting(
        "auto",
        "How several devices work together; auto = one device alone, several with ddp; fsdp = weights, gradients and "
        "the optimizer's state are divided among them; deepspeed_stage_2 (GPUs, extra 'deepspeed') = the latter two.",
        group="Compute",
    )
    channels_last: bool = _setting(True, "Keep the channels of images innermost in memory (NHWC).", group="Compute")
    compile: bool = _setting(
        False,
        "Compile the network with torch.compile; the first steps then wait for it, a minute or more.",
        group="Compute",
    )
    gradient_checkpointing: bool = _setting(
        False,
        "Keep only the input of each block of the network, and compute the rest again for the backward pass: less "
        "memory, more joules, same result.",
        group="Compute",
    )
    matmul_precision: Literal["highest", "high", "medium"] = _setting(
        "highest",
        "Internal precision of float32 matrix products, as torch names it: high = TensorFloat32, medium = bfloat16.",
        group="Compute",
    )
    power_limit: int = _setting(
        0,
        "Watts that each GPU may draw while the run trains; put back afterwards; 0 = as it is. Needs root or zeusd.",
        group="Compute",
        ge=0,
        le=5000,
    )
    gpu_clock: int = _setting(
        0,
        "MHz at which the graphics clock of each GPU is locked while the run trains; 0 = free. Needs root or zeusd.",
        group="Compute",
        ge=0,
        le=10_000,
    )

    seed: int = _setting(
        0,
        "Seed of weights, order and augmentation; runs that differ only by it are repeats.",
        group=REPEATS,
        ge=0,
        lt=2**32,
    )
    fold: int = _setting(
        0,
        "Fold that validates, from 0; runs that differ only by it are repeats.",
        group=REPEATS,
        ge=0,
        lt=1000,
    )

    # ── energy: what is accounted for, not what is trained
    cpu_watts: float = _setting(
        0.0,
        "Watts of a busy CPU core, for the estimate where there is no sensor; 0 = this CPU's rated power, or 12.",
        group=ACCOUNTING,
        ge=0,
        le=1000,
    )
    dram_watts: float = _setting(
        0.0, "Watts of a GB of DRAM, for the estimate; 0 = 0.3725.", group=ACCOUNTING, ge=0, le=100
    )
    measure_after: int = _setting(
        0,
        "Epochs to leave out of joules per epoch, as warm-up, fewer than epochs; they count in the total.",
        group=ACCOUNTING,
        ge=0,
        le=100_000,
    )
    energy_to_dice: float = _setting(
        0.85, "Dice for which to tell the joules that it took to reach it.", group=ACCOUNTING, gt=0, le=1
    )
    carbon_intensity: float = _setting(
        0.0,
        "Carbon intensity of your electricity, in g CO2e/kWh; 0 = that of country.",
        group=ACCOUNTING,
        ge=0,
        le=5000,
    )
    country: Annotated[str, AfterValidator(_country)] = _setting(
        "",
        "Country whose carbon intensity counts, as ISO code such as FRA; needs the extra 'carbon'.",
        group=ACCOUNTING,
    )
    pue: float = _setting(
        1.0,
        "Power usage effectiveness of the building: factor on carbon and cost, not on joules.",
        group=ACCOUNTING,
        ge=1,
        le=10,
    )
    price_per_kwh: float = _setting(
        0.0, "Price of a kWh, in your currency; 0 = no cost.", group=ACCOUNTING, ge=0, le=1e6
    )

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, value: str) -> str:
        return names.resolve_encoder(value) if value else value

    @field_validator("decoder")
    @classmethod
    def _known_decoder(cls, value: str) -> str:
        return names.resolve_decoder(value) if value else value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        names.split_model(value)
        return value

    @model_validator(mode="after")
    def _fill_in_from_model(self) -> Self:
        encoder, decoder = names.split_model(self.model)
        # A frozen model is filled in by its own validator only, before anybody has seen it.
        object.__setattr__(self, "decoder", self.decoder or decoder)
        object.__setattr__(self, "encoder", self.encoder or ("" if self.decoder in names.NETWORKS else encoder))
        object.__setattr__(self, "model", names.join_model(self.encoder, self.decoder))
        return self

    @property
    def processes(self) -> int:
        """Processes that train together: one a device, on all nodes."""
        return self.devices * self.nodes

    # ── identity

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, without the shorthand `model`; `Settings.of(resolved())` is this again."""
        return self.model_dump()

    @cached_property
    def identity(self) -> str:
        """Sixteen hex digits that name what would be trained, seed included; see `trained`."""
        return _digest(self.trained)

    @cached_property
    def configuration(self) -> str:
        """Like `identity`, without seed and fold: repeats share it."""
        return _digest(without(self.trained, _REPEATS))

    @property
    def trained(self) -> dict[str, Any]:
        """What would be trained, as in `trained`, the function."""
        return trained(self.__dict__)

    @cached_property
    def slug(self) -> str:
        """Name of the run's directory: the settings that one looks for first, then the identity."""
        parts = [
            self.model,
            self.precision,
            f"b{self.batch_size}",
            f"e{self.epochs}",
            f"s{self.seed}",
            self.identity,
        ]
        return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(parts))

    # ── making

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping of names to values.

        Raises:
            UserError: unknown names, wrong types or values, or values that exclude each other; all of them.
        """
        problems = problems_of(values)
        if problems:
            raise UserError([str(problem) for problem in problems])
        return cls.model_validate(values)


_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


_DIGITS = 16
"""Hex digits of an identity. Runs made before had the first eight of them, which coincide among some ten thousand."""


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical_json(values).encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True)
class Problem:
    """One mistake in a mapping of settings: the key it stands under (None: in their combination) and what is wrong."""

    key: str | None
    message: str

    def __str__(self) -> str:
        return self.message


def group_of(name: str) -> str:
    """The group that a setting belongs to."""
    return str(dict(Settings.model_fields[name].json_schema_extra or {})["group"])  # type: ignore[arg-type]


def neutral(name: str) -> Any:
    """The value of a setting that does what was done before the setting existed."""
    return dict(Settings.model_fields[name].json_schema_extra or {})["neutral"]  # type: ignore[arg-type]


_NEUTRAL = {
    name: neutral(name)
    for name, field in Settings.model_fields.items()
    if group_of(name) != ACCOUNTING and name not in ("model", "encoder", "decoder")
}
_trained_values = itemgetter(*_NEUTRAL)


def trained(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What resolved settings train, seed included, no matter how, where and by which version they were written.

    Settings that have their neutral value are left out: writing a default out changes nothing, nor does a setting that
    a later version adds. A default that a later version changes does, as its neutral value stays. The network always
    counts, since `model` and its halves say the same thing twice; what is only accounted for never does.
    """
    given = resolved if resolved.keys() >= _NEUTRAL.keys() else {**_NEUTRAL, **resolved}
    values = zip(_NEUTRAL, _trained_values(given), _NEUTRAL.values(), strict=True)
    differing = {name: value for name, value, neutral in values if value != neutral}
    return {"encoder": resolved["encoder"], "decoder": resolved["decoder"], **differing}


_REPEATS = frozenset(name for name in _NEUTRAL if group_of(name) == REPEATS)
_WHERE = frozenset({"data", "layout"})
"""Settings that say where the data lie, and how they are found there; the content is what is trained on."""


def without(values: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The values of all other settings."""
    return {name: value for name, value in values.items() if name not in names}


def trained_anywhere(resolved: Mapping[str, Any]) -> str:
    """What resolved settings train, wherever the data lie, as text: together with the content, it tells runs apart."""
    return _canonical_json(without(trained(resolved), _WHERE))


def repeated_anywhere(resolved: Mapping[str, Any]) -> str:
    """Like `trained_anywhere`, without seed and fold: repeats share it."""
    return _canonical_json(without(trained(resolved), _WHERE | _REPEATS))


def choices(name: str) -> tuple[str, ...]:
    """The valid values of a setting that has a fixed list of them, else nothing."""
    annotation = Settings.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def problems_of(values: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong with a mapping of settings: names, types, limits, then what excludes each other."""
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        return [_problem(details) for details in error.errors(include_url=False)]
    return [Problem(None, message) for _, _, message in violations(CONSTRAINTS, [settings])]


@dataclass(frozen=True)
class Constraint:
    """What settings must fulfil together.

    Attributes:
        settings: their names; the one to blame first.
        check: is given their values, and says what is wrong with them, or None.
    """

    settings: tuple[str, ...]
    check: Callable[..., str | None]


def _network_exists(decoder: str, encoder: str, model: str) -> str | None:
    reason = names.incompatible(encoder, decoder)
    return reason and f"{model}: {reason}"


def _fold_exists(fold: int, folds: int) -> str | None:
    if folds == 1:
        return "folds: 1 fold leaves nobody to train; give 2 or more, or 0 for none"
    if fold < max(folds, 1):
        return None
    return f"fold: {fold} of {folds} folds; valid: {f'0 to {folds - 1}' if folds else '0, or give folds as well'}"


def _network_fits(
    decoder: str, model: str, image_size: int, batch_size: int, width: float, encoder_weights: str
) -> str | None:
    pretrained = encoder_weights != "none"
    reason = names.unfit(decoder, image_size=image_size, batch_size=batch_size, width=width, pretrained=pretrained)
    return reason and f"{model}: {reason}"


def _schedule_is_free(optimizer: str, schedule: str) -> str | None:
    if optimizer == SCHEDULE_FREE and schedule != "constant":
        return f"optimizer: {SCHEDULE_FREE} takes the place of a schedule; it needs schedule: constant"
    return None


def _encoder_freezes(freeze_encoder: int, encoder: str, decoder: str, devices: int, nodes: int) -> str | None:
    if freeze_encoder and not encoder:
        return f"freeze_encoder: {decoder} has no encoder to freeze"
    if freeze_encoder and devices * nodes > 1:  # ddp waits for every gradient
        return f"freeze_encoder: does not go with {'devices' if devices > 1 else 'nodes'}: more than 1"
    return None


def _epochs_are_measured(measure_after: int, epochs: int) -> str | None:
    if measure_after < epochs:
        return None
    return f"measure_after: {measure_after} of {epochs} epochs leaves none to measure; valid: 0 to {epochs - 1}"


def _sophia_works(optimizer: str, precision: str, compile: bool, devices: int, nodes: int) -> str | None:
    wrong = {
        "precision: 16-mixed": precision == "16-mixed",  # scales gradients, and second derivatives with them
        "compile: true": compile,
        "devices: more than 1": devices > 1,  # each rank would estimate, and step, differently
        "nodes: more than 1": nodes > 1,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if optimizer != SOPHIA or not found:
        return None
    return f"optimizer: sophia needs second derivatives; it does not go with {' or '.join(found)}"


def _checkpointing_works(gradient_checkpointing: bool, compile: bool, optimizer: str) -> str | None:
    wrong = {
        "compile: true": compile,  # torch.compile cannot follow it, and decides itself what to compute again
        f"optimizer: {SOPHIA}": optimizer == SOPHIA,  # differentiates the backward pass once more
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    return (
        f"gradient_checkpointing: does not go with {' or '.join(found)}" if gradient_checkpointing and found else None
    )


def _optimizer_is_here(optimizer: str) -> str | None:
    if optimizer == "adamw-8bit" and importlib.util.find_spec("bitsandbytes") is None:
        return "optimizer: adamw-8bit needs bitsandbytes: pip install 'greenseg[8bit]'"
    return None


def _nodes_agree(nodes: int, batch_size: int | str, workers: int | str, lr: float | str) -> str | None:
    values = {"batch_size": batch_size, "workers": workers, "lr": lr}
    tried = [name for name, value in values.items() if value == "auto"]
    if nodes == 1 or not tried:
        return None
    return f"nodes: more than 1 does not go with {' or '.join(f'{name}: auto' for name in tried)}"


_REFUSABLE = tuple(dict.fromkeys(name for known in STRATEGIES.values() for name in known.refuses))


def _strategy_goes(strategy: strategies.Name, devices: int, nodes: int, *values: Any) -> str | None:
    problem = STRATEGIES[strategy].problem(devices * nodes, dict(zip(_REFUSABLE, values, strict=True)))
    return problem and f"strategy: {strategy} {problem}"


CONSTRAINTS = (
    Constraint(("decoder", "encoder", "model"), _network_exists),
    Constraint(("decoder", "model", "image_size", "batch_size", "width", "encoder_weights"), _network_fits),
    Constraint(("fold", "folds"), _fold_exists),
    Constraint(("optimizer", "schedule"), _schedule_is_free),
    Constraint(("freeze_encoder", "encoder", "decoder", "devices", "nodes"), _encoder_freezes),
    Constraint(("measure_after", "epochs"), _epochs_are_measured),
    Constraint(("optimizer", "precision", "compile", "devices", "nodes"), _sophia_works),
    Constraint(("gradient_checkpointing", "compile", "optimizer"), _checkpointing_works),
    Constraint(("optimizer",), _optimizer_is_here),
    Constraint(("nodes", "batch_size", "workers", "lr"), _nodes_agree),
    Constraint(("strategy", "devices", "nodes", *_REFUSABLE), _strategy_goes),
)
"""What holds on every machine."""


def violations(
    constraints: Iterable[Constraint], runs: Iterable[Settings]
) -> Iterator[tuple[Settings, Constraint, str]]:
    """What is wrong with combinations of settings: of each, the first run that has it, the constraint and what it says.

    Each distinct combination of the settings that a constraint concerns is looked at once.
    """
    constraints = list(constraints)
    of_interest = values_of(sorted({name for constraint in constraints for name in constraint.settings}))
    known = [(constraint, values_of(constraint.settings), set[Any]()) for constraint in constraints]
    distinct: dict[Any, Settings] = {}
    for run in runs:
        distinct.setdefault(of_interest(run), run)
    for run in distinct.values():
        for constraint, relevant, seen in known:
            values = relevant(run)
            if values in seen:
                continue
            seen.add(values)
            message = constraint.check(*values)
            if message:
                yield run, constraint, message


def values_of(names: Sequence[str]) -> Callable[[Settings], tuple[Any, ...]]:
    """A function that gives the values of these settings, fast."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda settings: tuple(getattr(settings, name) for name in names)


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _problem(details: Any) -> Problem:
    if not details["loc"]:
        return Problem(None, details["msg"])
    key, kind, value = str(details["loc"][0]), details["type"], details["input"]
    if kind == "extra_forbidden":
        return Problem(key, f"unknown setting '{key}'{did_you_mean(key, list(Settings.model_fields))}")
    if kind == "literal_error":
        valid = choices(key)
        return Problem(
            key, f"{key}: {value!r} is not valid{did_you_mean(str(value), valid)}; valid: {', '.join(valid)}"
        )
    if kind == "value_error":
        return Problem(key, f"{key}: {details['ctx']['error']}")
    annotation = Settings.model_fields[key].annotation if key in Settings.model_fields else None
    if kind.endswith("_type") and annotation in _TYPE_NAMES:
        return Problem(key, f"{key}: {value!r} is not {_TYPE_NAMES[annotation]}{_remedy(annotation, value)}")
    return Problem(key, f"{key}: {value!r}: {details['msg'].lower().replace('input should be', 'must be')}")


_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _remedy(kind: type, value: Any) -> str:
    """How to write the value that was probably meant; empty where that is unknown."""
    if kind is str and isinstance(value, int | float):
        return "; write it in quotes"
    if kind is bool and str(value).lower() in _SWITCHES:
        return f"; write {_SWITCHES[str(value).lower()]}"
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    return ""


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """`lower` with the values of `upper` over it; a `model` above replaces an encoder and a decoder below."""
    hidden = {"encoder", "decoder"} if "model" in upper else set()
    return {key: value for key, value in lower.items() if key not in hidden} | dict(upper)


class Overlays:
    """Settings that are one base and something over it, many times over: fast, as nothing is validated again.

    Args:
        base: valid settings.
    """

    _NETWORK = ("model", "encoder", "decoder")

    def __init__(self, base: Mapping[str, Any]) -> None:
        self._base = Settings.model_validate(base)
        self._network = {name: base[name] for name in self._NETWORK if name in base}
        self._networks: dict[tuple[str | None, ...], dict[str, str]] = {}

    def over(self, values: Mapping[str, Any]) -> Settings:
        """The same as `Settings.model_validate(overlay(base, values))`.

        Args:
            values: settings, each valid and as `canonical` returns it.
        """
        if values.keys().isdisjoint(self._NETWORK):
            return self._base.model_copy(update=values)
        key = tuple(values.get(name) for name in self._NETWORK)
        if key not in self._networks:
            given = {name: value for name, value in zip(self._NETWORK, key, strict=True) if value is not None}
            network = Settings.model_validate(overlay(self._network, given))
            self._networks[key] = {name: getattr(network, name) for name in self._NETWORK}
        return self._base.model_copy(update={**values, **self._networks[key]})


def canonical(name: str, value: Any) -> Any:
    """A setting's value as `Settings` keeps it (aliases resolved, paths cleaned), so that equal values compare equal.

    Raises:
        UserError: there is no such setting, or the value is not valid.
    """
    problem = next((problem for problem in problems_of({name: value}) if problem.key is not None), None)
    if problem:  # a combination that cannot be is judged when it is whole; here only the value itself counts
        raise UserError(problem.message)
    # Empty means the half of another layer's `model`, which is not known here.
    return getattr(Settings.model_validate({name: value}), name) if value != "" else ""


def settings_page() -> str:
    """The settings page of the docs, in Markdown."""
    groups: dict[str, list[str]] = {}
    for name, field in Settings.model_fields.items():
        group = group_of(name)
        default = "" if field.default == "" else f"`{json.dumps(field.default).strip(chr(34))}`"
        valid = ", ".join(f"`{value}`" for value in choices(name))
        text = f"{field.description}{f' One of {valid}.' if valid else ''}"
        text = text.replace("<", "&lt;")  # Markdown takes <name> for a tag
        groups.setdefault(group, []).append(f"| `{name}` | `--{name.replace('_', '-')}` | {default} | {text} |")
    lines = [
        "# Settings",
        "",
        "Each is an option of `greenseg train`, and a key of a sweep's `base`, `grid`, `include` and `exclude`, and",
        "of a run's `config.yaml`. This page is made from their declaration, by `make docs`.",
    ]
    for group, rows in groups.items():
        lines += [
            "",
            f"## {group}",
            "",
            "| setting | option | default | what it does |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    return "\n".join(lines) + "\n"


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file such as a run's config.yaml.

    Raises:
        UserError: not YAML, not a mapping, or wrong settings; each with file, line and column.
    """
    from greenseg import yamlfile

    document = yamlfile.load(path)
    if not isinstance(document.value, dict):
        raise UserError(f"{document.where()}: a configuration is a mapping of settings to values")
    settings = {str(key): value for key, value in document.value.items()}
    problems = problems_of(settings)
    if problems:
        key_of: dict[str | None, Any] = {str(key): key for key in document.value}
        raise UserError([f"{document.where(key_of.get(problem.key))}: {problem}" for problem in problems])
    return settings


if __name__ == "__main__":
    print(settings_page(), end="")
