"""Tests of `greenseg export`, and runs for them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from greenseg.data import PREPROCESSING
from greenseg.data.placement import as_stored
from greenseg.inference import subject
from greenseg.inference.load import load
from greenseg.models import network
from greenseg.settings import Settings
from tests import runs

TISSUES = {"csf": "1", "brain": "2+4"}


def make_run(folder: Path, model: str, size: int = 32, channels: int = 1, **data: Any) -> Path:
    """The directory of a finished run, with weights that nobody trained.

    Args:
        folder: folder of runs.
        model: name of the network.
        size: height and width of its input, in pixels; the spacing is 3 mm.
        channels: channels of its images.
        data: more about its data, as in the record: `classes`, `windows`.
    """
    values = {"model": model, "image_size": size, "spacing": 3.0, "encoder_weights": "none"}
    settings = Settings.of(values)
    torch.manual_seed(0)
    made = network.build(settings, channels, network.outputs(len(data.get("classes", [0])))).train()
    with torch.no_grad():
        for _ in range(3):  # batch normalisation adapts, so that the outputs vary
            made(torch.rand(8, channels, size, size))
        *_, last = (module for module in made.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d))
        if last.bias is not None:
            last.bias -= made.eval()(torch.rand(1, channels, size, size)).mean((0, 2, 3))  # so that every class occurs
    written = runs.record(values)
    written |= {"data": {"channels": channels, **data}, "preprocessing": PREPROCESSING, "id": f"run of {model}"}
    run = runs.write(folder, written)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.checkpoints.mkdir()
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    torch.save({"state_dict": state}, run.best_checkpoint)
    return run.path


def mask_of(run: Path, images: list[Path]) -> np.ndarray[Any, Any]:
    """The mask of an image by greenseg itself, in the axes of its file."""
    predictor = load(run)
    image = subject.Image.of(images, predictor.recipe)
    slices = subject.on_grid([image], predictor.recipe)
    found = subject.bring_back(subject.predict(predictor, slices, 8), image, predictor.recipe.spacing)
    volume = sitk.GetImageFromArray(subject.as_labels(subject.classes_of(found), predictor.recipe))
    volume.CopyInformation(image.channels[0])
    found_mask: np.ndarray[Any, Any] = sitk.GetArrayFromImage(as_stored(volume, image.stored))
    return found_mask


def write_images(folder: Path, channels: int, seed: int = 0) -> list[Path]:
    """The channels of an image with its slices along x, oblique, with values below 0: CASE_0000.nii.gz, …"""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    paths = []
    for channel in range(channels):
        coarse = sitk.GetImageFromArray(random.normal(0, 1, (8, 7, 5)).astype(np.float32))
        image = sitk.Expand(coarse, [2, 6, 5], sitk.sitkLinear) * 300 - 50  # x is across the slices
        image.SetSpacing((6.0, 2.0, 2.6))
        image.SetOrigin((-10.0, 20.0, 5.0))
        turned = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.1, 0.2, -0.3)
        image.SetDirection(turned.GetMatrix())
        paths.append(folder / f"CASE_{channel:04d}.nii.gz")
        sitk.WriteImage(sitk.Cast(image, sitk.sitkInt16), str(paths[-1]))
    return paths
