"""Runs that compress or learn from the network of another run."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from greenseg.compress.convert import convert
from greenseg.compress.prune import prune
from greenseg.data.cache import Slices
from greenseg.data.grid import FloatArray
from greenseg.data.loader import SliceDataset
from greenseg.energy import EnergyMonitor
from greenseg.errors import UserError
from greenseg.files import write_json
from greenseg.inference.load import load
from greenseg.inference.of_engine import EnginePredictor
from greenseg.inference.of_run import RunPredictor, load_best, shape_of
from greenseg.inference.predictor import Options, Predictor
from greenseg.models import network
from greenseg.models.shape import slim
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Ran, Record
from greenseg.settings import Settings
from greenseg.training.figures import validate
from greenseg.training.task import Task
from greenseg.training.test_part import test

_CALIBRATION_SLICES = 256
_CALIBRATION_BATCH = 16


def for_finetuning(settings: Settings) -> Settings:
    """The settings with which a pruned network trains on: as its parent did, for `finetune_epochs`.

    With the same learning rates as at first, a pruned network recovers better than with the small ones of the end
    (Renda et al. 2020, arXiv:2003.02389).
    """
    return settings.changed(epochs=settings.finetune_epochs, encoder_weights="none", freeze_encoder=0)


def pruned(run: RunDirectory, settings: Settings, task: Task, parent: RunDirectory) -> nn.Module:
    """The network of the parent without the channels that pruning removes.

    The first attempt at the run decides which channels stay. Later ones, which continue from a checkpoint, read that.

    Raises:
        UserError: the parent's checkpoint or the file with the shape is damaged.
    """
    made = network.plain(settings, task.channels, network.outputs(len(task.classes)))
    load_best(parent, made)
    if run.shape.exists() and run.last_checkpoint.exists():
        slim(made, shape_of(run))
    else:
        example = torch.zeros(2, task.channels, settings.image_size, settings.image_size)
        write_json(run.shape, prune(made, example, settings.prune).to_json())
    return network.transformed(made, settings)


def teacher_of(run: RunDirectory, task: Task) -> nn.Module:
    """The network of a teacher.

    Raises:
        UserError: its checkpoint is damaged, or it has other channels or classes than the student.
    """
    predictor = RunPredictor.of(run.path, Options("32-true", "cpu"))
    recipe = predictor.recipe
    if (recipe.channels, recipe.classes.labels) != (task.channels, task.classes.labels):
        raise UserError(
            f"teacher: {run.path}: has {recipe.channels} channels and the classes "
            f"{', '.join(recipe.classes.names)}, but this run {task.channels} and {', '.join(task.classes.names)}"
        )
    return predictor.module


def convert_parent(
    run: RunDirectory, settings: Settings, slices: Slices, parent: RunDirectory, record: Record, monitor: EnergyMonitor
) -> None:
    """Convert the network of the parent, and measure the quality of the result; the record gets both.

    Raises:
        UserError: the network cannot be converted, or predicts otherwise than the original.
    """
    monitor.compression()
    before = parent.record()
    assert before is not None  # it has finished
    record.network, record.data = before.network, before.data
    on = "cpu" if settings.predicts_on_cpu else settings.accelerator
    original = RunPredictor.of(parent.path, Options("32-true", on))
    monitor.runs_on(next(original.module.parameters()).device)
    convert(original, settings, lambda: _calibration(slices, settings), run.checkpoints)
    predictor = load(run.path, Options(accelerator=on))
    best, batch_size = before.metrics.best_epoch, before.ran.batch_size or 1
    record.ran = _ran(settings, predictor, before.ran)
    record.validation = validate(predictor, slices, best, batch_size)
    record.test = test(predictor, settings, slices, best, batch_size, monitor)


def _ran(settings: Settings, predictor: Predictor, before: Ran) -> Ran:
    ran = Ran(
        precision=predictor.precision,
        accelerator=predictor.device,
        threads=torch.get_num_threads(),
        batch_size=before.batch_size,
        runtime=settings.runtime,
    )
    if settings.quantize != "int8" or not isinstance(predictor, EnginePredictor):
        return ran
    return Ran(**ran.given(), in_8_bits=round(predictor.engine.int8_share, 4))


def _calibration(slices: Slices, settings: Settings) -> Iterator[FloatArray]:
    """Training slices, spread evenly over the subjects, in batches: float32 [batch, channels, size, size]."""
    training = SliceDataset(slices, "train", settings.drop_empty_slices, settings.seed)
    chosen = np.unique(np.linspace(0, len(training) - 1, min(_CALIBRATION_SLICES, len(training))).round().astype(int))
    for start in range(0, len(chosen), _CALIBRATION_BATCH):
        yield training[[*chosen[start : start + _CALIBRATION_BATCH]]]["image"].numpy()
