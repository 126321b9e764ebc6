"""Reading NIfTI-1, NIfTI-2 and Analyze 7.5, in one file or two.

ITK reads no NIfTI-2, fills a truncated file with zeros, turns NaN into 0, reads a spacing of 0 as 1 mm, and picks sform
or qform if they disagree. nibabel reads the headers. The values are read once, up to the checksum at the end of a gzip
file. Meaning of the fields: nifti1.h and nifti2.h of https://nifti.nimh.nih.gov.
"""

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import SimpleITK as sitk

from greenseg.data.header import Matrix, problem_of_content, problem_of_grid
from greenseg.data.placement import FLAT
from greenseg.errors import UserError

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")

_CHUNK = 1 << 22  # bytes read together
_LARGEST_OFFSET = 1 << 31  # of the values; a larger one means a damaged header
_UNITS = {1: 1e3, 3: 1e-3}  # code of metres, of micrometres → mm
_TURN = 1e-3  # radians; rounding error of a float32 quaternion near half a turn
_SAME_PLACE = 0.1  # pixels
_SAME_SPACING = 1e-2  # relative

Values = np.ndarray[tuple[int, ...], np.dtype[Any]]


def files_of(path: Path) -> tuple[Path, Path]:
    """The files of header and values: the same file, or `.hdr` and `.img`, if `path` is one of the two."""
    pair = re.fullmatch(r"(.*\.)(hdr|img)(\.gz)?", path.name, re.IGNORECASE | re.DOTALL)
    if not pair:
        return path, path
    header, values = (ending.upper() if pair[2].isupper() else ending for ending in ("hdr", "img"))
    return path.with_name(f"{pair[1]}{header}{pair[3] or ''}"), path.with_name(f"{pair[1]}{values}{pair[3] or ''}")


def read(path: Path) -> sitk.Image:
    """The image in the axes of the file, with two or three axes, scaled by its slope if it has one.

    A 2D image gets a third axis with one slice if its header has its orientation in space; see `placement.FLAT`.

    Raises:
        UserError: no such file, truncated, damaged, not one grey volume, or its header contradicts itself.
        OSError: a file cannot be read.
    """
    header_file, values_file = files_of(path)
    try:
        with _opened(header_file) as file:
            header, is_nifti = _header(file.read(544), header_file == values_file)
        sizes, kind, start = _layout(header, 352 if header_file == values_file else 0)
        with np.errstate(over="ignore", invalid="ignore"):  # such numbers are refused below
            spacing, origin, directions = _grid(header, sizes, is_nifti)
        with _opened(values_file) as file:
            values = _values(file, start, sizes, kind)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged or truncated ({error}); copy it again") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    scaled = _scaled(values, header) if is_nifti else values
    is_flat = scaled.ndim < len(spacing)
    image = sitk.GetImageFromArray(scaled[None] if is_flat else scaled)
    if is_flat:
        image.SetMetaData(FLAT, "yes")
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(directions.ravel().tolist())
    return image


