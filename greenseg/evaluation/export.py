"""An evaluation as a file: JSON with the schema of nnU-Net's summary.json, and CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from greenseg import __version__
from greenseg.evaluation.evaluate import Evaluation
from greenseg.evaluation.summary import COUNTS, METRICS, mean, over_subjects, over_volumes
from greenseg.report.export import no_formula

_ALL = (*METRICS, *COUNTS)


def as_data(result: Evaluation) -> dict[str, Any]:
    """The evaluation as nnU-Net's summary.json has it, with more metrics and entries.

    The schema is that of `save_summary_json` in
    https://github.com/MIC-DKFZ/nnUNet/blob/master/nnunetv2/evaluation/evaluate_predictions.py. Undefined values are
    None, since JSON has no NaN.
    """
    keys = [_key(labels) for labels in result.classes.labels]
    numbers = range(len(keys))
    means = [{metric.key: over_volumes(result.volumes, number, metric) for metric in _ALL} for number in numbers]
    cases = [
        {
            "metrics": {
                key: {metric.key: metric.value(agreement) for metric in _ALL}
                for key, agreement in zip(keys, volume.agreements, strict=True)
            },
            "states": {key: agreement.state for key, agreement in zip(keys, volume.agreements, strict=True)},
            "prediction_file": None if result.temporary else _file(volume.predictions),
            "reference_file": _file(volume.references),
            "name": volume.name,
            "subject": volume.subject,
        }
        for volume in result.volumes
    ]
    return {
        "metric_per_case": cases,
        "mean": dict(zip(keys, means, strict=True)),
        "foreground_mean": {metric.key: mean([of_class[metric.key] for of_class in means]) for metric in _ALL},
        "classes": dict(zip(keys, result.classes.names, strict=True)),
        "subjects": {key: _over_subjects(result, number) for number, key in enumerate(keys)},
        "tolerance": result.tolerance,
        "notes": result.notes,
        "greenseg": __version__,
    }


def _over_subjects(result: Evaluation, number: int) -> dict[str, Any]:
    """The means over subjects of a class, with the ends of their 95 % intervals."""
    found: dict[str, Any] = {}
    for metric in METRICS:
        if value := over_subjects(result.volumes, number, metric):
            ends = {} if value.half is None else {"low": value.low, "high": value.high}
            found[metric.key] = {"mean": value.value, **ends, "n": value.n}
    return found


def _key(labels: Sequence[int]) -> str:
    """A class as nnU-Net writes it: `1`, or `(1, 2)` for a region of several labels."""
    return str(labels[0]) if len(labels) == 1 else str(tuple(labels))


def _file(paths: Sequence[Path]) -> str | list[str] | None:
    """The file of a volume, the files of its slices, or None without a prediction."""
    texts = [str(path) for path in paths]
    return texts[0] if len(texts) == 1 else texts or None


def as_csv(result: Evaluation) -> str:
    """One line per volume and class. Undefined values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["volume", "subject", "class", "labels", *(m.key for m in _ALL), "state", "prediction_file", "reference_file"]
    )
    for volume in result.volumes:
        predictions = [] if result.temporary else volume.predictions
        files = [";".join(map(str, paths)) for paths in (predictions, volume.references)]
        for name, labels, agreement in zip(result.classes.names, result.classes.labels, volume.agreements, strict=True):
            values = [metric.value(agreement) for metric in _ALL]
            row = [volume.name, volume.subject, name, "+".join(map(str, labels)), *values, agreement.state, *files]
            writer.writerow([no_formula(cell) for cell in row])
    return text.getvalue()
