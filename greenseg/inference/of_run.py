"""The network of a run, at its best validation epoch."""

import csv
import json
import pickle
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from greenseg.classes import BINARY, Classes
from greenseg.compression import NEUTRAL_RUNTIME, PRECISION, RUNTIMES, engine
from greenseg.data import PREPROCESSING
from greenseg.data.grid import FloatArray
from greenseg.data.hounsfield import Window
from greenseg.data.table import CT
from greenseg.errors import UserError, did_you_mean
from greenseg.inference.predictor import Options
from greenseg.inference.recipe import Recipe
from greenseg.models import network
from greenseg.models.memory_format import channels_last
from greenseg.models.shape import Shape, slim
from greenseg.precisions import PRECISIONS
from greenseg.runs.directory import RunDirectory
from greenseg.runs.disk import remedy
from greenseg.runs.record import BadRecord, Record
from greenseg.settings import NEUTRAL, Settings

_PREFIX = "network."

_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64}


def plain_precision(trained: str) -> str:
    """The precision of prediction for one of training: Transformer Engine needs layers of its own."""
    return trained if trained.split("-")[0] in _DTYPES else "bf16-mixed"


def precision_on(device: str, wanted: str) -> str:
    """The numeric precision that runs for a wanted one.

    Raises:
        UserError: it does not run on this device; lists the ones that do.
    """
    if wanted not in PRECISIONS:
        raise UserError(f"--precision: no '{wanted}'{did_you_mean(wanted, list(PRECISIONS))}; valid: {_valid(device)}")
    if wanted == "16-mixed" and device == "cpu":
        return "bf16-mixed"  # as in training
    if wanted.split("-")[0] not in _DTYPES:
        raise UserError(f"--precision {wanted}: prediction has no such precision; use one of {_valid(device)}")
    if why := PRECISIONS[wanted].fails_on.get(device):
        raise UserError(f"--precision {wanted}: {why}")
    return wanted


def _valid(device: str) -> str:
    return ", ".join(
        p for p, about in PRECISIONS.items() if p.split("-")[0] in _DTYPES and device not in about.fails_on
    )


