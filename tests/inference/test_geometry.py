"""Masks have the geometry of their images: size, spacing, origin, directions; in NIfTI also sform, qform and codes.

A predictor that returns the intensities makes the right answer known: the image is the mask.
"""

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.inference import pipeline
from greenseg.inference.batching import BatchSize
from greenseg.inference.inputs import Input
from greenseg.inference.pipeline import How
from greenseg.inference.recipe import Recipe
from tests.inference.fakes import Intensity

Array = np.ndarray[Any, Any]

SIZE = 64
CODES = ((1, 1), (2, 1), (0, 1), (1, 0), (4, 2), (0, 3), (2, 2))
"""Of sform and qform."""
FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha", "nifti2", "big-endian")
AXES = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def ball(shape: tuple[int, ...], spacing: Array, thick: int) -> Array:
    """An ellipse off the centre in each slice, of the same size in mm along both axes: values 0 and 400, [x, y, z]."""
    index = np.indices(shape).astype(float)
    plane = [axis for axis in range(3) if axis != thick]
    radius = 0.3 * min(shape[axis] * spacing[axis] for axis in plane)
    away = sum(((index[axis] - (shape[axis] - 1) / 2 - 1.3) * spacing[axis] / radius) ** 2 for axis in plane)
    inside: Array = away <= 1
    if shape[thick] > 2:
        inside &= (index[thick] > 0) & (index[thick] < shape[thick] - 1)
    return np.asarray(inside * 400, np.int16)


def rotation(rng: np.random.Generator, place: int, oblique: bool) -> Array:
    order, signs = AXES[place % len(AXES)]
    turned = np.eye(3)[list(order)] * np.array(signs)[:, None]
    if oblique:
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        cross = np.cross(np.eye(3), axis)
        angle = rng.uniform(0.05, 0.6)
        turned = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ turned
    return np.asarray(turned)


def write(path: Path, values: Array, affine: Array, kind: str, codes: tuple[int, int]) -> None:
    """An image [x, y, z] with an affine to RAS."""
    if kind in (".nrrd", ".mha"):
        image = sitk.GetImageFromArray(values.T)
        lps = np.diag((-1, -1, 1)) @ affine[:3, :3]
        lengths = np.linalg.norm(lps, axis=0)
        image.SetSpacing(lengths.tolist())
        image.SetDirection((lps / lengths).ravel().tolist())
        image.SetOrigin((np.array((-1, -1, 1)) * affine[:3, 3]).tolist())
        sitk.WriteImage(image, str(path))
        return
    made = nibabel.Nifti2Image if kind == "nifti2" else nibabel.Nifti1Image
    header = made.header_class(endianness=">") if kind == "big-endian" else None
    image = made(values, affine, header)
    image.set_sform(affine if codes[0] else None, codes[0])
    image.set_qform(affine, codes[1])
    nibabel.save(image, path)


def predicted(path: Path, out: Path, recipe: Recipe, name: str = "case", **how: Any) -> Path:
    (done,) = pipeline.run(Intensity(recipe), [(Input((path,), name, name),)], How(out, **how), BatchSize(8))
    assert not done.problems
    (mask,) = out.glob(f"{name}.*")
    return mask


def same_geometry(image: Path, mask: Path) -> None:
    if image.name.endswith((".nii", ".nii.gz")):
        ours, theirs = nibabel.load(mask), nibabel.load(image)
        assert type(ours) is type(theirs)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
        for field in ("sform_code", "qform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
            np.testing.assert_array_equal(ours.header[field], theirs.header[field], err_msg=field)
        assert ours.header["xyzt_units"] == theirs.header["xyzt_units"]
        assert ours.get_data_dtype() == np.uint8
        return
    one, other = sitk.ReadImage(str(mask)), sitk.ReadImage(str(image))
    assert one.GetSize() == other.GetSize()
    assert one.GetPixelID() == sitk.sitkUInt8
    for ours, theirs in (
        (one.GetSpacing(), other.GetSpacing()), (one.GetOrigin(), other.GetOrigin()),
        (one.GetDirection(), other.GetDirection()),
    ):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def values_of(path: Path) -> Array:
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.load(path).dataobj)
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T)


