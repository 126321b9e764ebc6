"""A DICOM series as a volume, or refused where its slices make none."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.data import strays
from greenseg.data.positions import TURNED, spacing_problem
from greenseg.errors import UserError

_PLACE, _AXES, _PIXELS = "0020|0032", "0020|0037", "0028|0030"
_CLASS, _INSTANCE = "0008|0016", "0008|0018"
_DIFFERENT = 1e-2  # by what share pixels of one series may differ in size
_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM segmentation (SEG), whose frames are no slices of a volume; convert it, "
    "such as with dcmqi's segimage2itkimage",
}
"""SOP class → what a file of it is, with the remedy."""

_TELLING = {
    "0018|0086": "EchoNumbers",
    "0018|0081": "EchoTime",
    "0020|0100": "TemporalPositionIdentifier",
    "0018|9087": "DiffusionBValue",
    "0020|0012": "AcquisitionNumber",
    "0008|0008": "ImageType",
    "0008|0032": "AcquisitionTime",
}
"""What tells images of one place apart, the most telling first."""


def read(folder: Path) -> sitk.Image:
    """The volume of the one DICOM series in a folder.

    Raises:
        UserError: there is none, there are several, or its slices make no volume: one is missing or there twice, they
            are not evenly spaced, or differ in size, pixels or orientation.
        RuntimeError: ITK cannot read it.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    files_of = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), one) for one in series]
    damaged, without_pixels = strays.look(folder, {Path(file).name for files in files_of for file in files})
    if damaged:
        raise UserError(f"{folder}: {'' if series else 'no DICOM series in this folder: '}{_first(damaged)}")
    if len(series) != 1:
        what = f"{len(series)} DICOM series; keep one a folder" if series else "no DICOM series in this folder"
        raise UserError(f"{folder}: {what}{'' if series else _instead(folder, without_pixels)}")
    (files,) = files_of
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError:
        if problem := _sizes_differ(files):
            raise UserError(f"{folder}: {problem}") from None
        raise
    if problem := problem_of(reader, 0) or _no_volume(reader, [Path(file).name for file in files]):
        raise UserError(f"{folder}: {problem}")
    return image


def _first(texts: Sequence[str]) -> str:
    return texts[0] + (f" (and {len(texts) - 1} more like it)" if len(texts) > 1 else "")


def _instead(folder: Path, without_pixels: Sequence[str]) -> str:
    """What a folder without images holds, where that helps."""
    if without_pixels:
        return f": {_first(without_pixels)}"
    for below in sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_dir()):
        if sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(below)):
            return f", but one in {below.relative_to(folder)}; move its files up into {folder.name}"
    return ""


def problem_of(header: sitk.ImageFileReader | sitk.ImageSeriesReader, *number: int) -> str | None:
    """Why a DICOM file is no image, by its header; or None.

    Args:
        header: a reader that has read it.
        number: of the file, where it has read several.
    """
    if header.HasMetaDataKey(*number, _CLASS):
        return _NO_IMAGES.get(header.GetMetaData(*number, _CLASS).strip(" \0"))
    return None


def _sizes_differ(files: Sequence[str]) -> str | None:
    sizes: dict[tuple[int, ...], str] = {}
    for file in files:
        header = sitk.ImageFileReader()
        header.SetFileName(file)
        header.ReadImageInformation()
        sizes.setdefault(header.GetSize()[:2], Path(file).name)
    if len(sizes) == 1:
        return None
    shown = ", ".join(f"{width}×{height} ({name})" for (width, height), name in sizes.items())
    return f"slices of different sizes: {shown}; keep one size a folder"


def _no_volume(reader: sitk.ImageSeriesReader, names: Sequence[str]) -> str | None:
    """Why slices make no volume, or None."""
    count = len(names)
    if count == 1:
        return None  # a single slice, or a volume in one file

    def numbers(tag: str, number: int) -> list[float]:
        text = reader.GetMetaData(number, tag) if reader.HasMetaDataKey(number, tag) else ""
        return [float(part) for part in text.strip(" \0").split("\\") if part]

    places = [numbers(_PLACE, number) for number in range(count)]
    axes = [numbers(_AXES, number) for number in range(count)]
    pixels = [numbers(_PIXELS, number) for number in range(count)]
    if lost := [name for name, at, along in zip(names, places, axes, strict=True) if (len(at), len(along)) != (3, 6)]:
        return (
            f"{lost[0]} does not say where its slice lies (ImagePositionPatient, ImageOrientationPatient), so that the "
            f"distance of slices is not known; convert the series to a format that holds it, such as NIfTI"
        )
    for what, values, most in (("orientation", axes, (0, TURNED)), ("spacing of pixels", pixels, (_DIFFERENT, 0))):
        if other := next((n for n in range(count) if not _close(values[0], values[n], *most)), None):
            here, there = ("\\".join(f"{value:g}" for value in values[n]) or "none" for n in (0, other))
            return (
                f"{names[0]} and {names[other]} differ in {what} ({here}, {there}); keep one stack of slices a folder"
            )
    normal = np.cross(axes[0][:3], axes[0][3:])

    def difference(one: int, other: int) -> str:
        told = {tag: [reader.GetMetaData(n, tag).strip(" \0") for n in (one, other) if reader.HasMetaDataKey(n, tag)]
                for tag in (_INSTANCE, *_TELLING)}  # fmt: skip
        if len(told[_INSTANCE]) == 2 and len(set(told[_INSTANCE])) == 1:
            return "copies of one image"
        return next(
            (f"{name} {' and '.join(told[tag])}" for tag, name in _TELLING.items() if len(set(told[tag])) > 1), ""
        )

    return spacing_problem(np.array(places) @ normal, names, difference)


def _close(one: Sequence[float], other: Sequence[float], share: float, most: float) -> bool:
    if len(one) != len(other):
        return False
    return all(math.isclose(a, b, rel_tol=share, abs_tol=most) for a, b in zip(one, other, strict=True))
