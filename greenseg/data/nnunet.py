"""The nnU-Net v2 layout: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md; v1 is very
similar."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from greenseg.data.listing import (
    BROKEN,
    Entry,
    Listing,
    Split,
    broken,
    by_stem,
    has_images,
    images_in,
    is_broken_folder,
    labels_text,
    missing,
    second,
    some,
    subject_of,
)
from greenseg.data.named import named, remedy

_BACKGROUND = "background"
_DESCRIPTION = "dataset.json"
_IGNORE = "ignore"  # name of the label for pixels without annotation
_CT = "ct"  # name of a channel in Hounsfield units, in any case

_Files = dict[str, dict[int, Path]]
"""Case → number of a channel → its image."""


def is_nnunet(root: Path) -> bool:
    """Whether a folder has this layout: `imagesTr`, or a dataset.json that names the files."""
    images = root / "imagesTr"
    return (
        images.is_dir()
        or is_broken_folder(images)
        or isinstance(_description(root, Listing("nnunet")).get("dataset"), dict)
    )


def list_nnunet(root: Path, found: Listing) -> None:
    """List the cases of imagesTr and labelsTr, or those that dataset.json names, with the wanted channels."""
    description = _description(root, found)
    names = _channel_names(root, description, found)
    ignored = _labels(root, description, found)
    if isinstance(cases := description.get("dataset"), dict):
        _list_named(root, cases, names, ignored, found)
    elif not missing((root / "imagesTr", root / "labelsTr"), found.problems):
        _list_folders(root, names, ignored, found)
    if ignored:
        found.notes.append(
            f"{root / _DESCRIPTION}: '{_IGNORE}' ({labels_text(ignored)}): these pixels count neither in the loss "
            f"nor in a metric"
        )


def _list_folders(root: Path, names: Mapping[int, str], ignored: tuple[int, ...], found: Listing) -> None:
    files = _files(root / "imagesTr", found)
    chosen = _chosen(root, names, files, found)
    _pair_up(root / "imagesTr", root / "labelsTr", files, chosen, names, ignored, None, found)
    _compare_channels(root, names, files, found)
    _list_test(root, chosen, names, ignored, found)


def _pair_up(
    images: Path,
    masks: Path,
    files: _Files,
    chosen: list[int],
    names: Mapping[int, str],
    ignored: tuple[int, ...],
    split: Split | None,
    found: Listing,
) -> None:
    """Add the cases of two folders; a case that lacks its mask, its image or a channel is a problem."""
    mask_of = by_stem("mask", masks, found.problems)
    ct = _in_hounsfield_units(names, chosen)
    for case, channels in files.items():
        mask = mask_of.pop(case, None)
        if lacking := [number for number in chosen if number not in channels]:
            found.problems += [
                f"{images / f'{case}_{number:04}.nii.gz'}: missing; case {case} lacks channel {_shown(number, names)}, "
                f"which other cases have: add it, or name the channels that all have with --channels"
                for number in lacking
            ]
        elif mask is None:
            image = channels[chosen[0] if chosen else min(channels)]
            found.problems.append(f"{image}: image without mask; expected {masks / f'{case}.nii.gz'}")
        elif chosen:
            image, *more = (channels[number] for number in chosen)
            found.entries.append(Entry(image, mask, subject_of(case), split, str(image), ignored, tuple(more), ct))
    found.problems += [
        f"{path}: mask without image; expected {images / f'{case}_0000.nii.gz'}" for case, path in mask_of.items()
    ]


def _list_test(
    root: Path, chosen: list[int], names: Mapping[int, str], ignored: tuple[int, ...], found: Listing
) -> None:
    """The test part: imagesTs with labelsTs. Without labelsTs, the images can only be predicted."""
    images, masks = root / "imagesTs", root / "labelsTs"
    broken([images, masks], found.problems)
    if is_broken_folder(images) or is_broken_folder(masks):
        return
    if has_images(masks):
        files = _files(images, found) if images.is_dir() else {}
        _pair_up(images, masks, files, chosen, names, ignored, "test", found)
    elif images.is_dir():
        ct = _in_hounsfield_units(names, chosen)
        for case, channels in _files(images, found).items():
            there = [channels[number] for number in chosen if number in channels]
            if len(there) == len(chosen) > 0:
                image, *more = there
                entry = Entry(image, None, subject_of(case), "test", str(image), more=tuple(more), ct=ct)
                found.entries.append(entry)


def _files(folder: Path, found: Listing) -> _Files:
    """The images of a folder. A second image of the same case and channel is a problem."""
    files: _Files = defaultdict(dict)
    for path, case, channel in _images(folder, found):
        first = files[case].setdefault(channel, path)
        if first is not path:
            found.problems.append(second(path, "image", first))
    return files


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
    files = {case: {n: root / image for n, image in enumerate(c["images"])} for case, c in cases.items()}
    chosen = _chosen(root, names, files, found)
    for case, channels in files.items():
        label = root / cases[case]["label"]
        images = [channels[number] for number in chosen if number in channels]
        gone = [f"{where}: dataset: {case}: {path}: {BROKEN}" for path in (*images, label) if not path.exists()]
        if not channels:
            gone.append(f"{where}: dataset: {case}: names no image")
        elif lacking := [_shown(number, names) for number in chosen if number not in channels]:
            gone.append(
                f"{where}: dataset: {case}: lacks channel {', '.join(lacking)}, which other cases have: add it, or "
                f"name the channels that all have with --channels"
            )
        found.problems += gone
        if images and not gone:
            image, *more = images
            ct = _in_hounsfield_units(names, chosen)
            entry = Entry(image, label, subject_of(case), None, f"{where}: {case}", ignored, tuple(more), ct)
            found.entries.append(entry)
    _compare_channels(root, names, files, found)


def _is_case(files: Any) -> bool:
    if not isinstance(files, dict) or not isinstance(images := files.get("images"), list):
        return False
    return all(isinstance(name, str) for name in [*images, files.get("label")])


def _chosen(root: Path, names: Mapping[int, str], files: _Files, found: Listing) -> list[int]:
    """The numbers of the wanted channels, by default of all that a case has; sets their names."""
    have = {number for channels in files.values() for number in channels}
    chosen: list[int] = []
    for name in found.wanted:
        alike = [number for number, known in names.items() if known == name]
        number = int(name) if not alike and re.fullmatch(r"\d{1,4}", name) else next(iter(alike), None)
        valid = ", ".join(_shown(number, names) for number in sorted(have))
        if len(alike) > 1:
            found.problems.append(
                f"{root}: channels: {len(alike)} channels have the name '{name}'; name their numbers: "
                f"{', '.join(map(str, alike))}"
            )
        elif number is None or number not in have:
            found.problems.append(f"{root}: channels: no channel '{name}'; valid: {valid}")
        elif number in chosen:
            found.problems.append(f"{root}: channels: '{name}' is channel {_shown(number, names)} again; name it once")
        else:
            chosen.append(number)
    chosen = chosen if found.wanted else sorted(have)
    found.channels = tuple(names.get(number, str(number)) for number in chosen)
    return chosen


def _shown(number: int, names: Mapping[int, str]) -> str:
    return f"{number} ({names[number]})" if number in names else str(number)


def _in_hounsfield_units(names: Mapping[int, str], chosen: Iterable[int]) -> tuple[int, ...]:
    return tuple(place for place, number in enumerate(chosen) if names.get(number, "").casefold() == _CT)


def _compare_channels(root: Path, names: Mapping[int, str], files: _Files, found: Listing) -> None:
    """Add a note if the number of channels differs from dataset.json."""
    other = next((case for case, channels in files.items() if channels and len(channels) != len(names)), None)
    if names and other is not None:
        found.notes.append(
            f"{root / _DESCRIPTION}: names {len(names)} channel{'s' if len(names) > 1 else ''} "
            f"({', '.join(names.values())}), but case {other} has {len(files[other])}"
        )


def _description(root: Path, found: Listing) -> dict[str, Any]:
    path = root / _DESCRIPTION
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
        if isinstance(content, dict):
            return content
        error: object = f"a {type(content).__name__}"
    except (OSError, ValueError, RecursionError) as wrong:
        error = wrong
    found.problems.append(f"{path}: not a description of an nnU-Net data set: {error}")
    return {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; json.loads would silently keep the last of two with the same name."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return content


def _channel_names(root: Path, description: Mapping[str, Any], found: Listing) -> dict[int, str]:
    key = "channel_names" if "channel_names" in description else "modality"
    named_channels = description.get(key, {})
    if not isinstance(named_channels, dict) or not all(number.isdecimal() for number in named_channels):
        found.problems.append(
            f'{root / _DESCRIPTION}: {key}: must be a mapping of number to name, such as {{"0": "T2"}}'
        )
        return {}
    return dict(sorted((int(number), str(name).strip()) for number, name in named_channels.items()))


def _labels(root: Path, description: Mapping[str, Any], found: Listing) -> tuple[int, ...]:
    """The labels with the name `ignore`; sets the classes.

    Version 2 maps a name to a label, or to the labels of a region. Version 1 maps a label to a name.
    """
    where = f"{root / _DESCRIPTION}: labels"
    ignored: set[int] = set()
    classes: list[tuple[str, Any]] = []
    try:
        for key, value in description.get("labels", {}).items():
            is_first_version = key.isdecimal() and isinstance(value, str) and not value.strip().isdecimal()
            name, label = (value.strip(), key) if is_first_version else (key.strip(), value)
            if name.lower() == _BACKGROUND:
                if int(str(label)) != 0:
                    found.problems.append(f"{where}: {_BACKGROUND} is {label}; it must be 0, as in nnU-Net")
            elif name.lower() == _IGNORE:
                ignored |= {int(str(one)) for one in (label if isinstance(label, list) else [label])}
            else:
                classes.append((name, label))
    except (AttributeError, ValueError):
        example = json.dumps({_BACKGROUND: 0, "brain": 1})
        found.problems.append(f"{where}: must be a mapping of name to number, such as {example}")
        return ()
    if wrong := [label for label in ignored if label <= 0]:
        found.problems.append(f"{where}: {_IGNORE} is {wrong[0]}; it must be above 0")
        return ()
    _set_classes(where, classes, ignored, found)
    return tuple(sorted(ignored))


def _set_classes(where: str, classes: list[tuple[str, Any]], ignored: Iterable[int], found: Listing) -> None:
    example = "csf", [1]
    try:
        numbered = []
        for name, value in classes if len(classes) > 1 else []:
            labels = value if isinstance(value, list) else [value]
            if not labels or not all(re.fullmatch(r"0*[1-9]\d{0,8}", str(label)) for label in labels):
                raise ValueError(f"class '{name}' has {json.dumps(value)}, not labels above 0")
            numbers = [int(str(label)) for label in labels]
            if both := sorted({*numbers} & {*ignored}):
                raise ValueError(f"label {both[0]} is in class '{name}' and is '{_IGNORE}'")
            example = max(example, (name, numbers), key=lambda one: len(one[1]))
            numbered.append((name, numbers))
        found.classes = named(numbered)
    except ValueError as error:
        regions = "; classes must not overlap (region-based training is not supported)" if len(example[1]) > 1 else ""
        found.class_problems.append(f"{where}: {error}{regions}; {remedy(*example)}")
