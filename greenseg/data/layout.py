"""Finding the images of a data set, their masks, their subjects and their split."""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from greenseg.errors import UserError

Split = Literal["train", "validation"]

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of the image files that are looked for; SimpleITK reads them all."""

EXPECTED = """\
    training_data/images/img_0000.nii.gz       slices or volumes
    training_data/masks/mask_0000.nii.gz       or <image>_mask.nii.gz, or the image's own name
    validation_data/{images,masks}/            optional
  or images/ and masks/ directly in the folder"""


@dataclass(frozen=True)
class Case:
    """One subject: its files, in the order of their names, and the split that all of them are in."""

    subject: str
    split: Split
    files: tuple[tuple[Path, Path], ...]
    """Pairs of an image and its mask."""


def subject_of(stem: str) -> str:
    """The subject that a file belongs to: its name without the number of a slice.

    >>> subject_of("DWI_case0001_slice14"), subject_of("img_0003")
    ('DWI_case0001', 'img_0003')
    """
    return re.sub(r"[_-]slice[_-]?\d+$", "", stem, flags=re.IGNORECASE)


def scan(root: Path, validation_share: float = 0.2) -> list[Case]:
    """The cases of a data set in the E2MIP layout.

    Subjects of `validation_data` validate; where there is none, a subject validates if the hash of its name falls into
    the first `validation_share`, so that adding a subject moves no other (unless one side would be empty).

    Args:
        root: folder that holds `training_data`, or `images` and `masks`.
        validation_share: share of the subjects that validate, where the data names none.

    Raises:
        UserError: missing folders, images without mask, masks without image, a subject in both splits, too few
            subjects; all that was found.
    """
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; give --data a folder laid out like this:\n{EXPECTED}\n"
            f"  or leave --data out to use the built-in phantom"
        )
    training = root / "training_data" if (root / "training_data").is_dir() else root
    folders: dict[Split, Path] = {"train": training}
    if (root / "validation_data").is_dir():
        folders["validation"] = root / "validation_data"

    problems: list[str] = []
    files: dict[Split, dict[str, list[tuple[Path, Path]]]] = {}
    for split, folder in folders.items():
        files[split] = _pairs(folder, problems)
    for subject in sorted(set(files["train"]) & set(files.get("validation", {}))):
        image = files["validation"][subject][0][0]
        problems.append(f"{image}: subject '{subject}' is in training_data as well; keep a subject in one split")
    if problems:
        raise UserError(problems)

    if "validation" not in files:
        files["validation"] = {s: files["train"].pop(s) for s in _held_out(sorted(files["train"]), validation_share)}
    if not files["train"] or not files["validation"]:
        raise UserError(f"{training}: one subject only; at least 2 are needed, one to train and one to validate")
    return [Case(s, split, tuple(pairs)) for split in files for s, pairs in sorted(files[split].items())]


def _stem(path: Path) -> str | None:
    if path.name.startswith("."):  # macOS leaves ._files beside the real ones
        return None
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    return path.name[: -len(suffix)] if suffix else None


def _pairs(folder: Path, problems: list[str]) -> dict[str, list[tuple[Path, Path]]]:
    images, masks = folder / "images", folder / "masks"
    missing = [f"{path}: no such folder; expected:\n{EXPECTED}" for path in (images, masks) if not path.is_dir()]
    if missing:
        problems.extend(missing)
        return {}
    mask_of: dict[str, Path] = {}
    for path in sorted(masks.iterdir()):
        stem = _stem(path)
        if stem in mask_of:
            problems.append(f"{path}: a second mask of the same name ({mask_of[stem].name}); keep one")
        elif stem is not None:
            mask_of[stem] = path
    pairs: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for path in sorted(images.iterdir()):
        stem = _stem(path)
        if stem is None:
            continue
        names = [f"{stem}_mask", re.sub(r"^(img|image)(?=[_-]?\d)", "mask", stem)]
        mask = next((mask_of.pop(name) for name in names if name in mask_of), None)
        if mask is None:
            wanted = " or ".join(dict.fromkeys(f"{name}.nii.gz" for name in names if name != stem))
            problems.append(f"{path}: image without mask; expected {masks / wanted}")
        else:
            pairs[subject_of(stem)].append((path, mask))
    problems += [f"{path}: mask without image; expected its image in {images}" for path in mask_of.values()]
    if not pairs and not problems:
        problems.append(f"{images}: no images ({', '.join(SUFFIXES)})")
    return dict(pairs)


def _held_out(subjects: list[str], share: float) -> list[str]:
    place = {s: int(hashlib.sha256(s.encode()).hexdigest()[:12], 16) / 16**12 for s in subjects}
    ordered = sorted(subjects, key=place.__getitem__)
    held_out = [s for s in ordered if place[s] < share]
    # Never nobody to validate, never nobody to train.
    return (held_out or ordered[:1])[: max(len(ordered) - 1, 0)]
