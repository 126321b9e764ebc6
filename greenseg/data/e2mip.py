"""The layout of the E2MIP challenge: folders for training, validation and test, each with images and masks.

The challenge's own sample restarts the names of its stacks in each folder, so the same name in two folders
may be two subjects.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from greenseg.data.listing import (
    SUFFIXES,
    Entry,
    Listing,
    Split,
    broken,
    by_stem,
    has_images,
    images_in,
    is_broken_folder,
    missing,
    natural,
    stem_of,
    subject_of,
)

TRAINING = ("training_data", "train_slice")
VALIDATION = ("validation_data", "validation_slice")
TESTING = ("test_data", "testing_data", "test_volume")
"""Names of the folders; those of the challenge's sample come last."""

_WORDS: dict[Split | None, str] = {None: "training", "train": "training", "validation": "validation", "test": "test"}


def list_e2mip(root: Path, found: Listing) -> None:
    """List the folders for training and validation, the test part, and test images without masks."""
    if found.wanted:
        found.problems.append(
            f"{root}: channels: images of layout e2mip have one channel; leave --channels out, or name the channels in "
            f"a CSV: columns image, image_2, …"
        )
    broken((root / name for name in (*TRAINING, *VALIDATION, *TESTING)), found.problems)
    validation = _one_of(root, VALIDATION, "validation", found)
    folders: dict[Split, Path] = {"train": _one_of(root, TRAINING, "training", found) or root}
    if any(is_broken_folder(root / name) for name in TRAINING):
        folders = {}
    if validation:
        folders["validation"] = validation
    testing = any((root / name).is_dir() for name in TESTING)
    if not found.masks and folders.get("train") == root and testing and not (root / "images").is_dir():
        del folders["train"]  # only images without masks
    fixed = len(folders) > 1
    for split, folder in folders.items():
        _pair_up(folder / "images", folder / "masks", split if fixed else None, found)
    _list_test(root, found)
    _tell_apart(found)


def _one_of(root: Path, names: tuple[str, ...], split: str, found: Listing) -> Path | None:
    """The only folder for a split; several are a problem."""
    there = [root / name for name in names if (root / name).is_dir()]
    if len(there) > 1:
        found.problems.append(f"{' and '.join(map(str, there))}: both are for {split}; keep one")
    return next(iter(there), None)


def _list_test(root: Path, found: Listing) -> None:
    """The folder with masks is the test part. Images in folders without masks can only be predicted."""
    folders = [root / name for name in TESTING if (root / name).is_dir()]
    with_masks = [folder for folder in folders if found.masks and has_images(folder / "masks")]
    if len(with_masks) > 1:
        found.problems.append(f"{' and '.join(map(str, with_masks))}: all have masks for the test part; keep one")
    for folder in folders:
        if folder in with_masks:
            _pair_up(folder / "images", folder / "masks", "test", found)
            continue
        images = folder / "images"
        for path, stem in images_in(images if images.is_dir() else folder, found.problems):
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


# ── one name, several subjects


def _tell_apart(found: Listing) -> None:
    """Rename subjects that have the same name in several folders, but different files.

    They are different if some files have the same name in both, and none of these has the same content. Otherwise, they
    may be slices of one stack, which must not be in two splits. A test part renames no other subject, so that it does
    not change what a run trains on.
    """
    parts_of: dict[str, dict[Split | None, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    for entry in found.entries:
        parts_of[entry.subject][entry.split][stem_of(entry.image) or entry.image.name] = entry.image
    new_names: dict[tuple[str, Split | None], str] = {}
    for subject, parts in parts_of.items():
        if len(parts) < 2:
            continue
        if reasons := [reason for pair in combinations(parts.values(), 2) if (reason := _alike(*pair))]:
            found.in_two_splits[subject] = "; ".join(dict.fromkeys(reasons))
            continue
        several = len(parts.keys() - {"test"}) > 1
        for split in parts:
            renamed = several or split == "test"
            new_names[subject, split] = f"{subject} ({_WORDS[split]})" if renamed else subject
        where = " and ".join(str(next(iter(files.values())).parent) for files in parts.values())
        names = ", ".join(f"'{new_names[subject, split]}'" for split in parts)
        found.notes.append(
            f"{where}: both have the name '{subject}', but different files; they count as different subjects: {names}"
        )
    found.entries = [
        replace(entry, subject=new_names.get((entry.subject, entry.split), entry.subject)) for entry in found.entries
    ]


def _alike(one: Mapping[str, Path], other: Mapping[str, Path]) -> str:
    """Why the files of one name in two folders may be those of one subject; empty if they are not.

    Args:
        one: name without suffix → image.
        other: likewise, of the other folder.
    """
    common = sorted(one.keys() & other.keys(), key=natural)
    if not common:
        return "no file has the same name in both, so they may be slices of one stack; rename one if they are not"
    same = next((name for name in common if _same(one[name], other[name])), None)
    return f"{other[same]} has the same content as {one[same]}" if same else ""


def _same(one: Path, other: Path) -> bool:
    """Whether two images have the same content, as files or below the compression."""
    from greenseg.data.fingerprint import digests  # loads SimpleITK; few data sets need it

    try:
        sizes = [path.stat().st_size for path in (one, other)]
        if one.is_dir() and other.is_dir():
            return len({tuple(found) for found in digests([one, other])}) == 1
        if not (one.is_file() and other.is_file()):
            return False
        if sizes[0] == sizes[1]:
            first, second = digests([one, other])
            if first == second:
                return True
        packed = _end_of_gzip(one)
        return packed is not None and packed == _end_of_gzip(other)
    except OSError:  # reported with every unreadable file
        return False


def _end_of_gzip(path: Path) -> bytes | None:
    """Checksum and length of the content of a gzip file, which another compression keeps; None for other files."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return None
        file.seek(-8, 2)
        return file.read()
