"""Intensities that go below 0: their background is not 0, as that of an MR image is."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from greenseg.data.grid import FloatArray

_LOST = 0.1  # share of the range of values that may lie below 0 and be cut off there
_OUTLIERS = 0.5  # per cent of the values at either end that decide nothing
_BACKGROUND = 0.1  # share of the pixels that are exactly 0 where 0 is the background


def floor_of(values: FloatArray) -> float:
    """The value of one subject that is to become 0: 0 itself, or the lowest value where many lie well below 0.

    Filters make values slightly below 0 out of a background of 0; those are cut off. Where they take more than a tenth
    of the range up to the brightest tissue (a z-score, Hounsfield units, an offset), that would lose contrast.

    Args:
        values: of all images of the subject, in any shape.
    """
    if values.min() >= 0:
        return 0.0
    low = float(np.percentile(values, _OUTLIERS))
    tissue = values[values > 0]
    high = float(np.percentile(tissue, 100 - _OUTLIERS)) if tissue.size else 0.0
    return low if low < 0 and -low > _LOST * (high - low) else 0.0


def lifted(images: Sequence[sitk.Image]) -> list[sitk.Image]:
    """The images of one subject with their darkest value at 0; the same ones where that is so already.

    A background of exactly 0, as a z-score of the tissue alone has it, stays 0.

    Args:
        images: of any type.
    """
    arrays = [sitk.GetArrayViewFromImage(image) for image in images]
    if min(float(array.min()) for array in arrays) >= 0:
        return list(images)
    values = np.concatenate([array.ravel() for array in arrays])
    floor = floor_of(values)
    if not floor:
        return list(images)
    outside = (values == 0).mean() > _BACKGROUND
    result = []
    for image, array in zip(images, arrays, strict=True):
        made = np.maximum(array - np.float32(floor), 0)
        image_made = sitk.GetImageFromArray(np.where(array == 0, np.float32(0), made) if outside else made)
        image_made.CopyInformation(image)
        result.append(image_made)
    return result
