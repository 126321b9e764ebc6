"""What a file is by its first bytes, where its name says otherwise."""

import gzip
import re
import zlib
from pathlib import Path

_HEAD = 600  # bytes looked at
_AGAIN = "the download went wrong (is a login needed?); get it again"
_SPACED = "convert it to NIfTI, with its spacing"

_POINTERS = {
    "a git-lfs pointer, not the image": (rb"version https://git-lfs\.github\.com/spec/", "fetch it: git lfs pull"),
    "a git-annex pointer, not the image": (rb"[./]*(?:\.git)?/annex/objects/", "fetch it: git annex get"),
    "a web page, not an image": (rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body|script|title)\b", _AGAIN),
    "a text in XML, not an image": (rb"\s*<(?:\?xml|error)\b", _AGAIN),
    "a text in JSON, not an image": (rb"\s*\{\s*\"", _AGAIN),
    "the text of an error, not an image": (rb"\s*(?:[45]\d\d\b|not found|access denied|forbidden)", _AGAIN),
}  # fmt: skip
"""What stands for a file that was not fetched: how it begins, and the remedy."""

_GZIP = "packed with gzip"
_ARCHIVES = {
    _GZIP: (rb"\x1f\x8b", "unpack it"),
    "packed with bzip2": (rb"BZh[1-9]1AY&SY", "unpack it"),
    "packed with xz": (rb"\xfd7zXZ\0", "unpack it"),
    "packed with zstd": (rb"\x28\xb5\x2f\xfd", "unpack it"),
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
    DICOM: (rb".{128}DICM", "put all files of its series into a folder, and name that"),
    "an HDF5 file (perhaps MINC)": (rb"\x89HDF", "convert it to NIfTI"),
    "a PNG picture": (rb"\x89PNG", _SPACED),
    "a JPEG picture": (rb"\xff\xd8\xff", _SPACED),
    "a NumPy array": (rb"\x93NUMPY", _SPACED),
}
_ELSEWHERE = set(_IMAGES) - {"a DICOM file", "a PNG picture"}
"""What is not read from a file whose name has another ending."""

_ENDINGS = {
    ".nii": _NIFTI, ".nii.gz": _NIFTI, ".hdr": _NIFTI, ".hdr.gz": _NIFTI,
    ".nrrd": _NRRD, ".nhdr": _NRRD, ".mha": _META, ".mhd": _META,
}  # fmt: skip


def problem_of(path: Path) -> str | None:
    """What an image file is, if it is not what its name says, and the remedy; or None.

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
            return None  # damaged, as its reader will say
        if kind == _GZIP:
            return "is packed twice; unpack it once"
        remedy = remedy if kind in _POINTERS | _ARCHIVES else f"unpack it, and {remedy}"
        return None if kind in ("", named) else f"is packed with gzip, and holds {kind}; {remedy.format(stem=stem)}"
    if kind == named:
        return f"is not packed: rename it to {stem}{ending.removesuffix('.gz')}"
    return f"is {kind}; {remedy.format(stem=stem)}" if kind else "is not packed with gzip, nor any image; get it again"


def problem_of_values(path: Path) -> str | None:
    """What a file of nothing but values is instead, and the remedy; or None. Values may begin with almost any bytes.

    Raises:
        OSError: the file cannot be read.
    """
    head = _head(path)
    kind, remedy = _kind_of(head)
    if not head:
        return "is empty (0 bytes); get it again"
    if path.suffix.lower() == ".gz" and kind not in (_GZIP, *_POINTERS):
        return f"is not packed: rename it to {path.stem}"
    return f"is {kind}; {remedy}" if kind in _POINTERS else None


def kind_of(path: Path) -> tuple[str, str]:
    """The kind of a file by its first bytes, and the remedy where an image is wanted; both empty where none is known.

    Raises:
        OSError: the file cannot be read.
    """
    return _kind_of(_head(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _kind_of(head: bytes) -> tuple[str, str]:
    """The kind of a file that begins like this, and the remedy; both empty where none is known."""
    for kind, (start, remedy) in (_POINTERS | _ARCHIVES | _IMAGES).items():
        if re.match(rb"(?:\xef\xbb\xbf)?(?:" + start + rb")", head, re.DOTALL | re.IGNORECASE):
            return kind, remedy
    return "", ""
