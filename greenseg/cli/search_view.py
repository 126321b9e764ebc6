"""The decisions of a search: for `greenseg sweep --dry-run` and `--explain`, and below a report."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from greenseg.cli.view import name_of, print_uncut, say
from greenseg.report.units import count, joules
from greenseg.search.halving import Prediction, predicted, stand

if TYPE_CHECKING:
    from greenseg.search.account import Account
    from greenseg.search.rounds import Round, Search
    from greenseg.sweep.plan import Plan


def lines_of(search: "Search") -> list[str]:
    """Sentences about a search: its method and budget, its next round, and the cost."""
    configurations = len({each.configuration for each in search.candidates})
    lines = [f"Search: {search.how.method} over {count(configurations, 'configuration')}, {_budget(search)}"]
    *_, last = [None, *search.rounds()]
    if last is None or not last.left:
        return [*lines, "The search is done; --search none trains the rest of the grid"]
    lines.append(f"Next is round {last.number}: {count(len(last.left), 'run')} to do")
    spent = sum(curve.joules[-1] for curve in last.curves.values())
    grid = predicted(search.candidates, last.curves)
    if grid is None:
        return [*lines, "Joules: unknown until the first round has ended"]
    return [*lines, f"Spent by earlier rounds: {joules(spent)}; the whole grid: {_predicted(grid)}"]


def _predicted(grid: Prediction) -> str:
    return f"about {joules(grid.mean)} ({joules(grid.low)} to {joules(grid.high)})"


def _budget(search: "Search") -> str:
    how = search.how
    if how.share is not None:
        return f"budget {100 * how.share:g} % of the joules of the grid"
    return "no budget" if how.joules is None else f"budget {joules(how.joules)}"


def search_json(search: "Search") -> dict[str, Any]:
    """The search as plain values: all rounds so far with their decisions."""
    how = search.how
    return {
        "method": how.method,
        "joules": how.joules,
        "share": how.share,
        "seed": how.seed,
        "rounds": [_round_json(each, search) for each in search.rounds()],
    }


def _round_json(now: "Round", search: "Search") -> dict[str, Any]:
    given_up = stand(search.candidates, now.curves, search.options).given_up
    grid = predicted(search.candidates, now.curves)
    return {
        "number": now.number,
        "left": len(now.left),
        "grid_joules": grid and grid._asdict(),
        "steps": [{"identity": s.candidate.key, "until": s.until, "why": s.why} for s in now.steps],
        "given_up": [{"identity": key, "by": by} for key, by in sorted(given_up.items())],
    }


def print_rounds(search: "Search", plan: "Plan", as_json: bool) -> None:
    """Print every round with its decisions, derived from the records again."""
    if as_json:
        print(json.dumps(search_json(search)))
        return
    for line in lines_of(search):
        say(line)
    names = {run.settings.identity: run for run in plan.runs}
    varied = plan.sweep.varied

    def name(key: str) -> str:
        settings = names[key].settings
        return ", ".join(f"{each} {getattr(settings, each)}" for each in varied) or name_of(settings)

    gone: dict[str, str] = {}
    for now in search.rounds():
        say("")
        say(f"Round {now.number}: {count(len(now.steps), 'run')}" + (f", {len(now.left)} to do" if now.left else ""))
        left = {step.candidate.key for step in now.left}
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("run", "from", "to epoch", "why", ""):
            table.add_column(title, justify="right" if title in ("from", "to epoch") else "left")
        for step in now.steps:
            key = step.candidate.key
            before = len(now.curves[key].dice) if key in now.curves else 0
            table.add_row(name(key), str(before), str(step.until), step.why, "to do" if key in left else "")
        standing = stand(search.candidates, now.curves, search.options).given_up
        for key, by in sorted(standing.items()):
            if gone.get(key) != by:
                table.add_row(name(key), str(len(now.curves[key].dice)), "", f"given up: beaten by {name(by)}", "")
        for key in sorted(gone.keys() - standing.keys()):
            table.add_row(name(key), str(len(now.curves[key].dice)), "", "no longer given up", "")
        gone = dict(standing)
        print_uncut(table)


def sentences(account: "Account") -> list[str]:
    """A search in words: its runs, its cost and its saving, and the audit."""
    if account.grid and account.finished == account.runs:
        return [f"Search in {account.name}: all {count(account.runs, 'run')} of the grid have finished."]
    words = Counter("given up" if each.by else "undecided" for each in account.verdicts)
    parts = [f"{account.finished} finished", *(f"{number} {word}" for word, number in sorted(words.items()))]
    parts += [f"{account.failed} failed"] if account.failed else []
    parts.append(f"{account.runs - account.begun} not begun")
    cost = f"It has cost {joules(account.joules)}"
    if account.resumptions:
        cost += f", {joules(account.resumptions)} of them to start up after pauses"
    lines = [f"Search in {account.name}: of {count(account.runs, 'run')}, {', '.join(parts)}."]
    if account.grid and account.saved:
        mean, low, high = (f"{100 * share:.0f} %" for share in account.saved)
        lines.append(f"{cost}; the whole grid: {_predicted(account.grid)}. So far, it saved {mean} ({low} to {high}).")
    else:
        lines.append(f"{cost}.")
    return [*lines, *_audit(account)]


def _audit(account: "Account") -> list[str]:
    audit = account.audit
    if not audit.given_up:
        return []
    if not audit.audited:
        return ["No given-up run was trained to the end, so how many of them belong on the front is unknown."]
    tried = f"{count(audit.audited, 'given-up run')} trained to the end to check the others"
    if audit.at_most is None:
        return [f"{tried}; fewer than 10 bound nothing: how many of the others belong on the front is unknown."]
    return [
        f"{tried}: {audit.wrong} on the front. So at most {audit.at_most} of the other {audit.given_up} belong on the "
        f"front (95 % confidence)."
    ]


_BARS = "▁▂▃▄▅▆▇█"


def verdict_table(account: "Account") -> Table:
    """The runs of a search that have not ended, with their curves and the Dice that they are heading for."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for title in ("paused run", "epoch", "Dice by epoch", "Dice", "at its end", "total J", "verdict"):
        right = title in ("epoch", "Dice", "total J")
        folds = title in ("paused run", "verdict")
        table.add_column(title, justify="right" if right else "left", no_wrap=not folds, overflow="fold")
    for each in sorted(account.verdicts, key=lambda v: (bool(v.by), -v.ends_at.expected)):
        best = max((dice for dice in each.dice if dice == dice), default=0.0)
        bars = "".join(
            _BARS[min(int(dice * len(_BARS)), len(_BARS) - 1)] if dice == dice else " " for dice in each.dice
        )
        bounds = f"{each.ends_at.low:.3f} to {each.ends_at.high:.3f}"
        verdict = f"given up: beaten by {each.by}" if each.by else "undecided"
        epoch = f"{len(each.dice)}/{each.epochs}"
        table.add_row(each.name, epoch, bars, f"{best:.3f}", bounds, joules(each.joules), verdict)
    return table
