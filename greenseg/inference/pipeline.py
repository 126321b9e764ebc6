"""Reading, predicting, writing. For a GPU side by side: a thread reads ahead, one writes, the caller's predicts."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from greenseg.data.grid import ByteArray, FloatArray
from greenseg.data.numbering import stacked
from greenseg.errors import UserError
from greenseg.failures import kind_of
from greenseg.inference.batching import OF_MEMORY, BatchSize
from greenseg.inference.inputs import Input
from greenseg.inference.predictor import Predictor
from greenseg.inference.subject import (
    Image,
    as_labels,
    bring_back,
    classes_of,
    largest_component,
    numbers_of,
    on_grid,
    predict,
)
from greenseg.inference.write import suffix_for, write_like

PROBABILITIES = "probabilities"
"""Folder of the probabilities, in that of the masks."""

_AT_ONCE = {"cpu": 16}  # slices of small subjects that are predicted together
_AT_ONCE_ON_GPU = 64
_WAITING = 2  # subjects that may wait to be written


@dataclass(frozen=True)
class How:
    """What becomes of the probabilities.

    Attributes:
        out: folder of the masks.
        suffix: text that is added to names, with its `_`; may be empty.
        tile: cover what lies outside the network's square with further tiles.
        threshold: of a single class.
        largest: keep only the largest component of each class.
        save_probabilities: write them, too.
    """

    out: Path
    suffix: str = ""
    tile: bool = False
    threshold: float = 0.5
    largest: bool = False
    save_probabilities: bool = False

    def mask(self, image: Input) -> str:
        """Path of the mask of an image, in the folder of the masks."""
        return f"{image.name}{self.suffix}{suffix_for(image.paths[0])}"

    def probabilities(self, image: Input, classes: Sequence[str]) -> list[str]:
        """Path of the probabilities of each class, in the folder of the masks; empty if they are not wanted."""
        if not self.save_probabilities:
            return []
        name = f"{image.name}{suffix_for(image.paths[0])}"
        folders = [PROBABILITIES] if len(classes) == 1 else [f"{PROBABILITIES}/{one}" for one in classes]
        return [f"{folder}/{name}" for folder in folders]


@dataclass
class Done:
    """A subject that was predicted, or that failed.

    Attributes:
        images: its images.
        slices: slices of each image; empty if it failed.
        volumes: number of its volumes; files with a slice each are one.
        beyond: for each image, how much of it lies outside the network's square, in mm.
        without_size: images whose files have no pixel size.
        problems: why it failed; empty if it did not.
    """

    images: tuple[Input, ...]
    slices: list[int] = field(default_factory=list)
    volumes: int = 0
    beyond: list[float] = field(default_factory=list)
    without_size: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class _Subject:
    done: Done
    images: list[Image] = field(default_factory=list)
    slices: FloatArray | None = None


def run(
    predictor: Predictor,
    subjects: Sequence[tuple[Input, ...]],
    how: How,
    sizes: BatchSize,
    stopped: Callable[[], bool] = lambda: False,
    at_once: int | None = None,
) -> Iterator[Done]:
    """Predict subjects, and write their masks; yields each when its files are complete, in their order.

    With a GPU, at most three groups of subjects are in memory: one is read, one predicted, and those that are written.
    Subjects with few slices are predicted together.

    Args:
        predictor: the network.
        subjects: the images of each subject.
        how: what becomes of the probabilities.
        sizes: sizes of batches.
        stopped: whether to stop; asked between batches. Subjects whose slices are all predicted are still written.
        at_once: slices of small subjects that are predicted together; None = by the device.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    wanted = at_once or _AT_ONCE.get(predictor.device, _AT_ONCE_ON_GPU)
    predictor = _Stoppable(predictor, stopped)
    left = iter(subjects)
    writing: deque[Future[Done]] = deque()
    helper = _Here if predictor.device == "cpu" else partial(ThreadPoolExecutor, 1)
    with helper() as reader, helper() as writer:
        ahead = reader.submit(_read_some, left, predictor, how.tile, wanted)
        while (group := ahead.result()) and not stopped():
            ahead = reader.submit(_read_some, left, predictor, how.tile, wanted)
            for subject, probabilities in _predicted(predictor, group, sizes):
                while len(writing) >= _WAITING or (writing and writing[0].done()):
                    yield writing.popleft().result()
                writing.append(writer.submit(_write, predictor, subject, probabilities, how))
            del group
        ahead.cancel()
        while writing:
            yield writing.popleft().result()


def _read_some(left: Iterator[tuple[Input, ...]], predictor: Predictor, tile: bool, wanted: int) -> list[_Subject]:
    """The next subjects, until they have so many slices together."""
    group: list[_Subject] = []
    while sum(sum(subject.done.slices) for subject in group) < wanted and (images := next(left, None)):
        group.append(_read(images, predictor, tile))
    return group


