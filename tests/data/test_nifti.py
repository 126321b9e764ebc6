"""NIfTI and Analyze: what their headers may say, and where they contradict themselves."""

import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data.volume import read, read_whole
from greenseg.errors import UserError

AFFINE = np.array([[-1.5, 0, 0, -3], [0, -1.5, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1.0]])
PIXELS = (np.arange(8 * 9 * 4).reshape(8, 9, 4) % 97).astype(np.int16)


def write(
    path: Path,
    pixels: np.ndarray = PIXELS,
    sform: np.ndarray = AFFINE,
    qform: np.ndarray = AFFINE,
    codes: tuple[int, int] = (2, 1),
    kind: Any = nib.Nifti1Image,
    edit: dict[int, float] | None = None,
) -> Path:
    """Write an image with both forms and their codes; `edit`: offset in the header → float32."""
    image = kind(pixels, sform)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    nib.save(image, path)
    if edit:
        content = bytearray(path.read_bytes())
        for offset, value in edit.items():
            struct.pack_into("<f", content, offset, value)
        path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    (problem,) = caught.value.problems
    return problem.removeprefix(f"{path}: ")


def flipped() -> np.ndarray:
    return np.asarray(AFFINE @ np.array([[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE)


def shifted(mm: float) -> np.ndarray:
    moved = AFFINE.copy()
    moved[2, 3] += mm
    return moved


# ── sform and qform


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.nii", nib.Nifti1Image), ("a.nii.gz", nib.Nifti1Image), ("a.nii", nib.Nifti2Image), ("a.hdr", nib.Nifti1Pair)],
)
@pytest.mark.parametrize("other", [flipped(), turned(3), shifted(4), AFFINE @ np.diag([2, 2, 1, 1])])
def test_where_sform_and_qform_disagree_both_are_named(name: str, kind: Any, other: np.ndarray, tmp_path: Path) -> None:
    problem = refused(write(tmp_path / name, sform=other, kind=kind))
    assert problem.startswith("its sform (code 2, axes ")
    assert "and its qform (code 1, axes LPS) disagree, by up to " in problem


@pytest.mark.parametrize("which", ["image", "mask"])
def test_it_does_not_matter_whether_image_or_mask(which: str, tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.nii", PIXELS % 2, sform=flipped() if name == which else AFFINE)
        for name in ("image", "mask")
    ]
    with pytest.raises(UserError) as caught:
        read_whole(paths[:1], paths[1])
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / which}.nii: its sform")


@pytest.mark.parametrize(("codes", "right"), [((2, 0), flipped()), ((0, 1), AFFINE)])
def test_a_form_that_is_not_set_says_nothing(codes: tuple[int, int], right: np.ndarray, tmp_path: Path) -> None:
    image = read(write(tmp_path / "a.nii", sform=flipped(), codes=codes))
    assert image.TransformIndexToPhysicalPoint((7, 0, 0)) == pytest.approx(
        (np.diag([-1, -1, 1, 1]) @ right @ [7, 0, 0, 1])[:3]
    )


@pytest.mark.parametrize("degrees", [0, 0.02, 0.1, 30, 90, 179.98])
def test_rounding_of_the_quaternion_is_no_disagreement(degrees: float, tmp_path: Path) -> None:
    """Near half a turn, float32 leaves a quaternion some hundredths of a degree."""
    both = turned(degrees)
    assert read(write(tmp_path / "a.nii", sform=both, qform=both)).GetSize() == (8, 9, 4)
    assert read(write(tmp_path / "b.nii", sform=shifted(1e-3))).GetSize() == (8, 9, 4)


def test_a_spacing_that_the_sform_does_not_share_is_refused(tmp_path: Path) -> None:
    """ITK took pixdim, others take the sform."""
    problem = refused(write(tmp_path / "a.nii", codes=(2, 0), edit={80: 1.0, 84: 1.0, 88: 1.0}))
    assert problem.startswith("its sform gives a spacing of 1.5×1.5×4 mm, its pixdim 1×1×1 mm")


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf")])
def test_a_quaternion_of_no_rotation_is_damage(value: float, tmp_path: Path) -> None:
    assert refused(write(tmp_path / "a.nii", codes=(0, 1), edit={264: value})) == "its header is damaged (qform)"


@pytest.mark.parametrize("edit", [{264: 1.0002}, {76: 0.0}])
def test_a_quaternion_longer_than_1_by_rounding_and_a_qfac_of_0_are_read(
    edit: dict[int, float], tmp_path: Path
) -> None:
    image = read(write(tmp_path / "a.nii", codes=(0, 1), edit=edit))
    assert image.GetDirection() == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0, 1), abs=1e-6)


# ── shear


