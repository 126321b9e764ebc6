"""`greenseg sweep --dry-run`: the plan, as text or as JSON."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from greenseg.runs.standing import PlannedRun, difference, refusal

if TYPE_CHECKING:
    from rich.table import Table

    from greenseg.runs.costs import Range
    from greenseg.search.rounds import Rounds
    from greenseg.sweep.disk import Disk
    from greenseg.sweep.plan import Plan

_SHOWN = 20
"""Number of runs of a plan to show: the first and the last ones. Slightly longer plans are shown completely."""

COLOURS = {
    "finished": "green",
    "failed": "red",
    "damaged": "red",
    "newer": "red",
    "interrupted": "yellow",
    "paused": "cyan",
    "running": "cyan",
}
"""Status of a run → its colour."""


class ToMeasure(NamedTuple):
    """Measurements of prediction that are left.

    Attributes:
        runs: number of runs to measure.
        seconds: time for all of them, about.
    """

    runs: int
    seconds: float


_SEARCHES = {"halving": "greenseg.cli.search_view", "optuna": "greenseg.cli.draws_view"}
"""Method of a search → the module with its `lines_of`, `search_json` and `print_rounds`."""


def view_of_search(search: "Rounds") -> Any:
    """The module that shows a search."""
    return import_module(_SEARCHES[search.how.method])


def print_plan_json(
    plan: "Plan",
    disk: "Disk",
    to_measure: ToMeasure | None = None,
    search: "Rounds | None" = None,
    scripts: Sequence[str] = (),
) -> None:
    """Print everything as JSON."""
    parts: dict[str, Any] = {"measure": to_measure._asdict()} if to_measure else {}
    if search:
        parts["search"] = view_of_search(search).search_json(search)
    if scripts:
        parts["scripts"] = list(scripts)
    print(json.dumps(plan.to_json() | parts | {"disk": asdict(disk), "notes": notes(plan.runs)}))


def print_plan(
    plan: "Plan",
    disk: "Disk",
    to_measure: ToMeasure | None = None,
    search: "Rounds | None" = None,
    scripts: Sequence[str] = (),
) -> None:
    """Print the counts, the exclusions, the work that is left, the runs in their order, and scripts of workers."""
    from greenseg.cli.view import print_uncut, say, warn
    from greenseg.report.units import count, duration, joules

    sweep = plan.sweep
    stand = ", ".join(f"{number} {status}" for status, number in plan.counts.items())
    to_do = "" if search else f", {len(plan.todo)} to do"
    say(f"Sweep {sweep.name}: {count(len(plan.runs), 'run')} ({stand}){to_do}")
    for exclusion in sweep.excluded:
        rule = ", ".join(f"{name} {value}" for name, value in exclusion.rule.items())
        say(f"Excluded {count(exclusion.combinations, 'combination')}: {rule} ({exclusion.place})")
    if sweep.duplicates:
        say(f"Merged {count(sweep.duplicates, 'duplicate')} of other runs")
    if plan.added:
        say(f"Added {count(plan.added, 'run')}: the parents of compressed runs")
    if search:
        for line in view_of_search(search).lines_of(search):
            say(line)
    else:
        for line in _left(plan):
            say(line)
    if to_measure:
        say(f"To measure afterwards: {count(to_measure.runs, 'run')}, about {duration(to_measure.seconds)}")
    if plan.todo:
        say(_disk(disk))
    if sweep.max_energy is not None:
        say(f"No new run starts after {joules(sweep.max_energy)}; {joules(plan.joules)} spent so far")
    print_uncut(_table(plan))
    for run in plan.runs:
        if run.status == "damaged":
            warn(f"{run.problem}; the run starts over")
    for note in [*notes(plan.runs), *map(refusal, plan.changed), *plan.newer]:
        warn(note)
    if lack := no_room(disk):
        warn(lack)
    for message in plan.impossible:
        warn(f"Not on this machine: {message}")
    for script in scripts:
        say(f"\nWould be submitted:\n\n{script}")


def notes(runs: Sequence[PlannedRun]) -> list[str]:
    """Notes on the data content of the runs; one sentence each."""
    from greenseg.report.units import count

    said = []
    absent = Counter(run.settings.data for run in runs if run.by_path and run.content is None)
    for data, number in sorted(absent.items()):
        said.append(f"{data} cannot be read here; {count(number, 'run')} matched by settings and path.")
    for run in runs:
        if run.by_path and run.contents > 1 and run.known:
            said.append(
                f"{run.settings.data}: runs with these settings exist for {run.contents} contents of the data. The "
                f"data cannot be read here, so greenseg uses {run.known.path}"
            )
    unknown = sum(run.by_path and run.content is not None for run in runs)
    if unknown:
        said.append(f"Kept {count(unknown, 'run')} of an earlier version, with unknown data content.")
    replaced = [run for run in runs if run.status == "new" and run.other and run.other_status == "finished"]
    if replaced:
        first = replaced[0]
        said.append(
            f"{count(len(replaced), 'run')} finished on other content of {first.settings.data}{difference(first)}. "
            f"The present content makes a new run; the earlier run is kept."
        )
    return said


def _disk(disk: "Disk") -> str:
    from greenseg.report.units import size

    free = f"{size(disk.free)} free"
    if not disk.more and disk.unknown:
        return f"Disk: unknown until a run of each network has begun; {free}"
    without = f", without {', '.join(disk.unknown)}: no run of it has begun" if disk.unknown else ""
    return f"Disk: about {size(disk.done)} when done, meanwhile up to {size(disk.more)} more than now{without}; {free}"


def no_room(disk: "Disk") -> str:
    """A message with the remedy if the disk has no room for a sweep; else empty."""
    from greenseg.report.units import size

    if disk.fits:
        return ""
    return (
        f"{disk.folder}: the runs to do need about {size(disk.more)} on this disk ({disk.more:,} bytes), and "
        f"{size(disk.free)} are free ({disk.free:,} bytes); {disk.remedy}"
    )


def _left(plan: "Plan") -> list[str]:
    from greenseg.report.units import count, duration, joules

    if not plan.todo:
        return ["Nothing is left to do"]
    left = plan.left
    if not left:
        return ["Time and joules left: unknown until a run of this sweep has finished"]

    def shown(value: "Range", unit: Callable[[float], str]) -> str:
        spread = f" ({unit(value.low)} to {unit(value.high)})" if value.low < value.high else ""
        return f"{unit(value.mean)}{spread}"

    return [
        f"Time left: {shown(left.seconds, duration)}, one run at a time",
        f"Joules left: {shown(left.joules, joules)}; predicted from {count(left.finished, 'finished run')}",
    ]


def _table(plan: "Plan") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("varied settings", overflow="fold")
    hidden = range(_SHOWN // 2, len(plan.runs) - _SHOWN // 2)
    if len(hidden) <= 1:  # the line "1 more" would take as much room
        hidden = range(0)
    for position, run in enumerate(plan.runs):
        if position not in hidden:
            varied = ", ".join(f"{name} {getattr(run.settings, name)}" for name in plan.sweep.varied)
            table.add_row(str(position + 1), Text(run.status, COLOURS.get(run.status, "")), Text(varied))
        elif position == hidden.start:
            table.add_row("…", "", f"{len(hidden)} more; --json shows all")
    return table