def _read(inputs: tuple[Input, ...], predictor: Predictor, tile: bool) -> _Subject:
    result, problems, wrong = _Subject(Done(inputs)), list[str](), 0
    for each in inputs:
        try:
            result.images.append(Image.of(each.paths, predictor.recipe))
        except UserError as error:
            problems += error.problems
            wrong += 1
        except (RuntimeError, MemoryError) as error:
            problems.append(f"{each.paths[0]}: cannot be read: {_first_line(error)}")
            wrong += 1
    if problems:
        if others := len(inputs) - wrong:
            problems[-1] += f" (its subject's {others} other images, which share its scale of intensities, wait for it)"
        return _Subject(Done(inputs, problems=problems))
    about = result.done
    about.slices = [image.slices for image in result.images]
    about.beyond = [image.beyond(predictor.recipe) for image in result.images]
    about.without_size = [image.paths[0] for image in result.images if not image.has_pixel_size]
    about.volumes = len(_volumes(result.images))
    result.slices = on_grid(result.images, predictor.recipe, tile)
    for image in result.images:
        image.channels[1:] = []  # only the grid is needed from now on
    return result


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Here(Executor):
    """Carries out work in the caller's thread.

    On a CPU, the network already uses all cores. Another thread takes one away, and the others of torch wait for it in
    a busy loop: 40 volumes took twice as long on two cores.
    """

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """See `Executor.submit`; the result is complete on return."""
        result: Future[Any] = Future()
        try:
            result.set_result(function(*arguments, **options))
        except Exception as error:
            result.set_exception(error)
        return result


class _Stopped(Exception):
    """The user wants to stop."""


class _Stoppable:
    """A predictor that raises `_Stopped` instead of predicting once `stopped` says so."""

    def __init__(self, predictor: Predictor, stopped: Callable[[], bool]) -> None:
        self.recipe, self.identity, self.name = predictor.recipe, predictor.identity, predictor.name
        self.precision, self.device, self.notes = predictor.precision, predictor.device, predictor.notes
        self._predictor, self._stopped = predictor, stopped

    def probabilities(self, images: FloatArray) -> FloatArray:
        """See `Predictor.probabilities`."""
        if self._stopped():
            raise _Stopped
        return self._predictor.probabilities(images)


def _predicted(
    predictor: Predictor, group: Sequence[_Subject], sizes: BatchSize
) -> Iterator[tuple[_Subject, FloatArray | None]]:
    """The subjects with their probabilities, or None if they failed; ends early if the user wants to stop.

    Those whose slices have the same extent are predicted together.
    """
    try:
        yield from _together(predictor, group, sizes)
    except _Stopped:
        return
    except (RuntimeError, MemoryError) as error:
        if kind_of(error) not in OF_MEMORY:
            raise
        raise UserError(
            f"a single slice of {predictor.recipe.image_size}² pixels does not fit into the memory of the "
            f"{predictor.device}; free some, or use --accelerator cpu"
        ) from None


def _together(
    predictor: Predictor, group: Sequence[_Subject], sizes: BatchSize
) -> Iterator[tuple[_Subject, FloatArray | None]]:
    extents = {subject.slices.shape[-1] for subject in group if subject.slices is not None}
    together = [subject.slices for subject in group if subject.slices is not None]
    if len(extents) == 1 and len(together) > 1:
        probabilities, start = predict(predictor, np.concatenate(together), sizes), 0
        for subject in group:
            count = sum(subject.done.slices)
            yield subject, probabilities[start : start + count] if count else None
            start += count
        return
    for subject in group:
        yield subject, None if subject.slices is None else predict(predictor, subject.slices, sizes)


def _volumes(images: Sequence[Image]) -> list[list[int]]:
    """The indices of the images of each volume, in the order of the slices."""
    single = [n for n, image in enumerate(images) if image.slices == 1]
    stacks = [[n] for n, image in enumerate(images) if image.slices > 1]
    for shape in dict.fromkeys(images[n].shape for n in single):
        alike = [n for n in single if images[n].shape == shape]
        stacks += [[alike[place] for place in stack] for stack in stacked([images[n].paths[0] for n in alike])]
    return sorted(stacks, key=min)


def _write(predictor: Predictor, subject: _Subject, probabilities: FloatArray | None, how: How) -> Done:
    """Write the files of a subject."""
    about, recipe = subject.done, predictor.recipe
    if probabilities is None:
        return about
    starts = np.cumsum([0, *about.slices])
    try:
        numbers: list[ByteArray] = []
        for n, image in enumerate(subject.images):
            own = probabilities[starts[n] : starts[n + 1]]
            if not how.save_probabilities:
                numbers.append(numbers_of(own, image, recipe.spacing, how.threshold))
                continue
            back = bring_back(own, image, recipe.spacing)
            numbers.append(classes_of(back, how.threshold))
            for place, name in enumerate(
                how.probabilities(about.images[n], recipe.classes.names), -len(recipe.classes)
            ):
                _put(back[:, place], image, how.out / name)
        if how.largest:
            for volume in _volumes(subject.images):
                kept = largest_component(np.concatenate([numbers[n] for n in volume]), len(recipe.classes))
                ends = np.cumsum([len(numbers[n]) for n in volume])[:-1]
                for n, part in zip(volume, np.split(kept, ends), strict=True):
                    numbers[n] = part
        for one, image, mask in zip(about.images, subject.images, numbers, strict=True):
            _put(as_labels(mask, recipe), image, how.out / how.mask(one))
    except UserError as error:
        return Done(about.images, problems=error.problems)
    return about


def _put(values: np.ndarray[Any, Any], image: Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_like(np.ascontiguousarray(values), image, path)
