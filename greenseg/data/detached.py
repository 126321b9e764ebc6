"""MetaImage and NRRD: location and completeness of the values.

Both have a header in plain text, in the file of the values or beside it. ITK trusts it: it allocates memory by the
header before it reads the values, and returns random memory if a compressed MetaImage is truncated. Formats:
https://itk.org/Wiki/MetaIO/Documentation and https://teem.sourceforge.net/nrrd/format.html.
"""

import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")

_LONGEST_HEADER = 1 << 16
_BYTES = {
    "char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "long": 4, "ulong": 4,
    "longlong": 8, "ulonglong": 8, "float": 4, "double": 8,
    "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
}  # fmt: skip
"""Type → bytes per value, without the prefixes and suffixes of either format."""

_NUMBERS = {
    "DimSize": 1, "ElementSpacing": 1, "ElementSize": 1, "Offset": 1, "Position": 1, "Origin": 1, "CenterOfRotation": 1,
    "TransformMatrix": 2, "Rotation": 2, "Orientation": 2, "HeaderSize": 0, "ElementNumberOfChannels": 0,
    "CompressedDataSize": 0,
}  # fmt: skip
"""Field of a MetaImage → power of the number of dimensions that gives its count of numbers."""


_MM = r"mm|millimet(er|re)s?|\?*"
"""Names of units that mean millimetres or nothing."""


@dataclass(frozen=True)
class _Header:
    fields: dict[str, str]
    end: int  # start of the values, if they are in the same file
    strange: str = ""  # the first line that is not a field, or too long for one

    @property
    def data_file(self) -> str:
        """Name of the file with the values; empty if they follow the header."""
        name = self.fields.get("elementdatafile") or self.fields.get("datafile", "")
        return "" if name.upper() == "LOCAL" else name

    @property
    def sizes(self) -> list[int] | None:
        try:
            sizes = [int(n) for n in (self.fields.get("dimsize") or self.fields["sizes"]).split()]
            return [*sizes, int(self.fields.get("elementnumberofchannels", "1"))]
        except (KeyError, ValueError):
            return None

    @property
    def damaged(self) -> str | None:
        """The first field that would crash ITK: a field with the wrong count of numbers, or a line that is no field."""
        if self.strange:
            return self.strange[:40]
        if self.fields.get("ndims", "3") not in tuple("12345"):
            return "NDims"
        dimensions = int(self.fields.get("ndims", "3"))
        if "ndims" in self.fields and not self.fields.get("elementdatafile"):
            return "ElementDataFile"
        for field, power in _NUMBERS.items():
            if (value := self.fields.get(field.lower())) is not None:
                try:
                    complete = len([float(number) for number in value.split()]) == dimensions**power
                except ValueError:
                    complete = False
                if not complete:
                    return field
        return None

    @property
    def value_bytes(self) -> int | None:
        kind = (self.fields.get("elementtype") or self.fields.get("type", "")).lower().replace("unsigned", "u")
        kind = re.sub(r"met_|_array$|_t$|signed|[ _]", "", kind)
        return _BYTES.get(re.sub(r"(short|long)int$", r"\1", kind))

    @property
    def grid_problem(self) -> str | None:
        """Why the spacing in mm is unknown, or None. ITK would assume 1 mm, or ignore the unit."""
        fields = self.fields
        if "ndims" in fields:
            units = [fields.get("distanceunits", "")]
            spacing = fields.get("elementspacing") or fields.get("elementsize", "")
            lacks = None if spacing else "ElementSpacing"
        else:
            kinds = fields.get("kinds", "").split()
            of_axes = re.findall(r'"([^"]*)"', fields.get("units", ""))
            units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
            units += [unit for n, unit in enumerate(of_axes) if _is_spatial(kinds, n)]
            given = [s for n, s in enumerate(fields.get("spacings", "").split()) if _is_spatial(kinds, n)]
            known = "(" in fields.get("spacedirections", "") or (given and all(map(_is_number, given)))
            lacks = None if known else "space directions, or spacings"
        if lacks:
            return f"its header gives no spacing, and ITK would assume 1 mm; add it to the header ({lacks})"
        if wrong := [unit for unit in units if not re.fullmatch(_MM, unit.strip(), re.IGNORECASE)]:
            return f"its header gives the spacing in {wrong[0]!r}; write it in mm"
        return None

    @property
    def skipped(self) -> int:
        """Bytes to skip before the values; -1 = any number, since the values are at the end of the file."""
        try:
            skipped = int(self.fields.get("headersize") or self.fields.get("byteskip") or 0)
            return -1 if int(self.fields.get("lineskip") or 0) else skipped
        except ValueError:
            return 0  # ITK reports that it cannot read it

    @property
    def encoding(self) -> str:
        """`raw`, `deflate` (zlib or gzip), or another encoding."""
        if "encoding" in self.fields:
            return {"gzip": "deflate", "gz": "deflate"}.get(self.fields["encoding"], self.fields["encoding"])
        if self.fields.get("compresseddata", "false").lower() == "true":
            return "deflate"
        return "raw" if self.fields.get("binarydata", "true").lower() == "true" else "ascii"


