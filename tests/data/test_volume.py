"""Every format is read to the same slices, or refused with the reason; what ITK hides or crashes on is refused, too."""

import gzip
import locale
import re
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data.volume import has_spacing, read, read_whole
from greenseg.errors import UserError

Edit = Callable[[bytes], bytes]


def volume(kind: type = np.int16) -> sitk.Image:
    image = sitk.GetImageFromArray((np.arange(4 * 9 * 8).reshape(4, 9, 8) % 97).astype(kind))
    image.SetSpacing((1.5, 1.5, 4.0))
    image.SetOrigin((3.0, -5.0, 7.0))
    return image


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert "\n" not in problem
    return problem.removeprefix(f"{path}: ")


def edited(folder: Path, name: str, edit: Edit, image: sitk.Image | None = None, packed: bool = False) -> Path:
    path = folder / name
    sitk.WriteImage(image if image is not None else volume(), str(path), useCompression=packed)
    path.write_bytes(edit(path.read_bytes()))
    return path


def swap(old: str, new: str) -> Edit:
    def edit(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return edit


def field(offset: int, form: str, *values: float | bytes) -> Edit:
    def edit(content: bytes) -> bytes:
        changed = bytearray(content)
        struct.pack_into(form, changed, offset, *values)
        return bytes(changed)

    return edit


def dicom(folder: Path, image: sitk.Image, series: str = "1.2.826.0.1.3680043.2.1125.1") -> Path:
    """Write each slice as a file of a series, as a scanner does."""
    folder.mkdir(exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)  # GDCM sets another when it writes
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(image.GetDepth()):
        one = image[:, :, z : z + 1]
        for key, value in {
            "0008|0060": "MR", "0020|000d": "1.2.826.0.1.3680043.2.1125.9", "0020|000e": series,
            "0020|0013": str(z + 1),
            "0008|0018": f"{series}.{z + 1}", "0020|0037": "1\\0\\0\\0\\1\\0", "0018|0050": str(image.GetSpacing()[2]),
            "0020|0032": "\\".join(map(str, image.TransformIndexToPhysicalPoint((0, 0, z)))),
        }.items():  # fmt: skip
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{series[-1]}_{(z * 3) % 7}.dcm"))  # names in no order
        writer.Execute(one)
    locale.setlocale(locale.LC_ALL, before)
    return folder


# ── what is read


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_format_holds_the_same(suffix: str, packed: bool, kind: type, tmp_path: Path) -> None:
    path = tmp_path / f"v[1] x{suffix}"
    sitk.WriteImage(volume(kind), str(path), useCompression=packed)
    image = read(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(volume(kind)))
    assert image.GetSpacing() == pytest.approx((1.5, 1.5, 4.0))
    assert image.GetOrigin() == pytest.approx((3.0, -5.0, 7.0))


def test_a_dicom_series_is_a_volume(tmp_path: Path) -> None:
    image = read(dicom(tmp_path / "series", volume()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(volume()))
    assert image.GetSpacing() == pytest.approx((1.5, 1.5, 4.0))
    assert image.GetOrigin() == pytest.approx((3.0, -5.0, 7.0))


def test_two_series_in_a_folder_or_none_are_refused(tmp_path: Path) -> None:
    dicom(tmp_path / "two", volume())
    assert "2 DICOM series; keep one per folder" in refused(
        dicom(tmp_path / "two", volume(), "1.2.826.0.1.3680043.2.1125.2")
    )
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme.txt").write_text("no series")
    assert refused(tmp_path / "none") == "no DICOM series in this folder"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_4d_is_read_where_it_is_one_volume(suffix: str, tmp_path: Path) -> None:
    sitk.WriteImage(sitk.JoinSeries([volume()]), str(tmp_path / f"one{suffix}"))
    assert read(tmp_path / f"one{suffix}").GetSize() == (8, 9, 4)
    sitk.WriteImage(sitk.JoinSeries([volume()] * 3), str(tmp_path / f"many{suffix}"))
    assert refused(tmp_path / f"many{suffix}").startswith("4 dimensions, 3 volumes; ")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_colour_and_complex_images_are_refused(suffix: str, tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Compose([sitk.Cast(volume(), sitk.sitkUInt8)] * 3), str(tmp_path / f"rgb{suffix}"))
    assert refused(tmp_path / f"rgb{suffix}").startswith("3 values per pixel (a colour image); ")
    sitk.WriteImage(sitk.Compose([volume(np.float32)] * 2), str(tmp_path / f"two{suffix}"))
    assert "values" in refused(tmp_path / f"two{suffix}")
    if suffix == ".nii.gz":
        real = volume(np.float32)
        sitk.WriteImage(sitk.RealAndImaginaryToComplex(real, real), str(tmp_path / "complex.nii.gz"))
        assert refused(tmp_path / "complex.nii.gz").startswith("complex values; ")


# ── what is refused


_CUT = "truncated: "
_SPACING = "its header gives a spacing of "


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("a.nii", lambda b: b[:-1], _CUT),
        ("a.nii.gz", lambda b: b[:-1], "damaged or truncated (Compressed file ended"),
        ("a.nii.gz", lambda b: gzip.compress(gzip.decompress(b)[:-1]), _CUT),
        ("a.nii", field(80, "<f", 0.0), f"{_SPACING}0 mm"),
        ("a.nii", field(84, "<f", float("nan")), f"{_SPACING}nan mm"),
        ("a.nii", field(88, "<f", -4.0), f"{_SPACING}-4 mm"),
        ("a.nii", field(80, "<f", 1e38), f"{_SPACING}1e+38 mm"),
        ("a.nii", field(42, "<h", -8), "its header gives impossible sizes "),
        ("a.nii", field(40, "<h", 0), "its header gives impossible sizes "),
        ("a.nii", field(70, "<h", 1), "its header is damaged (datatype or offset)"),
        ("a.nii", field(108, "<f", 0.0), "its header is damaged (datatype or offset)"),
        ("a.nii", lambda b: b[4:], "has no NIfTI header"),
        ("a.nii.gz", lambda b: b[4:], "is neither gzip nor a known image"),
        ("a.nii", field(344, "<4s", b"ni1"), "its header is damaged, or belongs to a pair"),
        ("a.mha", lambda b: b[:-1], _CUT),
        ("a.mha", swap("Spacing = 1.5", "Spacing = 0"), f"not readable as an image: {_SPACING}0 mm"),
        ("a.mha", swap("Spacing = 1.5", "Spacing = 1e300"), f"{_SPACING}1e+300 mm"),
        ("a.mha", swap("DimSize = 8", "DimSize = 0"), "its header gives impossible sizes [0, 9, 4]"),
        ("a.mha", swap("DimSize = 8", "DimSize = -8"), "its header gives impossible sizes [-8, 9, 4]"),
        ("a.mha", swap("DimSize = 8 9 4", "DimSize = 8 9"), "its header is damaged (DimSize)"),
        ("a.mha", swap("NDims = 3", "NDims = 99"), "its header is damaged (NDims)"),
        ("a.mha", swap("NDims = 3", "NDims = 3.4e+38"), "its header is damaged (NDims)"),
        ("a.mha", swap("Matrix = 1 0", "Matrix = 1"), "its header is damaged (TransformMatrix)"),
        ("a.mha", swap("Matrix = 1 0 0 0 1 0", "Matrix = 1 0 0 1 0 0"), "not readable as an image: its header gives "
         "directions that do not span a volume"),
        ("a.mha", swap("DataFile = LOCAL", "DataFile ="), "its header is damaged (ElementDataFile)"),
        ("a.mhd", swap("= a.raw", "= b.raw"), "its values are missing: "),
        ("a.nrrd", lambda b: b[:-1], _CUT),
        ("a.nrrd", swap("sizes: 8", "sizes: 0"), "its header gives impossible sizes [0, 9, 4]"),
        ("a.nrrd", swap("kinds:", "kinds: " + "x" * 3000), "its header is damaged (kinds: xxx"),
        ("a.nrrd", swap("kinds:", "x" * 3000), "its header is damaged (xxx"),
        ("a.nrrd", swap("type: short", "type: shirt"), "not readable as an image: "),
        ("a.nhdr", swap("data file: a.raw", "data file: b.raw"), "its values are missing: no file 'b.raw' in its"),
        ("a.mhd", swap("DataFile = a.raw", "DataFile = " + "x" * 5000), "its values are missing: no file 'xxx"),
        ("a.mhd", swap("DataFile = a.raw", "DataFile = a\0.raw"), "its values are missing: no file 'a"),
        ("a.mha", swap("DataFile = LOCAL", "DataFile = LIST"), "its values are in several files"),
        ("a.mhd", swap("DataFile = a.raw", "DataFile = %03d.raw 1 9 0"), "its values are in several files"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_with_the_reason(name: str, edit: Edit, message: str, tmp_path: Path) -> None:
    assert refused(edited(tmp_path, name, edit)).startswith(message)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nii.gz"])
@pytest.mark.parametrize("byte", [0.5, 0.98])
def test_a_wrong_byte_in_packed_values_is_noticed(name: str, byte: float, tmp_path: Path) -> None:
    """ITK hands out whatever was in memory where a packed MetaImage breaks off."""
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(0, 1000, (4, 9, 8)).astype(np.int16))

    def edit(content: bytes) -> bytes:
        at = int(len(content) * byte)
        return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]

    assert "damaged" in refused(edited(tmp_path, name, edit, image, packed=True))


@pytest.mark.parametrize(
    ("name", "packed", "edit"),
    [
        ("a.mha", False, swap("DimSize = 8 9 4", "DimSize = 3000 3000 200")),
        ("a.mha", True, swap("DimSize = 8 9 4", "DimSize = 3000 3000 200")),
        ("a.nrrd", False, swap("sizes: 8 9 4", "sizes: 3000 3000 200")),
        ("a.nrrd", True, swap("sizes: 8 9 4", "sizes: 3000 3000 200")),
        ("a.nii", False, field(42, "<3h", 3000, 3000, 200)),
        ("a.nii.gz", False, lambda b: gzip.compress(field(42, "<3h", 3000, 3000, 200)(gzip.decompress(b)))),
        ("a.nii.gz", False, lambda b: gzip.compress(gzip.decompress(b) + bytes(1 << 28), 1)),  # read, but never kept
    ],
)
def test_memory_is_that_of_what_is_there_not_of_what_is_promised(
    name: str, packed: bool, edit: Edit, tmp_path: Path
) -> None:
    path = edited(tmp_path, name, edit, packed=packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        assert read(path).GetSize() == (8, 9, 4)
    except UserError as error:
        assert _CUT in str(error)  # noqa: PT017
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB; 3.6 GB are promised"


def test_packed_values_are_as_many_as_promised(tmp_path: Path) -> None:
    path = edited(tmp_path, "a.mha", swap("DimSize = 8 9 4", "DimSize = 8 9 3"), packed=True)
    assert refused(path).startswith("damaged (more values than its header says)")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_cannot_be_calculated_with_are_refused(value: float, suffix: str, tmp_path: Path) -> None:
    """ITK turns NaN in a NIfTI file into 0; float64 may hold what float32 cannot."""
    image = volume(np.float64)
    image[3, 3, 3] = value
    sitk.WriteImage(image, str(tmp_path / f"i{suffix}"))
    sitk.WriteImage(volume(np.uint8), str(tmp_path / "m.nii"))
    with pytest.raises(UserError, match="not finite" if value != 1e300 else "too large for an image"):
        read_whole([tmp_path / f"i{suffix}"], tmp_path / "m.nii")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:, :, 1:], "size 8×9×3 differs from its image's 8×9×4"),
        (lambda m: m.SetSpacing((1.5, 1.5, 4.2)), "spacing 1.5×1.5×4.2 mm differs from its image's 1.5×1.5×4 mm"),
        (lambda m: m.SetOrigin((3.0, -5.0, 8.0)), "lies up to 1 mm off its image"),
        (lambda m: m.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1)), "off its image (origin or direction differ)"),
        (lambda m: sitk.Cast(m, sitk.sitkFloat32) * 0.5, "has values that are not labels (0.5"),
        (lambda m: sitk.Cast(m, sitk.sitkInt16) * -1, "has values that are not labels (-96, -95, -94, …)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    change: Callable[[sitk.Image], sitk.Image | None], message: str, tmp_path: Path
) -> None:
    mask = volume(np.uint8)
    changed = change(mask)
    sitk.WriteImage(volume(), str(tmp_path / "i.nii"))
    sitk.WriteImage(mask if changed is None else changed, str(tmp_path / "m.nii"))
    with pytest.raises(UserError) as caught:
        read_whole([tmp_path / "i.nii"], tmp_path / "m.nii")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / 'm.nii'}: ")
    assert message in problem


