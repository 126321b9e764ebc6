"""`greenseg train`: one run."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenseg.classes import Classes
from greenseg.cli.options import IDLE_HELP, check_out, measure_idle, parse_seconds, with_settings
from greenseg.errors import ExitCode, UserError
from greenseg.settings import Settings, overlay, parents_first, read_config

if TYPE_CHECKING:
    from greenseg.runs.directory import RunDirectory
    from greenseg.runs.owner import Owner


@with_settings
def train(
    settings: dict[str, Any],
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of settings, such as a run's config.yaml; options override it."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all runs; this run goes to DIR/train/.")] = Path(
        "runs"
    ),
    idle_baseline: Annotated[str, typer.Option(metavar="TIME", help=IDLE_HELP)] = "",
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Train a finished run again and replace it, or start over an interrupted run on changed data.",
        ),
    ] = False,
) -> None:
    """Train one network and measure the energy of every epoch.

    Without --data, it trains on a built-in phantom. The same command continues an interrupted run and shows a finished
    one.
    """
    resolved = Settings.of(overlay(read_config(config) if config else {}, settings))
    idle_seconds = parse_seconds(idle_baseline)
    check_out(out)

    # Imported only now: a wrong option is reported without rich, SimpleITK and the rest.
    from greenseg.cli.plan import notes
    from greenseg.cli.view import FilesView, TrainingView, print_uncut, say, warn
    from greenseg.compress.refusals import refusals
    from greenseg.data.content import Contents
    from greenseg.failures import Failure
    from greenseg.launch.executor import jobs_of
    from greenseg.launch.judge import Outcome, last_lines
    from greenseg.launch.local import Local
    from greenseg.launch.prepare import prepare
    from greenseg.launch.queue import Queue
    from greenseg.launch.slots import Slots
    from greenseg.launch.stop import Stop
    from greenseg.launch.tidy import Tidy
    from greenseg.launch.workers import become
    from greenseg.machine import claims, preflight
    from greenseg.machine.cores import ranks, usable_cores
    from greenseg.report.panel import run_panel
    from greenseg.report.reader import read_runs
    from greenseg.runs.index import RunIndex, make_directory
    from greenseg.runs.lineage import lost_parents, resolve_teacher
    from greenseg.runs.owner import Owner
    from greenseg.runs.standing import leave_alone, look, refusal
    from greenseg.runs.summary import apply_accounting

    resolved = resolve_teacher(resolved, out)
    index, contents = RunIndex(out), Contents()
    chain = [look(each, contents.of(each), index, str(out / "train")) for each in parents_first([resolved])]
    if newer := [leave_alone(each) for each in chain if each.status == "newer"]:
        raise UserError(newer)
    *parents, planned = chain
    ahead = [parent for parent in parents if parent.status != "finished"]
    run, status = planned.directory, planned.status
    owner = Owner(run.path)
    if planned.problem:
        warn(f"{planned.problem}; the run starts over")
        again = True
    for note in notes([planned]):
        warn(note)
    if status == "finished" and not again:
        say(f"Already trained (--again trains it again): {run.path}")
        if names := other_names(run, resolved):
            say(names)
        if problem := apply_accounting(run, resolved):
            warn(problem)
    elif status == "running" and ranks(resolved)[0] == 0 and _lives(owner, say):
        warn(_busy(run))
        raise typer.Exit(ExitCode.INCOMPLETE)
    elif (
        changed := [each for each in (*ahead, planned) if each.other_status in ("interrupted", "paused")]
    ) and not again:
        raise UserError([refusal(each) for each in changed])
    else:
        check_out(out, to_write=True)
        for message in claims.restore():
            warn(message)
        preflight.check(resolved)
        lost = lost_parents(chain, [*ahead, planned])
        if refused := [message for _, message in (*refusals([resolved]), *lost)]:
            raise UserError(refused)
        executor = Local(Slots((), usable_cores()))
        if problems := executor.problems([resolved]):
            raise UserError(problems)
        with FilesView() as preparation:
            prepare([resolved], say, preparation.update)
        if ranks(resolved)[0] > 0:
            run = make_directory(run, resolved, Contents().of(resolved))
            say(f"Training with node 0, which leads: {run.path}")
            become(run.path)
        context = measure_idle(idle_seconds, say)
        if status in ("interrupted", "paused", "failed", "running") and not again:
            say(f"{'Trying again' if status == 'failed' else 'Continuing'}: {run.path}")
        if resolved.compile:
            say("Compiling the network before the first step takes a minute or more on a GPU, minutes on a CPU.")
        for parent in ahead:
            say(f"First its parent, {parent.status}: {parent.directory.path}")
        jobs = jobs_of([*ahead, planned])
        for each in jobs:
            each.context, each.content = context, each.content or Contents().of(each.settings)
        job = jobs[-1]
        job.start_over, job.watched = again, owner
        with Stop().installed() as stop, TrainingView() as view:
            queue = Queue(executor, stop, Tidy(view))
            queue.carry_out(jobs)
        # Without an outcome, it was stopped before its parent had finished.
        run, outcome = job.run, queue.outcomes.get(job, Outcome("interrupted"))
        if queue.halted:
            warn(queue.halted)
            raise typer.Exit(ExitCode.INCOMPLETE)
        if outcome.status == "interrupted" and outcome.reason and not stop.requests:
            warn(outcome.reason)
            raise typer.Exit(ExitCode.INCOMPLETE)
        if outcome.status == "interrupted":
            warn(f"Interrupted; the same command continues from the last checkpoint: {run.path}")
            raise typer.Exit(ExitCode.INTERRUPTED)
        if outcome.status == "busy":
            warn(_busy(run))
            raise typer.Exit(ExitCode.INCOMPLETE)
        if outcome.status != "finished":
            warn(f"The run failed: {outcome.reason}")
            failed = job.parent.run if job.parent and outcome.kind == Failure.PARENT else run
            warn(f"End of {failed.log}:\n{last_lines(failed)}")
            raise typer.Exit(ExitCode.FAILED)
    runs, damaged = read_runs([run])
    for message in damaged:
        warn(message)
    for finished in runs:
        ran = finished.ran.precision
        if ran and ran != resolved.precision and not resolved.converts:
            asked, device = resolved.precision, finished.ran.accelerator
            say(f"The run used precision {ran}, not {asked}: Lightning has no {asked} on this device ({device}).")
        print_uncut(run_panel(finished))
    if damaged:
        raise typer.Exit(ExitCode.FAILED)


def _lives(owner: "Owner", say: Callable[[str], None]) -> bool:
    """Whether the owner of a run lives; watches an owner on another host until that is certain."""
    if last := owner.look():
        say(f"Its last owner is {last}: waiting to see whether it still lives")
    return owner.wait()


def _busy(run: "RunDirectory") -> str:
    """A message that another process is training a run, with its id and host."""
    record = run.record()
    attempt = record.attempts[-1] if record and record.attempts else None
    who = f"Process {attempt.pid} on {attempt.host}" if attempt and attempt.pid else "Another process"
    return f"{who} is training this run: {run.path}"


def other_names(run: "RunDirectory", settings: Settings) -> str:
    """A sentence if the record of a run has other names for its classes than the settings; else empty."""
    record, wanted = run.record(), Classes.of(settings.labels)
    names = tuple(record.data.classes) if record and record.data else ()
    if wanted is None or names in ((), wanted.names):
        return ""
    pairs = ", ".join(f"{new} is '{old}'" for new, old in zip(wanted.names, names, strict=False) if new != old)
    return f"Its record has the names from its training: {pairs}."
