"""Positions of images: a mask on its image's grid, and the axis along which both are cut into slices."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from greenseg.data.header import is_right

_EQUAL = 1e-2  # largest relative difference between equal spacings
_APART = 0.1  # largest distance of a mask from its image, in pixels and in mm
_TURNED = 1e-2  # largest difference between equal direction cosines
_ON_PLANE = 1e-3  # mm

FLAT = "greenseg: two axes"
"""Marks a volume of one slice that has two axes in its file, and therefore no slice distance."""


def slice_axis(sizes: Sequence[int], spacing: Sequence[float]) -> int:
    """The axis across slices: an axis with a single pixel, else with the widest spacing; the last of equal ones."""
    among = [i for i in range(len(sizes)) if sizes[i] == 1] or range(len(sizes))
    # With a tolerance: otherwise, rounding in a header would cut similar volumes along different axes.
    return max(i for i in among if spacing[i] >= (1 - _EQUAL) * max(spacing[j] for j in among))


def stored_axis(image: sitk.Image) -> int:
    """The slice axis among the three axes of an image as stored; 2 for a single slice with two axes."""
    return 2 if _is_flat(image) else slice_axis(image.GetSize(), image.GetSpacing())


def as_stored(volume: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A volume with the slice axis last, in the axes of the image that `across_slices` made it from."""
    if image.GetDimension() == 2:
        return volume[:, :, 0]
    axis = stored_axis(image)
    if axis == 2:
        return volume
    order = [*(i for i in range(3) if i != axis), axis]
    return sitk.PermuteAxes(volume, [order.index(i) for i in range(3)])


def is_isotropic(image: sitk.Image) -> bool:
    """Whether all axes have the same spacing, so that the last one is the slice axis."""
    return bool(min(image.GetSpacing()) >= (1 - _EQUAL) * max(image.GetSpacing()))


def across_slices(image: sitk.Image, axis: int | None = None) -> sitk.Image:
    """The image as a volume with the slice axis last. A 2D image is one slice of unknown distance.

    Args:
        image: image with two or three axes.
        axis: the slice axis, if known.
    """
    if image.GetDimension() == 2:
        volume = sitk.JoinSeries([image])
        for key in image.GetMetaDataKeys():
            volume.SetMetaData(key, image.GetMetaData(key))
        volume.SetMetaData(FLAT, "yes")
        return volume
    if axis is None:
        axis = stored_axis(image)
    return image if axis == 2 else sitk.PermuteAxes(image, [i for i in range(3) if i != axis] + [axis])


def slice_distance(volume: sitk.Image) -> float | None:
    """Distance of the slices of a volume, in mm; None if the file had two axes."""
    return None if volume.HasMetaDataKey(FLAT) else float(volume.GetSpacing()[2])


def together(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image, str | None]:
    """An image and its mask as volumes on one grid with the slice axis last; and the mismatch of their grids, or None.

    A mask with axes in another order or direction is reoriented, without interpolation. One of the two may have two
    axes if the other has a single slice.
    """
    plane, plane_of_mask = image, mask
    mixed = _is_flat(image) != _is_flat(mask)
    if mixed and 1 not in min(image, mask, key=_is_flat).GetSize():
        return image, mask, f"is {_described(mask)}, its image {_described(image)}; both must show the same slices"
    if image.GetDimension() != mask.GetDimension():
        plane, plane_of_mask = _plane(image), _plane(mask)
    elif mixed and _is_flat(image):
        plane = _beside(image, mask)
    elif mixed:
        plane_of_mask = _beside(mask, image)
    turned = _turned(plane_of_mask, plane)
    if problem := geometry_problem(plane, turned):
        if turned.GetSize() != plane.GetSize():
            problem = geometry_problem(plane, plane_of_mask) or problem  # the size that its file has
        if mixed or image.GetDimension() != mask.GetDimension():
            problem += "; one of them is 2D and has no position in space: store both in the same way"
        elif turned is not mask:
            problem += "; by its header, its pixels have a different order from its image's: "
            problem += "copy the image's header only if you are certain that this is wrong"
        elif problem.startswith("lies"):
            problem += "; if the pixels do match, copy the image's header to the mask"
    volume = across_slices(image)
    in_slices = across_slices(turned, 2 if _is_flat(image) else slice_axis(plane.GetSize(), plane.GetSpacing()))
    if not problem:
        in_slices.CopyInformation(volume)
    return volume, in_slices, problem


