"""Reading volumes with SimpleITK and bringing their slices to one spacing, size and intensity scale."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.errors import UserError

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
ByteArray = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def read(path: Path) -> sitk.Image:
    """A scalar image as a volume of float32 or of its own integer type whose last axis is the slice axis.

    The slice axis is the one with the widest spacing (the last, where equal), or one of a single slice. A 2D image is
    one slice.

    Raises:
        UserError: the file is not an image, is damaged or cut short, has more than 3 dimensions, or several values a
            pixel.
    """
    if path.suffix == ".gz":
        # ITK returns a truncated .nii.gz as if it were whole, its tail filled with zeros: ask the checksum.
        try:
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        except (EOFError, zlib.error, OSError) as error:
            raise UserError(f"{path}: damaged or cut short ({error}); copy it again") from None
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise UserError(f"{path}: not readable as an image: {reason}") from None
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(f"{path}: {image.GetNumberOfComponentsPerPixel()} values a pixel; a grey image is needed")
    if image.GetDimension() == 2:
        return sitk.JoinSeries([image])
    if image.GetDimension() != 3:
        raise UserError(f"{path}: {image.GetDimension()} dimensions; slices or volumes are needed, one file each")
    size, spacing = image.GetSize(), image.GetSpacing()
    axis = max(range(3), key=lambda i: (size[i] == 1, round(spacing[i], 3), i))
    order = [i for i in range(3) if i != axis] + [axis]
    return image if axis == 2 else sitk.PermuteAxes(image, order)


def read_pair(image_path: Path, mask_path: Path) -> tuple[sitk.Image, sitk.Image]:
    """An image (float32) and its mask (float32, 1 where the mask's label is above 0), of the same size.

    Raises:
        UserError: either is unreadable, their sizes differ, or the image holds values that are not finite.
    """
    image, mask = read(image_path), read(mask_path)
    if image.GetSize() != mask.GetSize():
        ours, theirs = ("×".join(map(str, i.GetSize())) for i in (mask, image))
        raise UserError(f"{mask_path}: size {ours} differs from its image's {theirs} ({image_path})")
    image = sitk.Cast(image, sitk.sitkFloat32)
    if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        raise UserError(f"{image_path}: holds values that are not finite (NaN or infinity)")
    return image, sitk.Cast(mask > 0, sitk.sitkFloat32)


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
