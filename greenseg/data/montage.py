"""A picture of a data set: one slice per case, with the contours of its classes, or of a mask and its prediction."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from greenseg.errors import UserError

_COLOURS = [
    240, 228, 66, 255, 176, 0, 100, 143, 255, 220, 38, 127, 0, 158, 115, 254, 97, 0, 120, 94, 240, 86, 180, 233,
]  # fmt: skip
"""Red, green and blue for the classes 8, 1, 2 … 7, as ITK counts, then again. Colour blindness keeps them distinct."""

REFERENCE, PREDICTION, BOTH = (100, 143, 255), (255, 176, 0), (255, 255, 255)
"""Red, green and blue of the contours of a mask, of its prediction, and of pixels that both contours share."""


@dataclass(frozen=True)
class Picture:
    """A slice of a case.

    Attributes:
        subject: name of the case.
        slice: grey values of the first channel, [y, x].
        classes: numbers of the classes, likewise; a bool mask if there is a prediction.
        prediction: predicted mask, likewise, bool; None draws the contours of the classes instead.
    """

    subject: str
    slice: np.ndarray[Any, Any]
    classes: np.ndarray[Any, Any]
    prediction: np.ndarray[Any, Any] | None = None


def write_montage(pictures: Sequence[Picture], file: Path, side: int = 256, columns: int = 6) -> None:
    """Write a PNG with one tile per picture: its slice, and the contours of its masks.

    Args:
        pictures: pictures of the cases.
        file: file to write; its suffix sets the format.
        side: side of a tile, in pixels.
        columns: number of tiles per row.

    Raises:
        UserError: there is nothing to show, or the file cannot be written.
    """
    if not pictures:
        raise UserError(f"{file}: no case with a mask to show")
    tiles = [_tile(picture, side) for picture in pictures]
    columns = min(columns, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    image = sitk.GetImageFromArray(np.concatenate(rows), isVector=True)
    temporary = file.with_name(f".{file.stem}.{os.getpid()}.tmp{file.suffix}")  # ITK needs the suffix
    try:
        sitk.WriteImage(image, str(temporary))
        temporary.replace(file)
    except RuntimeError as error:
        raise UserError(f"{file}: cannot be written: {str(error).strip().splitlines()[-1]}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _tile(picture: Picture, side: int) -> np.ndarray[Any, Any]:
    """uint8 [side, side, 3]."""
    low, high = np.percentile(picture.slice, (0.5, 99.5))
    values = np.clip((picture.slice - low) / max(high - low, 1e-6), 0, 1) * 255
    grey, classes = _enlarged(values, side, sitk.sitkLinear), _enlarged(picture.classes, side)
    if picture.prediction is None:
        overlay = sitk.LabelMapContourOverlay(
            sitk.Cast(classes, sitk.sitkLabelUInt8), grey, opacity=1.0, contourThickness=[2, 2], colormap=_COLOURS
        )
        tile: np.ndarray[Any, Any] = sitk.GetArrayFromImage(overlay)
        return tile
    tile = np.repeat(sitk.GetArrayViewFromImage(grey)[:, :, None], 3, axis=2)
    reference, prediction = (_contour(mask) for mask in (classes, _enlarged(picture.prediction, side)))
    for contour, colour in ((reference, REFERENCE), (prediction, PREDICTION), (reference & prediction, BOTH)):
        tile[contour] = colour
    return tile


def _enlarged(values: np.ndarray[Any, Any], side: int, interpolation: int = sitk.sitkNearestNeighbor) -> sitk.Image:
    scale = max(values.shape) / side
    return sitk.Resample(
        sitk.GetImageFromArray(values.astype(np.uint8)),
        (side, side),
        sitk.Transform(),
        interpolation,
        (0.0, 0.0),
        (scale, scale),
    )


def _contour(mask: sitk.Image) -> np.ndarray[Any, Any]:
    """The outermost two pixels of a mask, as thick as the contours of classes: bool [y, x]."""
    inside = sitk.GetArrayViewFromImage(mask) > 0
    contour: np.ndarray[Any, Any] = inside & ~ndimage.binary_erosion(inside, iterations=2)
    return contour
