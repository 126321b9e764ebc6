"""The test part: subjects that neither train nor choose anything, predicted once, after training."""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import SimpleITK as sitk

from greenseg.data import cache
from greenseg.data.content import Content
from greenseg.data.grid import ByteArray
from greenseg.data.prepared import Files, read
from greenseg.data.splits import Case, test_cases_of
from greenseg.energy import EnergyMonitor
from greenseg.errors import UserError
from greenseg.inference import subject
from greenseg.inference.predictor import Predictor
from greenseg.inference.subject import Image
from greenseg.metrics.volumes import NativeSubject, NativeVolume, scores_of, stackable
from greenseg.runs.record import Tested
from greenseg.settings import Settings
from greenseg.training import events


def test(
    predictor: Predictor,
    settings: Settings,
    slices: cache.Slices,
    epoch: int,
    batch_size: int,
    monitor: EnergyMonitor,
) -> Tested:
    """Predict the test part with the network of the best validation epoch, and compare it with its masks.

    The joules are those of the phase `test`. Files that cannot be used are a `problem` of the result, not an error: the
    training is done, and its figures do not depend on them.

    Args:
        predictor: the network of the best epoch.
        settings: settings of the run.
        slices: slices of the run.
        epoch: the best epoch.
        batch_size: slices per batch.
        monitor: monitor of the energy.

    Returns:
        A result without fields if there is no test part.
    """
    try:
        cases = test_cases_of(settings, cache.data_root(settings))
        if not cases:
            return Tested()
        monitor.test()
        content = Content.of(cases).digest
        counted = _Counted(predictor, batch_size, slices)
        scores = scores_of(map(counted.subject, cases), slices.classes)
        return Tested(epoch=epoch, content=content, slices=counted.slices, **scores)
    except (UserError, OSError) as error:
        message = f"no figures of the test part: {error}"
        print(message, file=sys.stderr)
        events.emit({"event": "warning", "message": message})
        return Tested(problem=str(error))


class _Counted:
    """Predicts subjects, and counts their slices."""

    def __init__(self, predictor: Predictor, batch_size: int, of_run: cache.Slices) -> None:
        self._predictor, self._batch_size, self._classes = predictor, batch_size, of_run.classes
        self.slices = 0

    def subject(self, case: Case) -> NativeSubject:
        files = read(case, self._classes, lambda: None)
        images = [
            Image(paths, channels, channels[0]) for paths, (channels, _) in zip(case.images, files.pairs, strict=True)
        ]
        recipe = self._predictor.recipe
        for image in images:
            if len(image.channels) != recipe.channels:
                raise UserError(f"{image.paths[0]}: {len(image.channels)} channels; the training has {recipe.channels}")
        found = subject.predict(self._predictor, subject.on_grid(images, recipe), self._batch_size)
        self.slices += len(found)
        parts = np.split(found, np.cumsum([image.slices for image in images])[:-1])
        masks = [
            subject.classes_of(subject.bring_back(part, image, recipe.spacing))
            for part, image in zip(parts, images, strict=True)
        ]
        return NativeSubject(case.subject, list(_volumes(files, images, masks)))


def _volumes(files: Files, images: Sequence[Image], masks: Sequence[ByteArray]) -> Iterator[NativeVolume]:
    """The volumes of a subject. Files that cannot be stacked have no HD95."""
    for volume in files.volumes:
        references = [sitk.GetArrayFromImage(files.pairs[n][1]) for n in volume.parts]
        predictions = [masks[n] for n in volume.parts]
        pixels = [images[n].pixel for n in volume.parts]
        if stackable([images[n].shape for n in volume.parts], pixels):
            yield NativeVolume(np.concatenate(predictions), np.concatenate(references), (volume.distance, *pixels[0]))
            continue
        for prediction, reference, pixel in zip(predictions, references, pixels, strict=True):
            yield NativeVolume(prediction, reference, (None, *pixel))
