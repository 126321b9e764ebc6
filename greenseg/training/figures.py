"""The figures of a run on its validation subjects: of the masks that its network predicts for their files."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from greenseg.data import cache
from greenseg.data.grid import FloatArray
from greenseg.data.hounsfield import Window
from greenseg.inference import subject
from greenseg.inference.of_run import RunPredictor, load_best, network_of, plain_precision
from greenseg.inference.predictor import Predictor
from greenseg.inference.recipe import Recipe
from greenseg.metrics.volumes import record_of
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Quality
from greenseg.settings import Settings


def predictor_of(
    run: RunDirectory,
    settings: Settings,
    slices: cache.Slices,
    epoch: int,
    device: torch.device,
    precision: str,
    trained: nn.Module | None = None,
) -> RunPredictor:
    """The network of the best epoch, to run as in training.

    Args:
        run: directory of the run, with its best checkpoint.
        settings: settings of the run.
        slices: slices of the run.
        epoch: the best epoch.
        device: device of the training.
        precision: precision of the training.
        trained: the network of the training, which gets the weights of the best epoch; to make another takes longer.
            Networks that are sharded, compiled or checkpointed cannot predict as they are: another one is made.

    Raises:
        UserError: its checkpoint is damaged, or from another epoch.
        OSError: it is missing.
    """
    windows = {int(channel): Window(*ends) for channel, ends in slices.index.get("windows", {}).items()}
    recipe = Recipe(settings.image_size, settings.spacing, slices.channels, slices.classes, windows)
    usable = trained and not isinstance(trained, FSDPModule) and not settings.compile
    if trained and usable and not settings.gradient_checkpointing and precision == plain_precision(precision):
        load_best(run, trained, epoch)
        network = trained
    else:
        precision = plain_precision(precision)
        network = network_of(run, settings, recipe, precision, epoch)
    return RunPredictor.running(network, settings, recipe, device, precision, "", str(run.path))


def validate(predictor: Predictor, slices: cache.Slices, epoch: int, batch_size: int) -> Quality:
    """The figures of the validation subjects, in the pixels of their files, with the network of the best epoch.

    They are those of the masks that `greenseg predict` writes and of the test part: the probabilities are brought back,
    then the class is decided. Masks on the grid, which an epoch has, would lose what the probabilities say about the
    place of a border between two pixels: 1 % of Dice where the grid has twice the spacing of the files.

    Args:
        predictor: the network of the best epoch.
        slices: slices of the run.
        epoch: the best epoch.
        batch_size: slices per batch.
    """

    def probabilities() -> Iterator[FloatArray]:
        for about in slices.subjects("validation"):
            images = slices.images[about["first"] : about["first"] + about["slices"]]
            yield subject.predict(predictor, np.array(images), batch_size)

    return Quality(**record_of(slices, probabilities(), epoch, subject.classes_back))
