"""`greenseg sweep`: many runs."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from greenseg.cli.options import IDLE_HELP, measure_idle, parse_seconds
from greenseg.errors import ExitCode, UserError
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
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SETTING=VALUE", help="Goes over base; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the runs, where they stand, and what is left.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print everything as JSON.")] = False,
) -> None:
    """Train every combination of a grid that is not trained yet, then print the Pareto table.

    The same command resumes: finished runs are skipped, interrupted ones continued, failed ones left alone.
    """
    idle_seconds = parse_seconds(idle_baseline)
    if as_json and not dry_run:
        raise UserError("--json: goes with --dry-run")
    planned = read_sweep(file, overrides or ())

    from greenseg.cli.plan import print_plan, print_plan_json
    from greenseg.sweep.plan import make_plan

    plan = make_plan(planned, out, retry_failed)
    if dry_run:
        (print_plan_json if as_json else print_plan)(plan)
        return
    if plan.impossible:
        raise UserError(plan.impossible)

    from greenseg.cli.report import print_report
    from greenseg.cli.view import FilesView, TrainingView, say, warn
    from greenseg.report.units import count
    from greenseg.run_summary import account_anew
    from greenseg.sweep.local import Stop, execute
    from greenseg.sweep.prepare import prepare

    for planned_run in plan.runs:
        if planned_run.problem:
            warn(f"{planned_run.problem}; the run starts anew")
        if planned_run.outdated:
            account_anew(planned_run.directory, planned_run.settings)
    runs = [(run.settings, run.directory) for run in plan.runs]
    todo = [(run.settings, run.directory) for run in plan.todo]
    damaged = {run.settings.identity for run in plan.runs if run.status == "damaged"}
    counts = Counter(plan.counts)
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
