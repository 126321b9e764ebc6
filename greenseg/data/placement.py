"""Where images lie: a mask on its image's grid, and the axis along which both are cut into slices."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from greenseg.data.header import is_right

_EQUAL = 1e-2  # share of a spacing by which another one is still the same
_APART = 0.1  # pixels, and millimetres, by which a mask may lie beside its image
_TURNED = 1e-2  # of a direction, by which another one is still the same
_ON_PLANE = 1e-3  # mm

FLAT = "greenseg: two axes"
"""Mark of a volume of one slice that has two axes in its file, so that it does not say how far the next slice is."""


def slice_axis(sizes: Sequence[int], spacing: Sequence[float]) -> int:
    """The axis across slices: one of a single pixel, else the one of the widest spacing; the last, where equal."""
    among = [i for i in range(len(sizes)) if sizes[i] == 1] or range(len(sizes))
    # Not the widest by a hair: rounding in a header would cut a volume along another axis than its neighbours.
    return max(i for i in among if spacing[i] >= (1 - _EQUAL) * max(spacing[j] for j in among))


def is_isotropic(image: sitk.Image) -> bool:
    """Whether no axis has a wider spacing than the others, so that the slice axis is the last one."""
    return bool(min(image.GetSpacing()) >= (1 - _EQUAL) * max(image.GetSpacing()))


def across_slices(image: sitk.Image, axis: int | None = None) -> sitk.Image:
    """The image as a volume, its slice axis last; one of two axes is one slice, whose distance is not known.

    Args:
        image: of two or three axes.
        axis: the slice axis, where it is known already.
    """
    if image.GetDimension() == 2:
        volume = sitk.JoinSeries([image])
        for key in image.GetMetaDataKeys():
            volume.SetMetaData(key, image.GetMetaData(key))
        volume.SetMetaData(FLAT, "yes")
        return volume
    if axis is None:
        axis = 2 if _is_flat(image) else slice_axis(image.GetSize(), image.GetSpacing())
    return image if axis == 2 else sitk.PermuteAxes(image, [i for i in range(3) if i != axis] + [axis])


def slice_distance(volume: sitk.Image) -> float | None:
    """Distance of the slices of a volume, in mm; None where the file had two axes, which do not say."""
    return None if volume.HasMetaDataKey(FLAT) else float(volume.GetSpacing()[2])


def together(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image, str | None]:
    """An image and its mask as volumes on one grid with the slice axis last; and how their grids disagree, or None.

    A mask whose axes are stored in another order or direction is turned; no pixel is interpolated. One of both may have
    two axes where the other has a single slice.
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
            problem += "; one of both is 2D, which does not say where it lies in space: store both alike"
        elif turned is not mask:
            problem += (
                "; its header says that its pixels are stored in another order than its image's: give it its image's "
            )
            problem += "header only if you know better"
        elif problem.startswith("lies"):
            problem += "; if the pixels do belong together, give it its image's header"
    volume = across_slices(image)
    in_slices = across_slices(turned, 2 if _is_flat(image) else slice_axis(plane.GetSize(), plane.GetSpacing()))
    if not problem:
        in_slices.CopyInformation(volume)
    return volume, in_slices, problem


def geometry_problem(image: sitk.Image, mask: sitk.Image) -> str | None:
    """How a mask's grid disagrees with its image's, of as many axes (size, spacing, origin, direction), or None."""
    sizes, spacing = image.GetSize(), np.array(image.GetSpacing())
    if sizes != mask.GetSize():
        axes = 2 if sizes[2:] == mask.GetSize()[2:] == (1,) else 3
        return f"size {_sizes(mask, axes)} differs from its image's {_sizes(image, axes)}"
    if np.abs(np.array(mask.GetSpacing()) / spacing - 1).max() > _EQUAL:
        ours, theirs = ("×".join(f"{s:.4g}" for s in i.GetSpacing()) for i in (mask, image))
        return f"spacing {ours} mm differs from its image's {theirs} mm"
    # Where the first pixel and the last one of each axis lie tells origin and direction at once.
    corners = [
        (0,) * len(sizes),
        *(tuple(int(n == i) * (s - 1) for n in range(len(sizes))) for i, s in enumerate(sizes)),
    ]
    apart = max(
        float(np.linalg.norm(np.subtract(*(i.TransformIndexToPhysicalPoint(corner) for i in (image, mask)))))
        for corner in corners
    )
    if apart > _APART * min(1.0, float(spacing.min())):
        return f"lies up to {apart:.3g} mm beside its image (origin or direction differ)"
    return None


def _turned(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """The mask with its axes in the order and direction of the image's, where both lie along the same lines."""
    of_image, of_mask = (np.reshape(i.GetDirection(), (i.GetDimension(),) * 2) for i in (image, mask))
    along = of_image.T @ of_mask  # [axis of the image, axis of the mask]: 1 or -1 where both are the same line
    whole = np.rint(along)
    if np.abs(along - whole).max() > _TURNED or not (np.abs(whole).sum(0) == 1).all():
        return mask
    order = np.abs(whole).argmax(1).tolist()
    backwards = (whole.sum(1) < 0).tolist()
    if order == sorted(order) and not any(backwards):
        return mask
    return sitk.Flip(sitk.PermuteAxes(mask, order), backwards)


def _described(image: sitk.Image) -> str:
    axes = 2 if _is_flat(image) else 3
    return f"{axes}D ({_sizes(image, axes)} pixels)"


def _sizes(image: sitk.Image, axes: int) -> str:
    return "×".join(map(str, image.GetSize()[:axes]))


def _is_flat(image: sitk.Image) -> bool:
    return bool(image.GetDimension() == 2 or image.HasMetaDataKey(FLAT))


def _plane(image: sitk.Image) -> sitk.Image:
    """A single slice with two axes: where it lies across the plane of x and y, at 0 and along these, as ITK has it."""
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
    """A flat image as thick as a single slice, and at its height where its own header has none (0, as ITK writes)."""
    axis = slice_axis(single.GetSize(), single.GetSpacing())
    normal = np.array(flat.GetDirection()[2::3])
    placed = sitk.Image(flat)
    placed.SetSpacing((*flat.GetSpacing()[:2], single.GetSpacing()[axis]))
    if abs(normal @ flat.GetOrigin()) < _ON_PLANE:
        height = float(normal @ np.subtract(single.GetOrigin(), flat.GetOrigin()))
        placed.SetOrigin((flat.GetOrigin() + height * normal).tolist())
    return placed