@pytest.mark.parametrize("shear", [0.0, 1e-6, 1e-4, 1e-3])
@pytest.mark.parametrize("axis", [0, 1])
def test_shear_that_is_rounding_is_read(shear: float, axis: int, tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[axis, 2] += 4 * shear
    assert read(write(tmp_path / "a.nii", sform=affine, codes=(2, 0))).GetSpacing() == pytest.approx((1.5, 1.5, 4))


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
def test_shear_is_refused_with_its_angle(name: str, tmp_path: Path) -> None:
    direction = np.eye(3)
    direction[:2, 2] = np.sin(np.radians(5)), 0
    direction[2, 2] = np.cos(np.radians(5))
    if name == "a.nii":
        write(tmp_path / name, sform=np.vstack([np.c_[direction @ np.diag([1.5, 1.5, 4]), [0, 0, 0]], [0, 0, 0, 1]]),
              codes=(2, 0))  # fmt: skip
    else:  # ITK reads these without a word
        image = sitk.GetImageFromArray(PIXELS.T)
        image.SetSpacing((1.5, 1.5, 4))
        image.SetDirection(direction.ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / name))
    assert refused(tmp_path / name).startswith("its header is sheared: axes 1 and 3 meet at 85°")


# ── versions, pairs, units, types


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.nii.gz", nib.Nifti1Image),
        ("a.nii", nib.Nifti2Image),
        ("a.nii.gz", nib.Nifti2Image),
        ("a.hdr", nib.Nifti1Pair),
        ("a.img", nib.Nifti1Pair),
        ("a.img", nib.Nifti2Pair),
        ("a.img.gz", nib.Nifti1Pair),
        ("A.IMG", nib.Nifti1Pair),
    ],
)
def test_every_kind_of_nifti_holds_the_same(name: str, kind: Any, big_endian: bool, tmp_path: Path) -> None:
    header = kind.header_class(endianness=">" if big_endian else "<")
    image = kind(PIXELS, AFFINE, header)
    image.set_qform(AFFINE, 1)
    nib.save(image, tmp_path / name)
    found = read(tmp_path / name)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), PIXELS.T)
    assert (found.GetSpacing(), found.GetOrigin()) == ((1.5, 1.5, 4.0), (3.0, -5.0, 7.0))
    assert found.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_analyze_is_read_by_either_name(name: str, tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(PIXELS, np.diag([1.5, 1.5, 4, 1])), tmp_path / "a.img")
    found = read(tmp_path / name)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), PIXELS.T)
    assert found.GetSpacing() == (1.5, 1.5, 4.0)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.AnalyzeImage])
@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_a_pair_with_nan_or_cut_or_without_its_other_half_is_refused(name: str, kind: Any, tmp_path: Path) -> None:
    values = PIXELS.astype(np.float32)
    values[1, 2, 3] = np.nan
    nib.save(kind(values, AFFINE), tmp_path / "a.img")
    nib.save(kind(PIXELS % 2, AFFINE), tmp_path / "m.img")
    with pytest.raises(UserError, match="not finite"):
        read_whole([tmp_path / name], tmp_path / "m.hdr")
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-5])
    assert refused(tmp_path / name).startswith("truncated: ")
    other = "a.img" if name == "a.hdr" else "a.hdr"
    (tmp_path / other).unlink()
    assert refused(tmp_path / name) == f"its other half is missing: no file '{other}' in its folder"


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e-3), (2, 1), (3, 1e3)])
def test_metres_and_micrometres_become_millimetres(unit: int, factor: float, tmp_path: Path) -> None:
    affine = np.diag([factor] * 3 + [1]) @ AFFINE
    image = nib.Nifti1Image(PIXELS, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    found = read(tmp_path / "a.nii")
    assert found.GetSpacing() == pytest.approx((1.5, 1.5, 4))
    assert found.GetOrigin() == pytest.approx((3, -5, 7))


def test_two_axes_have_the_place_that_itk_gives_them(tmp_path: Path) -> None:
    for name, affine in (("a.nii", AFFINE), ("b.nii", AFFINE[:, [0, 2, 1, 3]])):
        found = read(write(tmp_path / name, PIXELS[:, :, 0], sform=affine, qform=affine))
        assert found.GetSize() == (8, 9, 1)
    found = sitk.ReadImage(str(tmp_path / "a.nii"))
    assert read(tmp_path / "a.nii").GetOrigin()[:2] == found.GetOrigin()


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 0.0), (0.1, -7.0), (1.0, 2.0), (0.0, 5.0), (np.nan, np.nan)])
def test_values_are_scaled_by_slope_and_intercept(slope: float, intercept: float, tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.nii", edit={112: slope, 116: intercept}))
    wanted = PIXELS if slope == 0 or np.isnan(slope) else (PIXELS * np.float64(np.float32(slope)) + intercept)
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), wanted.T, rtol=1e-6)
