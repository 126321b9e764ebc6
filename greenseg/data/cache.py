"""The slice cache: a data set read, resampled and normalised once, then memory-mapped by every run.

Each combination of content and preprocessing has a folder, named by a hash of both:

    images.f32    float32 [slices, channels, size, size]
    masks.u8      uint8   [slices, size, size]: 0 background, from 1 up the classes, 255 not annotated
    native.z      the masks in the pixels of their files, see `greenseg.data.native`
    index.json    subjects, their slices, checksums, windows of CT, and the cost of the preparation

One file has the subjects of all splits, so that folds and other splits of the same data share it. All runs, workers and
ranks of a machine share it through the page cache.
"""

import errno
import json
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from greenseg.classes import BINARY, IGNORED, Classes
from greenseg.data import native, phantom
from greenseg.data.content import Content, preprocessing
from greenseg.data.grid import ByteArray, FloatArray
from greenseg.data.hounsfield import windows
from greenseg.data.listing import labels_text, masks_have, some
from greenseg.data.prepared import on_grid, read
from greenseg.data.splits import Case, cases_of, classes_of, refuse_ignored
from greenseg.errors import UserError
from greenseg.files import CACHE_REMEDY, cache_folder, locked, write_json
from greenseg.settings import PHANTOM, Settings

_SPLITS: dict[Literal["train", "validation"], str] = {"train": "training", "validation": "validation"}
_IMAGES, _MASKS, _INDEX = "images.f32", "masks.u8", "index.json"


@dataclass(frozen=True)
class Slices:
    """Prepared slices of a data set, memory-mapped.

    Attributes:
        folder: their folder in the cache.
        index: content of `index.json`, each subject with its `split`.
        cases: the files and splits that they were made from.
        built: whether this call made them.
        content: content of these files.
        classes: classes of the masks, with their present names.
    """

    folder: Path
    index: dict[str, Any]
    cases: tuple[Case, ...] = ()
    built: bool = False
    content: Content | None = None
    classes: Classes = BINARY

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker maps the files itself.
        return Slices, (self.folder, self.index, self.cases, self.built, None, self.classes)

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return int(self.index["channels"])

    @property
    def has_ignored(self) -> bool:
        """Whether some pixels are not annotated."""
        return bool(self.index["ignored"])

    @cached_property
    def images(self) -> FloatArray:
        """float32 [slices, channels, size, size], normalised per subject and channel."""
        slices, *size = self.index["shape"]
        shape = (slices, self.channels, *size)
        return np.asarray(np.memmap(self.folder / _IMAGES, np.float32, "r", shape=shape))

    @cached_property
    def masks(self) -> ByteArray:
        """uint8 [slices, size, size]: 0 background, from 1 up the number of the class, `IGNORED` not annotated."""
        return np.asarray(np.memmap(self.folder / _MASKS, np.uint8, "r", shape=tuple(self.index["shape"])))

    @cached_property
    def native(self) -> ByteArray:
        """The bytes of `native.z`, for `greenseg.data.native.read`."""
        return np.asarray(np.memmap(self.folder / native.NATIVE, np.uint8, "r"))

    @property
    def windows(self) -> dict[str, list[float]]:
        """Channel in Hounsfield units → the values that became 0 and 1."""
        return dict(self.index["windows"])

    @property
    def bytes(self) -> int:
        """Size on disk and in the page cache."""
        return int(sum(file["bytes"] for file in self.index["files"].values()))

    def subjects(self, split: str) -> list[dict[str, Any]]:
        """The subjects of a split.

        Each is a mapping with `name`, `split`, `first` slice, number of `slices`, indices of the `empty` slices
        (without foreground), the share of the foreground that is `cut_off`, the foreground in mm³ (`brain`), the finest
        `pixel` in mm, both as in the files, `volumes`: each with its number of `slices` and their `distance` in mm,
        or None if unknown, `pixels`: the number of pixels of each class on the grid, and `native`: see
        `greenseg.data.native`.
        """
        return [subject for subject in self.index["subjects"] if subject["split"] == split]


