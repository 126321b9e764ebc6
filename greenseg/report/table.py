"""The Pareto table: one row a configuration, only the axes that differ, every joule with its source."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from greenseg.energy.reading import APPORTIONED, APPROXIMATE, SHARED
from greenseg.models.names import join_model
from greenseg.report.front import on_front
from greenseg.report.results import Result
from greenseg.report.units import count, joule_unit, joules, number

FRONT = "●"
_SHORT = 12  # longer values may be folded, so that the figures and their source fit a terminal
_MOST_COLUMNS = 3  # more settings share one column, so that the figures keep theirs

_MARKS = {
    APPROXIMATE: "some windows were shorter than the counter's period; power at their end × their length.",
    SHARED: "other processes used the same GPU; the joules may be theirs.",
    APPORTIONED: "other runs used the same CPU; a share of its counter, by CPU time.",
}


def axes(results: Sequence[Result]) -> list[str]:
    """The settings in which the results differ, or network and precision where none does.

    Where encoder and decoder both differ, or some network has no encoder, one column holds both: `model`.
    """
    names = list(results[0].settings)
    differing = [name for name in names if len({repr(result.settings.get(name)) for result in results}) > 1]
    if not differing:
        return ["model", "precision"]
    halves = [name for name in differing if name in ("encoder", "decoder")]
    if len(halves) == 2 or (halves and not all(result.settings["encoder"] for result in results)):
        differing[differing.index(halves[0])] = "model"
        differing = [name for name in differing if name not in halves]
    return differing


def source(result: Result) -> str:
    """Where the joules come from: `nvml + rapl`, or by component where one was estimated and another measured."""
    sources = result.sources
    components: dict[str, list[str]] = {}
    for component, name in sources.items():
        components.setdefault(name, []).append(component)
    if result.estimated and len(components) > 1:
        text = ", ".join(f"{name} ({' '.join(parts)})" for name, parts in components.items())
    else:
        text = " + ".join(components)
    unknown = [f"{component} unknown" for component in result.unmeasured]
    return ", ".join([text or "none", *sorted(result.marks), *unknown])


def pareto_table(results: Sequence[Result], allow_mixed_sources: bool = False) -> RenderableType:
    """The table of results, in their order, with the front marked and what must be known under it.

    Args:
        results: at least one.
        allow_mixed_sources: rank measured and estimated joules against each other.
    """
    chosen = on_front(results, allow_mixed_sources)
    names = axes(results)
    repeats = any(len(result.runs) > 1 for result in results)
    epoch_unit, epoch_size = joule_unit(result.joules_per_epoch for result in results)
    total_unit, total_size = joule_unit(result.joules for result in results)

    table = Table(
        title=_title(results),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    together = len(names) > _MOST_COLUMNS
    if together:
        table.add_column("configuration", overflow="fold")
    for name in [] if together else names:
        short = name == "precision" or max(len(_setting(result, name)) for result in results) <= _SHORT
        table.add_column(name, min_width=len(name), no_wrap=short, overflow="fold")
    if repeats:
        table.add_column("runs", justify="right", no_wrap=True)
    for heading in ("Dice", f"{epoch_unit}/epoch", f"total {total_unit}", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("source", min_width=len("estimate,"), overflow="fold")

    for i, result in enumerate(results):
        best = i in chosen
        values = [_setting(result, name) for name in names]
        if together:
            values = [" ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))]
        cells: list[str | Text] = [FRONT if best else "", *values]
        if repeats:
            done, total = len(result.finished), len(result.runs)
            cells.append(str(total) if done == total else f"{done} of {total}")
        if result.dice is None:
            cells += ["–", "–", "–", "–", Text(_unfinished(result), style="red")]
        else:
            cells += [
                f"{result.dice:.4f}",
                _scaled(result.joules_per_epoch, epoch_size),
                _scaled(result.joules, total_size),
                number(result.seconds),
                Text(source(result), style="italic" if result.estimated else ""),
            ]
        table.add_row(*cells, style="green" if best else "")
    return Group(table, *_notes(results, allow_mixed_sources))


def _title(results: Sequence[Result]) -> str:
    runs = sum(len(result.runs) for result in results)
    return f"Dice against energy: {count(len(results), 'configuration')}, {count(runs, 'run')}"


def _scaled(value: float | None, size: float) -> str:
    return number(None if value is None else value / size)


def _setting(result: Result, name: str) -> str:
    """The value asked for, and what ran instead where that differs."""
    if name == "model":
        return join_model(result.settings["encoder"], result.settings["decoder"])
    asked = _value(result.settings.get(name))
    ran = {_value(run.ran[name]) for run in result.runs if name == "precision" and name in run.ran}
    changed = sorted(ran - {asked})
    return f"{asked} → {', '.join(changed)}" if changed else asked


def _value(value: Any) -> str:
    return (
        {True: "yes", False: "no", None: "–"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
    )


def _unfinished(result: Result) -> str:
    statuses = sorted({run.status for run in result.runs})
    reason = next((run.record["error"] for run in result.runs if run.record.get("error")), None)
    return ", ".join(statuses) + (f": {reason['type']}" if reason else "")


def _notes(results: Sequence[Result], allow_mixed_sources: bool) -> list[Text]:
    notes = [f"{FRONT} on the front: no other configuration here has at least its Dice for fewer joules."]
    runs = [run for result in results for run in result.runs]
    wasted = sum(run.energy.joules for run in runs if run.status != "finished")
    spent = f"All runs together: {joules(sum(run.energy.joules for run in runs))}"
    notes.append(f"{spent}, {joules(wasted)} of it on runs that did not finish." if wasted else f"{spent}.")
    finished = [result for result in results if result.dice is not None]
    if any(result.estimated for result in finished):
        notes.append(
            "estimate: joules modelled from the run's own CPU seconds and memory, not measured; for comparing runs of "
            "one machine; in absolute terms they may be several times off."
        )
    if len({(result.estimated, tuple(result.sources)) for result in finished}) > 1:
        notes.append(
            "Sources differ between rows: measured and estimated joules "
            + (
                "are ranked against each other, as asked."
                if allow_mixed_sources
                else "are not ranked against each other."
            )
        )
    for mark, meaning in _MARKS.items():
        if any(mark in result.marks for result in finished):
            notes.append(f"{mark}: {meaning}")
    changed = {_setting(result, "precision") for result in results if "→" in _setting(result, "precision")}
    for change in sorted(changed):
        asked, _, ran = change.partition(" → ")
        notes.append(f"Asked for precision {asked}, ran {ran}: Lightning has no {asked} on this device.")
    if any(result.unmeasured for result in finished):
        notes.append("unknown: this component has no sensor and no estimate; its joules are missing from the sums.")
    if any(0 < len(result.finished) < len(result.runs) for result in results):
        notes.append("Figures are means over the repeats that finished.")
    return [Text(note, style="dim") for note in notes]
