"""A mask on its image's grid however it is stored, and the axis that volumes are cut along."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data.placement import slice_axis, slice_distance
from greenseg.data.volume import read, read_whole
from greenseg.errors import UserError

RNG = np.random.default_rng(0)
MASK = RNG.integers(0, 3, (8, 9, 4)).astype(np.uint8)


def rotation(rng: np.random.Generator) -> np.ndarray:
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return np.asarray(q * np.sign(np.linalg.det(q)))


def affine(directions: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.5, 4.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag(spacing)
    matrix[:3, 3] = (-30, 50, 7)
    return matrix


def refused(image: Path, mask: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_whole([image], mask)
    (problem,) = caught.value.problems
    return problem.removeprefix(f"{mask}: ").removesuffix(f" ({image})")


# ── stored otherwise


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_mask_stored_along_other_axes_is_turned_exactly(suffix: str, oblique: bool, tmp_path: Path) -> None:
    directions = rotation(np.random.default_rng(1)) if oblique else np.diag([-1.0, -1, 1])
    nib.save(nib.Nifti1Image(MASK, affine(directions)), tmp_path / "i.nii")
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        stored = nib.Nifti1Image(MASK, affine(directions)).as_reoriented(np.array([order, signs]).T)
        nib.save(stored, tmp_path / "m.nii.gz")
        if suffix == ".nrrd":
            sitk.WriteImage(sitk.ReadImage(str(tmp_path / "m.nii.gz")), str(tmp_path / "m.nrrd"))
        (image,), mask = read_whole([tmp_path / "i.nii"], tmp_path / f"m{suffix}")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), MASK.T)
        assert mask.GetDirection() == image.GetDirection()


def test_a_mask_of_another_grid_is_refused_however_it_is_stored(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(MASK, affine(np.diag([-1.0, -1, 1]))), tmp_path / "i.nii")
    moved = affine(np.diag([-1.0, -1, 1]))
    moved[0, 3] += 1.5
    for order in permutations(range(3)):
        stored = nib.Nifti1Image(MASK, moved).as_reoriented(np.array([order, (1, -1, -1)]).T)
        nib.save(stored, tmp_path / "m.nii")
        problem = refused(tmp_path / "i.nii", tmp_path / "m.nii")
        assert problem.startswith("lies up to 1.5 mm off its image")
        assert "only if you are certain" in problem, "its image's header would flip it"
    nib.save(nib.Nifti1Image(MASK, moved), tmp_path / "m.nii")
    assert "copy the image's header to the mask" in refused(tmp_path / "i.nii", tmp_path / "m.nii")
    nib.save(nib.Nifti1Image(MASK, affine(rotation(RNG))), tmp_path / "m.nii")
    assert refused(tmp_path / "i.nii", tmp_path / "m.nii").startswith("lies up to ")


# ── which axis


@pytest.mark.parametrize(
    ("sizes", "spacing", "axis"),
    [
        ((9, 9, 9), (0.9375, 0.9375, 0.9375), 2),
        ((9, 9, 9), (0.9375, 0.9375000001, 0.9374999), 2),
        ((9, 9, 9), (0.9380, 0.9375, 0.9375), 2),
        ((9, 9, 9), (1.0, 1.0, 0.995), 2),
        ((9, 9, 9), (3.0, 1.0, 1.0), 0),
        ((9, 9, 9), (1.0, 1.05, 1.0), 1),
        ((9, 9, 9), (3.001, 3.0, 1.0), 1),
        ((9, 1, 9), (1.0, 1.0, 4.0), 1),
        ((9, 1, 1), (1.0, 1.0, 1.0), 2),
    ],
)
def test_the_slice_axis_is_not_chosen_by_rounding(
    sizes: tuple[int, ...], spacing: tuple[float, ...], axis: int
) -> None:
    assert slice_axis(sizes, spacing) == axis


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_isotropic_oblique_volumes_are_all_cut_along_their_last_axis(suffix: str, tmp_path: Path) -> None:
    for number in range(20):
        directions = rotation(np.random.default_rng(number)).ravel().tolist()
        for name, path in (("image", "i.nii.gz"), ("mask", f"m{suffix}")):
            made = sitk.GetImageFromArray(np.transpose(MASK, (2, 1, 0)))
            made.SetSpacing((0.9375,) * 3)
            made.SetDirection(directions)
            sitk.WriteImage(made, str(tmp_path / f"{name}{path}"))
        (image,), mask = read_whole([tmp_path / "imagei.nii.gz"], tmp_path / f"maskm{suffix}")
        assert image.GetSize() == mask.GetSize() == (8, 9, 4)


def test_the_image_decides_the_slice_axis_of_both(tmp_path: Path) -> None:
    """The mask's spacing is that of the image but for rounding, which would cut it along another axis."""
    for name, spacing in (("i.nrrd", (1.0, 1.008, 1.012)), ("m.nrrd", (1.0, 1.008, 1.004))):
        made = sitk.GetImageFromArray(MASK.T)
        made.SetSpacing(spacing)
        sitk.WriteImage(made, str(tmp_path / name))
    (image,), mask = read_whole([tmp_path / "i.nrrd"], tmp_path / "m.nrrd")
    assert image.GetSize() == mask.GetSize()