def geometry_problem(image: sitk.Image, mask: sitk.Image) -> str | None:
    """The mismatch of a mask's grid with its image's (size, spacing, origin, direction), or None."""
    sizes, spacing = image.GetSize(), np.array(image.GetSpacing())
    if sizes != mask.GetSize():
        axes = 2 if sizes[2:] == mask.GetSize()[2:] == (1,) else 3
        return f"size {_sizes(mask, axes)} differs from its image's {_sizes(image, axes)}"
    if np.abs(np.array(mask.GetSpacing()) / spacing - 1).max() > _EQUAL:
        ours, theirs = ("×".join(f"{s:.4g}" for s in i.GetSpacing()) for i in (mask, image))
        return f"spacing {ours} mm differs from its image's {theirs} mm"
    # The positions of the first pixel and of the last pixel of each axis check origin and direction together.
    corners = [
        (0,) * len(sizes),
        *(tuple(int(n == i) * (s - 1) for n in range(len(sizes))) for i, s in enumerate(sizes)),
    ]
    apart = max(
        float(np.linalg.norm(np.subtract(*(i.TransformIndexToPhysicalPoint(corner) for i in (image, mask)))))
        for corner in corners
    )
    if apart > _APART * min(1.0, float(spacing.min())):
        return f"lies up to {apart:.3g} mm off its image (origin or direction differ)"
    return None


def _turned(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """The mask with its axes in the order and direction of the image's, if both have the same lines as axes."""
    of_image, of_mask = (np.reshape(i.GetDirection(), (i.GetDimension(),) * 2) for i in (image, mask))
    along = of_image.T @ of_mask  # [axis of the image, axis of the mask]: 1 or -1 for the same line
    whole = np.rint(along)
    if np.abs(along - whole).max() > _TURNED or not (np.abs(whole).sum(0) == 1).all():
        return mask
    order = np.abs(whole).argmax(1).tolist()
    backwards = (whole.sum(1) < 0).tolist()
    if order == sorted(order) and not any(backwards):
        return mask
    return sitk.Flip(sitk.PermuteAxes(mask, order), backwards)


def described(image: sitk.Image) -> str:
    """The grid of an image, in words: size, spacing, origin and directions of the axes."""
    axes = 2 if _is_flat(image) else 3
    shape, spacing = _sizes(image, axes), "×".join(f"{s:.4g}" for s in image.GetSpacing()[:axes])
    origin, directions = (", ".join(f"{v:.4g}" for v in values) for values in (image.GetOrigin(), image.GetDirection()))
    return f"size {shape}, spacing {spacing} mm, origin ({origin}), direction ({directions})"


def _described(image: sitk.Image) -> str:
    axes = 2 if _is_flat(image) else 3
    return f"{axes}D ({_sizes(image, axes)} pixels)"


def _sizes(image: sitk.Image, axes: int) -> str:
    return "×".join(map(str, image.GetSize()[:axes]))


def _is_flat(image: sitk.Image) -> bool:
    return bool(image.GetDimension() == 2 or image.HasMetaDataKey(FLAT))


def _plane(image: sitk.Image) -> sitk.Image:
    """A single slice with two axes; if it is not in the plane of x and y, at 0 and along these, as in ITK."""
    if image.GetDimension() == 2:
        return image
    volume = across_slices(image)
    plane = volume[:, :, 0]
    directions = np.reshape(volume.GetDirection(), (3, 3))[:2, :2]
    is_along = is_right(directions)
    plane.SetDirection((directions if is_along else np.eye(2)).ravel().tolist())
    plane.SetOrigin(volume.GetOrigin()[:2] if is_along else (0.0, 0.0))
    return plane


def _beside(flat: sitk.Image, single: sitk.Image) -> sitk.Image:
    """A flat image with the thickness of a single slice, and its height if the flat header has none (0, as in ITK)."""
    axis = slice_axis(single.GetSize(), single.GetSpacing())
    normal = np.array(flat.GetDirection()[2::3])
    placed = sitk.Image(flat)
    placed.SetSpacing((*flat.GetSpacing()[:2], single.GetSpacing()[axis]))
    if abs(normal @ flat.GetOrigin()) < _ON_PLANE:
        height = float(normal @ np.subtract(single.GetOrigin(), flat.GetOrigin()))
        placed.SetOrigin((flat.GetOrigin() + height * normal).tolist())
    return placed
