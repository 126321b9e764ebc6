"""The validation slices of a run, as the input of a measurement."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from greenseg.data import cache
from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record
from greenseg.settings import NEUTRAL, Settings

_MOST_BYTES = 1 << 30  # of slices in memory


@dataclass(frozen=True)
class Inputs:
    """Validation slices.

    Attributes:
        images: float32 [slices, channels, size, size], in memory; of very many, a part.
        slices_per_volume: mean number of slices of a validation volume.
    """

    images: FloatArray
    slices_per_volume: float


def inputs_of(run: RunDirectory, record: Record) -> Inputs:
    """The validation slices of a run: from the slice cache or, if it lacks them, made again from the data.

    Raises:
        UserError: they are in neither; says what is missing.
    """
    name, names = (record.data.cache, record.data.subjects.get("validation", [])) if record.data else ("", [])
    slices = cache.cached_as(name)
    if slices and names:
        known = {subject["name"]: subject for subject in slices.index["subjects"]}
        if known.keys() >= set(names):
            return _of(slices, [known[each] for each in names])
    slices = _made_again(run, record)
    return _of(slices, slices.subjects("validation"))


def _made_again(run: RunDirectory, record: Record) -> cache.Slices:
    settings = Settings.of(NEUTRAL | record.settings)
    try:
        slices = cache.prepare(settings)
    except UserError as error:
        raise UserError(
            [
                f"{run.path}: its validation slices are not in the slice cache, and cannot be made again: {problem}"
                for problem in error.problems
            ]
        ) from None
    if record.content and slices.content and slices.content.digest != record.content:
        raise UserError(
            f"{run.path}: its validation slices are not in the slice cache, and {settings.data} now has other files or "
            f"another split; restore the data of the run"
        )
    return slices


def _of(slices: cache.Slices, subjects: list[dict[str, Any]]) -> Inputs:
    rows = np.concatenate([np.arange(each["first"], each["first"] + each["slices"]) for each in subjects])
    most = max(1, _MOST_BYTES // slices.images[0].nbytes)
    kept = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return Inputs(np.ascontiguousarray(slices.images[kept]), len(rows) / _volumes(subjects))


def _volumes(subjects: list[dict[str, Any]]) -> int:
    return sum(len(subject["volumes"]) for subject in subjects)
