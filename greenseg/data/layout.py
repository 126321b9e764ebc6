"""Finds the images, masks and subjects of a data set in the supported layouts."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from greenseg.data.bids import list_bids
from greenseg.data.listing import (
    BROKEN,
    EXPECTED,
    SUFFIXES,
    Entry,
    Listing,
    Split,
    broken,
    by_stem,
    images_in,
    is_broken_folder,
    missing,
    subject_of,
)
from greenseg.data.nnunet import is_nnunet, list_nnunet
from greenseg.data.table import list_csv
from greenseg.errors import UserError
from greenseg.settings import Layout


def look(root: Path, layout: Layout = "auto", channels: str = "", masks: bool = True) -> Listing:
    """List a data set.

    Args:
        root: folder of the data set, or a CSV file.
        layout: layout of the data set; auto = detect it.
        channels: the setting: names of channels, with commas between them; empty = those of the layout.
        masks: whether images need masks; see `Listing.masks`.

    Raises:
        UserError: there is no such folder or file.
    """
    if not root.exists():
        raise UserError(
            f"{root}: no such folder; --data needs a data set in one of these layouts:\n{EXPECTED}\n"
            f"  Leave --data out to use the built-in phantom."
        )
    wanted = tuple(channels.split(",")) if channels else ()
    found = Listing(_layout_of(root) if layout == "auto" else layout, wanted, masks)
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
    found.problems += _contradictions(found.entries, by_split=masks)
    found.problems += [
        f"{path}: {BROKEN}"
        for entry in found.entries
        for path in (*entry.images, entry.mask)
        if path and not (path.is_file() or path.is_dir())
    ]
    found.problems = [problem.encode(errors="backslashreplace").decode() for problem in found.problems]
    return found


def _layout_of(root: Path) -> str:
    if root.is_file():
        return "csv"
    if is_nnunet(root):
        return "nnunet"
    if any(path.is_dir() for path in root.glob("sub-*")):
        return "bids"
    return "e2mip"


def _is_text(entry: Entry) -> bool:
    """Whether the names of an entry can be printed, hashed and written to a file: on Linux, they may be any bytes."""
    try:
        f"{''.join(map(str, entry.images))}{entry.mask}{entry.subject}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _contradictions(entries: Iterable[Entry], by_split: bool) -> Iterator[str]:
    first: dict[Path, Entry] = {}
    split_of: dict[str, Entry] = {}
    for entry in entries:
        if len(set(entry.images)) < len(entry.images):
            yield f"{entry.where}: one image is two channels: {', '.join(map(str, entry.images))}"
        for image in entry.images:
            if (same := first.setdefault(image, entry)) is not entry:
                yield f"{entry.where}: duplicate; {image} was listed before ({same.where})"
        earlier = split_of.setdefault(entry.subject, entry)
        if by_split and earlier.split != entry.split:
            here, there = (e.split or "training or validation" for e in (entry, earlier))
            yield (
                f"{entry.where}: subject '{entry.subject}' is in two splits, {here} here and {there} in "
                f"{earlier.where}; keep each subject in one split"
            )
            split_of[entry.subject] = entry  # one message per change, not per file


# ── E2MIP


def _list_e2mip(root: Path, found: Listing) -> None:
    if found.wanted:
        found.problems.append(
            f"{root}: channels: images of layout e2mip have one channel; leave --channels out, or name the channels in "
            f"a CSV: columns image, image_2, …"
        )
    broken((root / name for name in ("training_data", "validation_data", "testing_data")), found.problems)
    training = root / "training_data"
    folders: dict[Split, Path] = {"train": training if training.is_dir() else root}
    if is_broken_folder(training):
        folders = {}
    if (root / "validation_data").is_dir():
        folders["validation"] = root / "validation_data"
    testing = root / "testing_data"
    if not found.masks and not training.is_dir() and testing.is_dir() and not (root / "images").is_dir():
        del folders["train"]  # only images without masks
    fixed = len(folders) > 1
    for split, folder in folders.items():
        _pair_up(folder / "images", folder / "masks", split if fixed else None, found)
    for folder in [f for f in (testing / "images", testing) if f.is_dir()][:1]:
        for path, stem in images_in(folder, found.problems):
            if path.name not in ("images", "masks"):
                found.entries.append(Entry(path, None, subject_of(stem), "test", str(path)))


def _pair_up(images: Path, masks: Path, split: Split | None, found: Listing) -> None:
    if missing((images, masks) if found.masks else (images,), found.problems):
        return
    mask_of = by_stem("mask", masks, found.problems) if found.masks else {}
    image_of = by_stem("image", images, found.problems)
    for stem, path in image_of.items():
        names = [f"{stem}_mask", re.sub(r"^(img|image)(?=[_-]?\d)", "mask", stem), stem]
        masks_of_it = [mask_of.pop(name) for name in dict.fromkeys(names) if name in mask_of]
        if len(masks_of_it) > 1:
            several = ", ".join(mask.name for mask in masks_of_it)
            found.problems.append(f"{path}: several masks ({several}); keep one")
        elif not found.masks:
            found.entries.append(Entry(path, None, subject_of(stem), split, str(path)))
        elif not masks_of_it:
            wanted = " or ".join(dict.fromkeys(f"{name}.nii.gz" for name in names if name != stem))
            found.problems.append(f"{path}: image without mask; expected {masks / wanted}")
        else:
            found.entries.append(Entry(path, masks_of_it[0], subject_of(stem), split, str(path)))
    found.problems += [f"{path}: mask without image; expected its image in {images}" for path in mask_of.values()]
    if not image_of:
        found.problems.append(f"{images}: no images ({', '.join(SUFFIXES)})")


_LISTERS: dict[str, Callable[[Path, Listing], None]] = {
    "e2mip": _list_e2mip,
    "nnunet": list_nnunet,
    "bids": list_bids,
    "csv": list_csv,
}
