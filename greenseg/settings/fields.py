"""The settings of a run, declared once. Command-line options, sweep keys, config.yaml and the docs follow from here.

A setting is a field of `Fields`. Its type, default, limits and help are defined here and nowhere else.
"""

import contextlib
import os
import re
from collections.abc import Mapping
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

from greenseg import classes, compression, losses, optimizers, precisions, strategies
from greenseg import model_names as names
from greenseg.errors import did_you_mean

PHANTOM = "phantom"

Layout = Literal["auto", "e2mip", "nnunet", "bids", "csv"]

ACCOUNTING = "Energy"
"""Group of the settings that change the accounting, not the training. They are not part of the identity."""

REPEATS = "Repeats"
"""Group of the settings that differ between repeats of one configuration."""


def _setting(default: Any, help: str, *, group: str, neutral: Any = None, **limits: Any) -> Any:
    """A field of `Fields`.

    Args:
        neutral: the value that keeps the behaviour from before the setting existed; by default, its default.
            Identities leave it out, and it never changes. When a default changes, the old one stays here: a file that
            does not name the setting then trains something else.
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
            "the country table needs the extra 'carbon': pip install 'greenseg[carbon]'; or set carbon_intensity"
        )
    raise ValueError(
        f"no country '{value}'{did_you_mean(value, list(intensities))}; valid: ISO codes such as FRA or DEU"
    )


MAPPINGS = frozenset({"labels"})
"""Settings that a file may write as a mapping."""

_NAMED = {"minProperties": 1, "additionalProperties": {"type": ["integer", "array"], "items": {"type": "integer"}}}
"""JSON schema of classes that a mapping names."""


def _channels(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    if names != [""] and (not all(names) or len(set(names)) < len(names)):
        raise ValueError(f"{value!r}: must be different names with commas between them, such as T2w,T1w")
    return ",".join(names)


def _whole_or_auto(lowest: int, highest: int) -> BeforeValidator:
    def check(value: Any) -> int | str:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            value = int(value)  # the command line passes text
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


def _path_or_nothing(value: str) -> str:
    return os.path.normpath(value) if value else ""


class Fields(BaseModel):
    """All settings of one run.

    `model` is a shorthand for `encoder` and `decoder`: it fills in the ones that are not given. Once resolved, it is
    `<encoder>-<decoder>`, and `resolved()` leaves it out. A whole network is a `decoder` with an empty `encoder`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # ── data
    data: Annotated[str, AfterValidator(_path_or_word)] = _setting(
        PHANTOM,
        "Folder of the data set, its CSV file, or 'phantom' for the built-in data set.",
        group="Data",
    )
    layout: Layout = _setting("auto", "Layout of the data set; auto = detect it.", group="Data")
    labels: Annotated[
        str, BeforeValidator(classes.canonical), WithJsonSchema({"type": ["string", "integer", "object"], **_NAMED})
    ] = _setting(
        "",
        "Classes to segment, by the labels in the masks: 1,2,3 is one class, csf=1,grey_matter=2,brain=3+4+5 are "
        "three. Other labels are background. Empty = the classes that the data set names, else any label above 0.",
        group="Data",
    )
    channels: Annotated[str, AfterValidator(_channels)] = _setting(
        "",
        "Channels of an image: suffixes in BIDS (T2w,T1w), names or numbers of channel_names in nnU-Net, columns of a "
        "CSV; empty = all channels, in BIDS T2w.",
        group="Data",
    )
    image_size: int = _setting(
        128, "Height and width of a slice, in pixels.", group="Data", ge=32, le=2048, multiple_of=32
    )
    spacing: float = _setting(
        1.5,
        "Size of a pixel, in mm. Slices are resampled to it, then cropped or padded to image_size; foreground that is "
        "cut off is reported.",
        group="Data",
        gt=0,
        le=100,
    )
    validation_share: float = _setting(
        0.2,
        "Share of the subjects held out for validation if the data set names no split.",
        group="Data",
        gt=0,
        lt=1,
    )
    test_share: float = _setting(
        0.0,
        "Share of the subjects held out for the test part, before all other splits: a run neither trains on them nor "
        "is chosen by them. 0 = the test part that the data set names, if it names one.",
        group="Data",
        ge=0,
        lt=1,
    )
    split_seed: int = _setting(
        0,
        "Seed of the split if the data set names none; runs with the same seed validate on the same subjects.",
        group="Data",
        ge=0,
        lt=2**32,
    )
    folds: int = _setting(
        0,
        "Number of cross-validation folds; subjects are assigned to folds regardless of the split that the data set "
        "names, except its test part; 0 = no cross-validation.",
        group="Data",
        ge=0,
        le=1000,
    )
    split_from: Annotated[str, AfterValidator(_path_or_nothing)] = _setting(
        "",
        "CSV file with the columns subject and split (train, validation or test), such as the split.csv of a run; it "
        "names the split of every subject, instead of all other rules.",
        group="Data",
    )
    drop_empty_slices: float = _setting(
        0.0,
        "Share of the training slices without foreground to leave out; validation keeps all slices.",
        group="Data",
        ge=0,
        le=1,
    )
    augment: Literal["none", "flips", "light", "strong"] = _setting(
        "strong",
        "Augmentation of the training slices: flips = flips and quarter turns; light, strong = small or large changes "
        "by flips, rotation, scale, shift, bias field, contrast, noise and blur.",
        group="Data",
    )
    workers: Annotated[Annotated[int, Field(ge=0, le=256)] | Literal["auto"], _whole_or_auto(0, 256)] = _setting(
        0,
        "Number of processes that load data; 0 = load in the training process; auto = measure, then use the fewest "
        "that keep the device busy.",
        group="Data",
    )
    batch_size: Annotated[Annotated[int, Field(ge=1, le=65536)] | Literal["auto"], _whole_or_auto(1, 65536)] = _setting(
        8,
        "Slices per step and device; auto = measure several sizes, then use the one with the fewest joules per slice.",
        group="Data",
    )

    # ── network
    model: str = _setting(
        "mobilenet-unet",
        "Network as <encoder>-<decoder>, or a whole network such as enet (see `greenseg models`); fills in encoder or "
        "decoder if they are not given.",
        group="Network",
        exclude=True,
    )
    encoder: str = _setting(
        "",
        "Encoder (backbone) from segmentation-models-pytorch, or 'tu-' and the name of a timm model; empty = the "
        "encoder of model.",
        group="Network",
    )
    decoder: str = _setting(
        "",
        f"Decoder: {', '.join(names.DECODERS)}; or a whole network, without an encoder: {', '.join(names.NETWORKS)}; "
        "empty = the decoder of model.",
        group="Network",
    )
    width: float = _setting(
        1.0, "Factor on the channel numbers of a whole network such as enet.", group="Network", ge=0.25, le=4
    )
    decoder_width: int = _setting(
        0,
        "Channels of every stage of the decoder, such as 32: a flat, lean decoder; 0 = those of "
        "segmentation-models-pytorch. A whole network has width instead.",
        group="Network",
        ge=0,
        le=1024,
    )
    encoder_weights: Literal["none", "imagenet"] = _setting(
        "none",
        "Pretrained weights of the encoder; imagenet weights come from the Hugging Face hub.",
        group="Network",
    )

    # ── optimization
    epochs: int = _setting(30, "Passes over the training slices.", group="Optimization", ge=1, le=100_000)
    early_stopping: int = _setting(
        0, "Stop after this many epochs without a better Dice; 0 = never.", group="Optimization", ge=0, le=100_000
    )
    freeze_encoder: int = _setting(
        0,
        "Number of first epochs in which the encoder does not learn; if it is at least epochs, the encoder never "
        "learns.",
        group="Optimization",
        ge=0,
        le=100_000,
    )
    optimizer: optimizers.Name = _setting(
        "adamw",
        "Optimizer from timm or pytorch_optimizer; muon = Muon for matrices, AdamW for the rest; schedule-free-adamw "
        "needs a constant schedule; adamw-8bit needs the extra '8bit'.",
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
        "Learning rate, the highest of the schedule; auto = run a range test, then use the rate at which the loss "
        "falls fastest.",
        group="Optimization",
    )
    weight_decay: float = _setting(0.01, "Weight decay.", group="Optimization", ge=0, le=10)
    schedule: Literal["onecycle", "cosine", "constant", "plateau"] = _setting(
        "onecycle",
        "Course of the learning rate, which changes at every step; plateau = halve it after a tenth of all epochs "
        "without a better Dice.",
        group="Optimization",
    )
    gradient_clip: float = _setting(
        0.0,
        "Largest norm of the gradient; larger gradients are scaled down to it; 0 = no limit.",
        group="Optimization",
        ge=0,
        le=1e6,
    )
    accumulate: int = _setting(
        1, "Number of batches whose gradients are added up for one step.", group="Optimization", ge=1, le=65536
    )

    # ── compression
    teacher: Annotated[str, AfterValidator(_path_or_nothing)] = _setting(
        "",
        "Finished run whose soft masks the network learns from, besides the masks: its directory, or 'best of SWEEP' "
        "for the run with the best Dice of a sweep; empty = no teacher.",
        group="Compression",
    )
    distill_weight: float = _setting(
        0.5,
        "Weight of the teacher in the loss; the masks have the rest. Without a teacher, it has no effect.",
        group="Compression",
        gt=0,
        le=1,
    )
    distill_temperature: float = _setting(
        2.0,
        "Temperature that softens the masks of teacher and student. Without a teacher, it has no effect.",
        group="Compression",
        ge=1,
        le=20,
    )
    prune: float = _setting(
        0.0,
        "Share of the channels of each layer to remove from the trained network, which then trains on; the run with "
        "prune 0 is trained first.",
        group="Compression",
        ge=0,
        le=0.95,
    )
    finetune_epochs: int = _setting(
        10,
        "Epochs of training after pruning, with the same schedule. Without prune, it has no effect.",
        group="Compression",
        ge=1,
        le=100_000,
    )
    quantize: compression.Quantization = _setting(
        "none",
        "Numbers that the trained network predicts with; int8 is calibrated on training slices. The run with none is "
        "trained first.",
        group="Compression",
    )
    runtime: compression.RuntimeOrAuto = _setting(
        "auto",
        "Engine that predicts with the trained network; auto = torch, for int8 openvino. The run with "
        "torch is trained first. Others than torch need the extra 'compress', and predict on the CPU.",
        group="Compression",
        neutral="torch",
    )

    # ── compute
    precision: precisions.Name = _setting("32-true", "Numeric precision, as Lightning names it.", group="Compute")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = _setting("auto", "Kind of device.", group="Compute")
    devices: int = _setting(
        1,
        "Number of devices (on a CPU: processes) that train one network together.",
        group="Compute",
        ge=1,
        le=64,
    )
    nodes: int = _setting(
        1,
        "Number of machines that train one network together, each with the same number of devices. Start the same "
        "command on each.",
        group="Compute",
        ge=1,
        le=1024,
    )
    strategy: strategies.Name = _setting(
        "auto",
        "Strategy for several devices: auto = ddp if there are several; fsdp = divide weights, gradients and optimizer "
        "state among the devices; deepspeed_stage_2 (GPUs, extra 'deepspeed') = divide gradients and optimizer state.",
        group="Compute",
    )
    channels_last: bool = _setting(True, "Store images with channels innermost in memory (NHWC).", group="Compute")
    compile: bool = _setting(
        False,
        "Compile the network with torch.compile. This delays the first steps by a minute or more.",
        group="Compute",
    )
    gradient_checkpointing: bool = _setting(
        False,
        "Keep only the input of each network block, and recompute the rest for the backward pass: less memory, more "
        "joules, same result.",
        group="Compute",
    )
    matmul_precision: Literal["highest", "high", "medium"] = _setting(
        "highest",
        "Internal precision of float32 matrix products, in torch's terms: high = TensorFloat32, medium = bfloat16.",
        group="Compute",
    )
    power_limit: int = _setting(
        0,
        "Power limit of each GPU during the run, in watts; restored afterwards; 0 = no change. Needs root or zeusd.",
        group="Compute",
        ge=0,
        le=5000,
    )
    gpu_clock: int = _setting(
        0,
        "Graphics clock to lock each GPU to during the run, in MHz; 0 = do not lock it. Needs root or zeusd.",
        group="Compute",
        ge=0,
        le=10_000,
    )

    seed: int = _setting(
        0,
        "Seed of weights, order and augmentation; runs that differ only in the seed are repeats.",
        group=REPEATS,
        ge=0,
        lt=2**32,
    )
    fold: int = _setting(
        0,
        "Fold to validate on, counted from 0; runs that differ only in the fold are repeats.",
        group=REPEATS,
        ge=0,
        lt=1000,
    )

    # ── energy: changes the accounting, not the training
    teacher_shared: bool = _setting(
        False,
        "Leave the joules of the teacher's training out of the total, because several students share it.",
        group=ACCOUNTING,
    )
    cpu_watts: float = _setting(
        0.0,
        "Watts per busy CPU core, for the estimate if there is no sensor; 0 = rated power of this CPU if known, "
        "otherwise 12.",
        group=ACCOUNTING,
        ge=0,
        le=1000,
    )
    dram_watts: float = _setting(
        0.0, "Watts per GB of DRAM, for the estimate; 0 = 0.3725.", group=ACCOUNTING, ge=0, le=100
    )
    measure_after: int = _setting(
        0,
        "Number of warm-up epochs to leave out of joules per epoch; must be less than epochs. The total includes them.",
        group=ACCOUNTING,
        ge=0,
        le=100_000,
    )
    energy_to_dice: float = _setting(
        0.85, "Target Dice: report the joules spent until a run reaches it.", group=ACCOUNTING, gt=0, le=1
    )
    carbon_intensity: float = _setting(
        0.0,
        "Carbon intensity of your electricity, in g CO2e/kWh; 0 = the value for country.",
        group=ACCOUNTING,
        ge=0,
        le=5000,
    )
    country: Annotated[str, AfterValidator(_country)] = _setting(
        "",
        "Country to take the carbon intensity from, as an ISO code such as FRA; needs the extra 'carbon'.",
        group=ACCOUNTING,
    )
    pue: float = _setting(
        1.0,
        "Power usage effectiveness of the building: a factor on carbon and cost, not on joules.",
        group=ACCOUNTING,
        ge=1,
        le=10,
    )
    price_per_kwh: float = _setting(
        0.0, "Price per kWh, in your currency; 0 = report no cost.", group=ACCOUNTING, ge=0, le=1e6
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
        # The model is frozen: only its own validator may fill it in, before anyone else sees it.
        object.__setattr__(self, "decoder", self.decoder or decoder)
        object.__setattr__(self, "encoder", self.encoder or ("" if self.decoder in names.NETWORKS else encoder))
        object.__setattr__(self, "model", names.join_model(self.encoder, self.decoder))
        return self

    def without_effect(self) -> dict[str, Any]:
        """Settings that have no effect beside the others, with their neutral value; and the engine for `auto`.

        So the parent of a pruned run is the run without pruning, whatever the epochs of fine-tuning.
        """
        found = {n: neutral(n) for n in without_effect(self.__dict__) if getattr(self, n) != neutral(n)}
        if self.runtime == "auto":
            found["runtime"] = compression.engine(self.runtime, self.quantize)
        return found

    @property
    def processes(self) -> int:
        """Number of processes that train together: one per device, over all nodes."""
        return self.devices * self.nodes


_GOVERNED = {"teacher": ("distill_weight", "distill_temperature"), "prune": ("finetune_epochs",)}
"""Setting → settings that have an effect only if it is not neutral."""


def without_effect(values: Mapping[str, Any]) -> list[str]:
    """Names of the settings that have no effect beside the others."""
    return [name for governor, governed in _GOVERNED.items() if not values[governor] for name in governed]


def group_of(name: str) -> str:
    """The group that a setting belongs to."""
    return str(dict(Fields.model_fields[name].json_schema_extra or {})["group"])  # type: ignore[arg-type]


def neutral(name: str) -> Any:
    """The value of a setting that keeps the behaviour from before the setting existed."""
    return dict(Fields.model_fields[name].json_schema_extra or {})["neutral"]  # type: ignore[arg-type]


def choices(name: str) -> tuple[str, ...]:
    """The valid values of a setting with a fixed list of values; empty for other settings."""
    annotation = Fields.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()
