"""The entries of a data set, found by name, and the naming rules that all layouts share."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from greenseg.classes import Classes

Split = Literal["train", "validation", "test"]

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Suffixes of image files to search for; a CSV may name others, see docs/data.md."""

EXPECTED = """\
    e2mip   training_data/{images,masks}/   img_0000.nii.gz with mask_0000.nii.gz or img_0000_mask.nii.gz,
            validation_data/{images,masks}/ and test_data/{images,masks}/ (optional); or train_slice,
            validation_slice, test_volume; or images/ and masks/ directly in the folder
    nnunet  imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, dataset.json; imagesTs, labelsTs (optional)
    bids    sub-*/anat/*_T2w.nii.gz with *_dseg.nii.gz or *_mask.nii.gz
    csv     a CSV file with the columns image and mask; optional columns are subject and split"""

BROKEN = "cannot be read: a broken link (is the data fetched?), or not a file"


@dataclass(frozen=True)
class Entry:
    """An image file (or folder of a DICOM series) of a data set.

    Attributes:
        image: path of the image.
        mask: path of its mask; None only for test images that can only be predicted.
        subject: name of the subject.
        split: the split that the data set names for it, or None.
        where: its place for messages: its path, or file and line.
        ignored: labels of its mask that mean "not annotated".
        more: images of its further channels, on the same grid.
        ct: indices of the channels in Hounsfield units, 0 for `image`.
    """

    image: Path
    mask: Path | None
    subject: str
    split: Split | None
    where: str
    ignored: tuple[int, ...] = ()
    more: tuple[Path, ...] = ()
    ct: tuple[int, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """The images of all channels, in order."""
        return (self.image, *self.more)


@dataclass
class Listing:
    """The entries of a data set, found by name without opening images.

    Attributes:
        layout: layout of the data set.
        entries: the entries, in the order of their names.
        problems: problems that prevent training.
        notes: notes for the user.
        wanted: the channels that the setting names; empty = those of the layout.
        channels: names of the channels, in order; empty if the layout has none.
        classes: the classes that the data set names; None if it names fewer than two.
        class_problems: problems with these names. They matter only if the setting `labels` is empty.
        in_two_splits: subject → reason why its files in two splits are not those of two subjects.
    """

    layout: str
    wanted: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    channels: tuple[str, ...] = ()
    classes: Classes | None = None
    class_problems: list[str] = field(default_factory=list)
    in_two_splits: dict[str, str] = field(default_factory=dict)


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts numbers in names by value: `slice2` before `slice10`.

    >>> sorted(["z10", "z2", "z01", "z1"], key=natural)
    ['z01', 'z1', 'z2', 'z10']
    """
    parts = re.split(r"(\d+)", name)
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def labels_text(labels: Sequence[int]) -> str:
    """`label 3`, `labels 1, 2, 3`; the first ten of many."""
    more = f", … ({len(labels)} in total)" if len(labels) > 10 else ""
    return f"label{'s' if len(labels) > 1 else ''} {', '.join(map(str, labels[:10]))}{more}"


def masks_have(labels: Sequence[int]) -> str:
    """The labels above 0 of all masks, in words."""
    return f"masks have the {labels_text(labels)}" if labels else "masks have only the label 0"


def subject_of(stem: str) -> str:
    """The subject of a file: its name without the slice number.

    >>> subject_of("DWI_case0001_slice14"), subject_of("case7_z03"), subject_of("img_0003")
    ('DWI_case0001', 'case7', 'img_0003')
    """
    return re.sub(r"[_-](slice[_-]?|z)\d+$", "", stem, flags=re.IGNORECASE)


def stem_of(path: Path) -> str | None:
    """The name of an image without its suffix, or of a folder that may have a DICOM series; None for other files."""
    if path.name.startswith("."):  # macOS leaves ._files beside the real ones
        return None
    if path.is_dir():
        return path.name
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    return path.name[: -len(suffix)] if suffix else None


def images_in(folder: Path, problems: list[str]) -> Iterator[tuple[Path, str]]:
    """The images of a folder with their stems, in the order of their names. Broken links become problems."""
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        if stem := stem_of(path):
            yield path, stem
        elif is_broken_folder(path):
            problems.append(f"{path}: {BROKEN}")


def has_images(folder: Path) -> bool:
    """Whether a folder has an image, or may have one: it is a broken link."""
    return is_broken_folder(folder) or (folder.is_dir() and any(map(stem_of, folder.iterdir())))


def is_broken_folder(path: Path) -> bool:
    """Whether a path is a broken link that may be a folder, by its name: it does not have the suffix of a file."""
    # .json is such a suffix, .113 at the end of a UID is not.
    is_file = path.name.startswith(".") or re.fullmatch(r"\.[a-z]\w{0,3}", path.suffix, re.IGNORECASE)
    return path.is_symlink() and not is_file and not path.exists()


def broken(folders: Iterable[Path], problems: list[str]) -> None:
    """Add a problem for each of these folders that is a broken link."""
    problems += [f"{path}: {BROKEN}" for path in folders if is_broken_folder(path)]


def by_stem(kind: str, folder: Path, problems: list[str]) -> dict[str, Path]:
    """Stem → image of a folder. A second image with the same stem, such as x.nii beside x.nii.gz, is a problem."""
    found: dict[str, Path] = {}
    for path, stem in images_in(folder, problems):
        if stem in found:
            problems.append(second(path, kind, found[stem]))
        else:
            found[stem] = path
    return found


def second(path: Path, kind: str, first: Path) -> str:
    """The message for a duplicate image or mask."""
    return f"{path}: a second {kind} with the same name ({first.name}); keep one of them"


def missing(folders: Iterable[Path], problems: list[str]) -> bool:
    """Whether one of these folders is missing; adds a problem if so."""
    absent = [path for path in folders if not path.is_dir()]
    broken(absent, problems)
    if gone := [str(path) for path in absent if not is_broken_folder(path)]:
        problems.append(f"{' and '.join(gone)}: no such folder; a data set has one of these layouts:\n{EXPECTED}")
    return bool(absent)