def test_rounding_in_a_header_is_no_disagreement(tmp_path: Path) -> None:
    mask = volume(np.uint8)
    mask.SetOrigin((3.00004, -5.0, 7.0))
    mask.SetSpacing((1.5001, 1.5, 4.0))
    sitk.WriteImage(volume(), str(tmp_path / "i.nii"))
    sitk.WriteImage(mask, str(tmp_path / "m.mha"))
    read_whole([tmp_path / "i.nii"], tmp_path / "m.mha")


@pytest.mark.parametrize(("slope", "stored"), [(1 / 255, 255), (1 / 3, 3), (1 / 7, 7), (0.1, 10)])
def test_labels_kept_with_a_slope_are_labels(slope: float, stored: int, tmp_path: Path) -> None:
    """255 times the float32 next to 1/255 is 1.00000003."""
    labels = (np.arange(4 * 9 * 8).reshape(4, 9, 8) % 2).astype(np.uint8)
    path = edited(tmp_path, "m.nii", field(112, "<f", slope), sitk.GetImageFromArray(labels * np.uint8(stored)))
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / "i.nii"))
    _, mask = read_whole([tmp_path / "i.nii"], path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), labels)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5"), (2.998, "2.998"), (-1.0, "-1"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_values_that_are_no_labels_are_named_with_the_remedy(value: float, shown: str, tmp_path: Path) -> None:
    values = np.ones((4, 9, 8), np.float32)
    values[2, 3, 4] = value
    for name, array in (("i.nii", np.ones((4, 9, 8), np.uint8)), ("m.nii", values)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
    with pytest.raises(UserError) as caught:
        read_whole([tmp_path / "i.nii"], tmp_path / "m.nii")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / 'm.nii'}: has values that are not labels ({shown}); ")
    assert "write it as integers" in problem


