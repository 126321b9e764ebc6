"""A DICOM series is a volume only where its slices make one; else its fault is named, with the files at its place."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from greenseg.data.volume import read
from greenseg.errors import UserError

Edit = Callable[[Path], object]
SIZE = (8, 9, 10)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def series(folder: Path, distance: float = 4.0, **fields: Any) -> Path:
    """Eight axial slices, IM0 at 7 mm … IM7."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SIZE[0]):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = MRImageStorage
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.{number + 1}")
        d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality, d.InstanceNumber = "1.2.3", "1.2.3.4", "MR", number + 1
        d.ImagePositionPatient = [3, -5, 7 + distance * number]
        d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        d.PixelSpacing, d.SliceThickness, d.EchoNumbers = [1.5, 1.5], 4, 1
        d.Rows, d.Columns = SIZE[1:]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation = 15, 1
        d.PixelData = (np.arange(90) % 19 + number).astype("<i2").tobytes()
        for name, value in fields.items():
            setattr(d, name, value)
        d.save_as(folder / f"IM{number}", enforce_file_format=True)
    return folder


def edit(folder: Path, number: int, name: str = "", **fields: Any) -> None:
    """Change a slice, or write the changed one under another name."""
    d = pydicom.dcmread(folder / f"IM{number}")
    for field, value in fields.items():
        if value is None:
            delattr(d, field)
        else:
            setattr(d, field, value)
    d.save_as(folder / (name or f"IM{number}"), enforce_file_format=True)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{folder}: ")
    return problem.removeprefix(f"{folder}: ")


def echoes(folder: Path) -> None:
    for number in range(SIZE[0]):
        edit(folder, number, f"E2_{number}", EchoNumbers=2, SOPInstanceUID=f"1.2.3.5.{number + 1}")


@pytest.mark.parametrize("distance", [4.0, 0.021, 100.0])
@pytest.mark.parametrize("rounding", [0.0, 0.01])
def test_evenly_spaced_slices_are_a_volume(distance: float, rounding: float, tmp_path: Path) -> None:
    folder = series(tmp_path / "s", distance, PixelSpacing=[distance / 2] * 2)
    edit(folder, 3, ImagePositionPatient=[3, -5, 7 + 3 * distance * (1 + rounding)])
    image = read(folder)
    assert image.GetSize() == (10, 9, 8)
    assert image.GetSpacing()[2] == pytest.approx(distance)


