"""Recorded grids: the learning curves and joules of all runs of a sweep."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from greenseg.energy import Energy
from greenseg.runs.directory import find_runs
from greenseg.runs.summary import BEFORE
from greenseg.search.curves import Curve
from greenseg.search.of_run import curve_of

FOLDER = Path(__file__).parent
GRIDS = ("phantom", "real")

_SETTINGS = ("encoder", "decoder", "width", "decoder_width", "optimizer", "schedule", "lr")


@dataclass(frozen=True)
class Grid:
    """A recorded grid.

    Attributes:
        name: name of its sweep.
        epochs: epochs of each run.
        restart: joules of a start-up: of what comes before the first epoch of an attempt.
        settings: the varied settings of each configuration.
        curves: for each configuration, the curve of each seed.
    """

    name: str
    epochs: int
    restart: float
    settings: list[dict[str, Any]]
    curves: list[list[Curve]]


def load(name: str) -> Grid:
    """A grid in this folder."""
    found = json.loads((FOLDER / f"{name}.json").read_text())
    curves = [[_curve(run) for run in each["runs"]] for each in found["grid"]]
    restart = float(np.median([run["restart"] for each in found["grid"] for run in each["runs"]]))
    return Grid(name, found["epochs"], restart, [each["settings"] for each in found["grid"]], curves)


def _curve(run: dict[str, Any]) -> Curve:
    return Curve(tuple(np.nan if dice is None else dice for dice in run["dice"]), tuple(run["joules"]), True)


def record(name: str, folders: Iterable[Path]) -> int:
    """Write the curves of the finished runs of a sweep to this folder; returns the number of its configurations.

    Configurations without a finished run of every seed are left out.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    epochs = 0
    for run in find_runs(folders):
        record = run.record()
        if record is None or record.status != "finished":
            continue
        curve = curve_of(record, run.epochs())
        assert curve
        restart = sum(
            Energy.from_json(energy).joules
            for phase, energy in (record.attempts[0].energy or {}).items()
            if phase in BEFORE
        )
        settings = {key: record.settings[key] for key in _SETTINGS}
        groups[json.dumps(settings)][record.settings["seed"]] = {
            "seed": record.settings["seed"],
            "restart": round(restart, 1),
            "dice": [None if np.isnan(dice) else round(dice, 4) for dice in curve.dice],
            "joules": [round(joules, 1) for joules in curve.joules],
        }
        epochs = record.settings["epochs"]
    most = max(map(len, groups.values()), default=0)
    grid = [
        {"settings": json.loads(settings), "runs": [run for _, run in sorted(runs.items())]}
        for settings, runs in sorted(groups.items())
        if len(runs) == most
    ]
    lines = ",\n  ".join(json.dumps(each) for each in grid)
    (FOLDER / f"{name}.json").write_text(f'{{"epochs": {epochs}, "grid": [\n  {lines}\n]}}\n')
    return len(grid)