# ── what ITK would not notice


@pytest.mark.parametrize("suffix", [".vtk", ".gipl", ".gipl.gz", ".mrc", ".h5", ".jpg", ".nii.dat", ".nrrd.dat"])
@pytest.mark.parametrize("cut", [0, 9])
def test_a_format_of_which_nobody_knows_whether_it_is_whole_is_refused(suffix: str, cut: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    written = path.with_suffix("") if suffix.endswith(".dat") else path
    sitk.WriteImage(volume(np.uint8)[:, :, 0] if suffix == ".jpg" else volume(np.int16), str(written))
    path.write_bytes(written.read_bytes()[: -cut or None])
    assert re.search("convert it to NIfTI|rename it to a.n", refused(path))


def test_a_picture_without_spacing_says_so(tmp_path: Path) -> None:
    flat = volume(np.uint8)[:, :, 0]
    for suffix in (".png", ".tif"):
        for spacing, said in ((1.0, suffix == ".tif"), (0.5, True)):  # of PNG, ITK does not write 1 mm
            flat.SetSpacing((spacing, spacing))
            sitk.WriteImage(flat, str(tmp_path / f"a{suffix}"))
            assert has_spacing(read(tmp_path / f"a{suffix}")) == said
        content = (tmp_path / f"a{suffix}").read_bytes()
        (tmp_path / f"a{suffix}").write_bytes(content[:-40])
        refused(tmp_path / f"a{suffix}")


def text_image(path: Path, lines: str, values: bytes) -> Path:
    nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 3 2\nencoding: raw\n{}\n\n"
    meta = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\n{}\nElementType = MET_UCHAR\nElementDataFile = {}\n"
    beside = path.with_suffix(".raw")
    if path.suffix == ".nrrd":
        path.write_bytes(nrrd.format(lines).encode() + values)
    else:
        path.write_text(meta.format(lines, beside.name))
        beside.write_bytes(values)
    return path


_GRID = "space: left-posterior-superior\nspace directions: (2,0,0) (0,2,0) (0,0,4)"
_UNIT = "\nspace units: "


@pytest.mark.parametrize(
    ("name", "lines", "extra", "message"),
    [
        ("a.nrrd", _GRID, 0, ""),
        ("a.nrrd", f'{_GRID}{_UNIT}"mm" "mm" "mm"', 0, ""),
        ("a.nrrd", "spacings: 2 2 4", 0, ""),
        ("a.nrrd", "spacings: 2 2 nan", 0, "its header gives no spacing"),
        ("a.nrrd", "content: x", 0, "its header gives no spacing"),
        ("a.nrrd", f'{_GRID}{_UNIT}"cm" "cm" "cm"', 0, "its header gives the spacing in 'cm'"),
        ("a.nrrd", f'{_GRID}{_UNIT}"mm" "mm" "um"', 0, "its header gives the spacing in 'um'"),
        ("a.nrrd", 'spacings: 2 2 4\nunits: "m" "m" "m"', 0, "its header gives the spacing in 'm'"),
        ("a.nrrd", _GRID, 7, "longer than its header says: 31 bytes for 24"),
        ("a.nrrd", f"{_GRID}\nbyte skip: 7", 7, ""),
        ("a.nrrd", f"{_GRID}\nbyte skip: -1", 7, ""),
        ("a.mhd", "ElementSpacing = 2 2 4", 0, ""),
        ("a.mhd", "ElementSize = 2 2 4", 0, ""),
        ("a.mhd", "Comment = x", 0, "its header gives no spacing"),
        ("a.mhd", "ElementSpacing = 2 2 4", 7, "longer than its header says: 31 bytes for 24"),
        ("a.mhd", "ElementSpacing = 2 2 4\nHeaderSize = 7", 7, ""),
        ("a.mhd", "ElementSpacing = 2 2 4\nHeaderSize = -1", 7, ""),
        ("a.mhd", "ElementSpacing = 2 2 4\nHeaderSize = 7", 6, "truncated: 23 bytes"),
    ],
)  # fmt: skip
def test_the_grid_is_that_of_the_header_or_refused(
    name: str, lines: str, extra: int, message: str, tmp_path: Path
) -> None:
    path = text_image(tmp_path / name, lines, bytes(extra) + bytes(range(24)))
    if message:
        assert refused(path).startswith(message)
    else:
        image = read(path)
        assert image.GetSpacing() == (2, 2, 4)
        assert sitk.GetArrayFromImage(image).ravel().tolist() == list(range(24))


@pytest.mark.parametrize("value", [0.0005, 1e-9])
def test_a_label_that_would_become_0_is_refused(value: float, tmp_path: Path) -> None:
    sitk.WriteImage(volume(np.float32), str(tmp_path / "i.nrrd"))
    sitk.WriteImage(sitk.Cast(volume(np.int16) > 5, sitk.sitkFloat32) * value, str(tmp_path / "m.nrrd"))
    with pytest.raises(UserError, match="has values that are not labels"):
        read_whole([tmp_path / "i.nrrd"], tmp_path / "m.nrrd")
