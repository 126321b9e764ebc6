"""`greenseg sweep`: many runs."""

from pathlib import Path
from typing import Annotated

import typer

from greenseg.cli.options import IDLE_HELP, measure_idle, parse_seconds
from greenseg.errors import ExitCode
from greenseg.sweep.file import read_sweep


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of the sweep.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all runs; new ones go to DIR/<sweep>/.")] = Path(
        "runs"
    ),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed runs again.")] = False,
    idle_baseline: Annotated[str, typer.Option(metavar="TIME", help=IDLE_HELP)] = "",
    allow_mixed_sources: Annotated[
        bool, typer.Option("--allow-mixed-sources", help="Rank measured and estimated joules against each other.")
    ] = False,
) -> None:
    """Train every combination of a grid that is not trained yet, then print the Pareto table.

    The same command resumes: finished runs are skipped, interrupted ones continued, failed ones left alone.
    """
    idle_seconds = parse_seconds(idle_baseline)
    planned = read_sweep(file)

    from greenseg.cli.report import print_report
    from greenseg.cli.view import FilesView, TrainingView, say, warn
    from greenseg.report.units import count
    from greenseg.run_directory import BadRecord, RunDirectory, runs_by_identity
    from greenseg.run_summary import account_anew
    from greenseg.sweep.local import Stop, execute
    from greenseg.sweep.prepare import prepare

    known = runs_by_identity(out)
    runs = [(s, known.get(s.identity) or RunDirectory(out / planned.name / s.slug)) for s in planned.runs]
    damaged: set[str] = set()
    todo, counts = [], dict.fromkeys(("finished", "failed", "interrupted", "running", "new"), 0)
    for settings, run in runs:
        try:
            status = run.status()
        except BadRecord as error:
            warn(f"{error}; the run starts anew")
            status = "new"
            damaged.add(settings.identity)
        if status == "finished":
            account_anew(run, settings)
        counts[status] += 1
        if status in ("new", "interrupted") or (status == "failed" and retry_failed):
            todo.append((settings, run))
    shown = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    say(f"Sweep {planned.name}: {count(len(runs), 'run')} ({shown}), {len(todo)} to do")

    unfinished = counts["running"] + (0 if retry_failed else counts["failed"])
    stopped = False
    if todo:
        with FilesView() as preparation:
            prepare([settings for settings, _ in todo], say, preparation.update)
        context = measure_idle(idle_seconds, say)
        with Stop().installed() as stop, TrainingView(len(todo), echo=False) as view:
            for position, (settings, run) in enumerate(todo):
                surroundings = context | {"order": planned.order, "position": position}
                if planned.cool_down and position:
                    surroundings["cool_down"] = planned.cool_down.wait(lambda: not stop.requests)
                    if stop.requests:
                        break
                view.start(settings)
                anew = settings.identity in damaged
                outcome = execute(run, settings, stop, view.event, surroundings, anew)
                view.end(outcome)
                unfinished += outcome.status != "finished"
                if stop.requests:
                    break
            stopped = stop.requests > 0
    printed = print_report([run for _, run in runs], allow_mixed_sources)
    if stopped:
        warn("Interrupted; the same command goes on where this one stopped")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if unfinished or not printed:
        raise typer.Exit(ExitCode.FAILED)
