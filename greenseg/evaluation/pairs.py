"""Pairs of a predicted mask and its reference mask, found by name."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from greenseg.classes import Classes
from greenseg.data.e2mip import TRAINING
from greenseg.data.layout import look
from greenseg.data.listing import SUFFIXES, by_stem, natural, some, stem_of, subject_of
from greenseg.data.nnunet import is_nnunet
from greenseg.errors import UserError
from greenseg.report.units import count
from greenseg.settings import Layout

_ROLE = r"mask|pred|prediction|maskpred|seg|segmentation|dseg|label|labels"
_PREFIX = re.compile(r"(mask|seg|pred|label)[_-](?=.)|(img|image|mask)[_-]?(?=\d)", re.IGNORECASE)
_SUFFIX = re.compile(rf"([_-]({_ROLE}))+$", re.IGNORECASE)
_FIRST_CHANNEL = re.compile(r"_0000$")


@dataclass(frozen=True)
class Pair:
    """A reference mask with its prediction.

    Attributes:
        name: name of the reference, for tables: its file without the suffixes that mark a mask.
        subject: name of the subject.
        reference: its file.
        prediction: file of the prediction; None if it is missing, which counts as an empty mask.
        ignored: labels of the reference that mean "not annotated".
        image: its image; None if unknown.
        is_test: whether the data set names it for its test part.
    """

    name: str
    subject: str
    reference: Path
    prediction: Path | None = None
    ignored: tuple[int, ...] = ()
    image: Path | None = None
    is_test: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The mask files."""
        return (self.reference, self.prediction) if self.prediction else (self.reference,)


@dataclass
class Pairing:
    """All pairs.

    Attributes:
        pairs: in the order of the references.
        is_data_set: whether the references are those of a data set in a known layout.
        classes: the classes that this data set names; None if it names fewer than two.
        notes: notes for the user.
    """

    pairs: list[Pair]
    is_data_set: bool = False
    classes: Classes | None = None
    notes: list[str] = field(default_factory=list)


def core_of(stem: str) -> str:
    """The name of a case, without the words that mark a mask.

    >>> core_of("mask_0003"), core_of("img_0003"), core_of("case7_maskpred"), core_of("sub-01_dseg")
    ('0003', '0003', 'case7', 'sub-01')
    """
    return _PREFIX.sub("", _without_suffix(stem), count=1)


def _without_suffix(stem: str) -> str:
    return _SUFFIX.sub("", stem) or stem


def name_of_mask(path: Path) -> str:
    """The name of a mask, for tables: its file without the suffixes that mark a mask."""
    return _without_suffix(_stem(path))


def pair_up(
    predictions: Path,
    references: Path,
    layout: Layout = "auto",
    labels: str = "",
    channels: str = "",
    *,
    allow_missing: bool = False,
    images: Path | None = None,
) -> Pairing:
    """Find the prediction of each reference.

    Two files are a pair whatever their names. In folders, names are compared: whole stems first, then without the
    words that mark a mask (`core_of`). In a data set, a prediction may have the name of the mask, of the image, or of
    a subject with a single mask.

    Args:
        predictions: a file, or a folder with files.
        references: a file, a folder with files, or a data set.
        layout: layout of the data set; auto = detect it, if it is one.
        labels: the setting; if it is empty, the data set may name classes.
        channels: the setting; BIDS needs it to find masks beside images other than T2w.
        allow_missing: whether references may lack a prediction.
        images: folder with images of the references; None = those of the data set.

    Raises:
        UserError: files that do not exist or have no partner, or several; lists all problems.
    """
    if problems := [f"{path}: no such file or folder" for path in (predictions, references) if not path.exists()]:
        raise UserError(problems)
    is_csv = references.is_file() and references.suffix.lower() == ".csv"
    if predictions.is_dir() != (references.is_dir() or is_csv):
        one, other = ("folder" if path.is_dir() else "file" for path in (predictions, references))
        other = "data set" if is_csv else other
        raise UserError(
            f"{predictions} is a {one}, {references} a {other}; compare two files, or a folder with a folder or a data "
            f"set"
        )
    if predictions.is_file():
        stem = _stem(references)
        found = Pairing([Pair(_without_suffix(stem), subject_of(_without_suffix(stem)), references, predictions)])
    else:
        found = _of_data_set(references, layout, labels, channels, problems, is_csv) or _of_folder(references, problems)
        _find_predictions(found, predictions, allow_missing, problems)
    if images:
        _find_images(found, images, problems)
    if problems:
        raise UserError(problems)
    return found


def _stem(path: Path) -> str:
    return stem_of(path) or path.stem


def _of_data_set(
    root: Path, layout: Layout, labels: str, channels: str, problems: list[str], is_csv: bool
) -> Pairing | None:
    """The references of a data set; None if the folder is none."""
    known = is_nnunet(root) or any((root / name).is_dir() for name in (*TRAINING, "masks"))
    if layout == "auto" and not (is_csv or known or any(path.is_dir() for path in root.glob("sub-*"))):
        return None
    listing = look(root, layout, channels)
    problems += listing.problems + ([] if labels else listing.class_problems)
    pairs = [
        Pair(
            name_of_mask(entry.mask),
            entry.subject,
            entry.mask,
            None,
            entry.ignored,
            entry.image,
            entry.split == "test",
        )
        for entry in listing.entries
        if entry.mask
    ]
    if not pairs and not problems:
        problems.append(f"{root}: no masks in layout {listing.layout}")
    return Pairing(pairs, True, listing.classes, list(listing.notes))


