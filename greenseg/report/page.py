"""The report as one HTML file that works offline: a plot with hover and zoom, filters, a sortable table, curves."""

import json
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Any

from greenseg.report import answer
from greenseg.report.columns import ON_GRID, column, default_columns
from greenseg.report.comparison import Comparison, Row
from greenseg.report.curves import Curve, curve
from greenseg.report.labels import setting_text, source
from greenseg.report.objectives import SHOWN, Objective, named
from greenseg.report.results import objectives_of
from greenseg.report.run import Run
from greenseg.report.table import title
from greenseg.report.trust import said, trust
from greenseg.settings import Settings

MOST_CURVES = 3000
"""Largest number of runs with learning curves in the page; more would make it slow to open."""

_DATA = "{{data}}"
_TITLE = "{{title}}"


def as_html(comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None) -> str:
    """The page, which loads nothing from elsewhere."""
    template = resources.files("greenseg.report").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(page_data(comparison, rows, names), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # "</script>" or "<!--" would end or change a script element, wherever it occurs.
    return template.replace(_TITLE, _escaped(title(comparison))).replace(_DATA, data.replace("<", "\\u003c"))


def page_data(comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None) -> dict[str, Any]:
    """The data for the page's script."""
    known = [o for o in objectives_of(comparison.results).values() if any(row.result.figure(o) for row in rows)]
    names = names or default_columns(comparison)
    shown = [column(comparison, name) for name in names if not named(name)]
    place = {id(row.result): i for i, row in enumerate(rows)}
    curves = _curves(rows)
    kinds: dict[Any, int] = {}
    return {
        "title": title(comparison),
        "quality": comparison.quality.name,
        "energy": comparison.energy.name,
        "third": comparison.third and comparison.third.name,
        "figures": [_figure(comparison, objective) for objective in known],
        "axes": comparison.differing,
        "columns": [{"name": one.name, "heading": one.heading, "figure": one.figure} for one in shown],
        "shownFigures": [name for name in names if named(name)],
        "rows": [
            {
                "id": row.result.configuration,
                "label": comparison.label(row.result),
                "texts": {one.name: one.text(row) for one in shown},
                "values": {one.name: one.value(row) for one in shown},
                "axes": {name: setting_text(row.result, name) for name in comparison.differing},
                "kind": None
                if comparison.mixed(row.result)
                else kinds.setdefault(comparison.kind(row.result), len(kinds)),
                "estimated": bool(row.result.estimated),
                "mark": ON_GRID if row.result.on_grid else "",
                "source": source(row.result) if row.result.finished else "",
                "status": row.result.status,
                "figures": {
                    o.name: [mean.value, mean.half]
                    for o in known
                    if (mean := comparison.figure(row.result, o)) is not None
                },
                "settings": {name: "–" if value is None else str(value) for name, value in row.result.settings.items()},
                "runs": [_run(run) for run in row.result.runs],
                "curves": [_rounded(one) for one in curves.get(id(row.result), [])],
            }
            for row in rows
        ],
        "baseline": place.get(id(comparison.baseline)),
        "said": [*answer.decision(comparison), *said(trust(comparison), comparison)],
        "effects": answer.effect_rows(comparison),
        "effectHeadings": [comparison.quality.heading, answer.energy_name(comparison)],
        "notes": [*answer.legend(comparison), *answer.uneven(comparison), *filter(None, [answer.failures(comparison)])],
        "warnings": answer.warnings(comparison),
    }


def train_command(run: Run) -> str:
    """The command that repeats a run, with every setting that differs from its default."""
    words = ["greenseg", "train"]
    for name, value in run.settings.items():
        default = Settings.model_fields[name].default if name in Settings.model_fields else value
        if name in ("encoder", "decoder") or value != default:
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words.append(option if value else option.replace("--", "--no-", 1))
            else:
                words += [option, str(value)]
    return shlex.join(words)


def _figure(comparison: Comparison, objective: Objective) -> dict[str, Any]:
    unit, size = comparison.unit(objective)
    return {
        "name": objective.name,
        "heading": objective.titled(unit),
        "size": size,
        "more": objective.more_is_better,
        "describe": objective.describe,
        "digits": objective.digits,
        "judges": objective.judges,
        "compares": objective.name not in SHOWN,
    }


def _run(run: Run) -> dict[str, str]:
    return {"path": str(run.directory.path), "status": run.failure or run.status, "command": train_command(run)}


def _curves(rows: Sequence[Row]) -> dict[int, list[Curve]]:
    """Learning curves by id of the result, the front first, up to `MOST_CURVES` runs."""
    found: dict[int, list[Curve]] = {}
    read = 0
    for row in sorted(rows, key=lambda row: not row.on_front):
        if read + len(row.result.finished) > MOST_CURVES:
            break
        read += len(row.result.finished)
        found[id(row.result)] = [curve(run) for run in row.result.finished]
    return found


def _rounded(one: Curve) -> list[list[float | None]]:
    """[joules, Dice], rounded to the digits that a screen shows."""
    joules: list[float | None] = [float(f"{value:.5g}") for value in one.joules]
    return [joules, [None if value is None else round(value, 4) for value in one.dice]]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