def mask_like(path: Path, values: Values, largest: int) -> bytes:
    """An image of classes or probabilities as the bytes of a NIfTI file, with the geometry of another file.

    The header is copied from that file: sform, qform and their codes, pixel sizes and units. An Analyze file has
    only pixel sizes.

    Args:
        path: the file with the geometry, NIfTI or Analyze.
        values: [slice, y, x] or [y, x] in the axes of that file, uint8, uint16 or float32.
        largest: largest value to expect, for viewers.
    """
    from nibabel.nifti1 import Nifti1Header, Nifti1Image
    from nibabel.nifti2 import Nifti2Header, Nifti2Image

    header_file, values_file = files_of(path)
    with _opened(header_file) as file:
        header, is_nifti = _header(file.read(544), header_file == values_file)
    made = Nifti2Header if isinstance(header, Nifti2Header) else Nifti1Header
    result = made(endianness=header.endianness)
    rank = int(header["dim"][0])
    names = ["pixdim", "dim", "xyzt_units"] if is_nifti else ["dim"]
    if is_nifti:
        names += [n for n in header if n.startswith(("qform", "sform", "quatern", "qoffset", "srow", "slice_"))]
    for name in names:
        if name in result:
            result[name] = header[name]
    if not is_nifti:
        result["pixdim"][1 : rank + 1] = header["pixdim"][1 : rank + 1]
    result["cal_max"], result["descrip"] = largest, b"greenseg"
    result.set_data_dtype(values.dtype)
    kind = Nifti2Image if made is Nifti2Header else Nifti1Image
    shape = tuple(int(n) for n in header["dim"][1 : rank + 1])
    return kind(values.T.reshape(shape, order="F"), None, result).to_bytes()  # type: ignore[no-any-return]


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _header(head: bytes, is_single: bool) -> tuple[Any, bool]:
    """nibabel's header, and whether it is NIfTI rather than Analyze. A ValueError has the problem."""
    from nibabel.nifti1 import Nifti1Header  # as slow as SimpleITK, so imported only to read a file
    from nibabel.nifti2 import Nifti2Header

    known = {348: (Nifti1Header, head[344:348]), 540: (Nifti2Header, head[4:8])}
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        size = int.from_bytes(head[:4], order)
        if size in known and len(head) >= size:
            kind, magic = known[size]
            is_nifti = magic in (b"n+1\0", b"n+2\0", b"ni1\0", b"ni2\0")
            if is_single and magic[1:2] != b"+":
                raise ValueError("its header is damaged, or belongs to a pair of files with .hdr and .img")
            if is_nifti or size == 348:
                return kind(head[:size], order, check=False), is_nifti
    raise ValueError("has no NIfTI header" if is_single else "has no NIfTI or Analyze header")


def _layout(header: Any, first: int) -> tuple[list[int], np.dtype[Any], int]:
    """Sizes of the two or three axes, pixel type, and start of the values, which is at least `first`."""
    from nibabel.spatialimages import HeaderDataError

    dims = header["dim"].tolist()
    if not 1 <= dims[0] <= 7:
        raise ValueError(f"its header gives impossible sizes {dims}")
    sizes = dims[1 : dims[0] + 1]
    try:
        kind = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        kind = np.dtype("V")
    start = float(header["vox_offset"])
    if (kind.kind == "V" and not kind.fields) or not first <= start <= _LARGEST_OFFSET:
        raise ValueError("its header is damaged (datatype or offset)")
    components = len(kind.fields) if kind.fields else max([1, *sizes[4:5]])
    if problem := problem_of_content(sizes, components, kind.kind == "c"):
        raise ValueError(problem)
    return sizes[:3], kind, int(start)


def _grid(header: Any, sizes: Sequence[int], is_nifti: bool) -> tuple[list[float], list[float], Matrix]:
    """Spacing, origin and directions in ITK's convention: in mm, x to the left, y to the back.

    Without a position in the header, the image is at 0 along the axes, as in ITK.
    """
    axes = len(sizes)
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, 1.0) if is_nifti else 1.0
    spacing = [float(s) * unit for s in header["pixdim"][1 : axes + 1]]
    if problem := problem_of_grid(spacing, np.eye(axes)):
        raise ValueError(problem)
    affine = _affine(header, sizes, unit) if is_nifti else None
    if affine is None:
        return spacing, [0.0] * axes, np.eye(axes)
    affine = np.diag((-1, -1, 1, 1)) @ affine
    lengths = np.linalg.norm(affine[:3, :axes], axis=0)
    if not np.abs(lengths / spacing - 1).max() <= _SAME_SPACING:  # so that NaN is refused
        by_sform, by_pixdim = ("×".join(f"{s:.4g}" for s in each) for each in (lengths, spacing))
        raise ValueError(
            f"its sform gives a spacing of {by_sform} mm, its pixdim {by_pixdim} mm; find out which is right, and "
            "write it into both"
        )
    # Rounded, since ITK rejects numbers close to 0; + 0.0: never -0.0.
    directions, origin = np.round(affine[:3, :axes] / lengths, 12) + 0.0, affine[:3, 3] + 0.0
    if axes == 2:  # a 2D image has an orientation in space, too
        normal = np.cross(directions[:, 0], directions[:, 1])
        directions = np.column_stack([directions, np.round(normal / np.linalg.norm(normal), 12) + 0.0])
        spacing.append(1.0)
    if problem := problem_of_grid(spacing, directions):
        raise ValueError(problem)
    return spacing, origin.tolist(), directions


