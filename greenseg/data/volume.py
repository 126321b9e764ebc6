"""Reading volumes with SimpleITK and bringing their slices to one spacing, size and intensity scale."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.data import detached, nifti, series
from greenseg.data.listing import stem_of
from greenseg.errors import UserError

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
ByteArray = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

_MOST_PIXELS = 1 << 31  # of a volume; a header that promises more is damaged
_PLAUSIBLE_MM = (1e-4, 1e4)  # spacings; what lies outside is no medical image
_GEOMETRY = 1e-2  # by how much a mask may lie beside its image, in pixels

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
    try:
        if problem := next((look(path) for suffixes, look in _LOOKS if path.name.lower().endswith(suffixes)), None):
            raise UserError(f"{path}: {problem}")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    try:
        if path.is_dir():
            image = series.read(path)
        else:
            header = sitk.ImageFileReader()
            header.SetFileName(str(path))
            header.ReadImageInformation()
            if not 0 < math.prod(header.GetSize()) <= _MOST_PIXELS:
                raise UserError(f"{path}: its header gives impossible sizes {list(header.GetSize())}")
            if stem_of(path) is None and (problem := series.problem_of(header)):
                raise UserError(f"{path}: {problem}")
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: not readable as an image: {_reason(error)}") from None
    components = image.GetNumberOfComponentsPerPixel()
    if components > 1:
        what = " (a colour image)" if components in (3, 4) else ""
        raise UserError(f"{path}: {components} values a pixel{what}; a grey image is needed")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise UserError(f"{path}: complex values; their magnitude is needed")
    if wrong := [s for s in image.GetSpacing() if not _PLAUSIBLE_MM[0] <= s <= _PLAUSIBLE_MM[1]]:
        raise UserError(f"{path}: its header gives a spacing of {wrong[0]:g} mm")
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    if image.GetDimension() > 3:
        raise UserError(
            f"{path}: {image.GetDimension()} dimensions, {image.GetSize()[-1]} volumes; one volume a file is needed"
        )
    if image.GetDimension() == 2:
        return sitk.JoinSeries([image])
    size, spacing = image.GetSize(), image.GetSpacing()
    axis = max(range(3), key=lambda i: (size[i] == 1, round(spacing[i], 3), i))
    order = [i for i in range(3) if i != axis] + [axis]
    return image if axis == 2 else sitk.PermuteAxes(image, order)


_LOOKS = (((".nii", ".nii.gz"), nifti.problem_of), (detached.SUFFIXES, detached.problem_of))


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


def geometry_problem(image: sitk.Image, mask: sitk.Image) -> str | None:
    """How a mask's grid disagrees with its image's (size, spacing, origin, direction), or None."""
    if image.GetSize() != mask.GetSize():
        ours, theirs = ("×".join(map(str, i.GetSize())) for i in (mask, image))
        return f"size {ours} differs from its image's {theirs}"
    spacing = np.array(image.GetSpacing())
    if np.abs(np.array(mask.GetSpacing()) / spacing - 1).max() > _GEOMETRY:
        ours, theirs = ("×".join(f"{s:.4g}" for s in i.GetSpacing()) for i in (mask, image))
        return f"spacing {ours} mm differs from its image's {theirs} mm"
    # Where the last pixel of each lies tells origin and direction at once.
    corners = [(0, 0, 0), *(tuple(int(n == i) * (s - 1) for n in range(3)) for i, s in enumerate(image.GetSize()))]
    apart = max(
        float(np.linalg.norm(np.subtract(*(i.TransformIndexToPhysicalPoint(corner) for i in (image, mask)))))
        for corner in corners
    )
    if apart > max(0.1, 2 * _GEOMETRY * float(spacing.max())):
        return (
            f"lies up to {apart:.3g} mm beside its image (origin or direction differ); "
            f"if the pixels do belong together, give it its image's header"
        )
    return None


def read_whole(image_path: Path, mask_path: Path) -> tuple[sitk.Image, sitk.Image]:
    """An image and its mask as they are in their files, of the same grid; see `read`.

    Raises:
        UserError: either is unreadable, their grids differ, the image holds values that are not finite, or the mask
            values that are no labels; all of it.
    """
    pair, problems = [], []
    for path in (image_path, mask_path):
        try:
            pair.append(read(path))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    image, mask = pair
    if problem := geometry_problem(image, mask):
        problems.append(f"{mask_path}: {problem} ({image_path})")
    if problem := mask_problem(mask):
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
    """An image and its mask, both float32 and of the same grid; the mask is 1 where its label counts as brain.

    Args:
        image_path: see `read`.
        mask_path: likewise.
        labels: that are brain; empty = any above 0.
        ignored: that are not, though above 0.

    Raises:
        UserError: see `read_whole`.
    """
    image, mask = read_whole(image_path, mask_path)
    brain = sitk.GetImageFromArray(is_brain(mask, labels, ignored).astype(np.float32))
    brain.CopyInformation(image)
    return sitk.Cast(image, sitk.sitkFloat32), brain


def values_problem(image: sitk.Image) -> str | None:
    """Why one cannot calculate with the values of an image, or None."""
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        return "holds values that are not finite (NaN or infinity)"
    if max(abs(float(values.min())), abs(float(values.max()))) > float(np.finfo(np.float32).max):
        return f"holds values too large for an image ({float(values.min()):g} to {float(values.max()):g})"
    return None


def mask_problem(mask: sitk.Image) -> str | None:
    """Why the values of a mask are no labels (fractions, negative numbers, NaN), or None."""
    values = np.unique(sitk.GetArrayViewFromImage(mask))
    wrong = [value for value in values.tolist() if not (value >= 0 and float(value).is_integer())]
    if not wrong:
        return None
    shown = ", ".join(f"{value:.4g}" for value in wrong[:3]) + (", …" if len(wrong) > 3 else "")
    return f"holds values that are no labels ({shown}); a mask holds 0 and whole numbers above it"


def to_grid(volume: sitk.Image, size: int, spacing: float) -> FloatArray:
    """Every slice on a grid of its own plane, centred on the slice, by linear interpolation.

    Args:
        volume: [x, y, slice], float32.
        size: height and width of the result, in pixels.
        spacing: distance of the result's pixels, in mm.

    Returns:
        float32 [slices, size, size]; 0 outside the volume.
    """
    # In the volume's own axes: an oblique direction would only add rounding.
    plain = sitk.Image(volume)
    plain.SetOrigin((0.0, 0.0, 0.0))
    plain.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    (width, height, depth), (dx, dy, dz) = plain.GetSize(), plain.GetSpacing()
    centre = ((width - 1) * dx / 2, (height - 1) * dy / 2)
    half = (size - 1) * spacing / 2
    grid = sitk.Resample(
        plain,
        (size, size, depth),
        sitk.Transform(),
        sitk.sitkLinear,
        (centre[0] - half, centre[1] - half, 0.0),
        (spacing, spacing, dz),
        plain.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(grid)  # type: ignore[no-any-return]


def slice_distance(path: Path, volume: sitk.Image) -> float | None:
    """Distance of the slices of a volume that was read from a file, in mm; None for a 2D image, which does not say."""
    if volume.GetSize()[2] == 1 and path.is_file():
        header = sitk.ImageFileReader()
        header.SetFileName(str(path))
        header.ReadImageInformation()
        if header.GetDimension() == 2:
            return None
    return float(volume.GetSpacing()[2])


def brain_outside(mask: sitk.Image, extent: float) -> tuple[float, float]:
    """Brain of a mask, and how much of it lies outside the square that `to_grid` keeps, in mm³.

    Args:
        mask: [x, y, slice], 0 or 1.
        extent: side of the square, in mm.
    """
    inside = sitk.GetArrayViewFromImage(mask) > 0.5
    _, height, width = inside.shape
    dx, dy, dz = mask.GetSpacing()
    x, y = (np.abs(np.arange(n) - (n - 1) / 2) * d <= extent / 2 for n, d in ((width, dx), (height, dy)))
    volume = dx * dy * dz
    return float(inside.sum()) * volume, float(inside[:, ~(y[:, None] & x[None, :])].sum()) * volume


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
