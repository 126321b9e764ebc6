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

import numpy as np

_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 1536: 16, 1792: 16}
"""Datatype code → bytes a pixel."""
_FLOATS = {16: "f4", 64: "f8"}


def problem_of(path: Path) -> str | None:
    """What is wrong with a `.nii` or `.nii.gz` file, or None.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"damaged or cut short ({error}); copy it again"
    for order in "<>":
        if len(content) >= 352 and struct.unpack_from(f"{order}i", content)[0] == 348:
            dims = struct.unpack_from(f"{order}8h", content, 40)
            datatype = struct.unpack_from(f"{order}h", content, 70)[0]
            pixdim = struct.unpack_from(f"{order}8f", content, 76)
            start = struct.unpack_from(f"{order}f", content, 108)[0]
            break
        if len(content) >= 544 and struct.unpack_from(f"{order}i", content)[0] == 540:
            dims = struct.unpack_from(f"{order}8q", content, 16)
            datatype = struct.unpack_from(f"{order}h", content, 12)[0]
            pixdim = struct.unpack_from(f"{order}8d", content, 104)
            start = float(struct.unpack_from(f"{order}q", content, 168)[0])
            break
    else:
        return "has no NIfTI header"
    sizes = dims[1 : dims[0] + 1]
    if not 1 <= dims[0] <= 7 or min(sizes) < 1:
        return f"its header gives impossible sizes {list(dims)}"
    bad = [value for value in pixdim[1 : min(dims[0], 3) + 1] if not (math.isfinite(value) and value > 0)]
    if bad:
        return f"its header gives a spacing of {bad[0]:g} mm"
    count = math.prod(sizes)
    if datatype not in _BYTES or not math.isfinite(start) or not 0 <= start <= len(content):
        return "its header is damaged (datatype or offset)"
    if len(content) - start < count * _BYTES[datatype]:
        return f"cut short: {len(content)} bytes for {'×'.join(map(str, sizes))} pixels; copy it again"
    if datatype in _FLOATS:
        values = np.frombuffer(content, f"{order}{_FLOATS[datatype]}", count, int(start))
        if not np.isfinite(values).all():
            return "holds values that are not finite (NaN or infinity)"
    return None
