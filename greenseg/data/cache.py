"""The slice cache: a data set read, resampled and normalised once, then memory-mapped by every run.

One folder per data set and preprocessing, named by a hash of both:

    images.npy    float32 [slices, size, size]
    masks.npy     uint8   [slices, size, size], 0 or 1
    index.json    subjects, their slices, and what the preparation cost
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from greenseg.config import PHANTOM, Settings
from greenseg.data import phantom
from greenseg.data.layout import Case, Split, scan
from greenseg.data.volume import ByteArray, FloatArray, brain_outside, normalise, read_pair, to_grid
from greenseg.errors import UserError
from greenseg.files import cache_folder, write_json

_VERSION = 2  # of the preprocessing; a change of what it computes raises it


@dataclass(frozen=True)
class Slices:
    """Prepared slices of a data set, memory-mapped.

    Attributes:
        folder: where they lie.
        index: content of `index.json`.
    """

    folder: Path
    index: dict[str, Any]

    @cached_property
    def images(self) -> FloatArray:
        """float32 [slices, size, size], normalised per subject."""
        return np.load(self.folder / "images.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @cached_property
    def masks(self) -> ByteArray:
        """uint8 [slices, size, size], 0 or 1."""
        return np.load(self.folder / "masks.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def subjects(self, split: Split) -> list[dict[str, Any]]:
        """The subjects of a split: `name`, `split`, `first` slice, number of `slices`, share of brain `cut_off`."""
        return [subject for subject in self.index["subjects"] if subject["split"] == split]


def data_root(settings: Settings, say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder that `data` means; the built-in phantom is made on its first use.

    Args:
        settings: of a run.
        say: told, in one sentence, where the phantom is and whether it was just made.
    """
    if settings.data != PHANTOM:
        return Path(settings.data)
    root, made = phantom.builtin()
    say(f"No --data given: training on the built-in phantom, {'made just now' if made else 'kept'} in {root}")
    return root


def prepare(
    settings: Settings,
    *,
    root: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cost: Callable[[], dict[str, Any]] = dict,
) -> Slices:
    """The slices that these settings train on, from the cache; made first where they are not in it.

    Safe when several processes prepare the same data at once: the first to finish wins, and nobody sees half a cache.

    Args:
        settings: `data`, `image_size`, `spacing` and `validation_share` decide.
        root: the data's folder, where it is known already.
        progress: called with the number of files read and their total.
        cost: called once the slices are made, just before they are published; what it returns is kept in the index.

    Raises:
        UserError: all that is wrong with the data; nothing is left behind.
    """
    cases = scan(root or data_root(settings), settings.validation_share)
    folder = cache_folder() / "slices" / _key(cases, settings)
    if not (folder / "index.json").exists():
        _build(cases, settings, folder, progress, cost)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    split_of = {case.subject: case.split for case in cases}
    index["subjects"] = [subject | {"split": split_of[subject["name"]]} for subject in index["subjects"]]
    return Slices(folder, index)


def _key(cases: list[Case], settings: Settings) -> str:
    files = []
    for case in sorted(cases, key=lambda case: case.subject):
        for path in (path for pair in case.files for path in pair):
            status = path.stat()
            files.append((case.subject, path.name, status.st_size, status.st_mtime_ns))
    what = json.dumps([_VERSION, settings.image_size, settings.spacing, files])
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _build(
    cases: list[Case],
    settings: Settings,
    folder: Path,
    progress: Callable[[int, int], None],
    cost: Callable[[], dict[str, Any]],
) -> None:
    images: list[FloatArray] = []
    masks: list[ByteArray] = []
    subjects: list[dict[str, Any]] = []
    problems: list[str] = []
    first, done, total = 0, 0, sum(len(case.files) for case in cases)
    for case in sorted(cases, key=lambda case: case.subject):
        stack: list[FloatArray] = []
        brain, outside = 0.0, 0.0
        for image_path, mask_path in case.files:
            try:
                image, mask = read_pair(image_path, mask_path)
            except UserError as error:
                problems += error.problems
            else:
                stack.append(to_grid(image, settings.image_size, settings.spacing))
                here, cut = brain_outside(mask, settings.image_size * settings.spacing)
                brain, outside = brain + here, outside + cut
                masks.append((to_grid(mask, settings.image_size, settings.spacing) >= 0.5).astype(np.uint8))
            done += 1
            progress(done, total)
        if stack:
            images.append(normalise(np.concatenate(stack)))
            cut_off = outside / brain if brain else 0.0
            subjects.append({"name": case.subject, "first": first, "slices": len(images[-1]), "cut_off": cut_off})
            first += len(images[-1])
    if problems:
        raise UserError(problems)

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        np.save(unfinished / "images.npy", np.concatenate(images))
        np.save(unfinished / "masks.npy", np.concatenate(masks))
        write_json(unfinished / "index.json", {"subjects": subjects, "files": total, "preparation": cost()})
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / "index.json").exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
