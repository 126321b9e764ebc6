"""Reading volumes: an image, or an image and its mask on the same grid. NIfTI with nibabel, the rest with SimpleITK."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.data import detached, kinds, nifti, series
from greenseg.data.header import problem_of_content, problem_of_grid
from greenseg.data.listing import BROKEN, stem_of
from greenseg.data.placement import across_slices, together
from greenseg.errors import UserError

_CHECKED = ("GDCMImageIO", "PNGImageIO", "TIFFImageIO")  # parts of ITK that notice when a file is cut short
_NO_SPACING = "greenseg: no spacing"
_LABEL = 1e-3  # by which the value of a label may be off: a slope of float32 gives 2.9999998 for 3
_NOTHING = 1e-6  # of the highest label, that a slope and an intercept may leave of 0

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # it prints to the terminal what is no matter of the user's


def read(path: Path) -> sitk.Image:
    """A scalar image as a volume whose last axis is the slice axis, in the type that the file has.

    The slice axis is the one with the widest spacing (the last, where equal), or one of a single slice. A 2D image is
    one slice; a 4D image of a single volume is that volume.

    Args:
        path: an image file, or a folder that holds one DICOM series.

    Raises:
        UserError: the file is not an image, is damaged or cut short, has several volumes, or several values a pixel.
    """
    return across_slices(_as_stored(path))


def _as_stored(path: Path) -> sitk.Image:
    """The same in the axes of the file, with two axes or three."""
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
                f"{path}: is {reader.removesuffix('ImageIO')}, a format in which nobody notices that a file is cut "
                f"short; convert it to NIfTI, NRRD or MetaImage"
            )
        image = _from_itk(path)
        if reader != "GDCMImageIO" and all(s == 1 for s in image.GetSpacing()):  # ITK takes 1 where there is none
            image.SetMetaData(_NO_SPACING, "yes")
        return image
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _check(path: Path, file: Path, problem_of: Callable[[Path], str | None]) -> None:
    if not file.exists() and not file.is_symlink() and file != path:
        raise UserError(f"{path}: its other half is not there: no file {file.name!r} in its folder")
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
            if problem := problem_of_content(header.GetSize(), header.GetNumberOfComponents(), is_complex):
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
    "Unable to determine ImageIO": "no format that SimpleITK knows",
    "spacing is not supported": "its header gives a spacing of 0 mm",
    "determinant is 0": "its header gives directions that do not span a volume",
    "File cannot be read": "its header is damaged",
}
"""What ITK says, in other words."""


def _reason(error: RuntimeError) -> str:
    _, _, text = str(error).partition("ERROR: ")
    if said := next((said for words, said in _SAID.items() if words in text), None):
        return said
    lines = [re.sub(r"^\w+\(0x[0-9a-f]+\): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    nrrd = [line for line in lines if line.startswith("[nrrd]")]  # from the outermost cause to the innermost
    return (nrrd[-1:] or lines[:1] or ["damaged"])[0]


def read_whole(image_path: Path, mask_path: Path) -> tuple[sitk.Image, sitk.Image]:
    """An image and its mask as they are in their files, as volumes of the same grid; see `read`.

    The slice axis is the image's. A mask that is stored along other axes is turned; values that are labels but for the
    rounding of a slope become labels.

    Raises:
        UserError: either is unreadable, their grids differ, the image holds values that are not finite, or the mask
            values that are no labels; all of it.
    """
    pair, problems = [], []
    for path in (image_path, mask_path):
        try:
            pair.append(_as_stored(path))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    image, mask, problem = together(*pair)
    if problem:
        problems.append(f"{mask_path}: {problem} ({image_path})")
    mask, problem = _as_labels(mask)
    if problem:
        problems.append(f"{mask_path}: {problem}")
    if problem := values_problem(image):
        problems.append(f"{image_path}: {problem}")
    if problems:
        raise UserError(problems)
    return image, mask


def labels_of(text: str) -> list[int]:
    """The labels of a setting such as `1,2,3`."""
    return [int(label) for label in text.split(",") if label]


def is_brain(
    mask: sitk.Image, labels: Sequence[int], ignored: Sequence[int] = ()
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Where a mask is brain, [slice, y, x]: at these labels, or at any above 0 but the ignored where none are given."""
    values = sitk.GetArrayViewFromImage(mask)
    return np.isin(values, labels) if labels else (values > 0) & ~np.isin(values, ignored)


def read_pair(
    image_path: Path, mask_path: Path, labels: Sequence[int] = (), ignored: Sequence[int] = ()
) -> tuple[sitk.Image, sitk.Image]:
    """An image, and its mask of the same grid as uint8: 1 where its label counts as brain, else 0.

    Args:
        image_path: see `read`.
        mask_path: likewise.
        labels: that are brain; empty = any above 0.
        ignored: that are not, though above 0.

    Raises:
        UserError: see `read_whole`.
    """
    image, mask = read_whole(image_path, mask_path)
    brain = sitk.GetImageFromArray(is_brain(mask, labels, ignored).astype(np.uint8))
    brain.CopyInformation(image)
    return image, brain


def has_spacing(volume: sitk.Image) -> bool:
    """Whether its file says how wide a pixel is; a picture (PNG, TIFF) need not."""
    return not volume.HasMetaDataKey(_NO_SPACING)


def values_problem(image: sitk.Image) -> str | None:
    """Why one cannot calculate with the values of an image, or None."""
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        return "holds values that are not finite (NaN or infinity)"
    if max(abs(float(values.min())), abs(float(values.max()))) > float(np.finfo(np.float32).max):
        return f"holds values too large for an image ({float(values.min()):g} to {float(values.max()):g})"
    return None


def _as_labels(mask: sitk.Image) -> tuple[sitk.Image, str | None]:
    """The mask with whole numbers, and why its values are no labels (fractions, negative numbers, NaN), or None."""
    values = sitk.GetArrayViewFromImage(mask)
    labels = values if values.dtype.kind in "iu" else np.rint(values)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        fits = (labels >= 0) & (np.abs(values - labels) <= _LABEL)
        fits &= (labels != 0) | (np.abs(values) <= _NOTHING * labels.max())
        wrong = np.unique(values[~fits]).tolist()
    if wrong:
        shown = ", ".join(f"{value:.6g}" for value in wrong[:3]) + (", …" if len(wrong) > 3 else "")
        return mask, (
            f"holds values that are no labels ({shown}); a mask holds 0 and whole numbers above it: write it as "
            f"integers, without a slope"
        )
    if labels is values or np.array_equal(labels, values):
        return mask, None
    whole = sitk.GetImageFromArray(labels)
    whole.CopyInformation(mask)
    return whole, None
