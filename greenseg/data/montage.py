"""A picture of a data set: one slice per case, with the contours of its classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.errors import UserError

_COLOURS = [
    240, 228, 66, 255, 176, 0, 100, 143, 255, 220, 38, 127, 0, 158, 115, 254, 97, 0, 120, 94, 240, 86, 180, 233,
]  # fmt: skip
"""Red, green and blue for the classes 8, 1, 2 … 7, as ITK counts, then again. Colour blindness keeps them distinct."""


@dataclass(frozen=True)
class Picture:
    """The slice of a case with the most foreground: grey values of the first channel and classes, both [y, x]."""

    subject: str
    slice: np.ndarray[Any, Any]
    classes: np.ndarray[Any, Any]


def write_montage(pictures: Sequence[Picture], file: Path, side: int = 256, columns: int = 6) -> None:
    """Write a PNG with one tile per case: the slice with the most foreground, and the contours of its classes.

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
    tiles = []
    for picture in pictures:
        low, high = np.percentile(picture.slice, (0.5, 99.5))
        grey = np.clip((picture.slice - low) / max(high - low, 1e-6), 0, 1) * 255
        scale = max(picture.slice.shape) / side
        big = [
            sitk.Resample(
                sitk.GetImageFromArray(array.astype(np.uint8)),
                (side, side),
                sitk.Transform(),
                interpolation,
                (0.0, 0.0),
                (scale, scale),
            )
            for array, interpolation in ((grey, sitk.sitkLinear), (picture.classes, sitk.sitkNearestNeighbor))
        ]
        overlay = sitk.LabelMapContourOverlay(
            sitk.Cast(big[1], sitk.sitkLabelUInt8), big[0], opacity=1.0, contourThickness=[2, 2],
            colormap=_COLOURS,
        )  # fmt: skip
        tiles.append(sitk.GetArrayFromImage(overlay))
    columns = min(columns, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    image = sitk.GetImageFromArray(np.concatenate(rows), isVector=True)
    try:
        sitk.WriteImage(image, str(file))
    except RuntimeError as error:
        raise UserError(f"{file}: cannot be written: {str(error).strip().splitlines()[-1]}") from None
