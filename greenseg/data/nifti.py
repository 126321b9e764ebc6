"""What is wrong with a NIfTI file that ITK reads without a word.

ITK fills a file that was cut short with zeros, takes 1 mm for a spacing of 0 or NaN, and turns NaN into 0. A joule or a
Dice must not rest on that, so the header and the values are looked at first. Layout of the headers: nifti1.h and
nifti2.h of https://nifti.nimh.nih.gov.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 1536: 16, 1792: 16}
"""Datatype code → bytes a pixel."""
_FLOATS = {16: "f4", 64: "f8"}
_CHUNK = 1 << 22  # bytes looked at together


def problem_of(path: Path) -> str | None:
    """What is wrong with a `.nii` or `.nii.gz` file, or None. It is read once, in little memory, whatever it promises.

    Raises:
        OSError: the file cannot be opened.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return _problem(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"damaged or cut short ({error}); copy it again"


def _problem(file: BinaryIO | gzip.GzipFile) -> str | None:
    header = file.read(544)
    for order in "<>":
        if len(header) >= 352 and struct.unpack_from(f"{order}i", header)[0] == 348:
            dims = struct.unpack_from(f"{order}8h", header, 40)
            datatype = struct.unpack_from(f"{order}h", header, 70)[0]
            pixdim = struct.unpack_from(f"{order}8f", header, 76)
            start = struct.unpack_from(f"{order}f", header, 108)[0]
            break
        if len(header) >= 544 and struct.unpack_from(f"{order}i", header)[0] == 540:
            dims = struct.unpack_from(f"{order}8q", header, 16)
            datatype = struct.unpack_from(f"{order}h", header, 12)[0]
            pixdim = struct.unpack_from(f"{order}8d", header, 104)
            start = float(struct.unpack_from(f"{order}q", header, 168)[0])
            break
    else:
        return "has no NIfTI header"
    sizes = dims[1 : dims[0] + 1]
    if not 1 <= dims[0] <= 7 or min(sizes) < 1:
        return f"its header gives impossible sizes {list(dims)}"
    bad = [value for value in pixdim[1 : min(dims[0], 3) + 1] if not (math.isfinite(value) and value > 0)]
    if bad:
        return f"its header gives a spacing of {bad[0]:g} mm"
    if datatype not in _BYTES or not 352 <= start < math.inf:
        return "its header is damaged (datatype or offset)"
    promised = math.prod(sizes) * _BYTES[datatype]
    file.seek(0)
    _skip(file, int(start))
    found, finite = 0, True
    while chunk := file.read(_CHUNK):  # to the end, where gzip keeps its checksum
        within = chunk[: max(promised - found, 0)]
        found += len(chunk)
        if finite and datatype in _FLOATS:
            whole = len(within) - len(within) % _BYTES[datatype]
            finite = bool(np.isfinite(np.frombuffer(within[:whole], f"{order}{_FLOATS[datatype]}")).all())
    if found < promised:
        return f"cut short: {found} bytes for {'×'.join(map(str, sizes))} pixels of {_BYTES[datatype]}; copy it again"
    return None if finite else "holds values that are not finite (NaN or infinity)"


def _skip(file: BinaryIO | gzip.GzipFile, count: int) -> None:
    while count > 0 and (skipped := file.read(min(count, _CHUNK))):
        count -= len(skipped)
