"""The nnU-Net v2 layout: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md; v1 is very
similar."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from greenseg.data.listing import (
    BROKEN,
    Entry,
    Listing,
    broken,
    by_stem,
    images_in,
    is_broken_folder,
    missing,
    second,
    some,
    subject_of,
)

_BACKGROUND = "background"
_DESCRIPTION = "dataset.json"
_IGNORE = "ignore"  # name of the label for pixels without annotation


def is_nnunet(root: Path) -> bool:
    """Whether a folder has this layout: `imagesTr`, or a dataset.json that names the files."""
    images = root / "imagesTr"
    return (
        images.is_dir()
        or is_broken_folder(images)
        or isinstance(_description(root, Listing("nnunet")).get("dataset"), dict)
    )


def list_nnunet(root: Path, found: Listing) -> None:
    """List the cases of imagesTr and labelsTr, or those that dataset.json names."""
    description = _description(root, found)
    names = _channel_names(root, description, found)
    ignored = _ignored(root, description, found)
    if isinstance(cases := description.get("dataset"), dict):
        _list_named(root, cases, names, ignored, found)
    elif not missing((root / "imagesTr", root / "labelsTr"), found.problems):
        _list_folders(root, names, ignored, found)
    if ignored:
        found.notes.append(
            f"{root / _DESCRIPTION}: label {', '.join(map(str, ignored))} is '{_IGNORE}' and counts as background"
        )


def _list_folders(root: Path, names: Mapping[int, str], ignored: tuple[int, ...], found: Listing) -> None:
    images, masks = root / "imagesTr", root / "labelsTr"
    mask_of = by_stem("mask", masks, found.problems)
    channels: dict[str, set[int]] = defaultdict(set)
    first: dict[str, Path] = {}
    for path, case, channel in _images(images, found):
        channels[case].add(channel)
        if channel == 0 and case in first:
            found.problems.append(second(path, "image", first[case]))
        elif channel == 0:
            first[case] = path
    for case in channels:
        mask = mask_of.pop(case, None)
        if case not in first:
            found.problems.append(f"{images / f'{case}_0000.nii.gz'}: missing, but this case has other channels")
        elif mask is None:
            found.problems.append(f"{first[case]}: image without mask; expected {masks / f'{case}.nii.gz'}")
        else:
            found.entries.append(Entry(first[case], mask, subject_of(case), None, str(first[case]), ignored))
    found.problems += [
        f"{path}: mask without image; expected {images / f'{case}_0000.nii.gz'}" for case, path in mask_of.items()
    ]
    _say_channels(root, names, {case: len(of_case) for case, of_case in channels.items()}, found)
    broken([root / "imagesTs"], found.problems)
    if (root / "imagesTs").is_dir():
        for path, case, channel in _images(root / "imagesTs", found):
            if channel == 0:
                found.entries.append(Entry(path, None, subject_of(case), "test", str(path)))


def _images(folder: Path, found: Listing) -> Iterator[tuple[Path, str, int]]:
    """Every image with its case and the number of its channel."""
    for path, stem in images_in(folder, found.problems):
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
        if not numbered:
            found.problems.append(f"{path}: no channel in its name; rename it to {stem}_0000")
        # Listed all the same, so that its mask is not reported, too.
        yield (path, numbered[1], int(numbered[2])) if numbered else (path, stem, 0)


def _list_named(
    root: Path, cases: dict[str, Any], names: Mapping[int, str], ignored: tuple[int, ...], found: Listing
) -> None:
    """The cases in section `dataset` of dataset.json: case → `images`, one per channel, and `label`."""
    where = root / _DESCRIPTION
    wrong = [case for case, files in cases.items() if not _is_case(files)]
    if wrong:
        found.problems.append(
            f"{where}: dataset: {some(wrong)}: a case needs 'images', a list of files, and 'label', a file"
        )
        return
    listed = {case: ([root / image for image in c["images"]], root / c["label"]) for case, c in cases.items()}
    for case, (images, label) in listed.items():
        gone = [f"{where}: dataset: {case}: {path}: {BROKEN}" for path in (*images[:1], label) if not path.exists()]
        if not images:
            gone.append(f"{where}: dataset: {case}: names no image")
        found.problems += gone
        if not gone:
            found.entries.append(Entry(images[0], label, subject_of(case), None, f"{where}: {case}", ignored))
    _say_channels(root, names, {case: len(images) for case, (images, _) in listed.items()}, found)


def _is_case(files: Any) -> bool:
    if not isinstance(files, dict) or not isinstance(images := files.get("images"), list):
        return False
    return all(isinstance(name, str) for name in [*images, files.get("label")])


def _say_channels(root: Path, names: Mapping[int, str], channels: Mapping[str, int], found: Listing) -> None:
    """Add notes if there are several channels, and if their number differs from dataset.json."""
    numbers = sorted(set(channels.values()))
    first = f", {names[0]}" if 0 in names else ""
    if numbers and numbers[-1] > 1:
        count = numbers[-1] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        found.notes.append(f"{root}: {count} channels per case; greenseg uses the first one{first}")
    if names and numbers and [len(names)] != numbers:
        case, has = next((case, number) for case, number in channels.items() if number != len(names))
        found.notes.append(
            f"{root / _DESCRIPTION}: names {len(names)} channel{'s' if len(names) > 1 else ''} "
            f"({', '.join(names.values())}), but case {case} has {has}"
        )


def _description(root: Path, found: Listing) -> dict[str, Any]:
    path = root / _DESCRIPTION
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            return content
        error: object = f"a {type(content).__name__}"
    except (OSError, ValueError, RecursionError) as wrong:
        error = wrong
    found.problems.append(f"{path}: not a description of an nnU-Net data set: {error}")
    return {}


def _channel_names(root: Path, description: Mapping[str, Any], found: Listing) -> dict[int, str]:
    key = "channel_names" if "channel_names" in description else "modality"
    named = description.get(key, {})
    if not isinstance(named, dict) or not all(number.isdecimal() for number in named):
        found.problems.append(
            f'{root / _DESCRIPTION}: {key}: must be a mapping of number to name, such as {{"0": "T2"}}'
        )
        return {}
    return {number: str(name) for number, name in sorted((int(number), name) for number, name in named.items())}


def _ignored(root: Path, description: Mapping[str, Any], found: Listing) -> tuple[int, ...]:
    """The labels with the name `ignore`: name → label, or labels of a region; label → name in version 1."""
    ignored: set[int] = set()
    try:
        for key, value in description.get("labels", {}).items():
            name, of_name = (value, key) if str(value).strip().lower() in (_IGNORE, _BACKGROUND) else (key, value)
            if name.strip().lower() == _BACKGROUND and int(str(of_name)) != 0:
                found.problems.append(
                    f"{root / _DESCRIPTION}: labels: {_BACKGROUND} is {of_name}; it must be 0, as in nnU-Net"
                )
            if name.strip().lower() == _IGNORE:
                ignored |= {int(str(label)) for label in (of_name if isinstance(of_name, list) else [of_name])}
    except (AttributeError, ValueError):
        example = json.dumps({_BACKGROUND: 0, "brain": 1})
        found.problems.append(f"{root / _DESCRIPTION}: labels: must be a mapping of name to number, such as {example}")
        return ()
    if wrong := [label for label in ignored if label <= 0]:
        found.problems.append(f"{root / _DESCRIPTION}: labels: {_IGNORE} is {wrong[0]}; it must be above 0")
        return ()
    return tuple(sorted(ignored))
