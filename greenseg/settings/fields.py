"""The settings of a run, declared once: command-line options, keys of a sweep, config.yaml and the docs follow.

A setting is a field of `Fields`: its type, default, limits and help stand here and nowhere else.
"""

import contextlib
import os
import re
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from greenseg import losses, optimizers, precisions, strategies
from greenseg import model_names as names
from greenseg.errors import did_you_mean

PHANTOM = "phantom"

Layout = Literal["auto", "e2mip", "nnunet", "bids", "csv"]

ACCOUNTING = "Energy"
"""Group of the settings that change what is accounted for, not what is trained: they are not part of the identity."""

REPEATS = "Repeats"
"""Group of the settings in which repeats of one configuration differ."""


def _setting(default: Any, help: str, *, group: str, neutral: Any = None, **limits: Any) -> Any:
    """A field of `Fields`.

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


class Fields(BaseModel):
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
    optimizer: optimizers.Name = _setting(
        "adamw",
        "Optimizer, from timm or pytorch_optimizer; muon = matrices by Muon, the rest by AdamW; schedule-free-adamw "
        "needs a constant schedule, adamw-8bit the extra '8bit'.",
        group="Optimization",
    )
    loss: losses.Name = _setting(
        "dice_ce",
        "Loss; dice_ce = soft Dice and cross-entropy, equally weighted; tversky weighs missed foreground more than "
        "false foreground.",
        group="Optimization",
    )
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
    precision: precisions.Name = _setting("32-true", "Numeric precision, as Lightning names it.", group="Compute")
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


def group_of(name: str) -> str:
    """The group that a setting belongs to."""
    return str(dict(Fields.model_fields[name].json_schema_extra or {})["group"])  # type: ignore[arg-type]


def neutral(name: str) -> Any:
    """The value of a setting that does what was done before the setting existed."""
    return dict(Fields.model_fields[name].json_schema_extra or {})["neutral"]  # type: ignore[arg-type]


def choices(name: str) -> tuple[str, ...]:
    """The valid values of a setting that has a fixed list of them, else nothing."""
    annotation = Fields.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()
