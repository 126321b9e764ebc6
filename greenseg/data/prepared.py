"""The slices of one subject: its files read, resampled and normalised."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.classes import IGNORED, Classes
from greenseg.data.grid import (
    ByteArray,
    FloatArray,
    foreground_outside,
    is_foreground,
    mask_to_grid,
    normalise,
    to_grid,
)
from greenseg.data.hounsfield import Window
from greenseg.data.intensity import lifted
from greenseg.data.splits import Case
from greenseg.data.stacks import Part, Volume, volumes
from greenseg.data.volume import class_numbers, ct_problem, labels_in, read_whole
from greenseg.errors import UserError
from greenseg.settings import Settings


@dataclass
class Files:
    """The files of a subject.

    Attributes:
        pairs: the channels of each image, and its mask with the numbers of the classes.
        volumes: the volumes that the images form.
        labels: labels above 0 in the masks; not looked up if there is one class.
    """

    pairs: list[tuple[list[sitk.Image], sitk.Image]] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    labels: set[int] = field(default_factory=set)

    @property
    def order(self) -> list[int]:
        """The indices of the files, in the order in which their slices lie in the cache."""
        return [number for volume in self.volumes for number in volume.parts]

    @property
    def masks(self) -> list[sitk.Image]:
        """The masks with the numbers of the classes, in this order."""
        return [self.pairs[number][1] for number in self.order]


def read(case: Case, classes: Classes, advance: Callable[[], None]) -> Files:
    """The files of a case; `advance` is called after each image.

    Raises:
        UserError: all their problems.
    """
    found, problems = Files(), list[str]()
    for images, (_, mask_path) in zip(case.images, case.files, strict=True):
        try:
            channels, mask = read_whole(images, mask_path)
            if problem := ct_problem(channels, images, case.ct):
                raise UserError(problem)
            if len(classes) > 1:
                found.labels.update(labels_in(mask))
            numbers = sitk.GetImageFromArray(class_numbers(mask, classes, case.ignored))
            numbers.CopyInformation(mask)
            found.pairs.append((channels, numbers))
        except UserError as error:
            problems += error.problems
        advance()
    if problems:
        raise UserError(problems)
    first_channels = [(path, channels[0]) for (path, _), (channels, _) in zip(case.files, found.pairs, strict=True)]
    found.volumes = volumes([Part.of(path, image) for path, image in first_channels])
    return found


def on_grid(
    case: Case, files: Files, classes: Classes, windows: Mapping[int, Window], settings: Settings
) -> tuple[FloatArray, ByteArray, dict[str, Any]]:
    """The slices of a subject, and what the index of the cache says about them, without their place.

    Args:
        case: the subject.
        files: its files.
        classes: classes of its masks.
        windows: channel → its window, for channels in Hounsfield units.
        settings: settings of a run.

    Returns:
        images: float32 [slices, channels, size, size], from 0 to 1.
        masks: uint8 [slices, size, size].
        about: see `Slices.subjects` in `greenseg.data.cache`.

    Raises:
        UserError: a channel has only one value, although there is foreground.
    """
    size, spacing = settings.image_size, settings.spacing
    order = files.order
    numbers = (*range(1, len(classes) + 1), *([IGNORED] if case.ignored else []))
    masks = np.concatenate([mask_to_grid(mask, size, spacing, numbers) for mask in files.masks])
    images = images_on_grid([files.pairs[n][0] for n in order], size, spacing, windows)
    if is_foreground(masks).any():
        paths, count = case.images[0], images.shape[1]
        problems = [
            _equal(paths[channel if count == len(paths) else 0], case, float(grid.flat[0]), settings)
            for channel, grid in enumerate(images.swapaxes(0, 1))
            if np.ptp(grid) == 0
        ]
        if problems:
            raise UserError(problems)
    outside = [foreground_outside(mask, size, spacing) for _, mask in files.pairs]
    foreground = sum(here for here, _ in outside)
    about = {
        "name": case.subject,
        "slices": len(masks),
        "empty": np.flatnonzero(~is_foreground(masks).any((1, 2))).tolist(),
        "volumes": [{"slices": volume.slices, "distance": volume.distance} for volume in files.volumes],
        "cut_off": sum(cut for _, cut in outside) / foreground if foreground else 0.0,
        "brain": foreground,  # the key that caches on disk have
        "pixel": min((min(mask.GetSpacing()[:2]) for _, mask in files.pairs), default=math.inf),
        "pixels": [int((masks == number).sum()) for number in range(1, len(classes) + 1)],
    }
    return images, masks, about


def images_on_grid(
    files: Sequence[Sequence[sitk.Image]],
    size: int,
    spacing: float,
    windows: Mapping[int, Window],
    extent: int | None = None,
) -> FloatArray:
    """The images of a subject as the network gets them.

    Args:
        files: the channels of each file, in the order of the slices.
        size: height and width of the square whose pixels decide the scale of the intensities, in pixels.
        spacing: pixel spacing in mm.
        windows: channel → its window, for channels in Hounsfield units.
        extent: height and width of the result, `size` plus an even number; None = `size`.

    Returns:
        float32 [slices, channels, extent, extent], from 0 to 1.
    """
    channels: list[FloatArray] = []
    for channel in range(len(files[0])):
        images = [of_file[channel] for of_file in files]
        if window := windows.get(channel):
            channels.append(np.concatenate([to_grid(window.scaled(i), extent or size, spacing) for i in images]))
        else:
            grid = np.concatenate([to_grid(image, extent or size, spacing) for image in lifted(images)])
            channels.append(normalise(grid, size if extent else None))
    return channels[0][:, None] if len(channels) == 1 else np.stack(channels, axis=1)


def _equal(path: Path, case: Case, value: float, settings: Settings) -> str:
    return (
        f"{path}: every pixel of subject {case.subject!r} is {value:g} on the grid of "
        f"{settings.image_size}×{settings.image_size} pixels of {settings.spacing:g} mm, although there is "
        f"foreground; set --spacing and --image-size to suit the subject, or check its values"
    )
