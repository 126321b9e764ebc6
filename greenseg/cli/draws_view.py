"""A search that draws configurations, for `greenseg sweep --dry-run` and `--explain`."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from greenseg.cli.view import print_uncut, say
from greenseg.report.labels import value_text
from greenseg.report.units import count, joules

if TYPE_CHECKING:
    from greenseg.search.drawn import Draw, DrawnRound, Draws
    from greenseg.sweep.grid import Axis
    from greenseg.sweep.plan import Plan


def lines_of(draws: "Draws") -> list[str]:
    """Sentences about a search: what it draws from, its limits, its next round, and the cost so far."""
    *_, last = draws.rounds()
    return [*_summary(draws), *(f"  {_text(draw.values)} ({draw.why})" for draw in last.draws if last.left)]


def _summary(draws: "Draws") -> list[str]:
    how, size = draws.how, draws.space.size
    seeds = f", each with {count(len(draws.space.seeds), 'seed')}" if draws.space.seeds else ""
    limit = "no budget" if how.joules is None else f"budget {joules(how.joules)}"
    lines = [
        f"Search: {how.method} ({how.sampler}), {count(how.configurations, 'configuration')}{seeds}, {limit}",
        "Space: " + "; ".join(map(_axis, draws.space.axes)) + (f" ({count(size, 'combination')})" if size else ""),
    ]
    rounds = [*draws.rounds()]
    drawn = f"{count(sum(len(now.draws) for now in rounds), 'configuration')} drawn so far"
    last = rounds[-1]
    if not last.left:
        return [*lines, f"The search is done, with {drawn}: {draws.done}"]
    spent = sum(curve.joules[-1] for curve in last.curves.values())
    lines.append(f"Spent by earlier rounds: {joules(spent)}")
    return [*lines, f"Next is round {last.number}: {count(len(last.left), 'run')} to do; {drawn}"]


def _axis(axis: "Axis") -> str:
    name = ", ".join(axis.settings)
    if axis.between is None:
        return f"{name}: {count(len(axis.rows({})), 'choice')}"
    log = ", log" if axis.between.log else ""
    return f"{name}: {value_text(axis.between.low)} to {value_text(axis.between.high)}{log}"


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())


def search_json(draws: "Draws") -> dict[str, Any]:
    """The search as plain values: all rounds so far with their configurations and results."""
    how = draws.how
    rounds = [_round_json(now, draws) for now in draws.rounds()]
    return {
        "method": how.method,
        "sampler": how.sampler,
        "configurations": how.configurations,
        "joules": how.joules,
        "seed": how.seed,
        "combinations": draws.space.size,
        "rounds": rounds,
        "done": draws.done or None,
    }


def _round_json(now: "DrawnRound", draws: "Draws") -> dict[str, Any]:
    return {"number": now.number, "left": len(now.left), "draws": [_draw_json(draw, draws) for draw in now.draws]}


def _draw_json(draw: "Draw", draws: "Draws") -> dict[str, Any]:
    result, finished = draws.result(draw)
    return {
        "number": draw.number,
        "settings": draw.values,
        "why": draw.why,
        "runs": [run.settings.identity for run in draw.runs],
        "finished": finished,
        "dice": result and result[0],
        "joules": result and result[1],
    }


def print_rounds(draws: "Draws", plan: "Plan", as_json: bool) -> None:
    """Print every round with its configurations and their results, derived from the records again."""
    if as_json:
        print(json.dumps(search_json(draws)))
        return
    for line in _summary(draws):
        say(line)
    statuses = {run.settings.identity: run.status for run in plan.runs}
    for now in draws.rounds():
        left = {step.candidate.key for step in now.left}
        say("")
        say(
            f"Round {now.number}: {count(len(now.draws), 'configuration')}"
            + (f", {len(left)} runs to do" if left else "")
        )
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("#", "drawn settings", "why", "best Dice", "J at its end", "runs"):
            right = title in ("#", "best Dice", "J at its end")
            table.add_column(title, justify="right" if right else "left", overflow="fold")
        for draw in now.draws:
            result, _ = draws.result(draw)
            stand = ", ".join(statuses.get(run.settings.identity, "new") for run in draw.runs)
            figures = (f"{result[0]:.4f}", joules(result[1])) if result else ("–", "–")
            table.add_row(str(draw.number + 1), _text(draw.values), draw.why, *figures, stand)
        print_uncut(table)
