"""The images to predict: one file, a folder with images, a DICOM series, or a data set in any layout."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from greenseg.data import kinds
from greenseg.data.e2mip import TESTING, TRAINING, VALIDATION
from greenseg.data.layout import look
from greenseg.data.listing import SUFFIXES, by_stem, images_in, natural, some, stem_of, subject_of
from greenseg.data.nnunet import is_nnunet
from greenseg.errors import UserError
from greenseg.inference.recipe import Recipe
from greenseg.settings import Layout

_CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)
_FOLDERS = ("images", *TRAINING, *VALIDATION, *TESTING)  # of layout e2mip
_TOLD = 3  # folders that a message names
_CHANNELS = 10  # most that files of one case are taken for


@dataclass(frozen=True)
class Input:
    """An image to predict.

    Attributes:
        paths: the file of each channel; a file may have several channels.
        name: name of its mask without suffix, with `/` if it lies in a subfolder.
        subject: its subject; all images of a subject have one scale of intensities.
    """

    paths: tuple[Path, ...]
    name: str
    subject: str


@dataclass
class Inputs:
    """The images to predict, and notes for the user."""

    images: list[Input] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def by_subject(self) -> list[tuple[Input, ...]]:
        """The images of each subject, in their order."""
        groups: dict[str, list[Input]] = defaultdict(list)
        for image in self.images:
            groups[image.subject].append(image)
        return [tuple(group) for group in groups.values()]


def find(root: Path, recipe: Recipe, layout: Layout = "auto", channels: str = "") -> Inputs:
    """The images in a file, a folder or a data set. They need no masks.

    nnU-Net's `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, … are the channels of one image, `CASE`, if the network has as
    many channels. Masks have the names of their images. Where two have the same name, both get a subfolder.

    Args:
        root: an image, a folder with images, the folder of a DICOM series, a data set, or its CSV file.
        recipe: recipe of the network.
        layout: layout of the data set; auto = detect it, if it is one.
        channels: names of the channels of a data set, with commas between them, or numbers of nnU-Net's channels;
            empty = those of the layout.

    Raises:
        UserError: there is no image, or the names contradict each other; lists all problems.
    """
    if not root.exists():
        raise UserError(f"{root}: no such file or folder")
    if not (root.is_file() or root.is_dir()):
        raise UserError(f"{root}: neither a file nor a folder")
    if _is_data_set(root, layout):
        found = _of_data_set(root, layout, channels, recipe)
    elif root.is_file():
        found = Inputs([_of_file(root, recipe, channels)])
    else:
        found = _of_folder(root, recipe, channels)
    if wrong := [str(path) for image in found.images for path in image.paths if not _is_text(path)]:
        shown = some([name.encode(errors="backslashreplace").decode() for name in wrong])
        raise UserError(f"{shown}: the name is not UTF-8; rename it")
    found.images = _told_apart(found.images, root)
    return found


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_data_set(root: Path, layout: Layout) -> bool:
    if layout != "auto":
        return True
    if root.is_file():
        return root.suffix.lower() == ".csv"
    return is_nnunet(root) or any(path.is_dir() for name in (*_FOLDERS, "sub-*") for path in root.glob(name))


def _of_data_set(root: Path, layout: Layout, channels: str, recipe: Recipe) -> Inputs:
    listing = look(root, layout, channels, masks=False)
    if listing.problems:
        raise UserError(listing.problems)
    ct = next(iter(listing.entries)).ct
    notes = list(listing.notes)
    if ct != (expected := tuple(sorted(recipe.windows))):
        said = [f"channels {', '.join(str(n + 1) for n in which)}" if which else "none" for which in (ct, expected)]
        notes.append(f"{root}: {said[0]} of its channels in Hounsfield units, but {said[1]} of the network's")
    images = [
        Input(entry.images, _name(entry.image, listing.layout == "nnunet"), entry.subject) for entry in listing.entries
    ]
    return Inputs(images, notes)


def _name(path: Path, numbered: bool) -> str:
    stem = stem_of(path) or path.name.removesuffix(".gz").removesuffix(Path(path.name.removesuffix(".gz")).suffix)
    return _CHANNEL.sub(r"\1", stem) if numbered and _CHANNEL.fullmatch(stem) else stem


def _of_file(path: Path, recipe: Recipe, channels: str) -> Input:
    stem = _name(path, False)
    numbered = _CHANNEL.fullmatch(stem)
    if numbered and int(numbered[2]) == 0:
        ending = path.name[len(stem) :]
        numbers = _wanted(channels) or range(recipe.channels)
        beside = [path.with_name(f"{numbered[1]}_{number:04}{ending}") for number in numbers]
        whole = all(each.is_file() for each in beside)
        if whole or recipe.channels == 1:
            return Input(tuple(beside if whole else [path]), numbered[1], subject_of(numbered[1]))
    return Input((path,), stem, subject_of(stem))


def _wanted(channels: str) -> list[int]:
    """The numbers of channels that the option names; empty for names."""
    return [int(name) for name in channels.split(",")] if re.fullmatch(r"\d{1,4}(,\d{1,4})*", channels) else []


def _of_folder(folder: Path, recipe: Recipe, channels: str) -> Inputs:
    problems: list[str] = []
    files = by_stem("image", folder, problems)
    images = {stem: path for stem, path in files.items() if not path.is_dir()}  # a broken link fails when it is read
    series = [path for path in files.values() if path.is_dir() and not images.get(path.name) and _has_dicom(path)]
    if not images and not series and _has_dicom(folder):
        return Inputs([Input((folder,), folder.resolve().name, folder.resolve().name)])
    if problems:
        raise UserError(problems)
    found = _of_cases(folder, images, recipe, channels) if images else Inputs()
    found.images += [Input((path,), path.name, subject_of(path.name)) for path in series]
    if not found.images:
        raise UserError(f"{folder}: no images ({', '.join(SUFFIXES)}, or a DICOM series){_instead(folder)}")
    return found


def _has_dicom(folder: Path) -> bool:
    try:
        return any(
            path.suffix.lower() in (".dcm", ".ima") or kinds.kind_of(path)[0] == kinds.DICOM
            for path in sorted(folder.iterdir())[:20]
            if path.is_file() and not path.name.startswith(".")
        )
    except OSError:
        return False


def _instead(folder: Path) -> str:
    """A hint at the folders below that have images."""
    having = [path for path in sorted(folder.glob("*/")) if path.is_dir() and any(_files_in(path))]
    return f"; but in {some([str(path) for path in having], _TOLD)}" if having else ""


def _files_in(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path, _ in images_in(folder, []) if path.is_file())
    except OSError:
        return


def _of_cases(folder: Path, images: dict[str, Path], recipe: Recipe, channels: str) -> Inputs:
    """The images of a folder; files with the channel in their names are one image if the network has as many."""
    cases: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, path in images.items():
        if numbered := _CHANNEL.fullmatch(stem):
            cases[numbered[1]][int(numbered[2])] = path
    plain = Inputs([Input((path,), stem, subject_of(stem)) for stem, path in images.items()])
    wanted = _wanted(channels)
    if channels and not wanted:
        raise UserError(
            f"--channels {channels}: {folder} is a folder with images, whose channels have numbers, such as 0,1"
        )
    if sum(map(len, cases.values())) < len(images):
        if wanted:
            name = next(path.name for stem, path in images.items() if not _CHANNEL.fullmatch(stem))
            raise UserError(f"--channels {channels}: {folder / name} has no channel in its name, such as _0000")
        return plain
    every = sorted({number for of_case in cases.values() for number in of_case})
    alike = all(sorted(of_case) == every for of_case in cases.values())
    if not wanted:
        counted = every == list(range(len(every)))
        several = alike and counted and 1 < len(every) <= _CHANNELS and (len(cases) > 1 or recipe.channels > 1)
        if recipe.channels == 1 and not several and every != [0]:
            return plain
        if several and len(every) != recipe.channels:
            raise UserError(
                f"{folder}: its {len(cases)} cases have {len(every)} channels ({_example(cases)}); the network was "
                f"trained on {recipe.channels}: name them with --channels, such as "
                f"{','.join(map(str, range(recipe.channels)))}"
            )
        wanted = list(range(recipe.channels))
    if lacking := [(case, n) for case, of_case in cases.items() for n in wanted if n not in of_case]:
        raise UserError(
            f"{next(iter(cases[case].values())).parent / f'{case}_{number:04}.nii.gz'}: missing; the network needs "
            f"the channels {', '.join(map(str, wanted))} of each case"
            for case, number in lacking
        )
    return Inputs([Input(tuple(of[n] for n in wanted), case, subject_of(case)) for case, of in cases.items()])


def _example(cases: dict[str, dict[int, Path]]) -> str:
    return some([path.name for path in next(iter(cases.values())).values()])


def _told_apart(images: Sequence[Input], root: Path) -> list[Input]:
    """The images, with subfolders in the names that occur twice."""
    named: dict[str, list[Input]] = defaultdict(list)
    for image in images:
        named[image.name].append(image)
    result, problems = [], list[str]()
    for image in images:
        alike = named[image.name]
        if len(alike) > 1:
            folders = [os.path.abspath(one.paths[0].parent) for one in alike]  # noqa: PTH100 - not resolved
            base = os.path.abspath(root)  # noqa: PTH100
            if root.is_file() or not all(Path(f).is_relative_to(base) for f in folders):
                base = os.path.commonpath(folders)
            below = Path(os.path.abspath(image.paths[0].parent)).relative_to(base).as_posix()  # noqa: PTH100
            image = replace(image, name=image.name if below == "." else f"{below}/{image.name}")
        result.append(image)
    again: dict[str, Input] = {}
    for image in sorted(result, key=lambda one: natural(one.name)):
        if (first := again.setdefault(image.name, image)) is not image:
            problems.append(f"{image.paths[0]} and {first.paths[0]}: both masks would be {image.name}; rename one")
    if problems:
        raise UserError(problems)
    return result
