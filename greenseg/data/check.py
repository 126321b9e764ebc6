"""The cases and problems of a data set, all at once, before any training."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.data.intensity import floor_of
from greenseg.data.layout import look
from greenseg.data.listing import Entry, Listing, some
from greenseg.data.placement import is_isotropic
from greenseg.data.splits import cases, refuse_ignored
from greenseg.data.stacks import Part, volumes
from greenseg.data.volume import has_spacing, is_foreground, read, read_whole, values_problem
from greenseg.errors import UserError
from greenseg.settings import Layout

_SPLITS = {"train": "training", "validation": "validation"}
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
        intensity: lowest and highest value.
        floor: the value that becomes 0 if many are below 0, else 0.
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


@dataclass
class Check:
    """The result of `check`: layout, cases, problems that prevent training, and notes."""

    layout: str
    cases: list[CaseReport]
    problems: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Picture:
    """The slice of a case with the most foreground: grey values and foreground, both [y, x]."""

    subject: str
    slice: np.ndarray[Any, Any]
    foreground: np.ndarray[Any, Any]


def check(
    root: Path,
    layout: Layout = "auto",
    labels: Sequence[int] = (),
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    picture: Callable[[Picture], None] | None = None,
) -> Check:
    """Check every file of a data set.

    Args:
        root: folder of the data set, or its CSV file.
        layout: layout of the data set.
        labels: mask labels that count as foreground; empty = any above 0.
        progress: called with the number of checked images and their total.
        picture: called with the best slice of every case that has a mask.

    Raises:
        UserError: there is no such folder or file.
    """
    listing = look(root, layout)
    problems, notes = list(listing.problems), list(listing.notes)
    of_subject: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    split_of = _splits(listing, root)
    for entry in listing.entries:
        of_subject[entry.subject, entry.split or split_of.get(entry.subject, "")].append(entry)
    reports: list[CaseReport] = []
    first_with: dict[bytes, Entry] = {}
    cut_along: dict[str, list[str]] = defaultdict(list)
    done = 0
    for (subject, split), entries in of_subject.items():
        seen = _Seen(CaseReport(subject, split), labels)
        for entry in entries:
            try:
                content = seen.add(entry)
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
    if not listing.problems:
        try:
            refuse_ignored(cases(listing, root, 0.2, 0, 0, 0), labels, root)
        except UserError as error:
            problems += error.problems
    if len(cut_along) > 1:
        ways = ", ".join(
            f"{way} in {len(names)} ({names[0]}{', …' * (len(names) > 1)})" for way, names in cut_along.items()
        )
        notes.append(
            f"volumes with the same spacing along all axes are cut across their last axis, which differs: {ways}"
        )
    ignored = {label for entry in listing.entries for label in entry.ignored}
    several = sorted({label for report in reports for label in report.labels} - ignored)
    if len(several) > 1 and not labels:
        notes.append(f"{_listed(several)}; all above 0 count as foreground, unless you set --labels{_hint(several)}")
    without = set()
    for split, of_split in _SPLITS.items():
        there = [report for report in reports if report.split == split]
        held = {label for report in there for label in report.labels} - ignored
        lost = [str(label) for label in labels or several if label not in held | ignored]
        if there and all(report.foreground == 0 for report in there):
            without.add(split)
            who = some([report.subject for report in there])
            wanted = f" with labels {', '.join(map(str, labels))}" if labels else ""
            problems.append(f"{root}: no foreground in any {of_split} slice{wanted} ({who}); {_listed(sorted(held))}")
        elif there and lost and all(report.foreground is not None for report in there):
            notes.append(f"label{'s' if len(lost) > 1 else ''} {', '.join(lost)}: in no {of_split} mask")
    for report in reports:
        if report.foreground == 0 and report.split not in without:
            notes.append(f"{report.subject}: no foreground in any slice")
        if report.floor:
            notes.append(f"{report.subject}: many values below 0; {report.floor:.4g} and lower become background")
        elif report.intensity and report.intensity[0] < 0:
            notes.append(f"{report.subject}: values below 0 (down to {report.intensity[0]:.4g}) become background")
    return Check(listing.layout, reports, list(dict.fromkeys(problems)), notes)


def _hint(labels: Sequence[int]) -> str:
    """A hint that 255 beside other labels often means "not annotated"."""
    others = ",".join(str(label) for label in labels if label != _VOID)
    return f" (255 often marks pixels without annotation: --labels {others} leaves it out)" if _VOID in labels else ""


def _listed(labels: Sequence[int]) -> str:
    if not labels:
        return "masks have only the label 0"
    shown = ", ".join(map(str, labels[:10])) + (f", … ({len(labels)} in total)" if len(labels) > 10 else "")
    return f"masks have the label{'s' if len(labels) > 1 else ''} {shown}"


def _splits(listing: Listing, root: Path) -> dict[str, str]:
    """Subject → split with the default settings; empty if the data set cannot be split."""
    try:
        return {case.subject: case.split for case in cases(listing, root, 0.2, 0, 0, 0)}
    except UserError:
        return {}


def _content(image: sitk.Image) -> bytes:
    """A digest of pixels and grid, independent of the format. Constant slices differ in their positions."""
    # Rounded, since some formats keep more digits than others; + 0.0: not -0.0.
    place = np.round([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()], 3) + 0.0
    digest = hashlib.sha256(repr((image.GetSize(), place.tolist())).encode())
    digest.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)).data)
    return digest.digest()


_ALONG = dict.fromkeys("LR", "left–right") | dict.fromkeys("AP", "front–back") | dict.fromkeys("SI", "head–foot")


class _Seen:
    """The files of one subject checked so far."""

    def __init__(self, report: CaseReport, labels: Sequence[int]) -> None:
        self._report, self._labels = report, labels
        self._pixels, self._foreground, self._masked = 0, 0, False
        self._empty, self._most = 0, 0
        self.cut_along: set[str] = set()
        self._parts: list[Part] = []
        self._without_spacing: list[Path] = []
        self.best: Picture | None = None

    def add(self, entry: Entry) -> bytes:
        """Check an image and its mask; returns a digest of the image's content."""
        report = self._report
        image, mask = read_whole(entry.image, entry.mask) if entry.mask else (read(entry.image), None)
        values = sitk.GetArrayViewFromImage(image)
        if mask is None and (problem := values_problem(image)):
            raise UserError(f"{entry.image}: {problem}")
        if not has_spacing(image):
            self._without_spacing.append(entry.image)
        report.files += 1
        report.slices += len(values)
        axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
        _note(report.sizes, list(image.GetSize()[:2]))
        _note(report.spacings, [float(f"{s:.4g}") for s in image.GetSpacing()])
        _note(report.orientations, axes)
        if is_isotropic(image) and len(values) > 1:
            self.cut_along.add(_ALONG[axes[2]])
        _note(report.types, str(values.dtype))
        report.intensity = [
            min([float(values.min()), *report.intensity[:1]]),
            max([float(values.max()), *report.intensity[1:]]),
        ]
        self._parts.append(Part.of(entry.image, image))
        content = _content(image)
        if mask is None:
            return content
        foreground = is_foreground(mask, self._labels, entry.ignored)
        self._masked = True
        self._pixels, self._foreground = self._pixels + foreground.size, self._foreground + int(foreground.sum())
        per_slice = foreground.sum((1, 2))
        self._empty += int((per_slice == 0).sum())
        found = np.unique(sitk.GetArrayViewFromImage(mask)).astype(int).tolist()
        report.labels = sorted({*report.labels, *(label for label in found if label > 0)})
        most = int(per_slice.argmax())
        if self.best is None or per_slice[most] > self._most:
            self._most = int(per_slice[most])
            self.best = Picture(report.subject, values[most].copy(), foreground[most].copy())
        return content

    def report(self) -> CaseReport:
        """The report over all checked files."""
        report = self._report
        if self._masked:
            report.empty_slices, report.foreground = self._empty, self._foreground / self._pixels
        if report.intensity and report.intensity[0] < 0:
            # Read again, because few data sets need it, and all images of a subject may not fit into memory.
            arrays = [sitk.GetArrayFromImage(read(part.path)).astype(np.float32).ravel() for part in self._parts]
            report.floor = floor_of(np.concatenate(arrays))
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