@pytest.mark.parametrize("seed", range(60))
def test_a_mask_has_the_geometry_of_its_image(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    kind, codes = FORMATS[seed % len(FORMATS)], CODES[seed % len(CODES)]
    thick = int(rng.integers(3))
    coincide = seed % 3 == 0
    shape = np.array(rng.integers(36, 60, 3))
    pixel = float(rng.uniform(0.5, 4))
    spacing = np.full(3, pixel)
    if not coincide:
        spacing *= rng.uniform(0.8, 1.25, 3)
    shape[thick], spacing[thick] = rng.integers(3, 7), 3 * pixel
    if seed % 10 == 4:
        spacing[:], pixel = 4, 4.0 if coincide else 4.4  # 4 × 4 × 40 mm
        spacing[thick] = 40
    if seed % 10 == 7:
        shape[thick] = 1
    grid = pixel if coincide else float(max(shape[a] * spacing[a] for a in range(3) if a != thick) / SIZE)
    affine = np.eye(4)
    affine[:3, :3] = rotation(rng, int(rng.integers(48)), seed % 4 == 1) @ np.diag(spacing)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    image = tmp_path / f"case{kind if kind.startswith('.') else '.nii.gz'}"
    truth = ball(tuple(shape), spacing, thick)
    write(image, truth, affine, kind, codes)

    mask = predicted(image, tmp_path / "out", Recipe(SIZE, grid))
    assert mask.suffixes == image.suffixes
    same_geometry(image, mask)
    found, right = values_of(mask) > 0, values_of(image) > 0
    assert found.shape == right.shape
    if coincide:
        np.testing.assert_array_equal(found, right)
    dice = 2 * (found & right).sum() / (found.sum() + right.sum())
    assert dice >= 0.97
    centres = [np.array(np.nonzero(each)).mean(1) for each in (found, right)]
    assert np.abs(centres[0] - centres[1]).max() < 0.1


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "PSL", "LAS", "LIP"])
def test_orientations_by_name(orientation: str, tmp_path: Path) -> None:
    values = ball((40, 44, 4), np.array((1.0, 1, 5)), 2)
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing((1, 1, 5))
    path = tmp_path / "case.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    mask = predicted(path, tmp_path / "out", Recipe(SIZE, 1.0))
    same_geometry(path, mask)
    np.testing.assert_array_equal(values_of(mask) > 0, values_of(path) > 0)


@pytest.mark.parametrize("name", ["flat.nii", "flat.nrrd", "flat.mha", "pair.hdr", "analyze.hdr", "four.nii.gz"])
def test_images_with_two_or_four_axes_and_pairs(name: str, tmp_path: Path) -> None:
    flat = ball((40, 44, 1), np.ones(3), 2)[:, :, 0]
    path = tmp_path / name
    if name.endswith((".nrrd", ".mha")):
        sitk.WriteImage(sitk.GetImageFromArray(flat.T), str(path))
    elif name == "flat.nii":
        nibabel.save(nibabel.Nifti1Image(flat, np.diag((1, 2, 3, 1))), path)
    elif name == "four.nii.gz":
        nibabel.save(nibabel.Nifti1Image(flat[:, :, None, None], np.eye(4)), path)
    else:
        pair = nibabel.Nifti1Pair if name == "pair.hdr" else nibabel.Spm99AnalyzeImage
        nibabel.save(pair(ball((40, 44, 3), np.array((1.0, 1, 5)), 2), np.diag((1, 1, 5, 1))), path)
    mask = predicted(path, tmp_path / "out", Recipe(SIZE, 1.0), path.stem)
    assert mask.name.endswith((".nii.gz",) if name.endswith("hdr") else path.suffix)
    ours, theirs = (sitk.ReadImage(str(each)) for each in (mask, path))
    assert ours.GetSize() == theirs.GetSize()
    np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing())
    if name != "flat.nii":  # its rows are 2 mm apart
        np.testing.assert_array_equal(values_of(mask).squeeze() > 0, sitk.GetArrayFromImage(theirs).T.squeeze() > 0)
    if name == "pair.hdr":
        np.testing.assert_allclose(nibabel.load(mask).affine, nibabel.load(path).affine)


def test_what_lies_outside_the_square_is_background_or_predicted_in_tiles(tmp_path: Path) -> None:
    values = np.zeros((70, 44, 3), np.int16)
    values[2:68, 10:30] = 400
    path = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag((1, 1, 5, 1))), path)
    recipe = Recipe(32, 1.0)
    (done,) = pipeline.run(Intensity(recipe), [(Input((path,), "case", "case"),)], How(tmp_path / "cut"), BatchSize(8))
    assert done.beyond == [38.0]
    cut = values_of(tmp_path / "cut" / "case.nii.gz")
    assert set(np.nonzero(cut)[0]) == set(range(19, 51))
    whole = values_of(predicted(path, tmp_path / "whole", recipe, tile=True))
    np.testing.assert_array_equal(whole > 0, values > 0)


def test_probabilities_have_the_geometry_and_come_before_the_threshold(tmp_path: Path) -> None:
    values = ball((40, 44, 4), np.array((1.0, 1, 5)), 2)
    path = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag((-1, 1, 5, 1))), path)
    recipe = Recipe(SIZE, 1.3)
    mask = predicted(path, tmp_path / "out", recipe, save_probabilities=True, threshold=0.3)
    probabilities = nibabel.load(tmp_path / "out" / "probabilities" / "case.nii.gz")
    assert probabilities.get_data_dtype() == np.float32
    np.testing.assert_array_equal(probabilities.affine, nibabel.load(path).affine)
    np.testing.assert_array_equal(np.asarray(probabilities.dataobj) > 0.3, values_of(mask) > 0)
    assert len(np.unique(probabilities.dataobj)) > 3, "they are interpolated, not thresholded"
