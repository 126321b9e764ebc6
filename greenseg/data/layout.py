"""Finding the images of a data set, their masks and their subjects, in the layouts that people use."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from greenseg.config import Layout
from greenseg.errors import UserError, did_you_mean

Split = Literal["train", "validation", "test"]

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of the image files that are looked for; a CSV may name whatever SimpleITK reads."""

EXPECTED = """\
    e2mip   training_data/{images,masks}/   img_0000.nii.gz with mask_0000.nii.gz or img_0000_mask.nii.gz,
            validation_data/{images,masks}/ (optional); or images/ and masks/ directly in the folder
    nnunet  imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, dataset.json
    bids    sub-*/anat/*_T2w.nii.gz with *_dseg.nii.gz or *_mask.nii.gz
    csv     a CSV file with the columns image, mask and, if you like, subject and split"""


@dataclass(frozen=True)
class Entry:
    """An image file (or folder of a DICOM series) of a data set.

    Attributes:
        image: its path.
        mask: path of its mask; None only for images to test with.
        subject: whom it shows.
        split: the split that the data set names for it, or None.
        where: what to name in a message about it: its path, or file and line.
    """

    image: Path
    mask: Path | None
    subject: str
    split: Split | None
    where: str


@dataclass
class Listing:
    """What a data set holds, found by name; no image was opened.

    Attributes:
        layout: in which it is laid out.
        entries: in the order of their names.
        problems: what is wrong with it.
        notes: what a user should know.
    """

    layout: str
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(root: Path, layout: Layout = "auto") -> Listing:
    """List a data set.

    Args:
        root: its folder, or a CSV file.
        layout: how it is laid out; auto = see what is there.

    Raises:
        UserError: there is no such folder or file.
    """
    if not root.exists():
        raise UserError(
            f"{root}: no such folder; give --data a data set in one of these layouts:\n{EXPECTED}\n"
            f"  or leave --data out to use the built-in phantom"
        )
    found = Listing(_layout_of(root) if layout == "auto" else layout)
    if root.is_dir() and found.layout == "csv":
        raise UserError(f"{root}: is a folder; layout csv needs a CSV file")
    if root.is_file() and (found.layout != "csv" or (layout == "auto" and root.suffix.lower() != ".csv")):
        raise UserError(f"{root}: is a file; a data set is a folder, or a CSV file:\n{EXPECTED}")
    _LISTERS[found.layout](root, found)
    if not found.entries and not found.problems:
        found.problems.append(f"{root}: no images ({', '.join(SUFFIXES)}) in layout {found.layout}")
    found.problems += [
        f"{entry.where}: the name is not UTF-8; rename it" for entry in found.entries if not _is_text(entry)
    ]
    found.entries = [entry for entry in found.entries if _is_text(entry)]
    found.problems += _contradictions(found.entries)
    found.problems += [
        f"{path}: cannot be read: a broken link (is the data fetched?), or no file"
        for entry in found.entries
        for path in (entry.image, entry.mask)
        if path and not (path.is_file() or path.is_dir())
    ]
    found.problems = [problem.encode(errors="backslashreplace").decode() for problem in found.problems]
    return found


def subject_of(stem: str) -> str:
    """The subject that a file belongs to: its name without the number of a slice.

    >>> subject_of("DWI_case0001_slice14"), subject_of("img_0003")
    ('DWI_case0001', 'img_0003')
    """
    return re.sub(r"[_-]slice[_-]?\d+$", "", stem, flags=re.IGNORECASE)


def _layout_of(root: Path) -> str:
    if root.is_file():
        return "csv"
    if (root / "imagesTr").is_dir():
        return "nnunet"
    if any(path.is_dir() for path in root.glob("sub-*")):
        return "bids"
    return "e2mip"


def _is_text(entry: Entry) -> bool:
    """Whether its names can be shown, hashed and written to a file: on Linux they may be any bytes."""
    try:
        f"{entry.image}{entry.mask}{entry.subject}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _contradictions(entries: Iterable[Entry]) -> Iterator[str]:
    first: dict[Path, Entry] = {}
    split_of: dict[str, Entry] = {}
    for entry in entries:
        if (same := first.setdefault(entry.image, entry)) is not entry:
            yield f"{entry.where}: duplicate; {entry.image} was listed before ({same.where})"
        earlier = split_of.setdefault(entry.subject, entry)
        if earlier.split != entry.split:
            here, there = (e.split or "training or validation" for e in (entry, earlier))
            yield (
                f"{entry.where}: subject '{entry.subject}' is in two splits, {here} here and {there} in "
                f"{earlier.where}; keep a subject in one split"
            )
            split_of[entry.subject] = entry  # one message a change, not one a file