# ── pixels of a microscope


@pytest.mark.parametrize("pixel", [0.02, 0.5, 3.0])
def test_a_mask_a_few_pixels_beside_its_image_is_refused_however_small_they_are(pixel: float, tmp_path: Path) -> None:
    for shift, fits in ((0.0, True), (0.01, True), (1.0, False), (4.0, False)):
        for name, x in (("i.nii", 0.0), ("m.nii", shift * pixel)):
            made = sitk.GetImageFromArray(MASK.T)
            made.SetSpacing((pixel, pixel, 2 * pixel))
            made.SetOrigin((x, 0.0, 0.0))
            sitk.WriteImage(made, str(tmp_path / name))
        if fits:
            read_whole([tmp_path / "i.nii"], tmp_path / "m.nii")
        else:
            assert refused(tmp_path / "i.nii", tmp_path / "m.nii").startswith(f"lies up to {shift * pixel:.3g} mm")


# ── two axes and three


@pytest.mark.parametrize("flat", ["image", "mask"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_an_image_of_two_axes_goes_with_a_single_slice(flat: str, suffix: str, tmp_path: Path) -> None:
    whole = sitk.GetImageFromArray(MASK.T)
    whole.SetSpacing((1.5, 1.5, 4.0))
    whole.SetOrigin((3.0, -5.0, 7.0))
    for name in ("image", "mask"):
        sitk.WriteImage(whole[:, :, 2] if name == flat else whole[:, :, 2:3], str(tmp_path / f"{name}{suffix}"))
    (image,), mask = read_whole([tmp_path / f"image{suffix}"], tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), MASK.T[2:3])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), MASK.T[2:3])
    assert slice_distance(image) == (None if flat == "image" else 4.0)


def test_what_is_said_of_two_axes_and_three_is_so(tmp_path: Path) -> None:
    whole = sitk.GetImageFromArray(MASK.T)
    sitk.WriteImage(whole[:, :, 0], str(tmp_path / "i.nii"))
    sitk.WriteImage(whole, str(tmp_path / "m.nii"))
    assert refused(tmp_path / "i.nii", tmp_path / "m.nii").startswith("is 3D (8×9×4 pixels), its image 2D (8×9 pixels)")
    assert refused(tmp_path / "m.nii", tmp_path / "i.nii").startswith("is 2D (8×9 pixels), its image 3D (8×9×4 pixels)")
    sitk.WriteImage(whole[:7, :, :1], str(tmp_path / "m.nii"))
    assert refused(tmp_path / "i.nii", tmp_path / "m.nii").startswith("size 7×9 differs from its image's 8×9")
    moved = whole[:, :, :1]
    moved.SetOrigin((4.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(tmp_path / "m.nii"))
    assert "store both in the same way" in refused(tmp_path / "i.nii", tmp_path / "m.nii")


def test_the_distance_of_slices_is_known_but_for_two_axes(tmp_path: Path) -> None:
    whole = sitk.GetImageFromArray(MASK.T)
    whole.SetSpacing((1.5, 1.5, 4.0))
    for name, made in (("flat.nii", whole[:, :, 0]), ("single.nii", whole[:, :, :1]), ("flat.nrrd", whole[:, :, 0])):
        sitk.WriteImage(made, str(tmp_path / name))
    assert slice_distance(read(tmp_path / "flat.nii")) is None
    assert slice_distance(read(tmp_path / "flat.nrrd")) is None
    assert slice_distance(read(tmp_path / "single.nii")) == 4.0


_CORONAL = np.array([[-1.5, 0, 0, 10], [0, 0, 4, 20], [0, 1.5, 0, -30], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("affine", [np.diag([-1.5, -1.5, 4, 1]), _CORONAL])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_flat_mask_stored_backwards_is_turned(axis: int, affine: np.ndarray, tmp_path: Path) -> None:
    """Also in a coronal or sagittal plane: two axes of NIfTI lie in space as three do."""
    flat = MASK[:, :, 1]
    backwards = affine.copy()
    backwards[:, axis] *= -1
    backwards[:, 3] += affine[:, axis] * (flat.shape[axis] - 1)
    for name, pixels, placed in (("i", flat, affine), ("m", np.flip(flat, axis), backwards)):
        made = nib.Nifti1Image(np.ascontiguousarray(pixels), placed)
        made.set_sform(placed, 1)
        made.set_qform(placed, 1)
        nib.save(made, tmp_path / f"{name}.nii")
    (image,), mask = read_whole([tmp_path / "i.nii"], tmp_path / "m.nii")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image))
    assert slice_distance(image) is None


@pytest.mark.parametrize("affine", [np.diag([-1.5, -1.5, 4, 1]), _CORONAL])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flat_mask_elsewhere_is_refused(axis: int, affine: np.ndarray, tmp_path: Path) -> None:
    away = affine.copy()
    away[axis, 3] += 30
    nib.save(nib.Nifti1Image(MASK[:, :, 1], affine), tmp_path / "i.nii")
    nib.save(nib.Nifti1Image(MASK[:, :, 1], away), tmp_path / "m.nii")
    assert refused(tmp_path / "i.nii", tmp_path / "m.nii").startswith("lies up to 30 mm off its image")
