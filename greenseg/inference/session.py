"""A session of prediction into a folder: what is left to do, the work itself, its energy, and the record of both."""

import contextlib
import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenseg import locks
from greenseg.data import nifti
from greenseg.data.listing import some
from greenseg.energy import Energy, EnergyMeter
from greenseg.energy.reading import Reading
from greenseg.errors import UserError
from greenseg.files import refusal
from greenseg.inference.batching import BatchSize
from greenseg.inference.inputs import Input
from greenseg.inference.ledger import Ledger, digest_of, stamps
from greenseg.inference.pipeline import Done, How, run
from greenseg.inference.predictor import Predictor

STARTUP, INFERENCE = "startup", "inference"

_LAP_SECONDS = 0.5
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp(\.nii|\.nii\.gz|\.nrrd|\.mha)?")
_REMEDY = "set --output to a writable folder on a file system with locks"


@dataclass
class Todo:
    """What is left to do.

    Attributes:
        subjects: the images of each subject that is not finished.
        digests: for each, the digest of its files.
        finished: number of images whose masks are there.
        stale: names of masks that are made again.
    """

    subjects: list[tuple[Input, ...]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    finished: int = 0
    stale: list[str] = field(default_factory=list)


@dataclass
class Totals:
    """The results of a session.

    Attributes:
        images: number of images whose masks were written.
        volumes: number of their volumes.
        slices: number of their slices.
        phases: energy of each phase.
        problems: problems of the images that failed.
        failed: number of these images.
        beyond: how much of each image lies outside the network's square, in mm, if anything does.
        without_size: images without a pixel size.
        interrupted: whether the user stopped it.
    """

    images: int = 0
    volumes: int = 0
    slices: int = 0
    phases: dict[str, Energy] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failed: int = 0
    beyond: list[float] = field(default_factory=list)
    without_size: list[Path] = field(default_factory=list)
    interrupted: bool = False

    @property
    def energy(self) -> Energy:
        """Energy of all phases."""
        return sum(self.phases.values(), Energy())


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[bool]:
    """Make a folder and claim it for this process while the context lasts; yields whether that succeeded.

    Raises:
        UserError: the folder cannot be written to, or its file system has no locks.
        OSError: the disk is full.
    """
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            claim = stack.enter_context(locks.hold(out / ".lock"))
        except OSError as error:
            raise refusal(out, error, _REMEDY) from None
        if claim:
            for path in out.rglob(".*.tmp*"):
                if _TEMPORARY.fullmatch(path.name):  # of a killed process
                    path.unlink(missing_ok=True)
        yield claim is not None


def check(
    ledger: Ledger,
    images: Sequence[Input],
    how: How,
    classes: Sequence[str],
    network: Mapping[str, Any],
    options: Mapping[str, Any],
    again: bool,
) -> None:
    """Refuse a folder whose files would be overwritten, or would be of several networks or options.

    Args:
        ledger: the record of the folder.
        images: the images to predict.
        how: what becomes of them.
        classes: names of the classes.
        network: weights and name of the network.
        options: options that decide the content of masks.
        again: replace masks of another network or with other options.

    Raises:
        UserError: it is such a folder.
    """
    out = how.out
    named = {name for image in images for name in (how.mask(image), *how.probabilities(image, classes))}
    inputs = {path.resolve() for image in images for path in image.paths}
    if over := sorted(name for name in named if (out / name).resolve() in inputs):
        raise UserError(f"{out / over[0]}: is an input, and a mask would overwrite it; choose another folder")
    if ledger.head is None:
        if there := sorted(name for name in named if (out / name).exists()):
            raise UserError(
                f"{out}: {some(there)}: there already, and not a prediction by greenseg; choose another folder"
            )
        return
    if not (difference := ledger.difference(network, options)):
        if clashes := list(_clashes(ledger, images, how)) if not again else []:
            raise UserError(
                f"{out}: {some(clashes)}; choose another folder, or replace {'them' if clashes[1:] else 'it'} with "
                f"--again"
            )
        return
    if not again:
        raise UserError(
            f"{out}: has predictions with {difference}; choose another folder, or replace them with --again"
        )
    if others := sorted(name for name in ledger.masks if name not in named and (out / name).exists()):
        raise UserError(
            f"{out}: has predictions with {difference}, also of other images ({some(others)}), which --again does not "
            f"replace; choose another folder, or remove them"
        )


def _clashes(ledger: Ledger, images: Sequence[Input], how: How) -> Iterator[str]:
    """Masks of other images that still exist, under the names that masks of these images would get."""
    masks = ledger.masks
    for image in images:
        line = masks.get(how.mask(image), {})
        now, before = stamps(image.paths), line.get("files", [])
        moved = [name for name, *_ in before] != [name for name, *_ in now]
        differ = [stamp for _, *stamp in before] != [stamp for _, *stamp in now]
        if before and moved and differ and Path(before[0][0]).exists():
            yield f"{how.mask(image)} is the mask of {before[0][0]}"


def left(ledger: Ledger, subjects: Sequence[tuple[Input, ...]], how: How, classes: Sequence[str], again: bool) -> Todo:
    """What is left to do: subjects whose files changed, or that lack a file.

    Args:
        ledger: the record of the folder.
        subjects: the images of each subject.
        how: what becomes of them.
        classes: names of the classes.
        again: do all.
    """
    found, masks = Todo(), ledger.masks
    for images in subjects:
        now = digest_of(images)
        complete = all(
            masks.get(how.mask(image), {}).get("subject") == now
            and all((how.out / name).is_file() for name in (how.mask(image), *how.probabilities(image, classes)))
            for image in images
        )
        if complete and not again:
            found.finished += len(images)
        else:
            found.subjects.append(images)
            found.digests.append(now)
            found.stale += [how.mask(image) for image in images if how.mask(image) in masks]
    return found


def predict_all(
    predictor: Predictor,
    todo: Todo,
    how: How,
    sizes: BatchSize,
    ledger: Ledger,
    meter: EnergyMeter,
    progress: Callable[[int, Totals], None] = lambda done, totals: None,
    stopped: Callable[[], bool] = lambda: False,
    at_once: int | None = None,
) -> Totals:
    """Predict all that is left, and record each mask with its cost.

    The energy of a subject is that between its end and the end of the one before, since they overlap; all of them and
    `startup` add up to the total. Subjects that end within half a second share a lap of the meter by their slices.

    Args:
        predictor: the network.
        todo: what is left.
        how: what becomes of it.
        sizes: sizes of batches.
        ledger: the record of the folder, which has begun.
        meter: started at the start of the process.
        progress: called with the number of images that are done, whether they failed or not.
        stopped: whether the user wants to stop.
        at_once: see `pipeline.run`.

    Raises:
        UserError: a single slice does not fit into memory.
        OSError: the disk is full; what is finished is recorded.
    """
    if any(path.name.lower().endswith(nifti.SUFFIXES) for images in todo.subjects for path in images[0].paths):
        importlib.import_module("nibabel.nifti2")  # imported by the first image otherwise, but part of the startup
    totals = Totals(phases={STARTUP: meter.lap(), INFERENCE: Energy()})
    ledger.append([_phase(STARTUP, totals.phases[STARTUP])])
    digests = dict(zip(todo.subjects, todo.digests, strict=True))
    waiting: list[Done] = []
    lap = time.monotonic()

    def record(last: Energy) -> None:
        totals.phases[INFERENCE] += last
        lines = list(
            _lines(waiting, last, digests, how, lambda image: how.probabilities(image, predictor.recipe.classes.names))
        )
        ledger.append(lines or [_phase(INFERENCE, last)])
        waiting.clear()

    try:
        done = 0
        for subject in run(predictor, todo.subjects, how, sizes, stopped, at_once):
            done += len(subject.images)
            _count(totals, subject)
            if subject.slices:
                waiting.append(subject)
            if time.monotonic() - lap > _LAP_SECONDS:
                record(meter.lap())
                lap = time.monotonic()
            progress(done, totals)
    finally:
        record(meter.close()[0])
    totals.interrupted = stopped() and totals.images + totals.failed < sum(map(len, todo.subjects))
    return totals


def _phase(name: str, energy: Energy) -> dict[str, Any]:
    return {"phase": name, "energy": energy.to_json()}


def _count(totals: Totals, subject: Done) -> None:
    if subject.problems:
        totals.problems += subject.problems
        totals.failed += len(subject.images)
        return
    totals.images += len(subject.images)
    totals.volumes += subject.volumes
    totals.slices += sum(subject.slices)
    totals.beyond += [mm for mm in subject.beyond if mm]
    totals.without_size += subject.without_size


def _lines(
    subjects: Sequence[Done],
    energy: Energy,
    digests: Mapping[tuple[Input, ...], str],
    how: How,
    probabilities: Callable[[Input], list[str]],
) -> Iterator[dict[str, Any]]:
    """A line per image; each has the share of the energy that its slices have."""
    total = sum(sum(subject.slices) for subject in subjects)
    for subject in subjects:
        for image, slices in zip(subject.images, subject.slices, strict=True):
            share = slices / total
            yield {
                "mask": how.mask(image),
                "files": stamps(image.paths),
                "subject": digests[subject.images],
                "slices": slices,
                **({"probabilities": probabilities(image)} if probabilities(image) else {}),
                "energy": _part(energy, share).to_json(),
            }


def _part(energy: Energy, share: float) -> Energy:
    return Energy(
        energy.seconds * share,
        tuple(
            Reading(r.component, r.joules * share, r.source, r.low * share, r.high * share, r.marks)
            for r in energy.readings
        ),
    )


def recorded(ledger: Ledger) -> Energy:
    """The energy of all sessions so far."""
    return sum((Energy.from_json(line["energy"]) for line in ledger.lines if "energy" in line), Energy())
