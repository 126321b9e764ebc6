"""Bringing slices to one pixel size and number of pixels, and their intensities to one scale."""

import math

import numpy as np
import SimpleITK as sitk

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
ByteArray = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

_SAME = 1e-3  # relative difference up to which two spacings, or multiples, count as the same
_HALF = 0.5 - 1e-4  # of a pixel, but for rounding


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

    An MR scanner has no absolute scale, so 1 is the 99.5th percentile of the pixels above 0, and brighter pixels are
    clipped. Background stays 0, so that padding and the borders of augmented images look like background.
    """
    tissue = slices[slices > 0]
    if tissue.size == 0:
        return np.zeros_like(slices)
    scaled: FloatArray = np.clip(slices / np.percentile(tissue, 99.5), 0, 1).astype(np.float32)
    return scaled
