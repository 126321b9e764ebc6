"""Bringing slices to one pixel size and number of pixels, and their intensities to one scale."""

import math

import numpy as np
import SimpleITK as sitk

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
ByteArray = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

_SAME = 1e-3  # share of a spacing by which another one, or a multiple of it, is still the same
_HALF = 0.5 - 1e-4  # of a pixel, but for rounding


def to_grid(volume: sitk.Image, size: int, spacing: float) -> FloatArray:
    """Every slice of an image on a grid of its own plane.

    Along each axis by itself: pixels that have the spacing already are taken as they are; those that grow are means
    over their whole width, without aliasing; those that shrink are interpolated linearly.

    Args:
        volume: [x, y, slice].
        size: height and width of the result, in pixels.
        spacing: distance of the result's pixels, in mm.

    Returns:
        float32 [slices, size, size]; 0 outside the volume.
    """
    return _on_grid(volume, size, spacing, by_area=False)


def mask_to_grid(mask: sitk.Image, size: int, spacing: float) -> ByteArray:
    """Every slice of a mask on the grid of `to_grid`: 1 where at least half of a pixel's area is 1.

    Args:
        mask: [x, y, slice], 0 or 1.
        size: as in `to_grid`.
        spacing: likewise.

    Returns:
        uint8 [slices, size, size], 0 or 1.
    """
    return (_on_grid(mask, size, spacing, by_area=True) >= _HALF).astype(np.uint8)


def _on_grid(volume: sitk.Image, size: int, spacing: float, by_area: bool) -> FloatArray:
    plane = zip(volume.GetSize()[:2], volume.GetSpacing()[:2], strict=True)
    columns, rows = (_weights(pixels, pixel, size, spacing, by_area) for pixels, pixel in plane)
    values: FloatArray = sitk.GetArrayViewFromImage(volume).astype(np.float32)
    return np.asarray(rows @ values @ columns.T, np.float32)


def _place(pixels: int, pixel: float, size: int, spacing: float) -> tuple[float, float]:
    """Where the grid begins along an axis, from the outer edge of its first pixel, and how far apart its pixels are.

    It is centred, but where one spacing is the other's multiple it moves by less than a pixel, so that no pixel
    straddles two: an even number of pixels cannot be centred on an odd one without blurring all of them.

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
    """What each pixel of a volume's axis adds to each of the grid's: float32 [size, pixels]."""
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


def brain_outside(mask: sitk.Image, size: int, spacing: float) -> tuple[float, float]:
    """Brain of a mask, and how much of it lies outside the square that `to_grid` keeps, in mm³.

    Args:
        mask: [x, y, slice], 0 or 1.
        size: as in `to_grid`.
        spacing: likewise.
    """
    inside = sitk.GetArrayViewFromImage(mask) > 0
    kept = []
    for pixels, pixel in zip(inside.shape[1:], mask.GetSpacing()[1::-1], strict=True):
        first, step = _place(pixels, pixel, size, spacing)
        kept.append(np.abs(np.arange(pixels) + 0.5 - first - size * step / 2) <= size * step / 2)
    volume = math.prod(mask.GetSpacing())
    return float(inside.sum()) * volume, float(inside[:, ~np.logical_and.outer(*kept)].sum()) * volume


def normalise(slices: FloatArray) -> FloatArray:
    """Intensities of one subject, all its slices together, from 0 (background) to 1 (its brightest tissue).

    An MR scanner has no absolute scale: 1 is the 99.5th percentile of what is not background, and what is brighter is
    clipped. Background stays 0, so that padding and what augmentation moves in from outside look like background.
    """
    tissue = slices[slices > 0]
    if tissue.size == 0:
        return np.zeros_like(slices)
    scaled: FloatArray = np.clip(slices / np.percentile(tissue, 99.5), 0, 1).astype(np.float32)
    return scaled
