"""One subject: its images on the network's grid, and probabilities back in the pixels of its files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.data.grid import ByteArray, FloatArray, from_grid
from greenseg.data.prepared import images_on_grid
from greenseg.data.volume import has_spacing, read_images
from greenseg.errors import UserError
from greenseg.inference.batching import BatchSize, in_batches
from greenseg.inference.predictor import Predictor
from greenseg.inference.recipe import Recipe

_SAME = 1e-3  # of a pixel


@dataclass(frozen=True)
class Image:
    """An image as read from its files.

    Attributes:
        paths: the file of each channel.
        channels: its channels as volumes, with the slice axis last.
        stored: the first channel in the axes of its file.
    """

    paths: tuple[Path, ...]
    channels: list[sitk.Image]
    stored: sitk.Image

    @classmethod
    def of(cls, paths: Sequence[Path], recipe: Recipe) -> "Image":
        """Read an image.

        Raises:
            UserError: a file is unreadable, or there are not as many channels as the network needs.
        """
        channels, stored = read_images(paths)
        if len(channels) != recipe.channels:
            raise UserError(
                f"{paths[0]}: {_count(len(channels))}; the network was trained on {_count(recipe.channels)}"
            )
        return cls(tuple(paths), channels, stored)

    @property
    def slices(self) -> int:
        """Number of slices."""
        return int(self.channels[0].GetSize()[2])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        columns, rows, _ = self.channels[0].GetSize()
        return int(rows), int(columns)

    @property
    def pixel(self) -> tuple[float, float]:
        """Distance of the rows and of the columns of a slice, in mm."""
        across, down, _ = self.channels[0].GetSpacing()
        return float(down), float(across)

    @property
    def has_pixel_size(self) -> bool:
        """Whether its file has a pixel size; a picture may have none."""
        return has_spacing(self.channels[0])

    def beyond(self, recipe: Recipe) -> float:
        """The largest part of an axis that lies outside the network's square, in mm; 0 if nothing does."""
        side = recipe.image_size * recipe.spacing
        widths = (n * mm - side for n, mm in zip(self.shape, self.pixel, strict=True))
        return max(0.0, *(width for width in widths if width > _SAME * recipe.spacing), 0.0)


def _count(channels: int) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''}"


def on_grid(images: Sequence[Image], recipe: Recipe, tile: bool = False) -> FloatArray:
    """The slices of a subject's images, in their order, as the network gets them.

    Args:
        images: images of one subject; all decide its scale of intensities.
        recipe: recipe of the network.
        tile: enlarge the grid beyond the network's square to cover all pixels.

    Returns:
        float32 [slices, channels, extent, extent]; `extent` is `image_size`, or larger by an even number.
    """
    size, extent = recipe.image_size, None
    if tile and (beyond := max(image.beyond(recipe) for image in images)):
        extent = size + 2 * math.ceil(beyond / recipe.spacing / 2)
    files = [image.channels for image in images]
    return images_on_grid(files, size, recipe.spacing, recipe.windows, extent)


def predict(predictor: Predictor, slices: FloatArray, batch_size: int | BatchSize) -> FloatArray:
    """Probabilities of the slices from `on_grid`; a larger extent is covered with overlapping tiles.

    Args:
        predictor: the network.
        slices: float32 [slices, channels, extent, extent].
        batch_size: slices per batch; fewer if they do not fit into memory.

    Returns:
        float32 [slices, outputs, extent, extent]; see `Predictor.probabilities`. In overlaps, the mean of the tiles.
    """
    size, extent = predictor.recipe.image_size, slices.shape[-1]
    if extent == size:
        return np.concatenate(list(in_batches(predictor, slices, batch_size)))
    starts = sorted({round(start) for start in np.linspace(0, extent - size, math.ceil(extent / size))})
    total: FloatArray | None = None
    count = np.zeros((extent, extent), np.float32)
    for top in starts:
        for left in starts:
            window = np.s_[..., top : top + size, left : left + size]
            of_tile = np.concatenate(list(in_batches(predictor, slices[window], batch_size)))
            if total is None:
                total = np.zeros((*of_tile.shape[:2], extent, extent), np.float32)
            total[window] += of_tile
            count[window] += 1
    assert total is not None
    total /= count
    return total


def bring_back(probabilities: FloatArray, image: Image, spacing: float) -> FloatArray:
    """Probabilities in the pixels of a file.

    Args:
        probabilities: float32 [slices, outputs, extent, extent] of the slices of this image.
        image: the image.
        spacing: pixel spacing of the grid, in mm.

    Returns:
        float32 [slices, outputs, rows, columns]; background outside the grid.
    """
    return _back(probabilities, image.shape, image.pixel, spacing)


def _back(probabilities: FloatArray, shape: tuple[int, int], pixel: tuple[float, float], spacing: float) -> FloatArray:
    back = from_grid(probabilities, shape, pixel, spacing)
    if back.shape[1] > 1:
        if back is probabilities:
            back = back.copy()
        back[:, 0] += np.maximum(1 - back.sum(1), 0)  # outside the grid, all are 0
    return back


def classes_back(
    probabilities: FloatArray, shape: tuple[int, int], pixel: tuple[float, float], spacing: float
) -> ByteArray:
    """The classes in the pixels of a file with these rows and columns, and distances of them: as `numbers_of`."""
    return classes_of(_back(probabilities, shape, pixel, spacing))


def classes_of(probabilities: FloatArray, threshold: float = 0.5) -> ByteArray:
    """The class of each pixel: uint8 [slices, rows, columns], 0 background, from 1 up the number of the class.

    Args:
        probabilities: as from `bring_back`.
        threshold: of a single class: a pixel has it if its probability is above. Several classes have none: the largest
            probability decides.
    """
    if probabilities.shape[1] == 1:
        return np.asarray(probabilities[:, 0] > threshold).view(np.uint8)
    return np.asarray(probabilities.argmax(1), np.uint8)


def numbers_of(
    probabilities: FloatArray, image: Image, spacing: float, threshold: float = 0.5, at_once: int = 16
) -> ByteArray:
    """The classes in the pixels of a file, `at_once` slices at a time: `bring_back` and `classes_of` in little memory.

    Args:
        probabilities: as in `bring_back`.
        image: the image.
        spacing: pixel spacing of the grid, in mm.
        threshold: as in `classes_of`.
        at_once: slices to bring back together.

    Returns:
        uint8 [slices, rows, columns].
    """
    parts = [
        classes_of(bring_back(probabilities[start : start + at_once], image, spacing), threshold)
        for start in range(0, len(probabilities), at_once)
    ]
    return np.concatenate(parts)


def largest_component(numbers: ByteArray, classes: int) -> ByteArray:
    """Classes with only the largest connected component of each; pixels that share a face are connected.

    Args:
        numbers: uint8 [slices, rows, columns] of one volume.
        classes: number of classes.
    """
    from scipy import ndimage  # as slow to import as SimpleITK, and rarely needed

    result = np.zeros_like(numbers)
    for number in range(1, classes + 1):
        components, count = ndimage.label(numbers == number)
        if count:
            sizes = np.bincount(components.ravel())
            result[components == 1 + int(sizes[1:].argmax())] = number
    return result


def as_labels(numbers: ByteArray, recipe: Recipe) -> np.ndarray[Any, Any]:
    """The labels of classes, as in the masks of the training: uint8, or uint16 if one of them is above 255."""
    labels = np.array([0, *recipe.labels])
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint32 if labels.max() > 65535 else np.uint16)[numbers]
