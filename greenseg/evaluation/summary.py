"""Means over volumes, with intervals over subjects, and the worst volumes."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greenseg.evaluation.evaluate import Evaluation, VolumeResult
from greenseg.metrics.agreement import Agreement, State
from greenseg.report.statistics import Mean, mean_of

WORST = 3
"""Number of worst volumes that are named for each class."""


@dataclass(frozen=True)
class Metric:
    """A metric of a volume and class.

    Attributes:
        key: its name in files; those of nnU-Net where it has the metric.
        value: its value, None where undefined.
        heading: heading of its column in tables; `{tolerance}` is that of surface Dice.
        digits: number of digits after the point, in tables.
    """

    key: str
    value: Callable[[Agreement], float | None]
    heading: str = ""
    digits: int = 0


METRICS = (
    Metric("Dice", lambda a: a.dice, "Dice", 4),
    Metric("IoU", lambda a: a.iou, "IoU", 4),
    Metric("HD95", lambda a: a.hd95, "HD95 mm", 2),
    Metric("ASSD", lambda a: a.assd, "ASSD mm", 2),
    Metric("SurfaceDice", lambda a: a.surface_dice, "surface Dice ({tolerance:g} mm)", 4),
    Metric("RelativeVolumeDifference", lambda a: a.volume_difference, "volume error", 3),
)
"""The metrics of tables."""

COUNTS = (
    Metric("TP", lambda a: a.tp),
    Metric("FP", lambda a: a.fp),
    Metric("FN", lambda a: a.fn),
    Metric("TN", lambda a: a.tn),
    Metric("n_pred", lambda a: a.n_pred),
    Metric("n_ref", lambda a: a.n_ref),
)
"""Numbers of pixels, only in files."""


@dataclass(frozen=True)
class ClassSummary:
    """A class over all volumes.

    Attributes:
        name: its name.
        means: key of each metric → its mean over subjects; None if it is undefined in all volumes.
        volumes: numbers of volumes by state.
        worst: the volumes with the lowest Dice, worst first.
    """

    name: str
    means: dict[str, Mean | None]
    volumes: Counter[State]
    worst: list[VolumeResult]


def summaries(result: Evaluation) -> list[ClassSummary]:
    """One summary per class."""
    return [
        ClassSummary(
            name,
            {metric.key: over_subjects(result.volumes, number, metric) for metric in METRICS},
            Counter(volume.agreements[number].state for volume in result.volumes),
            worst(result.volumes, number),
        )
        for number, name in enumerate(result.classes.names)
    ]


def over_subjects(volumes: Sequence[VolumeResult], number: int, metric: Metric) -> Mean | None:
    """The mean of a metric over subjects, each with the mean over its volumes; undefined values are left out.

    Volumes of one subject are not independent, so the interval is over subjects.
    """
    of_subject: dict[str, list[float]] = defaultdict(list)
    for volume in volumes:
        if (value := metric.value(volume.agreements[number])) is not None:
            of_subject[volume.subject].append(value)
    return mean_of([math.fsum(values) / len(values) for values in of_subject.values()]) if of_subject else None


def over_volumes(volumes: Sequence[VolumeResult], number: int, metric: Metric) -> float | None:
    """The mean of a metric over volumes, as in nnU-Net; undefined values are left out."""
    return mean([metric.value(volume.agreements[number]) for volume in volumes])


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the defined values; None if there are none."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def worst(volumes: Sequence[VolumeResult], number: int) -> list[VolumeResult]:
    """The volumes with the lowest Dice for a class, worst first; of equal ones, those with the larger HD95."""

    def place(volume: VolumeResult) -> tuple[float, float]:
        agreement = volume.agreements[number]
        return agreement.dice or 0.0, -(agreement.hd95 or 0.0)

    return sorted((volume for volume in volumes if volume.agreements[number].state != "empty"), key=place)[:WORST]
