"""Reading volumes: the channels of an image, and its mask, on one grid. NIfTI with nibabel, the rest with SimpleITK."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.classes import BINARY, IGNORED, Classes
from greenseg.data import detached, kinds, nifti, series
from greenseg.data.grid import ByteArray
from greenseg.data.header import problem_of_components, problem_of_content, problem_of_grid
from greenseg.data.listing import BROKEN, stem_of
from greenseg.data.placement import across_slices, described, together
from greenseg.errors import UserError

_CHECKED = ("GDCMImageIO", "PNGImageIO", "TIFFImageIO")  # parts of ITK that detect truncated files
_NO_SPACING = "greenseg: no spacing"
_LABEL = 1e-3  # largest deviation of a label: a slope of float32 gives 2.9999998 for 3
_NOTHING = 1e-6  # largest deviation of label 0 after slope and intercept, as share of the highest label

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings on the terminal do not concern users


def read(path: Path) -> sitk.Image:
    """A scalar image as a volume with the slice axis last, in the type of the file.

    The slice axis is an axis with a single pixel, otherwise the axis with the widest spacing (the last of equal ones).
    A 2D image is one slice; a 4D image with a single volume is this volume.

    Args:
        path: an image file, or a folder with one DICOM series.

    Raises:
        UserError: the file is not an image, is damaged or truncated, has several volumes, or several values per pixel.
    """
    return across_slices(_grey(path))


def read_channels(paths: Sequence[Path]) -> list[sitk.Image]:
    """All channels of an image as volumes on one grid; see `read`.

    Args:
        paths: the image of each channel. A NRRD or MetaImage file with several values per pixel has several channels.

    Raises:
        UserError: as `read`, or the grids of the channels differ; lists all problems.
    """
    channels, problems = _channels(paths)
    if not problems:
        channels, problems = _on_one_grid(channels)
    if problems:
        raise UserError(problems)
    return [image for _, image in channels]


def read_images(paths: Sequence[Path]) -> tuple[list[sitk.Image], sitk.Image]:
    """All channels of an image as volumes on one grid, and the first channel in the axes of its file.

    Args:
        paths: see `read_channels`.

    Raises:
        UserError: as `read_channels`, or a channel has values that are not finite; lists all problems.
    """
    stored, problems = _channels(paths)
    channels = stored
    if not problems:
        channels, problems = _on_one_grid(stored)
    problems += [f"{path}: {problem}" for path, image in channels if (problem := values_problem(image))]
    if problems:
        raise UserError(problems)
    return [image for _, image in channels], stored[0][1]


_Channels = list[tuple[Path, sitk.Image]]
"""The file and image of each channel."""


def _channels(paths: Sequence[Path]) -> tuple[_Channels, list[str]]:
    """The channels in the axes of their files, and the problems of the files."""
    channels: _Channels = []
    problems: list[str] = []
    for path in paths:
        try:
            image = _as_stored(path)
        except UserError as error:
            problems += error.problems
            continue
        components = image.GetNumberOfComponentsPerPixel()
        channels += [
            (path, sitk.VectorIndexSelectionCast(image, n) if components > 1 else image) for n in range(components)
        ]
    return channels, problems


def _on_one_grid(channels: _Channels, whose: str = "first channel's") -> tuple[_Channels, list[str]]:
    """The channels as volumes on the grid of the first one, with the slice axis last, and the problems with that.

    `whose` names the grid of the first one in these problems.
    """
    (first_path, first), *others = channels
    result, problems = [(first_path, across_slices(first))], list[str]()
    for path, image in others:
        _, volume, problem = together(first, image)
        result.append((path, volume))
        if problem:
            problems.append(
                f"{path}: its grid differs from the {whose} ({first_path}): {described(image)}, not "
                f"{described(first)}; resample it to the {whose} grid"
            )
    return result, list(dict.fromkeys(problems))


def _grey(path: Path) -> sitk.Image:
    """The image in the axes of the file, with one value per pixel."""
    image = _as_stored(path)
    if problem := problem_of_components(image.GetNumberOfComponentsPerPixel()):
        raise UserError(f"{path}: {problem}")
    return image


def _as_stored(path: Path) -> sitk.Image:
    """The image in the axes of the file, with two or three axes; in NRRD and MetaImage, maybe of several channels."""
    name = path.name.lower()
    try:
        if path.is_dir():
            return _from_itk(path)
        header, values = nifti.files_of(path)
        _check(path, header, kinds.problem_of)
        if values != header:
            _check(path, values, kinds.problem_of_values)
        if name.endswith(nifti.SUFFIXES):
            return nifti.read(path)
        if name.endswith(detached.SUFFIXES):
            for values in detached.data_files(path):
                _check(path, values, kinds.problem_of_values)
            _check(path, path, detached.problem_of)
            return _from_itk(path)
        reader = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
        if reader and reader not in _CHECKED:
            raise UserError(
                f"{path}: is {reader.removesuffix('ImageIO')}, a format whose truncated files cannot be detected; "
                f"convert it to NIfTI, NRRD or MetaImage"
            )
        image = _from_itk(path)
        if reader != "GDCMImageIO" and all(s == 1 for s in image.GetSpacing()):  # ITK returns 1 if there is none
            image.SetMetaData(_NO_SPACING, "yes")
        return image
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _check(path: Path, file: Path, problem_of: Callable[[Path], str | None]) -> None:
    if not file.exists() and not file.is_symlink() and file != path:
        raise UserError(f"{path}: its other half is missing: no file {file.name!r} in its folder")
    if not file.is_file():  # a pipe would block
        raise UserError(f"{file}: {BROKEN}")
    if problem := problem_of(file):
        raise UserError(f"{file}: {problem}")


def _from_itk(path: Path) -> sitk.Image:
    try:
        if path.is_dir():
            image = series.read(path)
        else:
            header = sitk.ImageFileReader()
            header.SetFileName(str(path))
            header.ReadImageInformation()
            is_complex = header.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
            components = header.GetNumberOfComponents()
            is_colour = components in (3, 4) and header.GetPixelID() == sitk.sitkVectorUInt8
            if path.name.lower().endswith(detached.SUFFIXES) and not is_complex and not is_colour:
                components = 1  # each is a channel
            if problem := problem_of_content(header.GetSize(), components, is_complex):
                raise UserError(f"{path}: {problem}")
            if stem_of(path) is None and (problem := series.problem_of(header)):
                raise UserError(f"{path}: {problem}")
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: not readable as an image: {_reason(error)}") from None
    while image.GetDimension() > 3:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    directions = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    if problem := problem_of_grid(image.GetSpacing(), directions):
        raise UserError(f"{path}: {problem}")
    return image


_SAID = {
    "Unable to determine ImageIO": "SimpleITK does not know its format",
    "spacing is not supported": "its header gives a spacing of 0 mm",
    "determinant is 0": "its header gives directions that do not span a volume",
    "File cannot be read": "its header is damaged",
}
"""Part of ITK's message → our words."""


