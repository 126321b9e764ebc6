"""Bringing slices to one pixel size and number of pixels, and their intensities to one scale."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.classes import IGNORED

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
ByteArray = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

_SAME = 1e-3  # relative difference up to which two spacings, or multiples, count as the same
_ROUNDING = 1e-4  # of a pixel
_HALF = 0.5 - _ROUNDING


def to_grid(volume: sitk.Image, size: int, spacing: float) -> FloatArray:
    """Every slice of an image, resampled on a grid in its plane.

    Each axis is resampled separately. Pixels that already have the spacing are kept. Larger pixels are means over their
    whole width, without aliasing. Smaller pixels are interpolated linearly.

    Args:
        volume: [x, y, slice].
        size: height and width of the result, in pixels.
        spacing: pixel spacing of the result, in mm.

    Returns:
        float32 [slices, size, size]; 0 outside the volume.
    """
    rows, columns = _of_axes(volume, size, spacing, by_area=False)
    return _on_grid(sitk.GetArrayViewFromImage(volume), rows, columns)


def mask_to_grid(mask: sitk.Image, size: int, spacing: float, numbers: Sequence[int] = (1,)) -> ByteArray:
    """Every slice of a mask on the grid of `to_grid`: each pixel gets the number with the largest share of its area.

    The background, and what lies outside the mask, is a number like the others. A pixel with equal shares gets the
    number that comes first in `numbers`, and the background last. With a single number, a pixel has it if at least half
    of its area has.

    Args:
        mask: [x, y, slice], 0 or one of `numbers`.
        size: as in `to_grid`.
        spacing: likewise.
        numbers: numbers to look for, above 0.

    Returns:
        uint8 [slices, size, size], 0 or one of `numbers`.
    """
    values = sitk.GetArrayViewFromImage(mask)
    rows, columns = _of_axes(mask, size, spacing, by_area=True)
    return _largest_share(values, numbers, (len(values), size, size), lambda there: _on_grid(there, rows, columns))


def _largest_share(
    values: ByteArray, numbers: Sequence[int], shape: tuple[int, ...], share_of: Callable[[BoolArray], FloatArray]
) -> ByteArray:
    """The number with the largest share in each of other pixels, see `mask_to_grid`.

    Args:
        values: 0 or one of `numbers`.
        numbers: numbers to look for.
        shape: shape of the result.
        share_of: returns the share of each of the other pixels that is in the given ones.
    """
    there = [number for number in numbers if (values == number).any()] if len(numbers) > 1 else list(numbers)
    if len(there) == 1:
        return (share_of(values == there[0]) >= _HALF) * np.uint8(there[0])
    result: ByteArray = np.zeros(shape, np.uint8)
    largest = np.zeros(shape, np.float32)
    background = np.ones(shape, np.float32)
    for number in there:  # one at a time, to save memory
        share = share_of(values == number)
        background -= share
        larger = share > largest + _ROUNDING
        result[larger], largest[larger] = number, share[larger]
    result[largest < background - 2 * _ROUNDING] = 0  # twice, as in `_HALF`: one share is 1 less the other
    return result


def central(slices: FloatArray, size: int) -> FloatArray:
    """The central square of slices, [..., height, width] → [..., size, size]."""
    height, width = slices.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    return slices[..., top : top + size, left : left + size]


def from_grid(values: FloatArray, shape: tuple[int, int], pixel: tuple[float, float], spacing: float) -> FloatArray:
    """Values on the grid of `to_grid`, brought back to the pixels of their slices.

    Each axis is resampled separately. Where the pixels of both coincide, values are kept. Larger pixels of the slice
    are means over their whole area, smaller ones are interpolated linearly between the centres of the grid's pixels.

    Args:
        values: float32 [..., size, size].
        shape: rows and columns of a slice.
        pixel: their spacing in mm: between rows, between columns.
        spacing: pixel spacing of the grid, in mm.

    Returns:
        float32 [..., rows, columns]; 0 outside the grid.
    """
    size = values.shape[-1]
    rows, columns = (_weights_back(n, mm, size, spacing) for n, mm in zip(shape, pixel, strict=True))
    if all(np.array_equal(weights, np.eye(size)) for weights in (rows, columns)):
        return values
    # Each axis in a single product: one for each slice has threads wait for each other on a busy machine.
    lead, turned = values.shape[:-2], values.swapaxes(-1, -2).reshape(-1, size) @ rows.T
    upright = turned.reshape(*lead, size, shape[0]).swapaxes(-1, -2).reshape(-1, size)
    return np.asarray((upright @ columns.T).reshape(*lead, *shape), np.float32)


def _weights_back(pixels: int, pixel: float, size: int, spacing: float) -> FloatArray:
    """Weight of each pixel of the grid in each pixel of the volume, along one axis: float32 [pixels, size]."""
    first, step = _place(pixels, pixel, size, spacing)
    edges = (np.arange(pixels + 1)[:, None] - first) / step  # of the volume's pixels, in pixels of the grid
    index = np.arange(size)
    if step <= 1:
        overlap = np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)
        return np.asarray(np.clip(overlap * step, 0, 1), np.float32)
    centre = (edges[1:] + edges[:-1] - 1) / 2
    inside = (centre >= -0.5) & (centre < size - 0.5)
    near = 1 - np.abs(np.clip(centre, 0, size - 1) - index)
    return np.asarray(np.where(inside, np.clip(near, 0, 1), 0), np.float32)


def _of_axes(volume: sitk.Image, size: int, spacing: float, by_area: bool) -> tuple[FloatArray, FloatArray]:
    """The weights along y and along x."""
    plane = zip(volume.GetSize()[:2], volume.GetSpacing()[:2], strict=True)
    columns, rows = (_weights(pixels, pixel, size, spacing, by_area) for pixels, pixel in plane)
    return rows, columns


def _on_grid(values: np.ndarray[Any, Any], rows: FloatArray, columns: FloatArray) -> FloatArray:
    return np.asarray(rows @ values.astype(np.float32) @ columns.T, np.float32)


def _place(pixels: int, pixel: float, size: int, spacing: float) -> tuple[float, float]:
    """Start of the grid along an axis, from the outer edge of the volume's first pixel, and the distance of its pixels.

    The grid is centred. If one spacing is a multiple of the other, it moves by less than a pixel so that pixels
    coincide: an even number of pixels cannot be centred on an odd number without blurring all of them.

    Returns:
        Both in pixels of the volume.
    """
    step = spacing / pixel
    multiple = max(1.0, float(round(max(step, 1 / step))))
    exact = multiple if step >= 1 else 1 / multiple
    first = (pixels - size * step) / 2
    if abs(step / exact - 1) > _SAME:
        return first, step
    unit = min(1.0, exact)
    return math.floor((pixels - size * exact) / 2 / unit + _SAME) * unit, exact


def _weights(pixels: int, pixel: float, size: int, spacing: float, by_area: bool) -> FloatArray:
    """Weight of each pixel of the volume in each pixel of the grid, along one axis: float32 [size, pixels]."""
    first, step = _place(pixels, pixel, size, spacing)
    edges = first + step * np.arange(size + 1)[:, None]
    index = np.arange(pixels)
    if by_area or step >= 1:
        overlap = np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)
        return np.asarray(np.clip(overlap / step, 0, 1), np.float32)
    centre = (edges[1:] + edges[:-1] - 1) / 2  # 0 is the centre of the first pixel
    inside = (centre >= -0.5) & (centre < pixels - 0.5)
    near = 1 - np.abs(np.clip(centre, 0, pixels - 1) - index)
    return np.asarray(np.where(inside, np.clip(near, 0, 1), 0), np.float32)


def foreground_outside(mask: sitk.Image, size: int, spacing: float) -> tuple[float, float]:
    """Foreground of a mask, and its part outside the square that `to_grid` keeps, both in mm³.

    Args:
        mask: [x, y, slice]: 0, the number of a class, or `IGNORED`, which does not count.
        size: as in `to_grid`.
        spacing: likewise.
    """
    inside = is_foreground(sitk.GetArrayViewFromImage(mask))
    kept = []
    for pixels, pixel in zip(inside.shape[1:], mask.GetSpacing()[1::-1], strict=True):
        first, step = _place(pixels, pixel, size, spacing)
        kept.append(np.abs(np.arange(pixels) + 0.5 - first - size * step / 2) <= size * step / 2)
    volume = math.prod(mask.GetSpacing())
    return float(inside.sum()) * volume, float(inside[:, ~np.logical_and.outer(*kept)].sum()) * volume


def is_foreground(numbers: ByteArray) -> BoolArray:
    """Where a class is: neither background nor `IGNORED`."""
    return np.asarray((numbers > 0) & (numbers != IGNORED))


def normalise(slices: FloatArray, size: int | None = None) -> FloatArray:
    """Intensities of one subject, all its slices together, from 0 (background) to 1 (its brightest tissue).

    An MR scanner has no absolute scale, so 1 is the 99.5th percentile of the pixels above 0, and brighter pixels are
    clipped. Background stays 0, so that padding and the borders of augmented images look like background.

    Args:
        slices: float32 [slices, height, width].
        size: height and width of the central square whose pixels decide the scale; None = all pixels.
    """
    tissue = slices if size is None else central(slices, size)
    tissue = tissue[tissue > 0]
    if tissue.size == 0:
        return np.zeros_like(slices)
    scaled: FloatArray = np.clip(slices / np.percentile(tissue, 99.5), 0, 1).astype(np.float32)
    return scaled