def test_a_single_slice_is_a_volume(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    for number in range(1, SIZE[0]):
        (folder / f"IM{number}").unlink()
    assert read(folder).GetSize() == (10, 9, 1)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ([3], ["1 slice is missing: 8 mm between IM2 (at 15 mm) and IM4 (at 23 mm), 4 mm otherwise"]),
        ([1, 5], ["2 slices are missing: 8 mm between IM0 (at 7 mm) and IM2", "8 mm between IM4 (at 23 mm) and IM6"]),
        ([2, 3], ["2 slices are missing: 12 mm between IM1 (at 11 mm) and IM4 (at 23 mm), 4 mm otherwise"]),
        ([1, 4, 5, 6, 7], ["1 slice is missing: 8 mm between IM0"]),  # of two distances the smaller is the usual one
    ],
)
def test_a_missing_slice_is_named_with_its_place(gone: list[int], words: list[str], tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    for number in gone:
        (folder / f"IM{number}").unlink()
    said = refused(folder)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: edit(f, 3, ImagePositionPatient=[3, -5, 20.5]),
         ["not evenly spaced: 5.5 mm between IM2 (at 15 mm) and IM3 (at 20.5 mm), 2.5 mm between IM3", "4 mm other"]),
        (lambda f: edit(f, 3, "copy"), ["IM3", "copy", "at the same position (copies of one image); "]),
        (echoes, ["IM0", "E2_0", "at the same position (EchoNumbers 2 and 1), and so are 7 more"]),
        (lambda f: edit(f, 3, "again", SOPInstanceUID="1.2.3.9", AcquisitionNumber=2, ImagePositionPatient=[3, -5, 19]),
         ["IM3", "again", "are at the same position"]),
        (lambda f: edit(f, 4, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), ["IM4", "differ in orientation"]),
        (lambda f: edit(f, 2, PixelSpacing=[1.6, 1.6]), ["IM2", "differ in spacing of pixels (1.5\\1.5, 1.6\\1.6)"]),
        (lambda f: edit(f, 2, Rows=10, Columns=9), ["slices of different sizes: 10×9 (IM0), 9×10 (IM2)"]),
        (lambda f: edit(f, 2, PixelSpacing=None), ["IM2: its header gives no PixelSpacing", "convert it to NIfTI"]),
        (lambda f: edit(f, 2, PixelSpacing=[0, 0]), ["IM2: its header gives a PixelSpacing of 0"]),
        (lambda f: edit(f, 5, NumberOfFrames=2, PixelData=bytes(360)), ["IM5: a DICOM file with several frames"]),
        (lambda f: edit(f, 3, ImagePositionPatient=[13, -5, 19]), ["sheared", "IM0 and IM3", "at 50.19°, not at 90°"]),
        (lambda f: lean(f, 1.5), ["sheared", "IM0 and IM7 are 10.5 mm apart", "at 69.44°, not at 90°; resample"]),
        (lambda f: edit(f, 2, ImagePositionPatient=None), ["IM2 has no position of its slice"]),
        (lambda f: edit(f, 5, SeriesInstanceUID="1.2.3.5"), ["2 DICOM series; keep one per folder"]),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused_with_the_reason(change: Edit, words: list[str], tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    change(folder)
    said = refused(folder)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("as_folder", [True, False])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"PixelSpacing": None}, "its header gives no PixelSpacing"),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.7, 0.7]}, "its header gives no PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, r"its header gives a PixelSpacing of 0"),
        ({"NumberOfFrames": 3, "PixelData": bytes(3 * 180)}, "several frames.*dcm2niix"),
        ({"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 1}, "several frames.*dcm2niix"),
    ],
)
def test_a_single_file_says_how_large_its_pixels_are(
    fields: dict[str, Any], what: str, as_folder: bool, tmp_path: Path
) -> None:
    folder = series(tmp_path / "s")
    edit(folder, 0, **{name: value for name, value in fields.items() if value is not None or name == "PixelSpacing"})
    for number in range(1, SIZE[0]):
        (folder / f"IM{number}").unlink()
    with pytest.raises(UserError, match=what):
        read(folder if as_folder else folder / "IM0")


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"RescaleSlope": 0.5, "RescaleIntercept": 0}, lambda stored: stored / 2),
        ({"RescaleSlope": 5000, "RescaleIntercept": -7}, lambda stored: stored * 5000 - 7),
        ({"RescaleSlope": 1, "RescaleIntercept": 0.25}, lambda stored: stored + 0.25),
        (
            {"PixelRepresentation": 0, "PixelData": np.full(90, 60000, "<u2").tobytes()},
            lambda stored: 0 * stored + 60000,
        ),
    ],
)
@pytest.mark.parametrize("changed", [(7,), range(1, 8), range(8)])
def test_each_slice_has_the_values_that_its_header_says(
    changed: Sequence[int], fields: dict[str, Any], value: Callable[[Any], Any], tmp_path: Path
) -> None:
    """ITK gives all slices the type of the first one: fractions and large values would be lost."""
    folder = series(tmp_path / "s")
    for number in changed:
        edit(folder, number, **fields)
    values = sitk.GetArrayFromImage(read(folder))
    for number in range(SIZE[0]):
        stored = np.arange(90).reshape(9, 10) % 19 + number
        assert np.array_equal(values[number], value(stored) if number in changed else stored)


def lean(folder: Path, by: float) -> None:
    """Move each slice along its plane, as under a tilted gantry; by mm a slice."""
    for number in range(SIZE[0]):
        edit(folder, number, ImagePositionPatient=[3 + by * number, -5, 7 + 4 * number])


def test_slices_that_lean_by_no_more_than_rounding_are_a_volume(tmp_path: Path) -> None:
    lean(series(tmp_path / "s"), 0.007)  # 0.1 degrees
    assert read(tmp_path / "s").GetSize() == (10, 9, 8)