def _affine(header: Any, sizes: Sequence[int], unit: float) -> Matrix | None:
    """Indices → mm, x to the right and y to the front, by sform or qform; None if the header has neither."""
    to_mm = np.diag((unit, unit, unit, 1))
    sform: Matrix | None = to_mm @ header.get_sform() if header["sform_code"] > 0 else None
    qform: Matrix | None = to_mm @ _qform(header, len(sizes)) if header["qform_code"] > 0 else None
    for name, affine in (("sform", sform), ("qform", qform)):
        if affine is not None and not np.isfinite(affine).all():
            raise ValueError(f"its header is damaged ({name})")
    if sform is None or qform is None:
        return qform if sform is None else sform
    last = np.array([*sizes, 1])[:3] - 1
    corners = np.array([[*corner, 1] for corner in product(*((0, n) for n in last))])
    apart = float(np.linalg.norm((sform - qform) @ corners.T, axis=0).max())
    pixel = np.linalg.norm(qform[:3, : len(sizes)], axis=0)
    if not apart <= max(_SAME_PLACE * pixel.min(), _TURN * float(np.linalg.norm(last[: len(sizes)] * pixel))):
        of_sform, of_qform = (
            f"code {header[f'{n}_code']}, axes {_axes(a)}" for n, a in (("sform", sform), ("qform", qform))
        )
        raise ValueError(
            f"its sform ({of_sform}) and its qform ({of_qform}) disagree, by up to {apart:.3g} mm; find out which is "
            f"right, and copy it over the other: fslorient -copysform2qform or -copyqform2sform"
        )
    return sform


def _qform(header: Any, axes: int) -> Matrix:
    """The affine of the quaternion. nibabel needs a length of at most 1, and no zeros in unused fields."""
    quaternion = np.array([float(header[f"quatern_{name}"]) for name in "bcd"])
    length = float(np.linalg.norm(quaternion))
    if not length < 1 + _TURN:
        raise ValueError("its header is damaged (qform)")
    for name, value in zip("bcd", quaternion / max(1.0, length), strict=True):
        header[f"quatern_{name}"] = value
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    header["pixdim"][axes + 1 : 4] = 1
    return np.asarray(header.get_qform(), float)


def _axes(affine: Matrix) -> str:
    """The orientation of the axes by its DICOM name, such as LPS."""
    directions = (np.diag((-1.0, -1.0, 1.0)) @ affine[:3, :3]).ravel().tolist()
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(directions))


def _values(file: BinaryIO | gzip.GzipFile, start: int, sizes: Sequence[int], kind: np.dtype[Any]) -> Values:
    """The pixels, [slice, y, x]. Memory use follows the bytes in the file, not the sizes in the header."""
    while start > 0 and (skipped := file.read(min(start, _CHUNK))):
        start -= len(skipped)
    promised, found = math.prod(sizes) * kind.itemsize, bytearray()
    while chunk := file.read(_CHUNK):  # to the end, where gzip has its checksum
        if len(found) < promised:
            found += chunk[: promised - len(found)]
    if len(found) < promised:
        shown = "×".join(map(str, sizes))
        raise ValueError(f"truncated: {len(found)} bytes for {shown} pixels of {kind.itemsize}; copy it again")
    values = np.frombuffer(found, kind).reshape(sizes[::-1])
    native = np.dtype(np.float64) if kind.kind == "f" and kind.itemsize > 8 else kind.newbyteorder("=")
    return values.astype(native, copy=False)


def _scaled(values: Values, header: Any) -> Values:
    """The pixels with slope and intercept applied; a slope of 0 or no slope changes nothing."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    intercept = intercept if math.isfinite(intercept) else 0.0
    if not math.isfinite(slope) or slope == 0 or (slope, intercept) == (1, 0):
        return values
    with np.errstate(over="ignore"):  # infinity is reported later
        scaled = values * np.float64(slope) + intercept
        return scaled if values.dtype == np.float64 else scaled.astype(np.float32)