def data_root(settings: Settings, say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder for the setting `data`; the built-in phantom is created on its first use.

    Args:
        settings: settings of a run.
        say: called with a sentence about the location of the phantom.
    """
    if settings.data != PHANTOM:
        return Path(settings.data)
    root, made = phantom.builtin()
    say(f"No --data given: training on the built-in phantom{', created' if made else ''} in {root}")
    return root


def prepare(
    settings: Settings,
    *,
    root: Path | None = None,
    verify: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cost: Callable[[], Mapping[str, Any]] = dict,
) -> Slices:
    """The slices for these settings, from the cache. They are made first if the cache lacks them.

    Several processes may prepare the same data at once: one makes the slices, the others wait. No process sees an
    incomplete entry. A damaged entry is made again.

    Args:
        settings: settings of a run; the group Data matters.
        root: folder of the data, if known.
        verify: compare the checksums of an existing entry, not only sizes.
        progress: called with the number of files read and their total.
        cost: called after the slices are made, just before they are published; the index stores its result.

    Raises:
        UserError: all problems of the data; no files are left behind.
    """
    root = root or data_root(settings)
    cases = cases_of(settings, root)
    classes = classes_of(settings.labels, cases)
    refuse_ignored(cases, classes, root)
    try:
        slices = _slices(cases, classes, settings, root, verify, progress, cost)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}: no space for the slice cache, {5 * settings.image_size**2 / 1e3:.0f} kB per slice; "
            f"free some space (greenseg data cache --clear), or set GREENSEG_CACHE to another folder",
            str(_home()),
        ) from None
    if problems := [problem for split in _SPLITS if (problem := _without_foreground(slices, split, settings, root))]:
        raise UserError(problems)
    return slices


def absent(slices: Slices) -> list[str]:
    """Sentences for the user about classes that no slice of a split has."""
    sentences = []
    for split, words in _SPLITS.items():
        of_subject = [subject["pixels"] for subject in slices.subjects(split)]
        counts = [sum(of_class) for of_class in zip(*of_subject, strict=True)]
        names = [f"'{name}'" for name, count in zip(slices.classes.names, counts, strict=False) if not count]
        if names and len(slices.classes) > 1:
            so = "it cannot be learned" if split == "train" else "its Dice cannot be measured"
            so = so if len(names) == 1 else so.replace("its", "their").replace("it ", "they ")
            sentences.append(f"No {words} slice has class{'es' if len(names) > 1 else ''} {', '.join(names)}: {so}.")
    return sentences


def without_class(slices: Slices) -> str:
    """A sentence for the user about the labels of the masks that belong to none of several classes; may be empty."""
    if others := slices.index["other_labels"]:
        return f"In no class, so background: {labels_text(others)}."
    return ""


def _without_foreground(
    slices: Slices, split: Literal["train", "validation"], settings: Settings, root: Path
) -> str | None:
    """A message if no slice of a split has foreground, so that there is nothing to learn or measure; else None."""
    subjects = slices.subjects(split)
    if any(len(subject["empty"]) < subject["slices"] for subject in subjects):
        return None
    where = f"any {_SPLITS[split]} slice" + (f" of fold {settings.fold}" if settings.folds else "")
    wanted = f" with labels {settings.labels}" if settings.labels else ""
    what, who = "no foreground in", some([subject["name"] for subject in subjects])
    if any(subject["cut_off"] > 0.5 for subject in subjects):
        remedy = f"image_size {settings.image_size} × spacing {settings.spacing:g} mm cuts it off; raise either"
    elif any(subject["brain"] for subject in subjects):
        size = f"{settings.image_size}×{settings.image_size}"
        what = f"no foreground is left on {size} pixels of {settings.spacing:g} mm in"
        finest = min(subject["pixel"] for subject in subjects)
        remedy = (
            f"in the masks, it is smaller than half of such a pixel. The pixels of the files are {finest:.4g} mm wide: "
            f"set --spacing and --image-size accordingly"
        )
    elif wanted:
        remedy = "`greenseg data check` lists the labels in the masks"
    else:
        remedy = "check their masks, or choose other subjects"
    return f"{root}: {what} {where}{wanted} ({who}); {remedy}"


def _slices(
    cases: list[Case],
    classes: Classes,
    settings: Settings,
    root: Path,
    verify: bool,
    progress: Callable[[int, int], None],
    cost: Callable[[], Mapping[str, Any]],
) -> Slices:
    content = Content.of(cases)
    folder = _home() / content.slices_key(settings)
    index, built = _whole(folder, verify), False
    if index is None:
        with locked(_lock_of(folder), CACHE_REMEDY):
            exists = folder.exists()
            index = _whole(folder, verify)  # another process may have been faster
            if index is None:
                # Left by killed processes. Other hosts, which a lock may not keep away, have folders of their own.
                for remains in (*([folder] if exists else []), *folder.parent.glob(f"{_unfinished(folder)}*")):
                    shutil.rmtree(remains, ignore_errors=True)
                _build(cases, classes, settings, root, folder, progress, cost)
                index, built = _whole(folder, verify=False), True
    if index is None:
        raise OSError(f"{folder}: the slices are missing, although they were just written")
    split_of = {case.subject: case.split for case in cases}
    index["subjects"] = [subject | {"split": split_of[subject["name"]]} for subject in index["subjects"]]
    slices = Slices(folder, index, tuple(cases), built, content, classes)
    _ = slices.native  # mapped at once: the end of a run needs it, and the cache may be cleared by then
    return slices


def cached() -> Iterator[Slices]:
    """All complete entries of the slice cache."""
    for path in sorted(_home().glob("*/")):
        if (index := _whole(path, verify=False)) is not None:
            yield Slices(path, index)


def cached_as(name: str) -> Slices | None:
    """The entry of the slice cache with this name; None if there is none, or if it is not complete."""
    index = _whole(_home() / name, verify=False) if name else None
    return None if index is None else Slices(_home() / name, index)


def clear() -> int:
    """Remove all cached slices and the leftovers of killed preparations. Running runs keep their open files.

    Returns:
        Bytes freed.
    """
    freed = 0
    keys = {re.split("[-@]", path.name.removeprefix("."))[0] for path in _home().glob("*") if path.is_dir()}
    for key in sorted(keys):
        with locked(_lock_of(_home() / key), CACHE_REMEDY):  # waits for a running preparation
            for folder in (_home() / key, *_home().glob(f".{key}[-@]*")):
                freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder, ignore_errors=True)
    return freed


def _home() -> Path:
    return cache_folder() / "slices"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _unfinished(folder: Path) -> str:
    """The beginning of the names of folders in which this host prepares an entry."""
    return f".{folder.name}@{socket.gethostname()}@"


def _whole(folder: Path, verify: bool) -> dict[str, Any] | None:
    """The index of an entry if its files have the right sizes (and the right checksums), else None.

    An entry of an earlier version, without the native masks or the windows, is not whole: it is made again.
    """
    try:
        index: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        if index.pop("crc32") != _crc_of(index) or native.NATIVE not in index["files"] or "windows" not in index:
            return None
        for name, file in index["files"].items():
            if (folder / name).stat().st_size != file["bytes"] or (verify and _crc(folder / name) != file["crc32"]):
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return index


def _crc_of(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc


class _Appended:
    """A file for appending arrays, and its checksum."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self.bytes, self.crc32 = 0, 0

    def append(self, array: np.ndarray[Any, Any]) -> None:
        content = np.ascontiguousarray(array).data.cast("B")
        self._file.write(content)
        self.bytes, self.crc32 = self.bytes + len(content), zlib.crc32(content, self.crc32)

    def close(self) -> dict[str, int]:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"bytes": self.bytes, "crc32": self.crc32}