def montage(pictures: Sequence[Picture], file: Path, side: int = 256, columns: int = 6) -> None:
    """Write a PNG with one tile per case: the slice with the most foreground, and the contour of its mask.

    Args:
        pictures: pictures of the cases.
        file: file to write; its suffix sets the format.
        side: side of a tile, in pixels.
        columns: number of tiles per row.

    Raises:
        UserError: there is nothing to show, or the file cannot be written.
    """
    if not pictures:
        raise UserError(f"{file}: no case with a mask to show")
    tiles = []
    for picture in pictures:
        low, high = np.percentile(picture.slice, (0.5, 99.5))
        grey = np.clip((picture.slice - low) / max(high - low, 1e-6), 0, 1) * 255
        scale = max(picture.slice.shape) / side
        big = [
            sitk.Resample(
                sitk.GetImageFromArray(array.astype(np.uint8)),
                (side, side),
                sitk.Transform(),
                interpolation,
                (0.0, 0.0),
                (scale, scale),
            )
            for array, interpolation in ((grey, sitk.sitkLinear), (picture.foreground, sitk.sitkNearestNeighbor))
        ]
        overlay = sitk.LabelMapContourOverlay(
            sitk.Cast(big[1], sitk.sitkLabelUInt8), big[0], opacity=1.0, contourThickness=[2, 2],
            colormap=[255, 176, 0],
        )  # fmt: skip
        tiles.append(sitk.GetArrayFromImage(overlay))
    columns = min(columns, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    image = sitk.GetImageFromArray(np.concatenate(rows), isVector=True)
    try:
        sitk.WriteImage(image, str(file))
    except RuntimeError as error:
        raise UserError(f"{file}: cannot be written: {str(error).strip().splitlines()[-1]}") from None
