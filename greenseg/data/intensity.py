"""Intensities below 0: the background is not 0, unlike in an MR image."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from greenseg.data.grid import FloatArray

_LOST = 0.1  # largest share of the range of values below 0 that may be cut off
_OUTLIERS = 0.5  # per cent of the values at either end to ignore
_BACKGROUND = 0.1  # least share of pixels of exactly 0 if 0 is the background


def floor_of(values: FloatArray) -> float:
    """The value of one subject that becomes 0: 0 itself, or the lowest value if many are well below 0.

    Filters turn a background of 0 into values slightly below 0, which are cut off. If values below 0 cover more than a
    tenth of the range up to the brightest tissue (a z-score, Hounsfield units, an offset), this would lose contrast.

    Args:
        values: values of all images of the subject, in any shape.
    """
    if values.min() >= 0:
        return 0.0
    low = float(np.percentile(values, _OUTLIERS))
    tissue = values[values > 0]
    high = float(np.percentile(tissue, 100 - _OUTLIERS)) if tissue.size else 0.0
    return low if low < 0 and -low > _LOST * (high - low) else 0.0


def lifted(images: Sequence[sitk.Image]) -> list[sitk.Image]:
    """The images of one subject with their darkest value at 0; unchanged images if it is 0 already.

    A background of exactly 0 stays 0, as in a z-score of the tissue alone.

    Args:
        images: images of any type.
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