def cut(folder: Path, size: int) -> Path:
    path = folder / "IM7"
    path.write_bytes(path.read_bytes()[:size])
    return path


def unfetched(folder: Path, name: str = "IM7") -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../.git/annex/objects/x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unfetched, ["IM7 cannot be read: a broken link"]),
        (lambda f: unfetched(f, ".#IM7"), [".#IM7 cannot be read: a broken link"]),  # GDCM lists nothing after it
        (lambda f: (f / "IM7").write_bytes(b""), ["IM7 is empty (0 bytes)"]),
        (lambda f: (f / "IM7").write_bytes(LFS), ["IM7 is a git-lfs pointer", "git lfs pull"]),
        (lambda f: (f / "IM7").write_bytes(b"upstream request timeout"), ["IM7 is not readable as DICOM"]),
        (lambda f: (f / "IM7").write_bytes(b"\x1f\x8b"), ["IM7 is compressed with gzip; unpack it"]),
        (lambda f: cut(f, -50), ["IM7 is truncated or damaged"]),
        (lambda f: cut(f, 300), ["IM7 is truncated or damaged"]),
        (lambda f: cut(f, 100), ["IM7 is not readable as DICOM"]),
        (lambda f: cut(f, -50).rename(f / "1.2.840.7"), ["1.2.840.7 is truncated"]),
        (lambda f: [(f / f"IM{n}").write_bytes(LFS) for n in range(8)],
         ["no DICOM series in this folder: IM0 is a git-lfs pointer", "(and 7 more"]),
        (lambda f: (f / "IM7").chmod(0), [] if os.geteuid() == 0 else ["IM7 cannot be read: Permission denied"]),
    ],
)  # fmt: skip
def test_a_slice_that_is_none_is_named(change: Edit, words: list[str], tmp_path: Path) -> None:
    """GDCM leaves it out, and the volume would have a slice less."""
    folder = series(tmp_path / "s")
    change(folder)
    said = refused(folder) if words else ""
    assert all(word in said for word in words), said


def contours(folder: Path, name: str = "RS") -> None:
    uid = RTStructureSetStorage
    edit(folder, 0, name, SOPClassUID=uid, Modality="RTSTRUCT", PixelData=None, Rows=None, Columns=None)
    d = pydicom.dcmread(folder / name)
    d.file_meta.MediaStorageSOPClassUID = uid
    d.save_as(folder / name)


def test_files_beside_the_slices_do_no_harm(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    for name in ("DICOMDIR", "README", "README.md", "a.txt", "a.json", "a.xml", ".DS_Store", "._IM0", "Thumbs.db"):
        (folder / name).write_bytes(b"x" * 99)
    (folder / "more").mkdir()
    contours(folder)
    assert read(folder).GetSize() == (10, 9, 8)


def test_a_folder_without_a_series_says_what_it_holds(tmp_path: Path) -> None:
    folder = series(tmp_path / "below" / "DICOM").parent
    assert "no DICOM series in this folder, but one in DICOM; move" in refused(folder)
    folder = series(tmp_path / "contours")
    contours(folder)
    for number in range(SIZE[0]):
        (folder / f"IM{number}").unlink()
    assert "no DICOM series in this folder: RS is contours (RTSTRUCT); convert" in refused(folder)
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == "no DICOM series in this folder"


def test_a_pipe_among_the_slices_is_named(tmp_path: Path) -> None:
    """GDCM would wait for ever."""
    folder = series(tmp_path)
    os.mkfifo(folder / "IM9.dcm")
    assert "IM9.dcm is not a regular file" in refused(folder)


def test_all_slices_at_one_place(tmp_path: Path) -> None:
    assert "all 8 slices are at the same position" in refused(series(tmp_path / "s", 0.0))


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_dicom_segmentation_is_named_as_such(as_folder: bool, tmp_path: Path) -> None:
    """Its frames are those of its segments, in any order and number: a volume only by chance."""
    folder = series(tmp_path / "s", SOPClassUID=SegmentationStorage)
    for number in range(1, SIZE[0]):
        (folder / f"IM{number}").unlink()
    with pytest.raises(UserError, match=r"a DICOM segmentation \(SEG\).*; convert it, for example with"):
        read(folder if as_folder else folder / "IM0")