# ── files and their names


def stem_of(path: Path) -> str | None:
    """The name of an image without its ending, or of a folder that may hold a DICOM series; None for other files."""
    if path.name.startswith("."):  # macOS leaves ._files beside the real ones
        return None
    if path.is_dir():
        return path.name
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    return path.name[: -len(suffix)] if suffix else None


def _images_in(folder: Path) -> list[tuple[Path, str]]:
    named = ((path, stem_of(path)) for path in sorted(folder.iterdir()))
    return [(path, stem) for path, stem in named if stem]


def _masks_in(folder: Path, problems: list[str]) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path, stem in _images_in(folder):
        if stem in masks:
            problems.append(f"{path}: a second mask of the same name ({masks[stem].name}); keep one")
        else:
            masks[stem] = path
    return masks


def _missing(folders: Iterable[Path], problems: list[str]) -> bool:
    missing = [str(path) for path in folders if not path.is_dir()]
    if missing:
        problems.append(
            f"{' and '.join(missing)}: no such folder; a data set is laid out like one of these:\n{EXPECTED}"
        )
    return bool(missing)


# ── E2MIP


def _list_e2mip(root: Path, found: Listing) -> None:
    named = (root / "training_data").is_dir()
    folders: dict[Split, Path] = {"train": root / "training_data" if named else root}
    if (root / "validation_data").is_dir():
        folders["validation"] = root / "validation_data"
    fixed = len(folders) > 1
    for split, folder in folders.items():
        _pair_up(folder / "images", folder / "masks", split if fixed else None, found)
    testing = root / "testing_data"
    for folder in [f for f in (testing / "images", testing) if f.is_dir()][:1]:
        for path, stem in _images_in(folder):
            if path.name not in ("images", "masks"):
                found.entries.append(Entry(path, None, subject_of(stem), "test", str(path)))


def _pair_up(images: Path, masks: Path, split: Split | None, found: Listing) -> None:
    if _missing((images, masks), found.problems):
        return
    mask_of = _masks_in(masks, found.problems)
    listed = _images_in(images)
    for path, stem in listed:
        names = [f"{stem}_mask", re.sub(r"^(img|image)(?=[_-]?\d)", "mask", stem), stem]
        mask = next((mask_of.pop(name) for name in names if name in mask_of), None)
        if mask is None:
            wanted = " or ".join(dict.fromkeys(f"{name}.nii.gz" for name in names if name != stem))
            found.problems.append(f"{path}: image without mask; expected {masks / wanted}")
        else:
            found.entries.append(Entry(path, mask, subject_of(stem), split, str(path)))
    found.problems += [f"{path}: mask without image; expected its image in {images}" for path in mask_of.values()]
    if not listed:
        found.problems.append(f"{images}: no images ({', '.join(SUFFIXES)})")


# ── nnU-Net v2: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md


def _list_nnunet(root: Path, found: Listing) -> None:
    images, masks = root / "imagesTr", root / "labelsTr"
    if _missing((images, masks), found.problems):
        return
    channels = _nnunet_channels(root / "dataset.json", found)
    if len(channels) > 1:
        found.notes.append(f"{root}: {len(channels)} channels a case; the first one, {channels[0]}, is used")
    mask_of = _masks_in(masks, found.problems)
    for path, case in _nnunet_images(images, found):
        mask = mask_of.pop(case, None)
        if mask is None:
            found.problems.append(f"{path}: image without mask; expected {masks / f'{case}.nii.gz'}")
        else:
            found.entries.append(Entry(path, mask, subject_of(case), None, str(path)))
    found.problems += [
        f"{path}: mask without image; expected {images / f'{case}_0000.nii.gz'}" for case, path in mask_of.items()
    ]
    if (root / "imagesTs").is_dir():
        for path, case in _nnunet_images(root / "imagesTs", found):
            found.entries.append(Entry(path, None, subject_of(case), "test", str(path)))


def _nnunet_images(folder: Path, found: Listing) -> Iterator[tuple[Path, str]]:
    """The first channel of every case."""
    for path, stem in _images_in(folder):
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
        if not numbered:
            found.problems.append(f"{path}: no channel in its name; nnU-Net calls it {stem}_0000")
            yield path, stem  # so that its mask is not reported, too
        elif int(numbered[2]) == 0:
            yield path, numbered[1]


