"""The real kind of a file, from its first bytes, if it does not match the name."""

import gzip
import re
import zlib
from pathlib import Path

_HEAD = 600  # bytes read
_AGAIN = "the download went wrong (is a login needed?); get it again"
_SPACED = "convert it to NIfTI, with its spacing"

_POINTERS = {
    "a git-lfs pointer, not the image": (rb"version https://git-lfs\.github\.com/spec/", "fetch it: git lfs pull"),
    "a git-annex pointer, not the image": (rb"[./]*(?:\.git)?/annex/objects/", "fetch it: git annex get"),
    "a web page, not an image": (rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body|script|title)\b", _AGAIN),
    "an XML text, not an image": (rb"\s*<(?:\?xml|error)\b", _AGAIN),
    "a JSON text, not an image": (rb"\s*\{\s*\"", _AGAIN),
    "an error message, not an image": (rb"\s*(?:[45]\d\d\b|not found|access denied|forbidden)", _AGAIN),
}  # fmt: skip
"""Kind of a placeholder for a file that was not fetched → its first bytes and the remedy."""

_GZIP = "compressed with gzip"
_ARCHIVES = {
    _GZIP: (rb"\x1f\x8b", "unpack it"),
    "compressed with bzip2": (rb"BZh[1-9]1AY&SY", "unpack it"),
    "compressed with xz": (rb"\xfd7zXZ\0", "unpack it"),
    "compressed with zstd": (rb"\x28\xb5\x2f\xfd", "unpack it"),
    "a zip archive": (rb"PK(?:\x03\x04|\x05\x06)", "unpack it"),
    "a 7z archive": (rb"7z\xbc\xaf\x27\x1c", "unpack it"),
    "a tar archive": (rb".{257}ustar", "unpack it"),
}

DICOM = "a DICOM file"
_NIFTI, _NRRD, _META = "a NIfTI file", "an NRRD file", "a MetaImage file"
_IMAGES = {
    _NIFTI: (rb".{344}n[i+]1\0|.{4}n[i+]2\0", "rename it to {stem}.nii"),
    _NRRD: (rb"NRRD0", "rename it to {stem}.nrrd"),
    _META: (rb"\s*(?:ObjectType|NDims|Comment)\s*=", "rename it to {stem}.mha"),
    DICOM: (rb".{128}DICM", "put all files of its series into a folder, and name the folder"),
    "an HDF5 file (perhaps MINC)": (rb"\x89HDF", "convert it to NIfTI"),
    "a PNG picture": (rb"\x89PNG", _SPACED),
    "a JPEG picture": (rb"\xff\xd8\xff", _SPACED),
    "a NumPy array": (rb"\x93NUMPY", _SPACED),
}
_ELSEWHERE = set(_IMAGES) - {"a DICOM file", "a PNG picture"}
"""Kinds that are not read from a file with a different suffix."""

_ENDINGS = {
    ".nii": _NIFTI, ".nii.gz": _NIFTI, ".hdr": _NIFTI, ".hdr.gz": _NIFTI,
    ".nrrd": _NRRD, ".nhdr": _NRRD, ".mha": _META, ".mhd": _META,
}  # fmt: skip


def problem_of(path: Path) -> str | None:
    """The real kind of an image file and the remedy, if it does not match the name; else None.

    Raises:
        OSError: the file cannot be read.
    """
    head = _head(path)
    ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")
    if not ending:
        kind, remedy = _kind_of(head)
        stem = path.stem
        return f"is {kind}; {remedy.format(stem=stem)}" if kind in _ELSEWHERE else problem_of_values(path)
    if not head:
        return problem_of_values(path)
    named, stem = _ENDINGS[ending], path.name[: -len(ending)]
    kind, remedy = _kind_of(head)
    if not ending.endswith(".gz"):
        if kind == _GZIP and ending == ".nii":
            remedy = f"rename it to {path.name}.gz"
        return None if kind in ("", named) else f"is {kind}; {remedy.format(stem=stem)}"
    if kind == _GZIP:
        try:
            with gzip.open(path) as file:
                kind, remedy = _kind_of(file.read(_HEAD))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return None  # damaged; its reader reports this
        if kind == _GZIP:
            return "is compressed twice; unpack it once"
        remedy = remedy if kind in _POINTERS | _ARCHIVES else f"unpack it, and {remedy}"
        return (
            None if kind in ("", named) else f"is compressed with gzip, and contains {kind}; {remedy.format(stem=stem)}"
        )
    if kind == named:
        return f"is not compressed: rename it to {stem}{ending.removesuffix('.gz')}"
    return f"is {kind}; {remedy.format(stem=stem)}" if kind else "is neither gzip nor a known image; get it again"


def problem_of_values(path: Path) -> str | None:
    """The real kind of a values file and the remedy, if it is not one; else None. Values may begin with any bytes.

    Raises:
        OSError: the file cannot be read.
    """
    head = _head(path)
    kind, remedy = _kind_of(head)
    if not head:
        return "is empty (0 bytes); get it again"
    if path.suffix.lower() == ".gz" and kind not in (_GZIP, *_POINTERS):
        return f"is not compressed: rename it to {path.stem}"
    return f"is {kind}; {remedy}" if kind in _POINTERS else None


def kind_of(path: Path) -> tuple[str, str]:
    """The kind of a file by its first bytes, and the remedy if it should be an image; both empty if unknown.

    Raises:
        OSError: the file cannot be read.
    """
    return _kind_of(_head(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _kind_of(head: bytes) -> tuple[str, str]:
    """The kind of a file with these first bytes, and the remedy; both empty if unknown."""
    for kind, (start, remedy) in (_POINTERS | _ARCHIVES | _IMAGES).items():
        if re.match(rb"(?:\xef\xbb\xbf)?(?:" + start + rb")", head, re.DOTALL | re.IGNORECASE):
            return kind, remedy
    return "", ""