def _of_folder(folder: Path, problems: list[str]) -> Pairing:
    names = [(path, _without_suffix(stem)) for stem, path in _files("reference", folder, problems).items()]
    return Pairing([Pair(name, subject_of(name), path) for path, name in names])


def _files(kind: str, folder: Path, problems: list[str]) -> dict[str, Path]:
    """Stem → image file of a folder."""
    found = {stem: path for stem, path in by_stem(kind, folder, problems).items() if not path.is_dir()}
    for stem, path in list(found.items()):
        if (name := path.name.encode(errors="backslashreplace").decode()) != path.name:  # on Linux, names are any bytes
            problems.append(f"{folder}: {name}: the name is not UTF-8; rename it")
            del found[stem]
    if not found and not problems:
        problems.append(f"{folder}: no masks ({', '.join(SUFFIXES)})")
    return found


_Names = dict[str, list[Pair]]
"""Name → the references that it fits."""


def _find_predictions(found: Pairing, folder: Path, allow_missing: bool, problems: list[str]) -> None:
    """Set the prediction of each pair."""
    exact = _names(found.pairs, lambda stem: stem)
    alike = _names(found.pairs, core_of)
    for_subject = Counter(pair.subject for pair in found.pairs)
    for pair in found.pairs:
        if for_subject[pair.subject] == 1 and pair not in alike[pair.subject]:
            alike[pair.subject].append(pair)
    files_of: dict[Pair, list[Path]] = defaultdict(list)
    lonely: list[Path] = []
    for stem, path in _files("prediction", folder, problems).items():
        fitting = exact.get(stem) or alike.get(stem) or alike.get(core_of(stem)) or []
        for pair in fitting:
            files_of[pair].append(path)
        if len(fitting) > 1:
            several = some([pair.reference.name for pair in fitting])
            problems.append(f"{path}: fits several references ({several}); give it the name of one of them")
        elif not fitting:
            lonely.append(path)
    if lonely and found.pairs:
        names, expected = (some(each) for each in ([p.name for p in lonely], [p.reference.name for p in found.pairs]))
        problems.append(
            f"{folder}: {count(len(lonely), 'prediction')} without reference: {names}; references: {expected}"
        )
    for pair, paths in files_of.items():
        if len(paths) > 1:
            several = some([path.name for path in paths])
            problems.append(f"{pair.reference}: several predictions ({several}); keep one")
    _leave_out_a_part(found, files_of)
    missing = [pair for pair in found.pairs if pair not in files_of]
    found.pairs = [replace(pair, prediction=files_of[pair][0]) if pair in files_of else pair for pair in found.pairs]
    if allow_missing and missing:
        names = some([pair.name for pair in missing])
        found.notes.append(f"{count(len(missing), 'reference')} without a prediction ({names}): counted as empty")
    elif missing:
        names = some([str(pair.reference) for pair in missing])
        which = "it as an empty prediction" if len(missing) == 1 else "them as empty predictions"
        problems.append(
            f"{folder}: {count(len(missing), 'reference')} without prediction: {names}; expected files such as "
            f"{folder / missing[0].reference.name}; count {which} with --allow-missing"
        )


def _leave_out_a_part(found: Pairing, predicted: Container[Pair]) -> None:
    """Leave out the test part, or all the rest, if none of it is predicted: one usually predicts one of the two."""
    parts = {is_test: [pair for pair in found.pairs if pair.is_test is is_test] for is_test in (True, False)}
    without = [is_test for is_test, pairs in parts.items() if not any(pair in predicted for pair in pairs)]
    if len(without) == 1 and all(parts.values()):
        left_out = parts[without[0]]
        words = "test part" if without[0] else "training and validation"
        found.pairs = parts[not without[0]]
        found.notes.append(f"no prediction for the {words}: {count(len(left_out), 'reference')} left out")


def _names(pairs: Iterable[Pair], key: Callable[[str], str]) -> _Names:
    """The keys of the mask and of the image of each pair."""
    names: _Names = defaultdict(list)
    for pair in pairs:
        stems = [_stem(path) for path in (pair.reference, pair.image) if path]
        for name in dict.fromkeys(key(stem) for stem in stems):
            names[name].append(pair)
    return names


def _find_images(found: Pairing, folder: Path, problems: list[str]) -> None:
    """Set the image of each pair: the file with the name of its reference, maybe with `_0000`, as in nnU-Net."""
    if not folder.is_dir():
        problems.append(f"--images {folder}: no such folder")
        return
    files = by_stem("image", folder, problems)
    keys: list[Callable[[str], str]] = [lambda stem: stem, lambda stem: _FIRST_CHANNEL.sub("", stem), core_of]
    levels = [_by_key(files, key) for key in keys]
    for place, pair in enumerate(found.pairs):
        stem = _stem(pair.reference)
        names = (stem, pair.name, core_of(stem))
        image = next((level[name] for level in levels for name in names if name in level), None)
        if image is None:
            problems.append(f"{folder}: no image for the reference {pair.reference}; expected {stem}.nii.gz")
        else:
            found.pairs[place] = replace(pair, image=image)


def _by_key(files: Mapping[str, Path], key: Callable[[str], str]) -> dict[str, Path]:
    """Key → the first file that has it."""
    found: dict[str, Path] = {}
    for stem, path in sorted(files.items(), key=lambda item: natural(item[0])):
        found.setdefault(key(stem), path)
    return found


def of_subjects(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs of each subject, in their order."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.subject].append(pair)
    return list(groups.values())