def data_files(path: Path) -> list[Path]:
    """The file with the values beside a header; empty if they follow the header.

    Raises:
        OSError: the file cannot be read.
    """
    beside = _beside(path, _header(path))
    return [beside] if beside else []


def problem_of(path: Path) -> str | None:
    """A problem with the values of a MetaImage or NRRD file that ITK would not report, or None.

    Raises:
        OSError: the file cannot be opened.
    """
    header = _header(path)
    sizes, value_bytes = header.sizes, header.value_bytes
    if header.damaged:
        return f"its header is damaged ({header.damaged})"
    if sizes is None or value_bytes is None:
        return None  # ITK reports what it cannot read
    if min(sizes) < 1:
        return f"its header gives impossible sizes {sizes[:-1]}"
    if not header.data_file:
        file, start = path, header.end
    elif beside := _beside(path, header):
        file, start = beside, 0
    elif re.match(r"LIST\b|\S*%", header.data_file):
        return "its values are in several files; write it as one"  # MetaIO does not detect a missing file
    else:
        return f"its values are missing: no file {header.data_file[:60]!r} in its folder"
    if header.grid_problem:
        return header.grid_problem
    promised = math.prod(sizes) * value_bytes
    if header.encoding == "deflate":
        with file.open("rb") as values:
            values.seek(start)
            try:
                found = _inflated(values, promised)
            except zlib.error as error:
                return f"damaged ({error}); copy it again"
        if found > promised:
            return "damaged (more values than its header says); copy it again"
    elif header.encoding == "raw":
        # A MetaImage counts it from the beginning of the file.
        skipped = header.skipped - (start if "headersize" in header.fields and header.skipped > 0 else 0)
        found = file.stat().st_size - start - max(0, skipped)
        if found > promised and skipped >= 0:
            return f"longer than its header says: {found} bytes for {promised}; write it again"
    else:
        found = file.stat().st_size - start
        promised //= value_bytes  # at least one character per value
    if found < promised:
        shown = "×".join(str(n) for n in (sizes if sizes[-1] > 1 else sizes[:-1]))
        return f"truncated: {found} bytes for {shown} pixels of {value_bytes}; copy it again"
    return None


def _is_spatial(kinds: list[str], axis: int) -> bool:
    """Whether an axis of an NRRD file is spatial, not of components or time; without kinds, all are."""
    return axis >= len(kinds) or kinds[axis] in ("domain", "space", "???", "none")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) != 0
    except ValueError:
        return False


def _beside(path: Path, header: _Header) -> Path | None:
    file = path.parent / header.data_file
    # os.path, since pathlib raises if a damaged header has an impossible file name.
    return file if header.data_file and os.path.isfile(file) else None  # noqa: PTH113


def _inflated(values: BinaryIO, enough: int) -> int:
    """Number of bytes in a zlib or gzip stream; stops reading above `enough`."""
    inflate, found = zlib.decompressobj(wbits=47), 0
    while found <= enough and not inflate.eof and (chunk := values.read(1 << 14)):  # at most 16 MB, inflated
        found += len(inflate.decompress(chunk))
    return found


def _header(path: Path) -> _Header:
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
    nrrd = head.startswith(b"NRRD")
    fields: dict[str, str] = {}
    end, strange = 0, ""
    for number, line in enumerate(head.splitlines(keepends=True)):
        end += len(line)
        text = line.decode("latin-1").strip()
        if nrrd and not text:
            break
        if nrrd and number and not text.startswith("#") and ":=" not in text and (":" not in text or len(text) > 500):
            strange = strange or text
        key, separator, value = text.partition(":" if nrrd else "=")
        if separator and not text.startswith("#"):
            fields[key.lower().replace(" ", "")] = value.removeprefix("=").strip()
        if not nrrd and key.strip() == "ElementDataFile":
            break
    return _Header(fields, end, strange)
