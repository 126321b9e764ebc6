"""Channels in Hounsfield units (CT). Their values have the same meaning in every subject, so that all share a scale."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from greenseg.classes import Classes
from greenseg.data.grid import FloatArray, is_foreground
from greenseg.data.splits import Case
from greenseg.data.volume import read_case
from greenseg.errors import UserError

_OUTLIERS = (0.5, 99.5)  # percentiles, as in nnU-Net's CTNormalization
_MOST = 10_000_000  # values that are kept at the same time, as in nnU-Net's fingerprint


@dataclass(frozen=True)
class Window:
    """The values of a channel that become 0 and 1."""

    low: float
    high: float

    def scaled(self, image: sitk.Image) -> sitk.Image:
        """The image clipped to the window, as float32 from 0 to 1."""
        values = sitk.GetArrayViewFromImage(image).astype(np.float32)
        result = sitk.GetImageFromArray((np.clip(values, self.low, self.high) - self.low) / (self.high - self.low))
        result.CopyInformation(image)
        return result


def windows(cases: Sequence[Case], classes: Classes, advance: Callable[[], None]) -> dict[int, Window]:
    """The window of each channel in Hounsfield units: percentiles 0.5 and 99.5 of the foreground of all subjects.

    Both splits count, as in nnU-Net. Of large data sets, every n-th value counts. Unreadable files are left out, since
    their problems are reported when the slices are made.

    Args:
        cases: all cases of a data set.
        classes: their classes.
        advance: called after each file.

    Raises:
        UserError: all foreground of a channel has the same value.
    """
    found: dict[int, list[FloatArray]] = defaultdict(list)
    channels = sorted({channel for case in cases for channel in case.ct})
    files = [(case, *pair) for case in cases if case.ct for pair in zip(case.images, case.files, strict=True)]
    for case, images, (_, mask_path) in files:
        try:
            volumes, numbers = read_case(images, mask_path, classes, case.ignored)
        except UserError:
            continue
        finally:
            advance()
        foreground = is_foreground(sitk.GetArrayViewFromImage(numbers))
        for channel in channels:
            values = sitk.GetArrayViewFromImage(volumes[channel])[foreground].astype(np.float32)
            found[channel].append(values[:: 1 + len(values) * len(files) // _MOST])
    result = {}
    for channel in channels:
        values = np.concatenate([np.empty(0, np.float32), *found[channel]])
        low, high = np.percentile(values, _OUTLIERS).tolist() if values.size else (0.0, 1.0)  # reported later
        if not low < high:
            raise UserError(f"{files[0][1][channel]}: CT is {low:g} in the foreground of all subjects; check the masks")
        result[channel] = Window(low, high)
    return result