def device_for(accelerator: str) -> torch.device:
    """The device for an accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.

    Raises:
        UserError: there is no such device here.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    if accelerator not in ("auto", "cpu"):
        raise UserError(f"--accelerator {accelerator}: this machine has no GPU that torch can use")
    return torch.device("cpu")


@dataclass
class RunPredictor:
    """The network of a run; see `Predictor`."""

    recipe: Recipe
    identity: str
    name: str
    precision: str
    device: str
    module: nn.Module = field(repr=False)
    settings: Settings = field(repr=False)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, options: Options) -> Self:
        """The network in a run directory.

        Raises:
            UserError: it is not a run directory, has no finished epoch, has a network of another engine than torch, or
                cannot run with these options.
        """
        opened = Opened.of(path)
        if RUNTIMES[opened.runtime].on_cpu:
            raise UserError(
                f"{path}: its network is converted for {opened.runtime}; use the run that it was converted from"
            )
        return cls.of_opened(opened, options)

    @classmethod
    def of_opened(cls, opened: "Opened", options: Options) -> Self:
        """The network of a run for torch.

        Raises:
            UserError: its checkpoint is damaged, or it cannot run with these options.
        """
        settings, recipe = opened.settings, opened.recipe
        device = device_for(options.accelerator)
        if settings.quantize != "none":
            check_precision(opened, options)
            wanted = PRECISION[settings.quantize]
        else:
            wanted = options.precision or plain_precision(opened.trained or settings.precision)
        precision = precision_on(device.type, wanted)
        module = network_of(opened.run, settings, recipe, precision)
        found = cls.running(
            module, settings, recipe, device, precision, opened.identity, str(opened.run.path), opened.notes
        )
        if opened.runtime != NEUTRAL_RUNTIME:
            # Of each size of batches, torch would compile the network again, and stop compiling after eight.
            found.module.compile(dynamic=True)
        return found

    @classmethod
    def running(
        cls,
        module: nn.Module,
        settings: Settings,
        recipe: Recipe,
        device: torch.device,
        precision: str,
        identity: str,
        name: str,
        notes: list[str] | None = None,
    ) -> Self:
        """A network that is in memory, moved to a device and precision."""
        kind, _, mode = precision.partition("-")
        module.to(device, _DTYPES[kind] if mode == "true" else torch.float32).eval()
        return cls(recipe, identity, name, precision, device.type, module, settings, notes or [])

    def probabilities(self, images: FloatArray) -> FloatArray:
        kind, _, mode = self.precision.partition("-")
        inputs = torch.from_numpy(np.ascontiguousarray(images))
        weights = next(self.module.parameters())
        inputs = inputs.to(weights.device, weights.dtype if mode == "true" else torch.float32)
        if self.settings.channels_last:
            inputs = channels_last(inputs)
        mixed: AbstractContextManager[object] = nullcontext()
        if mode == "mixed":
            mixed = torch.autocast(self.device, dtype=_DTYPES[kind])
        with torch.inference_mode(), mixed:
            logits = self.module(inputs).float()
            found = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
        return found.cpu().numpy()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Opened:
    """A run directory with a network.

    Attributes:
        run: the directory.
        settings: settings of the run.
        recipe: its recipe.
        trained: precision of the training as it ran; empty if unknown.
        identity: text that names its weights.
        notes: sentences for the user.
    """

    run: RunDirectory
    settings: Settings
    recipe: Recipe
    trained: str = ""
    identity: str = ""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Self:
        """A finished or unfinished run.

        Raises:
            UserError: it is not a run directory, has no finished epoch, or its recipe is not usable.
        """
        run, record, settings = _open(path)
        notes = [] if record.status == "finished" else [f"{path}: its training is {run.status_by(record)}"]
        return cls(run, settings, recipe_of(run, record), record.ran.precision or "", f"{record.known_as}", notes)

    @property
    def runtime(self) -> str:
        """The engine that predicts."""
        return engine(self.settings.runtime, self.settings.quantize)


def check_precision(opened: Opened, options: Options) -> None:
    """Check the precision that a converted network is to run with.

    Raises:
        UserError: it is not the one that it was converted to.
    """
    if options.precision not in ("", fixed := PRECISION[opened.settings.quantize]):
        raise UserError(
            f"--precision {options.precision}: the network of {opened.run.path} is converted, and runs in {fixed}; "
            f"leave --precision out, or use the run that it was converted from"
        )


def weights_of(path: Path) -> tuple[Path, ...]:
    """The files with the network of a run directory, or the exported file itself.

    Raises:
        UserError: it is not a run directory, or has no network.
    """
    if not path.is_dir():
        return (path,)
    run, _, settings = _open(path)
    return run.network(engine(settings.runtime, settings.quantize))


def _open(path: Path) -> tuple[RunDirectory, Record, Settings]:
    run = RunDirectory(path)
    if not (path / "config.yaml").exists():
        has_runs = any(True for depth in ("*", "*/*") for _ in path.glob(f"{depth}/config.yaml"))
        below = "; to choose one of the runs in it, use --pick best, knee or cheapest" if has_runs else ""
        raise UserError(f"{path}: not a run directory{below}")
    try:
        record = run.record()
    except BadRecord as error:
        raise UserError(str(error)) from None
    if record is None:
        raise UserError(f"{path}: has no network yet: no checkpoint {run.best_checkpoint.name}")
    settings = Settings.of(NEUTRAL | record.settings)
    files = run.network(engine(settings.runtime, settings.quantize))
    if missing := [file.name for file in files if not file.exists()]:
        if record.deleted:
            raise UserError(f"{path}: {remedy(run, record)}")
        raise UserError(f"{path}: has no network yet: no checkpoint {' and '.join(missing)}")
    return run, record, settings


def recipe_of(run: RunDirectory, record: Record) -> Recipe:
    """The recipe of a run.

    Raises:
        UserError: another version of the preprocessing made its slices, or its record lacks the windows of CT channels.
    """
    settings, data = Settings.of(NEUTRAL | record.settings), record.data
    if record.preprocessing not in (None, PREPROCESSING):
        made_by = record.versions.get("greenseg", "another version")
        raise UserError(
            f"{run.path}: its slices have version {record.preprocessing} of the preprocessing, this greenseg has "
            f"version {PREPROCESSING}; use greenseg {made_by}, or train it again"
        )
    classes = Classes.of(settings.labels) or BINARY
    if data and data.classes:
        classes = Classes(
            tuple(data.classes),
            tuple(tuple(int(label) for label in text.split("+") if label) for text in data.classes.values()),
        )
    windows = {int(channel): Window(low, high) for channel, (low, high) in (data.windows if data else {}).items()}
    if not windows and _has_ct(run.path / "split.csv"):
        raise UserError(
            f"{run.path}: has channels in Hounsfield units, but its record lacks their scale, since an earlier version "
            f"of greenseg wrote it; train it again"
        )
    channels = (data.channels if data else None) or 1
    return Recipe(settings.image_size, settings.spacing, channels, classes, windows)


def _has_ct(split: Path) -> bool:
    try:
        with split.open(encoding="utf-8", newline="") as text:
            return any(row.get(CT) for row in csv.DictReader(text))
    except (OSError, ValueError, csv.Error):
        return False


def network_of(
    run: RunDirectory, settings: Settings, recipe: Recipe, precision: str = "32-true", epoch: int | None = None
) -> nn.Module:
    """The network of a run with the weights of its best epoch, in float32 on the CPU.

    Args:
        run: directory of the run.
        settings: its settings.
        recipe: its recipe.
        precision: precision that it will run with; some need other kernels.
        epoch: the best epoch, if known.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another network or epoch.
    """
    plain = {"encoder_weights": "none", "compile": False, "gradient_checkpointing": False, "optimizer": "adamw"}
    settings = settings.model_copy(update={**plain, "precision": precision})
    made = network.plain(settings, recipe.channels, network.outputs(len(recipe.classes)))
    if settings.prune:
        slim(made, shape_of(run))
    made = network.transformed(made, settings)
    load_best(run, made, epoch)
    return made


def shape_of(run: RunDirectory) -> Shape:
    """The channels that the network of a pruned run has kept.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return Shape.from_json(json.loads(run.shape.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{run.shape}: the shape of the pruned network cannot be read: {reason}") from None


def load_best(run: RunDirectory, into: nn.Module, epoch: int | None = None) -> None:
    """Load the weights of a run's best epoch into its network.

    Args:
        run: directory of the run.
        into: the network.
        epoch: the best epoch, if known.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another network or epoch.
    """
    try:
        found = torch.load(run.best_checkpoint, map_location="cpu", weights_only=True)
        state = found["state_dict"]
        own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        into.load_state_dict(own)
    except (
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch then advises to trust the file
            raise UserError(f"{run.best_checkpoint}: damaged: not a checkpoint; copy it again") from None
        raise UserError(f"{run.best_checkpoint}: damaged, or of another network: {first}") from None
    if epoch is not None and found.get("epoch", epoch) != epoch:  # of an attempt that was killed, then repeated
        raise UserError(f"{run.best_checkpoint}: is from epoch {found['epoch'] + 1}, but the best is {epoch + 1}")
