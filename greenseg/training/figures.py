"""The figures of a run on its validation subjects: of the masks that its network predicts for their files."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from greenseg.data import cache
from greenseg.data.grid import FloatArray
from greenseg.data.hounsfield import Window
from greenseg.inference import subject
from greenseg.inference.of_run import RunPredictor, network_of
from greenseg.inference.recipe import Recipe
from greenseg.metrics.volumes import record_of
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Quality
from greenseg.settings import Settings


@dataclass(frozen=True)
class Way:
    """The way that the network ran in training, which is also its way here."""

    device: torch.device
    precision: str
    batch_size: int


def predictor_of(run: RunDirectory, settings: Settings, slices: cache.Slices, way: Way) -> RunPredictor:
    """The network of the best epoch.

    Raises:
        UserError: its checkpoint is damaged.
        OSError: it is missing.
    """
    windows = {int(channel): Window(*ends) for channel, ends in slices.index.get("windows", {}).items()}
    recipe = Recipe(settings.image_size, settings.spacing, slices.channels, slices.classes, windows)
    network = network_of(run, settings, recipe, way.precision)
    return RunPredictor.running(network, settings, recipe, way.device, way.precision, "", str(run.path))


def validate(run: RunDirectory, settings: Settings, slices: cache.Slices, epoch: int, way: Way) -> Quality:
    """The figures of the validation subjects, in the pixels of their files, with the network of the best epoch.

    They are those of the masks that `greenseg predict` writes and of the test part: the probabilities are brought back,
    then the class is decided. Masks on the grid, which an epoch has, would lose what the probabilities say about the
    place of a border between two pixels: 1 % of Dice where the grid has twice the spacing of the files.

    Args:
        run: directory of the run, with its best checkpoint.
        settings: settings of the run.
        slices: slices of the run.
        epoch: the best epoch.
        way: the way that the network runs.
    """
    predictor = predictor_of(run, settings, slices, way)

    def probabilities() -> Iterator[FloatArray]:
        for about in slices.subjects("validation"):
            images = slices.images[about["first"] : about["first"] + about["slices"]]
            yield subject.predict(predictor, np.array(images), way.batch_size)

    return Quality(**record_of(slices, probabilities(), epoch, subject.classes_back))