def _reason(error: RuntimeError) -> str:
    _, _, text = str(error).partition("ERROR: ")
    if said := next((said for words, said in _SAID.items() if words in text), None):
        return said
    lines = [re.sub(r"^\w+\(0x[0-9a-f]+\): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    nrrd = [line for line in lines if line.startswith("[nrrd]")]  # from the outermost cause to the innermost
    return (nrrd[-1:] or lines[:1] or ["damaged"])[0]


def read_whole(images: Sequence[Path], mask_path: Path) -> tuple[list[sitk.Image], sitk.Image]:
    """The channels of an image, and its mask with all labels, as volumes on the same grid; see `read_channels`.

    The slice axis is the first channel's. A mask that is stored along other axes is reoriented. Labels that a slope
    left slightly off a whole number are rounded.

    Raises:
        UserError: a file is unreadable, grids differ, a channel has values that are not finite, or the mask has values
            that are not labels; lists all problems.
    """
    channels, problems = _channels(images)
    try:
        stored = _grey(mask_path)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    (_, first), *_ = channels
    _, mask, problem = together(first, stored)
    if problem:
        problems.append(f"{mask_path}: {problem} ({images[0]})")
    mask, problem = _as_labels(mask)
    if problem:
        problems.append(f"{mask_path}: {problem}")
    channels, of_grids = _on_one_grid(channels)
    problems += of_grids
    problems += [f"{path}: {problem}" for path, image in channels if (problem := values_problem(image))]
    if problems:
        raise UserError(problems)
    return [image for _, image in channels], mask


def read_masks(reference: Path, prediction: Path | None = None) -> list[sitk.Image]:
    """A reference mask, and a predicted mask if there is one, with all labels, as volumes on the reference's grid.

    The slice axis is the reference's. Axes and labels are those of `read_whole`.

    Raises:
        UserError: a file is unreadable, the grids differ, or a mask has values that are not labels; lists all problems.
    """
    problems: list[str] = []
    volumes: _Channels = []
    for path in (reference, prediction) if prediction else (reference,):
        try:
            volumes.append((path, _grey(path)))
        except UserError as error:
            problems += error.problems
    if not problems:
        volumes, problems = _on_one_grid(volumes, "reference's")
    masks = []
    for path, volume in volumes:
        mask, problem = _as_labels(volume)
        masks.append(mask)
        problems += [f"{path}: {problem}"] if problem else []
    if problems:
        raise UserError(problems)
    return masks


def read_behind(reference: Path, image: Path) -> sitk.Image:
    """The first channel of an image as a volume on the grid of a mask; see `read_masks`.

    Raises:
        UserError: a file is unreadable, the grids differ, or the image has values that are not finite.
    """
    channels, problems = _channels([image])
    if problems:
        raise UserError(problems)
    (_, (_, volume)), problems = _on_one_grid([(reference, _grey(reference)), channels[0]], "reference's")
    if problem := values_problem(volume):
        problems.append(f"{image}: {problem}")
    if problems:
        raise UserError(problems)
    return volume


def ct_problem(channels: Sequence[sitk.Image], paths: Sequence[Path], ct: Sequence[int]) -> str | None:
    """Why the channels in Hounsfield units are unknown, or None: their indices count files."""
    if not ct or len(channels) == len(paths):
        return None
    return f"{paths[0]}: {len(channels)} channels in {len(paths)} files, one of CT; write one file per channel"


def class_numbers(mask: sitk.Image, classes: Classes, ignored: Sequence[int] = ()) -> ByteArray:
    """The classes of a mask, as uint8 [slice, y, x]: 0 background, from 1 up the number of the class, `IGNORED`.

    Args:
        mask: mask with all labels.
        classes: classes and their labels.
        ignored: labels that mean "not annotated".
    """
    values = sitk.GetArrayViewFromImage(mask)
    numbers = np.zeros(values.shape, np.uint8)
    for number, labels in enumerate(classes.labels, 1):
        np.putmask(numbers, np.isin(values, labels) if labels else values > 0, number)
    if ignored:
        np.putmask(numbers, np.isin(values, ignored), IGNORED)
    return numbers


def labels_in(mask: sitk.Image) -> list[int]:
    """The labels above 0 in a mask, ascending."""
    return [label for label in np.unique(sitk.GetArrayViewFromImage(mask)).astype(int).tolist() if label > 0]


def read_case(
    images: Sequence[Path], mask_path: Path, classes: Classes = BINARY, ignored: Sequence[int] = ()
) -> tuple[list[sitk.Image], sitk.Image]:
    """The channels of an image, and its mask on the same grid as uint8; see `class_numbers`.

    Args:
        images: see `read_channels`.
        mask_path: mask of the image.
        classes: classes and their labels.
        ignored: labels that mean "not annotated".

    Raises:
        UserError: see `read_whole`.
    """
    channels, mask = read_whole(images, mask_path)
    numbers = sitk.GetImageFromArray(class_numbers(mask, classes, ignored))
    numbers.CopyInformation(channels[0])
    return channels, numbers


def has_spacing(volume: sitk.Image) -> bool:
    """Whether the file of a volume has a pixel size; a picture (PNG, TIFF) may have none."""
    return not volume.HasMetaDataKey(_NO_SPACING)


def values_problem(image: sitk.Image) -> str | None:
    """Why the values of an image cannot be used, or None."""
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        return "has values that are not finite (NaN or infinity)"
    if max(abs(float(values.min())), abs(float(values.max()))) > float(np.finfo(np.float32).max):
        return f"has values too large for an image ({float(values.min()):g} to {float(values.max()):g})"
    return None


def _as_labels(mask: sitk.Image) -> tuple[sitk.Image, str | None]:
    """The mask with whole numbers, and why its values are not labels (fractions, negative numbers, NaN), or None."""
    values = sitk.GetArrayViewFromImage(mask)
    labels = values if values.dtype.kind in "iu" else np.rint(values)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        fits = (labels >= 0) & (np.abs(values - labels) <= _LABEL)
        fits &= (labels != 0) | (np.abs(values) <= _NOTHING * labels.max())
        wrong = np.unique(values[~fits]).tolist()
    if wrong:
        shown = ", ".join(f"{value:.6g}" for value in wrong[:3]) + (", …" if len(wrong) > 3 else "")
        return mask, (
            f"has values that are not labels ({shown}); a mask needs whole numbers from 0 up: write it as integers, "
            f"without a slope"
        )
    if labels is values or np.array_equal(labels, values):
        return mask, None
    whole = sitk.GetImageFromArray(labels)
    whole.CopyInformation(mask)
    return whole, None
