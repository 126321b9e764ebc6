"""The settings of a run, declared once: command-line options, keys of a sweep, config.yaml and the docs follow.

A setting is a field of `Settings`: its type, default, limits and help stand here and nowhere else.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from greenseg.errors import UserError, did_you_mean
from greenseg.models import names

PHANTOM = "phantom"

Precision = Literal[
    "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "transformer-engine",
    "transformer-engine-float16",
]  # fmt: skip


SCHEDULE_FREE, SOPHIA = "schedule-free-adamw", "sophia"
"""Optimizers that need more than a step."""

ACCOUNTING = "Energy"
"""Group of the settings that change what is accounted for, not what is trained: they are not part of the identity."""


def _setting(default: Any, help: str, *, group: str, **limits: Any) -> Any:
    return Field(default, description=help, json_schema_extra={"group": group}, **limits)


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
        "Folder of images and masks in the E2MIP layout, or 'phantom' for the built-in data set.",
        group="Data",
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
    augment: Literal["none", "flips", "strong"] = _setting(
        "strong",
        "Augmentation of the training slices: flips = flips and quarter turns; strong = flips, any rotation, scale, "
        "shift, contrast, noise, blur.",
        group="Data",
    )
    workers: int = _setting(0, "Processes that load data; 0 loads in the training process.", group="Data", ge=0, le=256)
    batch_size: int = _setting(8, "Slices a step on one device.", group="Data", ge=1, le=65536)

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
        0, "First epochs in which the encoder does not learn.", group="Optimization", ge=0, le=100_000
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
    lr: float = _setting(3e-3, "Learning rate; the highest one of the schedule.", group="Optimization", gt=0, le=100)
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
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = _setting(
        "auto",
        "How several devices work together; auto = one device alone, several with ddp.",
        group="Compute",
    )
    channels_last: bool = _setting(True, "Keep the channels of images innermost in memory (NHWC).", group="Compute")
    compile: bool = _setting(False, "Compile the network with torch.compile.", group="Compute")
    matmul_precision: Literal["highest", "high", "medium"] = _setting(
        "highest",
        "Internal precision of float32 matrix products, as torch names it: high = TensorFloat32, medium = bfloat16.",
        group="Compute",
    )

    seed: int = _setting(
        0,
        "Seed of weights, order and augmentation; runs that differ only by it are repeats.",
        group="Repeats",
        ge=0,
        lt=2**32,
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
        "Epochs to leave out of joules per epoch, as warm-up; they count in the total.",
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

    # ── identity

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, without the shorthand `model`; `Settings.of(resolved())` is this again."""
        return self.model_dump()

    @cached_property
    def identity(self) -> str:
        """Eight hex digits that name what would be trained, seed included.

        Only settings that differ from their defaults count: writing a default out, or a setting that a later version
        adds, changes nothing. The network always counts, since `model` and its halves say the same thing twice.
        """
        return _digest(self._spoken())

    @cached_property
    def configuration(self) -> str:
        """Like `identity`, without the seed: repeats share it."""
        return _digest({key: value for key, value in self._spoken().items() if key != "seed"})

    def _spoken(self) -> dict[str, Any]:
        spoken = self.model_dump(exclude_defaults=True) | {"encoder": self.encoder, "decoder": self.decoder}
        return {name: value for name, value in spoken.items() if group_of(name) != ACCOUNTING}

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


def _digest(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


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
    reason = names.incompatible(settings.encoder, settings.decoder) or names.unfit(
        settings.decoder,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        width=settings.width,
        pretrained=settings.encoder_weights != "none",
    )
    reasons = [f"{settings.model}: {reason}"] if reason else []
    return [Problem(None, reason) for reason in [*reasons, *_conflicts(settings)]]


def _conflicts(settings: Settings) -> list[str]:
    """Which settings exclude each other, apart from the network."""
    conflicts = []
    if settings.optimizer == SCHEDULE_FREE and settings.schedule != "constant":
        conflicts.append(f"optimizer: {SCHEDULE_FREE} takes the place of a schedule; it needs schedule: constant")
    if settings.freeze_encoder and not settings.encoder:
        conflicts.append(f"freeze_encoder: {settings.decoder} has no encoder to freeze")
    if settings.freeze_encoder and settings.devices > 1:
        conflicts.append("freeze_encoder: does not go with devices: more than 1")  # ddp waits for every gradient
    if settings.optimizer == SOPHIA:
        wrong = {
            "precision: 16-mixed": settings.precision
            == "16-mixed",  # scales gradients, and second derivatives with them
            "compile: true": settings.compile,
            "devices: more than 1": settings.devices > 1,  # each rank would estimate, and step, differently
        }
        conflicts += [f"optimizer: sophia needs second derivatives; it does not go with {w}" for w in wrong if wrong[w]]
    if settings.optimizer == "adamw-8bit" and importlib.util.find_spec("bitsandbytes") is None:
        conflicts.append("optimizer: adamw-8bit needs bitsandbytes: pip install 'greenseg[8bit]'")
    return conflicts


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
        return Problem(key, f"{key}: {value!r} is not {_TYPE_NAMES[annotation]}")
    return Problem(key, f"{key}: {value!r}: {details['msg'].lower().replace('input should be', 'must be')}")


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """`lower` with the values of `upper` over it; a `model` above replaces an encoder and a decoder below."""
    hidden = {"encoder", "decoder"} if "model" in upper else set()
    return {key: value for key, value in lower.items() if key not in hidden} | dict(upper)


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
