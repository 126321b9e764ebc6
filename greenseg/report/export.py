"""A comparison as data: CSV, JSON, Markdown, LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from greenseg import __version__
from greenseg.report import answer
from greenseg.report.columns import (
    BREAK_EVEN,
    RELATIVE,
    SUBJECTS,
    Column,
    column,
    default_columns,
    over_subjects,
    volumes,
)
from greenseg.report.comparison import Comparison, Effect, Row
from greenseg.report.labels import ran, value_text
from greenseg.report.objectives import Objective, named
from greenseg.report.results import objectives_of
from greenseg.report.run import Run
from greenseg.report.statistics import Change, Mean
from greenseg.report.table import title
from greenseg.report.trust import Trust, said, trust

SCHEMA = 1


def as_csv(comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None) -> str:
    """One line per row, values in J, s and g; each objective has its mean and the ends of its 95 % interval.

    The Dice of the test part also has the number of subjects, and so has that of the validation with an interval over
    subjects and repeats (`dice_subjects`).

    If a value in effect differs from the requested one, an additional column has it, such as `precision_ran`.
    """
    if names is None:
        settings = list(comparison.results[0].settings)
        objectives = objectives_of(comparison.results)
        figures = [name for name, o in objectives.items() if any(row.result.figure(o) for row in comparison.rows)]
        relative = [RELATIVE] if comparison.relative_to else []
        figures += [SUBJECTS]
        if any(volumes(comparison, row.result) is not None for row in comparison.rows):
            figures.append(BREAK_EVEN)
        names = [
            *settings,
            "runs",
            "front",
            "chance",
            "rank",
            *figures,
            "saved",
            *relative,
            "status",
            "source",
            "on-grid",
        ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shown = [column(comparison, name) for name in names]
    changed = {name for name in names if any(_ran_otherwise(row, name) for row in rows)}
    writer.writerow([heading for name in names for heading in _csv_headings(name, name in changed)])
    columns = [_csv_cells(comparison, one, one.name in changed) for one in shown]
    writer.writerows([cell for cells in columns for cell in cells(row)] for row in rows)
    return text.getvalue()


def _ran_otherwise(row: Row, name: str) -> bool:
    if not (values := ran(row.result, name)):
        return False
    asked = value_text(row.result.settings.get(name))
    return any(value_text(value) != asked for value in values)


def _csv_headings(name: str, changed: bool) -> list[str]:
    key = name.replace("-", "_")
    more = ["ran"] if changed else []
    if name == SUBJECTS:
        more = ["low", "high", "number"]
    elif name == RELATIVE:
        more = ["low", "high"]
    elif objective := named(name):
        more = ["low", "high", *(["subjects"] if objective.over_subjects else [])]
    return [key, *(f"{key}_{word}" for word in more)]


def _csv_cells(comparison: Comparison, shown: Column, changed: bool) -> Callable[[Row], list[Any]]:
    """Returns the cells of a row in a column, which may fill several."""
    if objective := named(shown.name):
        return lambda row: _csv_mean(comparison.figure(row.result, objective), objective.over_subjects)
    if shown.name == SUBJECTS:
        return lambda row: _csv_mean(over_subjects(comparison, row.result), True)
    if shown.name == RELATIVE:
        return lambda row: _csv_ratio(comparison.relative(row.result))
    if changed:
        return lambda row: [
            no_formula(_csv_value(shown.value(row))),
            no_formula(", ".join(map(str, ran(row.result, shown.name)))),
        ]
    return lambda row: [no_formula(_csv_value(shown.value(row)))]


def _csv_mean(mean: Mean | None, with_number: bool) -> list[Any]:
    if mean is None:
        return [""] * (4 if with_number else 3)
    ends = ("", "") if mean.half is None else (mean.low, mean.high)
    return [mean.value, *ends, mean.n] if with_number else [mean.value, *ends]


def _csv_ratio(change: Change | None) -> list[Any]:
    ratios = (change.share, change.low, change.high) if change else (None, None, None)
    return ["" if ratio is None else ratio + 1 for ratio in ratios]


_CSV_WORDS = {True: "true", False: "false", None: ""}


def _csv_value(value: Any) -> Any:
    return _CSV_WORDS[value] if isinstance(value, bool | None) else value


def no_formula(cell: Any) -> Any:
    """A cell of a CSV file that no spreadsheet evaluates: text that begins like a formula gets a leading apostrophe.

    Settings and names may come from untrusted runs. Numbers stay unchanged. Follows the advice of OWASP:
    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def as_json(comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None) -> str:
    """All data of the report, regardless of the columns; values in J, s and g."""
    # Seven times as fast as the module `json`, which indents in Python.
    return to_json(as_data(comparison, rows), indent=2, inf_nan_mode="null").decode() + "\n"


def as_data(comparison: Comparison, rows: Sequence[Row]) -> dict[str, Any]:
    """The comparison as a mapping of plain values."""
    known = trust(comparison)
    knee, cheapest, best = comparison.knee(), comparison.cheapest_within(answer.NEAR), comparison.best
    named = {"best": best, "cheapest_near_best": cheapest, "knee": knee, "baseline": comparison.baseline}
    objectives = objectives_of(comparison.results)
    return {
        "schema": SCHEMA,
        "greenseg": __version__,
        "objectives": [
            {"name": o.name, "describe": o.describe, "more_is_better": o.more_is_better} for o in comparison.objectives
        ],
        "configurations": [_row(comparison, row, objectives) for row in rows],
        "answer": {name: None if result is None else result.configuration for name, result in named.items()},
        "not_distinguishable_from_best": [result.configuration for result in comparison.near_best],
        "hypervolume": [
            {"share": v.share, "reference": v.reference, "ideal": v.ideal, "configurations": v.configurations}
            for v in comparison.volumes()
        ],
        "effects": [_effect(effect) for effect in comparison.effects],
        "said": answer.decision(comparison),
        "trust": {"said": said(known, comparison), **figures_of(known)},
        "warnings": answer.warnings(comparison),
    }