def _build(
    cases: list[Case],
    classes: Classes,
    settings: Settings,
    root: Path,
    folder: Path,
    progress: Callable[[int, int], None],
    cost: Callable[[], Mapping[str, Any]],
) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=_unfinished(folder), dir=folder.parent))
    try:
        images, masks = _Appended(unfinished / _IMAGES), _Appended(unfinished / _MASKS)
        natives = _Appended(unfinished / native.NATIVE)
        subjects: list[dict[str, Any]] = []
        problems: list[str] = []
        equal: list[str] = []
        labels: set[int] = set()
        channels: dict[int, Path] = {}  # number of channels → first image that has it
        first, ignored, done = 0, 0, 0
        total = sum(len(case.files) * (2 if case.ct else 1) for case in cases)

        def advance() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        ordered = sorted(cases, key=lambda case: case.subject)
        scales = windows(ordered, classes, advance)
        for case in ordered:
            try:
                files = read(case, classes, advance)
            except UserError as error:
                problems += error.problems
                continue
            labels |= files.labels
            for path, (of_image, _) in zip(case.images, files.pairs, strict=True):
                channels.setdefault(len(of_image), path[0])
            if problems or len(channels) > 1:
                continue  # the rest is only read to find all problems
            try:
                whole, inside, about = on_grid(case, files, classes, scales, settings)
            except UserError as error:
                equal += error.problems
                continue
            images.append(whole)
            masks.append(inside)
            ignored += int((inside == IGNORED).sum()) if case.ignored else 0
            entries, packed = native.packed(files.masks, natives.bytes)
            natives.append(packed)
            subjects.append({"first": first} | about | {"native": entries})
            first += len(whole)
        files_index = {_IMAGES: images.close(), _MASKS: masks.close(), native.NATIVE: natives.close()}
        problems += equal
        if len(channels) > 1:
            shown = ", ".join(f"{number} in {path}" for number, path in sorted(channels.items()))
            problems.append(f"{root}: images have different numbers of channels: {shown}; all must have the same")
        known = {label for of_class in classes.labels for label in of_class}
        void = {label for case in cases for label in case.ignored}
        if not problems and len(classes) > 1:
            problems += [
                f"{root}: no mask has class '{name}' ({labels_text(of_class)}); {masks_have(sorted(labels))}: name the "
                f"classes that they have with --labels"
                for name, of_class in zip(classes.names, classes.labels, strict=True)
                if not labels & {*of_class}
            ]
        if problems:
            raise UserError(problems)
        index = {
            "data": str(root.absolute()),
            "preprocessing": preprocessing(settings),
            "shape": [first, settings.image_size, settings.image_size],
            "channels": next(iter(channels)),
            "ignored": ignored,
            "classes": classes.without_names,
            "other_labels": sorted(labels - known - void),
            "windows": {str(channel): [window.low, window.high] for channel, window in scales.items()},
            "subjects": subjects,
            "files": files_index,
            "preparation": cost(),
        }
        write_json(unfinished / _INDEX, index | {"crc32": _crc_of(index)})
        try:
            unfinished.rename(folder)
        except OSError:
            if _whole(folder, verify=False) is None:
                raise
            # else another host was faster, with the same slices
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
