"""The content of the data of a run: the bytes of its files, its classes and the split, independent of the folder.

Two runs are the same only if their content is the same. A moved data set has the same content. Another mask under the
same name is different content.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from greenseg.classes import without_names
from greenseg.data import PREPROCESSING, UNNAMED, builtin_phantom
from greenseg.data.fingerprint import digest, digests
from greenseg.data.listing import some
from greenseg.data.numbering import stacked
from greenseg.data.splits import SPLIT_BY, Case, cases_of, read_split, test_cases_of
from greenseg.errors import UserError
from greenseg.settings import PHANTOM, Settings, values_of


@dataclass(frozen=True)
class Subject:
    """The content of one subject.

    Attributes:
        split: `train` or `validation`; `test` in the content of a test part.
        images: digest of its images, in their order, and of their stacking into volumes.
        masks: digest of its masks, likewise.
    """

    split: str
    images: str
    masks: str


@dataclass(frozen=True)
class Content:
    """The content of a data set with one split.

    Attributes:
        subjects: subjects by name.
        preprocessing: version of the preprocessing for its slices.
    """

    subjects: Mapping[str, Subject]
    preprocessing: int = PREPROCESSING
    _parts: tuple[str, ...] = field(default=(), repr=False, compare=False)
    _pairs: tuple[str, ...] = field(default=(), repr=False, compare=False)
    _order: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, cases: Iterable[Case]) -> Self:
        """The content of these cases. Only files that changed since the last time are read again.

        Raises:
            OSError: a file cannot be read.
        """
        ordered = sorted(cases, key=lambda case: case.subject)
        files = [(*pair, *more) for case in ordered for pair, (_, *more) in zip(case.files, case.images, strict=True)]
        found = iter(digests([path for of_pair in files for path in of_pair]))
        subjects, parts, pairs, order = {}, list[str](), list[str](), list[str]()
        for case in ordered:
            images, masks = list[list[str]](), list[list[str]]()
            for _, *further in case.images:
                images.append(next(found))
                masks.append(next(found))
                parts += images[-1] + masks[-1]
                for channel in range(2, len(further) + 2):
                    images.append([f"channel {channel}", *next(found)])
                    parts += images[-1]
                pairs.append(case.subject)
            # What follows affects pixels like the files.
            if case.ct:
                images.append([f"CT {channel + 1}" for channel in case.ct])
                parts += images[-1]
            if case.ignored:  # "ignore" was the word when they counted as background
                masks.append([f"not annotated {label}" for label in case.ignored])
                parts += masks[-1]
            if case.classes:
                masks.append([f"classes {case.classes.without_names}"])
                parts += masks[-1]
            stacks = stacked([image for image, _ in case.files])
            if len(stacks) < len(case.files):  # names decide the stacking and order of slice files
                images.append([f"stack {stack}" for stack in stacks])
                order += [case.subject, *images[-1]]
            subjects[case.subject] = Subject(case.split, digest(images)[:8], digest(masks)[:8])
        return cls(subjects, PREPROCESSING, tuple(parts), tuple(pairs), tuple(order))

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that name files, subjects and split."""
        return digest([[name, s.split, s.images, s.masks] for name, s in sorted(self.subjects.items())])

    @cached_property
    def files(self) -> str:
        """Like `digest`, but without the split, so that the folds of a cross-validation share it."""
        return digest([[name, s.images, s.masks] for name, s in sorted(self.subjects.items())])

    @property
    def names(self) -> dict[str, Any]:
        """The entries for a run's record: `content`, `files` and `preprocessing`."""
        return {"content": self.digest, "files": self.files, "preprocessing": self.preprocessing}

    def of_split(self, split: str) -> list[str]:
        """The names of the subjects of a split, sorted."""
        return sorted(name for name, subject in self.subjects.items() if subject.split == split)

    def slices_key(self, settings: Settings) -> str:
        """The name of the slices for these settings in the slice cache; needs a content that `of` returned."""
        # Names have no order for UNNAMED, and for data without a volume in several files.
        order = [] if self.preprocessing == UNNAMED or not self._order else [self._order]
        return digest([self._parts, [self.preprocessing, preprocessing(settings), self._pairs, *order]])

    def before_it_was_named(self) -> Self:
        """The same files and split with version UNNAMED, for runs without content in their records."""
        return replace(self, preprocessing=UNNAMED)

    def difference(self, earlier: "Content") -> str:
        """The differences to an earlier content, in words; empty if there are none."""
        if self.preprocessing != earlier.preprocessing:
            return f"preprocessing has version {self.preprocessing} now, it had version {earlier.preprocessing}"
        now, then = self.subjects, earlier.subjects
        both = sorted(now.keys() & then.keys())
        kinds = {
            "subjects added": sorted(now.keys() - then.keys()),
            "subjects removed": sorted(then.keys() - now.keys()),
            "images changed": [name for name in both if now[name].images != then[name].images],
            "masks changed": [name for name in both if now[name].masks != then[name].masks],
            "moved to validation": [n for n in both if (then[n].split, now[n].split) == ("train", "validation")],
            "moved to training": [n for n in both if (then[n].split, now[n].split) == ("validation", "train")],
        }
        return "; ".join(f"{kind}: {some(names)}" for kind, names in kinds.items() if names)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `Content.from_json`."""
        return {
            "digest": self.digest,
            "files": self.files,
            "preprocessing": self.preprocessing,
            "subjects": {name: [s.split, s.images, s.masks] for name, s in self.subjects.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The content that `to_json` wrote.

        Raises:
            ValueError: it is not what `to_json` writes.
        """
        try:
            subjects = {str(name): Subject(*map(str, parts)) for name, parts in value["subjects"].items()}
            return cls(subjects, int(value["preprocessing"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the content of a data set: {error}") from None


def preprocessing(settings: Settings) -> dict[str, Any]:
    """The settings that decide the slices of a file."""
    return {
        "image_size": settings.image_size,
        "spacing": settings.spacing,
        "labels": without_names(settings.labels),
    }


class Contents:
    """The content for settings; examines each data set and split once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Content | None] = {}
        self._data_of = values_of(SPLIT_BY)

    def of(self, settings: Settings) -> Content | None:
        """The present content for these settings; None if the data are missing or unusable.

        The built-in phantom is missing before its first use.
        """
        key = self._data_of(settings)
        if key not in self._known:
            self._known[key] = _look(settings)
        return self._known[key]


def _look(settings: Settings) -> Content | None:
    root = builtin_phantom() if settings.data == PHANTOM else Path(settings.data)
    try:
        return Content.of(cases_of(settings, root)) if root.exists() else None
    except (UserError, OSError):  # reported with the remedy before a run starts
        return None


def content_of_test(settings: Settings, root: Path) -> Content | None:
    """The content of the test part for these settings; None if there is none. It is not part of a run's identity.

    Raises:
        UserError: problems of the data.
        OSError: a file cannot be read.
    """
    cases = test_cases_of(settings, root)
    return Content.of(cases) if cases else None


def recomputed(split_csv: Path, slices_key: str, settings: Settings) -> Content | None:
    """The content of a run without content in its record; None if its files are gone or have changed.

    Args:
        split_csv: the run's own list of its files and their split.
        slices_key: name of the run's slices in the cache, to verify the files.
        settings: settings of the run.
    """
    try:
        content = Content.of(read_split(split_csv)).before_it_was_named()
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    return content if content.slices_key(settings) == slices_key else None


def read(path: Path) -> Content | None:
    """The content in a file with the output of `Content.to_json`; None if the file is missing or damaged."""
    try:
        return Content.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
