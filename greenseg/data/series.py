"""Reads a DICOM series as a volume, and refuses it if its slices do not form one."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.data import strays
from greenseg.data.positions import TURNED, drift_problem, spacing_problem
from greenseg.errors import UserError

_PLACE, _AXES, _PIXELS = "0020|0032", "0020|0037", "0028|0030"
_ROWS, _FRAMES = "0028|0010", "0028|0008"
_STORED = ("0028|1053", "0028|1052", "0028|0100", "0028|0101", "0028|0103")  # slope, intercept, bits, sign
_CLASS, _INSTANCE = "0008|0016", "0008|0018"
_DIFFERENT = 1e-2  # largest relative difference between pixel sizes of one series
_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM segmentation (SEG), whose frames are not slices of a volume; convert it, "
    "for example with dcmqi's segimage2itkimage",
}
"""SOP class of files that are not images → kind of file, with the remedy."""

_ENHANCED = {
    f"1.2.840.10008.5.1.4.1.1.{ending}"
    for ending in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130", "6.2", "12.1.1", "12.2.1", "13.1.1", "13.1.3")
}
"""SOP classes with a position and spacing per frame: CT, MR, PET, ultrasound and X-ray."""

_TELLING = {
    "0018|0086": "EchoNumbers",
    "0018|0081": "EchoTime",
    "0020|0100": "TemporalPositionIdentifier",
    "0018|9087": "DiffusionBValue",
    "0020|0012": "AcquisitionNumber",
    "0008|0008": "ImageType",
    "0008|0032": "AcquisitionTime",
}
"""Fields that distinguish images at the same position, the most useful first."""


def read(folder: Path) -> sitk.Image:
    """The volume of the single DICOM series in a folder, as float64 if its slices are stored in different types.

    Raises:
        UserError: there is no series or more than one; a file is damaged, has several frames or no pixel size; or the
            slices form no volume: one is missing or duplicate, they are sheared or not evenly spaced, or they differ in
            size, pixel size or orientation.
        RuntimeError: ITK cannot read it.
    """
    # GDCM opens every file, and waits forever at a pipe.
    if odd := [path.name for path in folder.iterdir() if path.exists() and not (path.is_file() or path.is_dir())]:
        raise UserError(f"{folder}: {odd[0]} is not a regular file; remove it")
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    files_of = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), one) for one in series]
    damaged, without_pixels = strays.look(folder, {Path(file).name for files in files_of for file in files})
    if damaged:
        raise UserError(f"{folder}: {'' if series else 'no DICOM series in this folder: '}{_first(damaged)}")
    if len(series) != 1:
        what = f"{len(series)} DICOM series; keep one per folder" if series else "no DICOM series in this folder"
        raise UserError(f"{folder}: {what}{'' if series else _instead(folder, without_pixels)}")
    (files,) = files_of
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
        if _stored_differently(reader, len(files)):
            # ITK uses the type of the first slice for all, and clips values that do not fit.
            reader.SetOutputPixelType(sitk.sitkFloat64)
            image = reader.Execute()
    except RuntimeError:
        if problem := _no_slices(files):
            raise UserError(f"{folder}: {problem}") from None
        raise
    names = [Path(file).name for file in files]
    for number, name in enumerate(names):
        if problem := problem_of(reader, number):
            raise UserError(f"{folder}: {f'{name}: ' if len(names) > 1 else ''}{problem}")
    if problem := _no_volume(reader, names):
        raise UserError(f"{folder}: {problem}")
    return image


def _first(texts: Sequence[str]) -> str:
    return texts[0] + (f" (and {len(texts) - 1} more like it)" if len(texts) > 1 else "")


def _instead(folder: Path, without_pixels: Sequence[str]) -> str:
    """A hint about the contents of a folder without images; may be empty."""
    if without_pixels:
        return f": {_first(without_pixels)}"
    for below in sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_dir()):
        if sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(below)):
            return f", but one in {below.relative_to(folder)}; move its files up into {folder.name}"
    return ""


def problem_of(header: sitk.ImageFileReader | sitk.ImageSeriesReader, *number: int) -> str | None:
    """Why a DICOM file is not a slice of known size, by its header; None if it is, and for other formats.

    Args:
        header: a reader that has read the file.
        number: number of the file, if the reader has read several.
    """

    def text(tag: str) -> str:
        return header.GetMetaData(*number, tag).strip(" \0") if header.HasMetaDataKey(*number, tag) else ""

    if not text(_ROWS):
        return None
    if problem := _NO_IMAGES.get(text(_CLASS)):
        return problem
    if text(_CLASS) in _ENHANCED or text(_FRAMES) not in ("", "0", "1"):
        return (
            "a DICOM file with several frames. Their positions are not read, so order and distance of the slices are "
            "unknown; convert it to NIfTI, for example with dcm2niix"
        )
    sizes = _numbers(text(_PIXELS))
    if len(sizes) != 2 or not min(sizes) > 0:
        given = f"a PixelSpacing of {text(_PIXELS)} mm" if text(_PIXELS) else "no PixelSpacing"
        return f"its header gives {given}, so the size of its pixels is unknown; convert it to NIfTI, with its spacing"
    return None


def _numbers(text: str) -> list[float]:
    """The numbers of a field; empty if the field has other content."""
    try:
        return [float(part) for part in text.strip(" \0").split("\\") if part]
    except ValueError:
        return []


def _no_slices(files: Sequence[str]) -> str | None:
    """Why ITK cannot read a series from files, by their headers: no slices, or different sizes; or None."""
    sizes: dict[tuple[int, ...], str] = {}
    for file in files:
        header = sitk.ImageFileReader()
        header.SetFileName(file)
        header.ReadImageInformation()
        if problem := problem_of(header):
            return f"{Path(file).name}: {problem}"
        sizes.setdefault(header.GetSize()[:2], Path(file).name)
    if len(sizes) == 1:
        return None
    shown = ", ".join(f"{width}×{height} ({name})" for (width, height), name in sizes.items())
    return f"slices of different sizes: {shown}; keep one size per folder"


def _stored_differently(reader: sitk.ImageSeriesReader, count: int) -> bool:
    """Whether slices differ in slope, intercept or type."""
    return any(
        len({reader.GetMetaData(n, tag) if reader.HasMetaDataKey(n, tag) else "" for n in range(count)}) > 1
        for tag in _STORED
    )


def _no_volume(reader: sitk.ImageSeriesReader, names: Sequence[str]) -> str | None:
    """Why slices form no volume, or None."""
    count = len(names)
    if count == 1:
        return None  # a single slice, or a volume in one file

    def numbers(tag: str, number: int) -> list[float]:
        return _numbers(reader.GetMetaData(number, tag)) if reader.HasMetaDataKey(number, tag) else []

    places = [numbers(_PLACE, number) for number in range(count)]
    axes = [numbers(_AXES, number) for number in range(count)]
    pixels = [numbers(_PIXELS, number) for number in range(count)]
    if lost := [name for name, at, along in zip(names, places, axes, strict=True) if (len(at), len(along)) != (3, 6)]:
        return (
            f"{lost[0]} has no position of its slice (ImagePositionPatient, ImageOrientationPatient), so the distance "
            f"of the slices is unknown; convert the series to a format that has it, such as NIfTI"
        )
    for what, values, most in (("orientation", axes, (0, TURNED)), ("spacing of pixels", pixels, (_DIFFERENT, 0))):
        if other := next((n for n in range(count) if not _close(values[0], values[n], *most)), None):
            here, there = ("\\".join(f"{value:g}" for value in values[n]) or "none" for n in (0, other))
            return (
                f"{names[0]} and {names[other]} differ in {what} ({here}, {there}); keep one stack of slices per folder"
            )
    normal = np.cross(axes[0][:3], axes[0][3:])
    if problem := drift_problem(np.array(places), normal, names):
        return problem

    def difference(one: int, other: int) -> str:
        found = {tag: [reader.GetMetaData(n, tag).strip(" \0") for n in (one, other) if reader.HasMetaDataKey(n, tag)]
                for tag in (_INSTANCE, *_TELLING)}  # fmt: skip
        if len(found[_INSTANCE]) == 2 and len(set(found[_INSTANCE])) == 1:
            return "copies of one image"
        return next(
            (f"{name} {' and '.join(found[tag])}" for tag, name in _TELLING.items() if len(set(found[tag])) > 1), ""
        )

    return spacing_problem(np.array(places) @ normal, names, difference)


def _close(one: Sequence[float], other: Sequence[float], share: float, most: float) -> bool:
    if len(one) != len(other):
        return False
    return all(math.isclose(a, b, rel_tol=share, abs_tol=most) for a, b in zip(one, other, strict=True))