def _row(comparison: Comparison, row: Row, objectives: Mapping[str, Objective]) -> dict[str, Any]:
    result = row.result
    figures = {
        name: _mean(mean) for name, o in objectives.items() if (mean := comparison.figure(result, o)) is not None
    }
    return {
        "configuration": result.configuration,
        "label": comparison.label(result),
        "settings": result.settings,
        "ran": {
            name: value
            for name, value in result.runs[0].ran.given().items()
            if result.settings.get(name, value) != value
        },
        "status": result.status,
        "finished": len(result.finished),
        "runs": [_run(run) for run in result.runs],
        "figures": figures,
        "front": row.on_front,
        "chance": row.probability,
        "rank": row.rank,
        "saved": row.saved,
        "relative": _ratio(comparison.relative(result)),
        "break_even": volumes(comparison, result),
        "over_subjects": _mean(carried) if (carried := over_subjects(comparison, result)) else None,
        "sources": result.sources,
        "estimated": sorted(result.estimated),
        "unmeasured": result.unmeasured,
        "marks": sorted(result.marks),
        "on_grid": result.on_grid if result.finished else None,
    }


def _ratio(change: Change | None) -> dict[str, float | None] | None:
    """A ratio of energies."""
    if change is None:
        return None
    shares = {"ratio": change.share, "low": change.low, "high": change.high}
    return {name: None if share is None else share + 1 for name, share in shares.items()}


def figures_of(known: Trust) -> dict[str, Any]:
    """What limits the trust in the best, as plain values."""
    return {
        "subjects": known.over_subjects and _mean(known.over_subjects),
        "detectable": known.detectable,
        "best_of": known.number,
        "optimism_of_choice": known.of_choice,
        "epochs": known.epochs,
        "optimism_of_epochs": known.of_epochs,
        "validation_minus_test": known.gap and _mean(known.gap),
    }


def _run(run: Run) -> dict[str, Any]:
    reason = {"failure": run.failure} if run.failure else {}
    return {"path": str(run.directory.path), "status": run.status, **reason}


def _mean(mean: Mean) -> dict[str, float | int]:
    ends = {} if mean.half is None else {"low": mean.low, "high": mean.high}
    return {"mean": mean.value, **ends, "n": mean.n}


def _effect(effect: Effect) -> dict[str, Any]:
    energy = effect.energy
    return {
        "axis": effect.axis,
        "value": effect.value,
        "reference": effect.reference,
        "quality": _mean(effect.quality),
        "energy": energy and {"share": energy.share, "low": energy.low, "high": energy.high, "n": energy.n},
        "quality_between": effect.quality_between,
        "energy_between": effect.energy_between,
    }


def as_markdown(comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None) -> str:
    """A table in GitHub's Markdown, followed by the answer in words."""
    headings, right, cells = _table(comparison, rows, names)
    lines = [f"**{title(comparison)}**", "", *_markdown_table(headings, right, cells), ""]
    lines += [
        *(f"- {_markdown(each)}" for each in [*answer.decision(comparison), *said(trust(comparison), comparison)])
    ]
    lines.append("")
    effects = answer.effect_rows(comparison)
    if effects:
        names_of_effects = [
            "setting",
            "value",
            "instead of",
            comparison.quality.heading,
            answer.energy_name(comparison),
            "pairs",
        ]
        lines += [*_markdown_table(names_of_effects, [False, False, False, True, True, True], effects), ""]
        lines += [f"- {_markdown(each)}" for each in answer.uneven(comparison)]
    lines += [f"- {_markdown(warning)}" for warning in [*answer.legend(comparison), *answer.warnings(comparison)]]
    return "\n".join(lines) + "\n"


def _markdown_table(headings: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---:" if to_the_right else "---" for to_the_right in right]
    body = [[_markdown(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in ([_markdown(h) for h in headings], rule, *body)]


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def as_latex(comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None) -> str:
    """A `tabular` for LaTeX with the package booktabs; the front is bold, warnings are comments."""
    headings, right, cells = _table(comparison, rows, names)
    lines = [
        *(f"% {' '.join(each.split())}" for each in [title(comparison), *answer.warnings(comparison)]),
        f"\\begin{{tabular}}{{{''.join('r' if to_the_right else 'l' for to_the_right in right)}}}",
        "\\toprule",
        " & ".join(_latex(heading) for heading in headings) + " \\\\",
        "\\midrule",
    ]
    for row, texts in zip(rows, cells, strict=True):
        shown = [f"\\textbf{{{_latex(text)}}}" if row.on_front and text else _latex(text) for text in texts]
        lines.append(" & ".join(shown) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "→": r"$\rightarrow$", "●": r"$\bullet$",
    "−": r"$-$", "–": "--", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _table(
    comparison: Comparison, rows: Sequence[Row], names: Sequence[str] | None
) -> tuple[list[str], list[bool], list[list[str]]]:
    """Headings, whether each column is aligned right, and the texts of the cells."""
    shown = [column(comparison, name) for name in ["front", *(names or default_columns(comparison))]]
    return (
        [one.heading for one in shown],
        [one.figure for one in shown],
        [[one.text(row) for one in shown] for row in rows],
    )
