"""The BIDS layout (https://bids-specification.readthedocs.io), with masks beside the images (as in FeTA) or below
derivatives/."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from greenseg.data.dseg import name_classes
from greenseg.data.listing import BROKEN, Entry, Listing, broken, images_in, is_broken_folder, natural, second, some

_DEFAULT, _MASKS = ("T2w",), ("dseg", "mask")
_OF_DERIVATIVES = {"desc", "space", "label", "res", "den", "hemi", "atlas", "seg"}  # not of the image


@dataclass(frozen=True)
class _File:
    """An image or a mask: its path, its name without the suffix (`sub-01_run-2`), and the suffix (`T2w`)."""

    path: Path
    entities: str
    suffix: str

    @property
    def facts(self) -> set[str]:
        """The entities that identify the image: `sub-01` and `run-2`."""
        return {e for e in self.entities.split("_") if e.partition("-")[0] not in _OF_DERIVATIVES}


_Places = dict[str, list[_File]]
"""Place of a folder, such as `sub-01/ses-1/anat`, → its files."""


def list_bids(root: Path, found: Listing) -> None:
    """List the images of a BIDS data set with the wanted suffixes, by default T2w, with their masks."""
    channels = found.wanted or _DEFAULT
    if wrong := [channel for channel in channels if channel in _MASKS]:
        found.problems.append(f"{root}: channels: '{wrong[0]}' is the suffix of masks, not of images")
        return
    found.channels = channels
    raw = _files(root, found)
    derivatives = sorted(root.glob("derivatives/*"))
    broken([root / "derivatives", *derivatives], found.problems)
    derived = [_files(base, found) for base in derivatives]
    images: dict[str, list[_File]] = defaultdict(list)  # of any kind, by subject
    spare: list[tuple[str, _File]] = []  # masks without an image so far, with their place
    for place in dict.fromkeys(place for places in (raw, *derived) for place in places):
        here = [file for file in raw.get(place, []) if file.suffix not in _MASKS]
        masks = [file for places in (raw, *derived) for file in places.get(place, []) if file.suffix in _MASKS]
        images[_subject(place)] += here
        spare += [(place, mask) for mask in _pair_up(here, masks, channels, place, found)]
    for place, mask in spare if found.masks else []:
        if not any(mask.facts <= image.facts for image in images[_subject(place)]):
            expected = (
                root / place / f"{'_'.join(e for e in mask.entities.split('_') if e in mask.facts)}_{channels[0]}"
            )
            found.problems.append(f"{mask.path}: mask without image; expected {expected}.nii.gz")
    of_subject = {place: images[place] for place in raw if place == _subject(place)}
    for channel in channels:
        _say_who_has_none(root, of_subject, channel, found)
    roots = [*derivatives, root]
    of_masks = [entry.mask for entry in found.entries if entry.mask]
    name_classes(((mask, next(r for r in roots if mask.is_relative_to(r))) for mask in of_masks), found)


def _subject(place: str) -> str:
    return place.partition("/")[0]


def _files(base: Path, found: Listing) -> _Places:
    """The images and masks in all folders `anat` of the subjects in a folder."""
    subjects = [path for path in base.glob("sub-*") if path.is_dir() or is_broken_folder(path)]
    places: _Places = {}
    for subject in sorted(subjects, key=lambda path: natural(path.name)):
        places[subject.name] = []  # includes subjects without images
        for folder in _anatomies(subject, found):
            named = ((path, stem.rpartition("_")) for path, stem in images_in(folder, found.problems))
            place = folder.relative_to(base).as_posix()
            places[place] = [_File(path, entities, suffix) for path, (entities, _, suffix) in named if entities]
    return places


def _anatomies(folder: Path, found: Listing, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """The folders `anat` in a folder; links are followed, unless they lead back to a folder above them."""
    try:
        about = folder.stat()
        children = sorted(os.scandir(folder), key=lambda child: natural(child.name))
    except OSError as error:
        found.problems.append(f"{folder}: {BROKEN if folder.is_symlink() else error.strerror}")
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        found.notes.append(f"{folder}: a link back to a folder above it; greenseg does not follow it")
    elif folder.name == "anat":
        yield folder
    else:
        for child in children:
            path = Path(child)
            if child.is_dir(follow_symlinks=False) or (
                child.is_symlink() and (path.is_dir() or is_broken_folder(path))
            ):
                yield from _anatomies(path, found, (*above, here))


def _pair_up(
    images: Iterable[_File], masks: Iterable[_File], channels: Sequence[str], place: str, found: Listing
) -> list[_File]:
    """Add the images of a folder, each with its mask; returns the masks without an image.

    The channels of an image have the same entities. A mask with an image that lacks a channel is a problem.
    """
    images_of: dict[str, dict[str, Path]] = {}
    for image in images:
        if image.suffix in channels:
            first = images_of.setdefault(image.entities, {}).setdefault(image.suffix, image.path)
            if first is not image.path:
                found.problems.append(second(image.path, "image", first))
    masks_of: dict[str, list[_File]] = {entities: [] for entities in images_of}
    spare: list[_File] = []
    for mask in masks:
        # sub-1_run-2_mask belongs to sub-1_run-2_T2w, not to sub-1_T2w.
        owner = mask.entities
        while owner and owner not in masks_of:
            owner = owner.rpartition("_")[0]
        (masks_of[owner] if owner else spare).append(mask)
    for entities, of_channel in images_of.items():
        own = masks_of[entities]
        exact = [mask for mask in own if mask.entities == entities]
        chosen = exact if len(exact) == 1 else own
        there = next(iter(of_channel.values()))
        lacking = [channel for channel in channels if channel not in of_channel]
        if lacking:
            expected = there.parent / f"{entities}_{lacking[0]}.nii.gz"
            said = f"{there}: no {' and no '.join(lacking)} image beside it; expected {expected}"
            (found.problems if own and found.masks else found.notes).append(said)
        elif len(chosen) == 1 or not found.masks:
            first_channel, *more = (of_channel[channel] for channel in channels)
            mask_path = chosen[0].path if found.masks else None
            found.entries.append(
                Entry(first_channel, mask_path, _subject(place), None, str(first_channel), more=tuple(more))
            )
        elif chosen:
            names = ", ".join(mask.path.name for mask in chosen)
            found.problems.append(f"{there}: several masks ({names}); keep one")
        else:
            expected = there.parent / f"{entities}_dseg.nii.gz"
            found.problems.append(f"{there}: image without mask; expected {expected} or …_mask.nii.gz")
    return spare


def _say_who_has_none(root: Path, images: dict[str, list[_File]], channel: str, found: Listing) -> None:
    """List the subjects without an image of a channel; a problem if no subject has one."""
    kinds = Counter(image.suffix for of_subject in images.values() for image in of_subject)
    without = [s for s, of_subject in images.items() if all(image.suffix != channel for image in of_subject)]
    if images and len(without) == len(images) and not found.problems:
        have = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        found.problems.append(
            f"{root}: no {channel} image in any folder anat{f', but {have}' if have else ''}; name others with "
            f"--channels{f', such as {next(iter(kinds))}' if kinds else ''}, or with their masks in a CSV"
        )
    elif without:
        found.notes.append(f"no {channel} image for {some(without)}")
