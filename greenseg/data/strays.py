"""Files in the folder of a DICOM series that GDCM silently ignores: damaged slices, and files that are not slices."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from greenseg.data import kinds
from greenseg.data.listing import BROKEN, natural, stem_of

_NO_SLICES = re.compile(
    r"(dicomdir|readme|licen[cs]e|copying|changes|version|citation|notes?|lockfile)$", re.IGNORECASE
)
_SUFFIX = re.compile(r"\.dcm|\.dicom|\.dic|\.ima|\.?\d*", re.IGNORECASE)  # the name of a UID ends in a number

_CLASS = re.compile(rb"\x02\0\x02\0UI..([0-9.]+)", re.DOTALL)  # MediaStorageSOPClassUID, DICOM PS3.10, 7.1
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CONTOURS = "contours (RTSTRUCT); convert them to a mask, for example with dcmrtstruct2nii"
_WITHOUT_PIXELS = {
    "1.2.840.10008.1.3.10": "a table of contents (DICOMDIR)",
    f"{_STORAGE}481.3": _CONTOURS,
    f"{_STORAGE}481.": "a radiotherapy plan",
    f"{_STORAGE}88.": "a report (SR)",
    f"{_STORAGE}11.": "a presentation state",
    f"{_STORAGE}66.4": "a damaged segmentation (SEG)",
    f"{_STORAGE}66.": "a registration or a set of points",
    f"{_STORAGE}104.": "a document",
    f"{_STORAGE}9.": "a waveform",
    f"{_STORAGE}4.2": "spectra",
}
"""Start of the SOP class of DICOM files without an image → their kind."""


def look(folder: Path, slices: Collection[str]) -> tuple[list[str], list[str]]:
    """The files of a folder that should be slices but are not, and the DICOM files without an image.

    Args:
        folder: folder of a DICOM series.
        slices: names of the files that GDCM reads as slices.

    Returns:
        Two lists, with one text per file: its name and kind.
    """
    # At a broken link, GDCM stops listing the folder, so that other ignored files may be slices.
    if broken := [f"{path.name} {BROKEN}" for path in folder.iterdir() if not path.exists()]:
        return sorted(broken), []
    damaged, without_pixels = [], []
    suffixes = {Path(name).suffix for name in slices}
    for path in _others(folder, slices, suffixes):
        try:
            kind, remedy = kinds.kind_of(path)
            empty = kinds.problem_of_values(path) if not kind else None
            sop_class = _class_of(path) if kind == kinds.DICOM else ""
        except OSError as error:
            damaged.append(f"{path.name} cannot be read: {error.strerror or error}")
            continue
        if what := next((what for start, what in _WITHOUT_PIXELS.items() if sop_class.startswith(start)), None):
            without_pixels.append(f"{path.name} is {what}")
        elif kind == kinds.DICOM:
            damaged.append(f"{path.name} is truncated or damaged, or has no image; get it again, or remove it")
        else:
            said = empty or (f"is {kind}; {remedy}" if kind else "is not readable as DICOM; get it again, or remove it")
            damaged.append(f"{path.name} {said}")
    return damaged, without_pixels


def _others(folder: Path, slices: Collection[str], suffixes: Collection[str]) -> Iterator[Path]:
    """The other files that may be slices, by their names."""
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        hidden = path.name.startswith(".")
        if hidden or path.name in slices or path.is_dir() or _NO_SLICES.match(path.name) or stem_of(path):
            continue
        suffix = Path(path.name.removesuffix(".gz")).suffix
        if suffix in suffixes or _SUFFIX.fullmatch(suffix):
            yield path


def _class_of(path: Path) -> str:
    with path.open("rb") as file:
        found = _CLASS.search(file.read(1024))
    return found[1].decode() if found else ""
