"""The cases and problems of a data set, all at once, before any training."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.classes import BINARY, Classes
from greenseg.data.grid import ByteArray, is_foreground
from greenseg.data.intensity import floor_of
from greenseg.data.layout import look
from greenseg.data.listing import Entry, Listing, labels_text, masks_have, some
from greenseg.data.montage import Picture
from greenseg.data.placement import is_isotropic
from greenseg.data.rules import Rule
from greenseg.data.splits import all_cases, refuse_ignored
from greenseg.data.stacks import Part, volumes
from greenseg.data.volume import (
    class_numbers,
    ct_problem,
    has_spacing,
    labels_in,
    read_channels,
    read_whole,
    values_problem,
)
from greenseg.errors import UserError
from greenseg.settings import Layout

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_VOID = 255  # the largest label of a byte


@dataclass
class CaseReport:
    """One subject, over all its files.

    Attributes:
        subject: name of the subject.
        split: train, validation or test; empty if unknown.
        files: number of its images.
        sizes: distinct sizes of a slice, [width, height] in pixels.
        spacings: distinct spacings in mm, [x, y, slice].
        orientations: distinct orientations of the axes, by their DICOM names such as LPS.
        types: distinct pixel types.
        slices: number of slices, over all files.
        empty_slices: number of slices without foreground; None without masks.
        foreground: share of the pixels in the foreground; None without masks.
        labels: labels above 0 in the masks.
        intensity: lowest and highest value of the first channel.
        floor: the value that becomes 0 if many are below 0, else 0; of the first channel.
        class_pixels: number of pixels of each class; empty without masks.
        more_channels: intensities of the further channels.
    """

    subject: str
    split: str = ""
    files: int = 0
    sizes: list[list[int]] = field(default_factory=list)
    spacings: list[list[float]] = field(default_factory=list)
    orientations: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    slices: int = 0
    empty_slices: int | None = None
    foreground: float | None = None
    labels: list[int] = field(default_factory=list)
    intensity: list[float] = field(default_factory=list)
    floor: float = 0.0
    class_pixels: list[int] = field(default_factory=list)
    more_channels: list["ChannelReport"] = field(default_factory=list)

    @property
    def channels(self) -> list["CaseReport | ChannelReport"]:
        """All channels; the case itself has the intensities of the first one."""
        return [self, *self.more_channels]


@dataclass
class ChannelReport:
    """A further channel of a subject, over all its files; the fields are those of `CaseReport`."""

    intensity: list[float] = field(default_factory=list)
    floor: float = 0.0


@dataclass
class ClassReport:
    """A class over all subjects.

    Attributes:
        name: name of the class.
        labels: labels that form it; empty for any label above 0.
        share: its share of the pixels in the foreground of all masks; None if there are none.
        subjects: number of subjects that have it.
    """

    name: str
    labels: list[int]
    share: float | None
    subjects: int


@dataclass
class Check:
    """The result of `check`.

    Attributes:
        layout: layout of the data set.
        cases: its cases.
        problems: problems that prevent training.
        notes: notes for the user.
        channels: names of the channels; empty if the layout has none.
        classes: the classes.
        other_labels: labels of the masks that belong to no class.
    """

    layout: str
    cases: list[CaseReport]
    problems: list[str]
    notes: list[str]
    channels: list[str] = field(default_factory=list)
    classes: list[ClassReport] = field(default_factory=list)
    other_labels: list[int] = field(default_factory=list)


def check(
    root: Path,
    layout: Layout = "auto",
    labels: str = "",
    channels: str = "",
    *,
    rule: Rule | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    picture: Callable[[Picture], None] | None = None,
) -> Check:
    """Check every file of a data set.

    Args:
        root: folder of the data set, or its CSV file.
        layout: layout of the data set.
        labels: the setting; empty = the classes that the data set names, else any label above 0.
        channels: the setting; empty = those of the layout.
        rule: the rule that divides the subjects; None = that of the default settings.
        progress: called with the number of checked images and their total.
        picture: called with the best slice of every case that has a mask.

    Raises:
        UserError: there is no such folder or file.
    """
    listing = look(root, layout, channels)
    rule = rule or Rule()
    problems, notes = listing.problems + ([] if labels else listing.class_problems), list(listing.notes)
    classes = Classes.of(labels) or listing.classes or BINARY
    is_listed = not problems
    of_subject: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    split_of = _splits(listing, root, rule, labels)
    for entry in listing.entries:
        of_subject[entry.subject, split_of.get(entry.subject, entry.split or "")].append(entry)
    reports: list[CaseReport] = []
    first_with: dict[bytes, Entry] = {}
    with_channels: dict[int, Entry] = {}
    cut_along: dict[str, list[str]] = defaultdict(list)
    done = 0
    for (subject, split), entries in of_subject.items():
        seen = _Seen(CaseReport(subject, split), classes)
        for entry in entries:
            try:
                content, count = seen.add(entry)
                if entry.mask:
                    with_channels.setdefault(count, entry)
                if (same := first_with.setdefault(content, entry)) is not entry and same.image != entry.image:
                    problems.append(
                        f"{entry.where}: duplicate; has the same pixels, in the same place, as {same.image}"
                    )
            except UserError as error:
                problems += error.problems
            done += 1
            progress(done, len(listing.entries))
        for direction in seen.cut_along:
            cut_along[direction].append(subject)
        reports.append(seen.report())
        if reports[-1].files == len(entries):  # an unreadable file is not a gap
            try:
                notes += seen.notes()
            except UserError as error:
                problems += error.problems
        if picture and seen.best:
            picture(seen.best)
    if is_listed:
        try:
            refuse_ignored(all_cases(listing, root, rule, labels), classes, root)
        except UserError as error:
            problems += error.problems
    if len(with_channels) > 1:
        shown = ", ".join(f"{number} in {entry.image}" for number, entry in sorted(with_channels.items()))
        problems.append(f"{root}: images have different numbers of channels: {shown}; all must have the same")
    if len(cut_along) > 1:
        ways = ", ".join(
            f"{way} in {len(names)} ({names[0]}{', …' * (len(names) > 1)})" for way, names in cut_along.items()
        )
        notes.append(
            f"volumes with the same spacing along all axes are cut across their last axis, which differs: {ways}"
        )
    ignored = {label for entry in listing.entries for label in entry.ignored}
    of_classes, others = _classes(reports, classes, ignored)
    more, split_notes, without = _of_splits(root, reports, classes, ignored, bool(labels))
    problems += more
    if classes == BINARY and len(others) > 1:
        notes.append(f"{masks_have(others)}; all above 0 count as foreground, unless you set --labels{_hint(others)}")
    elif len(classes) > 1 and others:
        notes.append(f"in no class, so background: {labels_text(others)}")
    notes += split_notes
    unmasked = [entry.subject for entry in listing.entries if entry.mask is None]
    if unmasked and any(entry.mask and split_of.get(entry.subject) == "test" for entry in listing.entries):
        notes.append(f"no mask for {some(list(dict.fromkeys(unmasked)))}: for prediction, not of the test part")
    for report in reports:
        if report.foreground == 0 and report.split not in without:
            notes.append(f"{report.subject}: no foreground in any slice")
        ct = next((entry.ct for entry in listing.entries), ())
        for number, channel in enumerate(report.channels):
            which = f" in channel {number + 1}" if report.more_channels else ""
            if number in ct:
                continue
            if channel.floor:
                notes.append(
                    f"{report.subject}: many values below 0{which}; {channel.floor:.4g} and lower become background"
                )
            elif channel.intensity and channel.intensity[0] < 0:
                notes.append(
                    f"{report.subject}: values below 0{which} (down to {channel.intensity[0]:.4g}) become background"
                )
    return Check(
        layout=listing.layout,
        cases=reports,
        problems=list(dict.fromkeys(problems)),
        notes=notes,
        channels=_channel_names(listing, with_channels),
        classes=of_classes,
        other_labels=[] if classes == BINARY else others,
    )


def _channel_names(listing: Listing, counts: Iterable[int]) -> list[str]:
    """The names of the channels; their numbers if images have other channels than the layout names."""
    count = max(counts, default=len(listing.channels))
    return list(listing.channels) if count in (1, len(listing.channels)) else [str(n + 1) for n in range(count)]


def _classes(reports: Sequence[CaseReport], classes: Classes, ignored: set[int]) -> tuple[list[ClassReport], list[int]]:
    """The classes over all cases, and the labels of the masks that are in none of them."""
    counts = np.array([report.class_pixels for report in reports if report.class_pixels], np.int64)
    counts = counts.reshape(-1, len(classes))
    total = int(counts.sum())
    found = [
        ClassReport(name, list(labels), int(of_class.sum()) / total if total else None, int((of_class > 0).sum()))
        for name, labels, of_class in zip(classes.names, classes.labels, counts.T, strict=True)
    ]
    known = {label for labels in classes.labels for label in labels}
    return found, sorted({label for report in reports for label in report.labels} - ignored - known)


def _of_splits(
    root: Path, reports: Sequence[CaseReport], classes: Classes, ignored: set[int], is_set: bool
) -> tuple[list[str], list[str], set[str]]:
    """Problems, notes, and the splits without foreground: labels and classes that a split lacks.

    Args:
        root: the data set.
        reports: its cases.
        classes: its classes.
        ignored: labels that mean "not annotated".
        is_set: whether the setting `labels` names the classes.
    """
    problems, notes, without = list[str](), list[str](), set[str]()
    # A class that only the test part has cannot be trained.
    everywhere = {label for report in reports if report.split != "test" for label in report.labels} - ignored
    labels = sorted({label for of_class in classes.labels for label in of_class})
    is_read = all(report.files for report in reports)
    nowhere = [
        name for name, of_class in zip(classes.names, classes.labels, strict=True) if not everywhere & {*of_class}
    ]
    if len(classes) > 1 and is_read and everywhere:
        problems += [
            f"{root}: no mask has class '{name}' ({labels_text(of_class)}); {masks_have(sorted(everywhere))}: name the "
            f"classes that they have with --labels"
            for name, of_class in zip(classes.names, classes.labels, strict=True)
            if name in nowhere
        ]
    for split, of_split in _SPLITS.items():
        there = [report for report in reports if report.split == split]
        if split == "test":  # the others can only be predicted
            there = [report for report in there if report.foreground is not None]
        held = {label for report in there for label in report.labels} - ignored
        if not there:
            continue
        if all(report.foreground == 0 for report in there):
            without.add(split)
            who = some([report.subject for report in there])
            wanted = f" with labels {', '.join(map(str, labels))}" if is_set else ""
            said = f"{root}: no foreground in any {of_split} slice{wanted} ({who}); {masks_have(sorted(held))}"
            (notes if split == "test" else problems).append(said)  # a run trains without it
        elif any(report.foreground is None for report in there):
            continue
        elif len(classes) > 1:
            notes += [
                f"class '{name}': in no {of_split} mask"
                for name, of_class in zip(classes.names, classes.labels, strict=True)
                if name not in nowhere and not held & {*of_class}
            ]
        elif lost := [label for label in labels or sorted(everywhere) if label not in held | ignored]:
            notes.append(f"{labels_text(lost)}: in no {of_split} mask")
    return problems, notes, without


def _hint(labels: Sequence[int]) -> str:
    """A hint that 255 beside other labels often means "not annotated"."""
    others = ",".join(str(label) for label in labels if label != _VOID)
    return f" (255 often marks pixels without annotation: --labels {others} leaves it out)" if _VOID in labels else ""


def _splits(listing: Listing, root: Path, rule: Rule, labels: str) -> dict[str, str]:
    """Subject → split; empty if the data set cannot be split."""
    try:
        return {case.subject: case.split for case in all_cases(listing, root, rule, labels)}
    except UserError:
        return {}


def _content(channels: Sequence[sitk.Image]) -> bytes:
    """A digest of pixels and grid, independent of the format. Constant slices differ in their positions."""
    digest = hashlib.sha256()
    for image in channels:
        # Rounded, since some formats keep more digits than others; + 0.0: not -0.0.
        place = np.round([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()], 3) + 0.0
        digest.update(repr((image.GetSize(), place.tolist())).encode())
        digest.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)).data)
    return digest.digest()


_ALONG = dict.fromkeys("LR", "left–right") | dict.fromkeys("AP", "front–back") | dict.fromkeys("SI", "head–foot")


class _Seen:
    """The files of one subject checked so far."""

    def __init__(self, report: CaseReport, classes: Classes) -> None:
        self._report, self._classes = report, classes
        self._pixels, self._counts = 0, np.zeros(len(classes), np.int64)
        self._empty, self._most = 0, 0
        self.cut_along: set[str] = set()
        self._parts: list[Part] = []
        self._entries: list[Entry] = []
        self._without_spacing: list[Path] = []
        self.best: Picture | None = None

    def add(self, entry: Entry) -> tuple[bytes, int]:
        """Check an image and its mask; returns a digest of the image's content, and its number of channels."""
        report = self._report
        images, mask = read_whole(entry.images, entry.mask) if entry.mask else (read_channels(entry.images), None)
        if mask is None and (problem := next(filter(None, map(values_problem, images)), None)):
            raise UserError(f"{entry.image}: {problem}")
        if problem := ct_problem(images, entry.images, entry.ct):
            raise UserError(problem)
        image, *_ = images
        self._entries.append(entry)
        if not has_spacing(image):
            self._without_spacing.append(entry.image)
        report.files += 1
        report.slices += image.GetSize()[2]
        axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
        _note(report.sizes, list(image.GetSize()[:2]))
        _note(report.spacings, [float(f"{s:.4g}") for s in image.GetSpacing()])
        _note(report.orientations, axes)
        if is_isotropic(image) and image.GetSize()[2] > 1:
            self.cut_along.add(_ALONG[axes[2]])
        report.more_channels += [ChannelReport() for _ in range(len(images) - 1 - len(report.more_channels))]
        for channel, of_channel in zip(report.channels, images, strict=False):
            values = sitk.GetArrayViewFromImage(of_channel)
            _note(report.types, str(values.dtype))
            channel.intensity = [
                min([float(values.min()), *channel.intensity[:1]]),
                max([float(values.max()), *channel.intensity[1:]]),
            ]
        self._parts.append(Part.of(entry.image, image))
        if mask is not None:
            self._add_mask(class_numbers(mask, self._classes, entry.ignored), sitk.GetArrayViewFromImage(image))
            report.labels = sorted({*report.labels, *labels_in(mask)})
        return _content(images), len(images)

    def _add_mask(self, numbers: ByteArray, values: np.ndarray[Any, Any]) -> None:
        self._pixels += numbers.size
        self._counts += [int((numbers == number).sum()) for number in range(1, len(self._classes) + 1)]
        per_slice = is_foreground(numbers).sum((1, 2))
        self._empty += int((per_slice == 0).sum())
        most = int(per_slice.argmax())
        if self.best is None or per_slice[most] > self._most:
            self._most = int(per_slice[most])
            shown = numbers[most] * is_foreground(numbers[most])
            self.best = Picture(self._report.subject, values[most].copy(), shown)

    def report(self) -> CaseReport:
        """The report over all checked files."""
        report = self._report
        if self._pixels:
            report.empty_slices, report.foreground = self._empty, int(self._counts.sum()) / self._pixels
            report.class_pixels = self._counts.tolist()
        for number, channel in enumerate(report.channels):
            if channel.intensity and channel.intensity[0] < 0:
                # Read again, because few data sets need it, and all images of a subject may not fit into memory.
                images = [read_channels(entry.images)[number : number + 1] for entry in self._entries]
                arrays = [sitk.GetArrayFromImage(i).astype(np.float32).ravel() for of_entry in images for i in of_entry]
                channel.floor = floor_of(np.concatenate(arrays))
        return report

    def notes(self) -> list[str]:
        """Notes on the volumes that the files form.

        Raises:
            UserError: all their problems.
        """
        notes = [volume.note for volume in volumes(self._parts) if volume.note]
        if self._without_spacing:
            names = some([str(path) for path in self._without_spacing])
            notes.append(f"{names}: no pixel size; greenseg assumes 1 mm, which affects all distances in mm")
        return notes


def _note(known: list[Any], value: Any) -> None:
    if value not in known:
        known.append(value)