def _nnunet_channels(description: Path, found: Listing) -> list[str]:
    if not description.exists():
        return []
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        channels = content.get("channel_names", content.get("modality", {}))
        return [str(channels[key]) for key in sorted(channels, key=int)]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        found.problems.append(f"{description}: not a description of an nnU-Net data set: {error}")
        return []


# ── BIDS: https://bids-specification.readthedocs.io; masks beside the images (as FeTA has them) or under derivatives/


def _list_bids(root: Path, found: Listing) -> None:
    images = {path: stem for path in sorted(root.glob("sub-*/**/anat/*_T2w.*")) if (stem := stem_of(path))}
    entities = {path: stem.removesuffix("_T2w") for path, stem in images.items()}
    of_others: dict[Path, list[str]] = defaultdict(list)
    for path, own in entities.items():
        of_others[path.parent].append(own)
    for path, own in entities.items():
        inner = path.parent.relative_to(root)
        folders = [path.parent, *(d / inner for d in sorted(root.glob("derivatives/*")))]
        named = [pair for folder in folders if folder.is_dir() for pair in _images_in(folder)]
        longer = [f"{other}_" for other in of_others[path.parent] if other.startswith(f"{own}_")]
        masks = [
            mask
            for mask, name in named
            if re.fullmatch(rf"{re.escape(own)}(_.+)?_(dseg|mask)", name)
            and not name.startswith(tuple(longer))  # sub-1_run-2_mask is that of sub-1_run-2_T2w, not of sub-1_T2w
        ]
        exact = [mask for mask in masks if stem_of(mask) in (f"{own}_dseg", f"{own}_mask")]
        masks = exact if len(exact) == 1 else masks
        if len(masks) != 1:
            which = f"several masks ({', '.join(m.name for m in masks)}); keep one" if masks else "image without mask"
            wanted = "" if masks else f"; expected {path.parent / f'{own}_dseg.nii.gz'} or …_mask.nii.gz"
            found.problems.append(f"{path}: {which}{wanted}")
        else:
            subject = path.relative_to(root).parts[0]
            found.entries.append(Entry(path, masks[0], subject, None, str(path)))


# ── CSV

_COLUMNS = ("image", "mask", "subject", "split")
_SPLITS: dict[str, Split | None] = {split: split for split in get_args(Split)} | {"val": "validation", "": None}


def _list_csv(file: Path, found: Listing) -> None:
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            rows = [(reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found.problems.append(f"{file}: not readable as CSV: {error}")
        return
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    for needed in ("image", "mask"):
        if needed not in columns:
            found.problems.append(f"{file}:1: no column '{needed}'; columns: {', '.join(_COLUMNS)}")
    if found.problems and len(columns) == 1 and (other := re.search(r"[;\t|]", columns[0])):
        found.problems = [f"{file}:1: columns are separated by {other[0]!r}; commas are needed"]
        return
    for name in columns:
        if name not in _COLUMNS and (hint := did_you_mean(name, [c for c in _COLUMNS if c not in columns])):
            found.problems.append(f"{file}:1: unknown column '{name}'{hint}")
    if found.problems:
        return
    if len(rows) == 1:
        found.problems.append(f"{file}: no line below the names of the columns")
    for number, cells in rows[1:]:
        where = f"{file}:{number}"
        if not any(cell.strip() for cell in cells):
            continue
        row = defaultdict(str, {name: cell.strip() for name, cell in zip(columns, cells, strict=False)})
        if row["split"].lower() not in _SPLITS:
            hint = did_you_mean(row["split"].lower(), list(_SPLITS))
            valid = ", ".join(get_args(Split))
            found.problems.append(f"{where}: split '{row['split']}' is not valid{hint}; valid: {valid}, or empty")
            continue
        split = _SPLITS[row["split"].lower()]
        image = file.parent / row["image"]
        mask = file.parent / row["mask"] if row["mask"] else None
        gone = [f"{where}: {path}: no such file" for path in (image, mask) if path and not path.exists()]
        if not row["image"]:
            gone = [f"{where}: no image is named"]
        elif mask is None and split != "test":
            gone.append(f"{where}: image without mask")
        found.problems += gone
        if not gone:
            stem = stem_of(image) or image.stem
            found.entries.append(Entry(image, mask, row["subject"] or subject_of(stem), split, where))


_LISTERS: dict[str, Callable[[Path, Listing], None]] = {
    "e2mip": _list_e2mip,
    "nnunet": _list_nnunet,
    "bids": _list_bids,
    "csv": _list_csv,
}
