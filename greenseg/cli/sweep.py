"""`greenseg sweep`: many runs."""

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from greenseg import batch_job
from greenseg.cli.options import IDLE_HELP, check_launcher, check_out, measure_idle, parse_seconds
from greenseg.errors import ExitCode, UserError
from greenseg.launchers import LAUNCHERS
from greenseg.sweep.file import Measuring, Sweep, read_sweep

if TYPE_CHECKING:
    from greenseg.cli.plan import ToMeasure
    from greenseg.cli.sweep_view import JsonView, PlainView
    from greenseg.launch.deadline import Deadline
    from greenseg.launch.executor import Job
    from greenseg.launch.stop import Stop
    from greenseg.runs.directory import RunDirectory
    from greenseg.search.account import Account
    from greenseg.search.rounds import Round
    from greenseg.sweep.disk import Disk
    from greenseg.sweep.plan import Plan


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of the sweep.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all runs; new ones go to DIR/<sweep>/.")] = Path(
        "runs"
    ),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed runs again.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Start interrupted runs over if their data have changed.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Runs at a time. Default: one per GPU; one without a GPU.")
    ] = None,
    gpus: Annotated[
        str, typer.Option(metavar="LIST", help="GPUs to use, such as 0,2. Default: all visible GPUs.")
    ] = "",
    idle_baseline: Annotated[str, typer.Option(metavar="TIME", help=IDLE_HELP)] = "",
    allow_mixed_sources: Annotated[
        bool, typer.Option("--allow-mixed-sources", help="Rank measured and estimated joules against each other.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SETTING=VALUE", help="Override base; may be repeated.")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Search for the front instead of finishing every run: halving, optuna; none trains the whole grid.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only show every decision of the search so far, with its reason.")
    ] = False,
    launcher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"What trains the runs: {', '.join(LAUNCHERS)}; all but local start workers on other machines. "
            f"Default: as the last time, at first local.",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start workers in the background, and do not wait for them.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Stop the workers in the background or at Slurm, and their runs.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only show the runs, their status, and the time and energy left; with --launcher, also the scripts.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per line: start, epoch and end of every run; with --dry-run, one for the plan.",
        ),
    ] = False,
) -> None:
    """Train every combination of a grid that is not trained yet, then print the Pareto table.

    The same command resumes a sweep: it skips finished runs, continues interrupted ones, and leaves failed ones alone.
    Run the same command in several terminals to share the work. Ctrl-C ends the running runs so that they can continue
    later; a second Ctrl-C ends them at once. With `measure: true` in the file, prediction with every network is
    measured after the last run. With `search: halving`, runs that cannot be on the front are paused; `--search none`
    finishes them.

    With `--launcher slurm` or `--detach`, workers train the runs. The same command follows them; Ctrl-C leaves them
    running, and `--cancel` stops them.
    """
    if batch_job.is_worker():
        signal.signal(signal.SIGTERM, _requeue)  # until runs heed it
    idle_seconds = parse_seconds(idle_baseline)
    check_out(out)

    check_launcher(launcher, detach, cancel, gpus)

    def further(sweep: Sweep) -> list[str]:
        plan = replace(plan_of(sweep, out, retry_failed), elsewhere=_is_elsewhere(launcher))
        return [] if dry_run or sweep.space else plan.impossible

    planned = read_sweep(file, overrides or (), search=search, further=further)
    if explain and not planned.search:
        raise UserError(f"--explain: {file} has no search; add `search: halving`, or use --search halving")

    from greenseg.cli.launch import Launch
    from greenseg.cli.plan import print_plan, print_plan_json, view_of_search
    from greenseg.machine import gpus as visible
    from greenseg.search.methods import begin
    from greenseg.sweep.disk import disk_of

    options = ("--again", again), ("--allow-mixed-sources", allow_mixed_sources)
    values = ("--jobs", jobs), ("--gpus", gpus), ("--idle-baseline", idle_baseline)
    given = [name for name, value in options if value] + [str(part) for pair in values if pair[1] for part in pair]
    only_look = (dry_run or explain) and not cancel
    launch = Launch(planned, out, launcher, detach=detach, cancel=cancel, only_look=only_look, options=given)
    if cancel:
        from greenseg.cli.view import say

        launch.cancel((lambda text: None) if quiet or as_json else say)
        return
    plan, searched = begin(planned, out, retry_failed)
    if launch.record_killed(run.directory for run in plan.runs):
        plan, searched = begin(planned, out, retry_failed)
    plan = replace(plan, elsewhere=launch.is_elsewhere)
    planned = plan.sweep
    if explain and searched:
        view_of_search(searched).print_rounds(searched, plan, as_json)
        return
    to_come = searched.total - len(plan.runs) if searched else 0
    orders = launch.orders(plan, to_come) if launch.is_used and (not searched or searched.next()) else []
    at_a_time = sum(order.workers for order in orders) * (jobs or 1) if orders else jobs or max(visible.count(), 1)
    disk = disk_of(plan, out, at_a_time)
    if dry_run:
        scripts = launch.scripts(orders)
        (print_plan_json if as_json else print_plan)(plan, disk, _to_measure(plan), searched, scripts)
        return

    if orders or not launch.is_used:
        _check(plan, disk, again)

    from greenseg.cli.report import print_report
    from greenseg.cli.sweep_view import JsonView
    from greenseg.cli.view import say, warn
    from greenseg.launch.executor import jobs_of
    from greenseg.launch.local import Local
    from greenseg.launch.queue import Policy, Queue
    from greenseg.launch.slots import Slots
    from greenseg.launch.stop import Stop
    from greenseg.launch.tidy import Tidy
    from greenseg.machine.cores import usable_cores
    from greenseg.machine.gpus import choose
    from greenseg.report.units import count, size
    from greenseg.runs.disk import free

    silent, told = quiet or as_json, set[str]()

    def tell(text: str) -> None:
        if not silent and text not in told:  # the preparation of each round may repeat a sentence
            told.add(text)
            say(text)

    every = jobs_of(plan.runs)
    to_do = {id(run) for run in plan.todo}
    planned_jobs = list(zip(plan.runs, every, strict=True))
    todo = [job for run, job in planned_jobs if id(run) in to_do]
    shown = ", ".join(f"{number} {status}" for status, number in plan.counts.items())
    to_go = "" if searched else f", {len(todo)} to do"
    tell(f"Sweep {planned.name}: {count(len(every), 'run')} ({shown}){to_go}")
    if launch.is_used:
        done = [run.directory for run in plan.runs if run.status == "finished"]
        view = view_of(planned, len(plan.runs) - len(done) + to_come, done, quiet, as_json)
        if retry_failed:
            launch.reopen(plan)
        for new in launch.submit(orders, tell):
            if isinstance(view, JsonView):
                view.tell("submitted", launcher=new.launcher, name=new.name, workers=new.workers, id=new.job)
        if not detach:
            stopped = launch.follow(every, bool(planned.space), view, tell)
            _end_elsewhere(planned, out, view, stopped, allow_mixed_sources, silent)
        return

    if launch.away:
        tell(f"Workers in the background of {', '.join(launch.away)} may share these runs")
    # Runs that another process is training come last.
    wanted = [*todo, *(job for run, job in planned_jobs if run.status == "running")]
    all_wanted = len(wanted)
    wanted = _for_this_job(wanted, tell)
    for_others = 0 if searched else all_wanted - len(wanted)  # of another number of nodes
    todo = [job for job in todo if job in wanted]
    chosen = choose(gpus) if gpus or wanted else []
    executor = Local(Slots(chosen, usable_cores(), jobs), warm=True)
    if problems := executor.problems([job.settings for job in wanted]):
        raise UserError(problems)
    done = [job.run for run, job in planned_jobs if run.status == "finished"]
    view = view_of(planned, len(todo) + to_come, done, quiet, as_json)
    tidy = Tidy(view)
    failed, unfinished, stopped, halted = 0 if retry_failed else plan.counts.get("failed", 0), for_others, False, ""
    elsewhere = 0
    ended, requeue = list[str](), False
    if searched.next() if searched else wanted:
        check_out(out, to_write=True)
        _prepare(todo, tell, silent)
        context = measure_idle(idle_seconds, tell) | {"order": planned.order}
        _add_context(todo, context)

        def begin_round(now: "Round", current: "Sequence[Job]") -> None:
            """Check and prepare the runs that were drawn for a round, before it begins."""
            if new := [job for job in current if "position" not in job.context]:
                if problems := [*_impossible(planned, new), *executor.problems([job.settings for job in new])]:
                    raise UserError(problems)
                _prepare(new, tell, silent=True)
                _add_context(new, context, len(every) - len(new))
            view.round(now, current)

        with Stop().installed() as stop, view:
            deadline = _deadline(plan)
            policy = Policy(
                planned.retries, planned.timeout, planned.max_energy, cool_down=planned.cool_down, deadline=deadline
            )
            spent = {str(run.directory.path): run.spent.joules for run in plan.runs if run.spent}
            queue = Queue(executor, stop, view if planned.keep == "all" else tidy, policy, spent)
            if searched:
                drawn = searched.jobs(every, queue.outcomes, begin_round, lambda: bool(stop.requests))
                queue.carry_out(job for job in drawn if job is None or job.settings.nodes == batch_job.nodes())
            else:
                queue.carry_out(wanted)
            stopped, halted = stop.requests > 0, queue.halted
        if queue.late and deadline:
            warn(f"{count(len(queue.late), 'run')} left: this job has {max(deadline.seconds, 0):.0f} s for runs")
        ended = [outcome.status for outcome in queue.outcomes.values()]
        failed += ended.count("failed")
        if searched:
            now = searched.next()
            unfinished = len(now.left) if now else 0
            elsewhere = min(unfinished, ended.count("busy"))
            requeue = (stopped or bool(queue.late)) and unfinished > 0
        else:
            mine = len(wanted) - ended.count("finished") - ended.count("failed")
            elsewhere = ended.count("busy")
            requeue = (stopped or bool(queue.late)) and mine > elsewhere
            unfinished = mine + for_others

    finished, statuses = len(done) + ended.count("finished"), list[str]()
    if planned.measure and not (stopped or halted or unfinished):
        with Stop().installed() as stop:
            statuses = _measure(every, planned.measure, view, silent, stop)
            stopped = requeue = stop.requests > 0
    requeue = requeue and batch_job.is_worker() and not halted
    runs = [job.run for job in every]
    # Runs in the folders of other sweeps keep their files.
    own = [] if planned.keep == "all" else [run for run in runs if run.path.parent == out / planned.name]
    if freed := tidy.bytes + sum(free(run).bytes for run in own):
        tell(f"Freed {size(freed)}: a finished run needs no last.ckpt (keep: {planned.keep})")
    whole = silent or requeue or print_report(runs, allow_mixed_sources, _accounts(planned, runs))
    left = stopped or halted or unfinished or (planned.measure and _unmeasured(runs))
    if planned.keep in ("front", "none") and not left:
        freed += _free_networks(planned.keep, own, runs, allow_mixed_sources, tell)
    unmeasured = {*statuses} & {"failed", "wrong"}
    failures = bool(failed or unmeasured) or not whole
    left_over = bool(unfinished or statuses.count("busy"))
    code = _exit_code(stopped, requeue, failures, left_over, elsewhere, halted)
    if isinstance(view, JsonView):
        numbers: dict[str, Any] = {"finished": finished, "failed": failed, "unfinished": unfinished}
        numbers |= {"measured": statuses.count("measured")} if planned.measure else {}
        view.tell("sweep", name=planned.name, **numbers, freed_bytes=freed, exit_code=int(code))
    if code:
        raise typer.Exit(code)


def _is_elsewhere(launcher: str | None) -> bool:
    """Whether a launcher starts workers on other machines than this one."""
    return launcher not in (None, "local")


def _end_elsewhere(
    planned: Sweep, out: Path, view: "JsonView | PlainView", stopped: bool, allow_mixed_sources: bool, silent: bool
) -> None:
    """Print the report of a sweep whose workers have ended, or go on after Ctrl-C, and end with its exit code."""
    from greenseg.cli.report import print_report
    from greenseg.cli.sweep_view import JsonView
    from greenseg.cli.view import warn
    from greenseg.report.units import count
    from greenseg.search.methods import begin

    plan, searched = begin(planned, out)
    counts = plan.counts
    failed, finished = counts.get("failed", 0), counts.get("finished", 0)
    now = searched.next() if searched else None
    unfinished = (len(now.left) if now else 0) if searched else len(plan.runs) - failed - finished
    whole = True
    if not stopped:
        runs = [run.directory for run in plan.runs]
        whole = silent or print_report(runs, allow_mixed_sources, _accounts(planned, runs))
        if unfinished:
            warn(f"{count(unfinished, 'run')} left; the same command starts workers for what is left")
    failure = ExitCode.FAILED if failed or not whole else ExitCode.INCOMPLETE if unfinished else ExitCode.OK
    code = ExitCode.INTERRUPTED if stopped else failure
    if isinstance(view, JsonView):
        numbers: dict[str, Any] = {"finished": finished, "failed": failed, "unfinished": unfinished}
        view.tell("sweep", name=planned.name, **numbers, freed_bytes=0, exit_code=int(code))
    if code:
        raise typer.Exit(code)


def _check(plan: "Plan", disk: "Disk", again: bool) -> None:
    """Refuse a plan that cannot be carried out, warn about the rest, and apply the accounting settings of today.

    Raises:
        UserError: runs cannot run here, are from a later version, would not continue, or lack space on the disk; all of
            one kind.
    """
    from greenseg.cli.plan import no_room, notes
    from greenseg.cli.view import warn
    from greenseg.machine import claims
    from greenseg.runs.standing import refusal
    from greenseg.runs.summary import apply_accounting

    if not plan.elsewhere:
        for message in claims.restore():
            warn(message)
    if plan.impossible:
        raise UserError(plan.impossible)
    if plan.newer:
        raise UserError(plan.newer)
    if plan.changed and not again:
        raise UserError([refusal(run) for run in plan.changed])
    if lack := no_room(disk):
        raise UserError(lack)
    for note in notes(plan.runs):
        warn(note)
    for run in plan.runs:
        if run.status == "damaged":
            warn(f"{run.problem}; the run starts over")
        if run.outdated and (problem := apply_accounting(run.directory, run.settings)):
            warn(problem)


def _prepare(todo: "list[Job]", tell: Callable[[str], None], silent: bool) -> None:
    """Prepare the slices of runs."""
    from greenseg.cli.view import FilesView
    from greenseg.launch.prepare import prepare

    with FilesView(disable=silent) as preparation:
        prepare([job.settings for job in todo], tell, preparation.update)


def _requeue(number: int, frame: Any) -> NoReturn:
    """The next start of this job does its runs."""
    raise SystemExit(ExitCode.REQUEUE)


def _for_this_job(jobs: "Sequence[Job]", tell: Callable[[str], None]) -> "list[Job]":
    """The runs that use exactly the nodes of this job; the others are left to other jobs."""
    from greenseg.report.units import count

    here = batch_job.nodes()
    mine = [job for job in jobs if job.settings.nodes == here]
    if others := len(jobs) - len(mine):
        tell(f"{count(others, 'run')} left to jobs with another number of nodes than this one, which has {here}")
    return mine


def _deadline(plan: "Plan") -> "Deadline | None":
    """The end of the job of this process; None without one."""
    from greenseg.launch.deadline import Deadline
    from greenseg.sweep.plan import costs_of

    limit = batch_job.limit()
    return Deadline(limit, costs_of(plan)[0], batch_job.stop_seconds()) if limit else None


def _add_context(todo: "list[Job]", context: dict[str, Any], first: int = 0) -> None:
    """Complete jobs whose slices are prepared, with the context for their records and their positions from `first`."""
    from greenseg.data.content import Contents

    contents = Contents()
    for position, job in enumerate(todo, first):
        job.content = job.content or contents.of(job.settings)  # the phantom is created on its first use
        job.context |= context | {"position": position}


def _impossible(planned: Sweep, jobs: "Sequence[Job]") -> list[str]:
    """Why this machine cannot do some of the runs."""
    from greenseg.runs.standing import PlannedRun
    from greenseg.sweep.plan import Plan

    runs = [PlannedRun(job.settings, str(job.run.path.parent)) for job in jobs]
    return Plan(planned, runs, runs).impossible


def _to_measure(plan: "Plan") -> "ToMeasure | None":
    """The measurements of a plan that are left; None if it has none."""
    from greenseg.cli.plan import ToMeasure
    from greenseg.measurement.process import about

    if not plan.sweep.measure:
        return None
    finished = [run.directory for run in plan.runs if run.status == "finished"]
    number = len(_unmeasured(finished)) + len(plan.todo)
    return ToMeasure(number, number * about(finished))


def _unmeasured(runs: "Iterable[RunDirectory]") -> "list[RunDirectory]":
    """The finished runs that lack a measurement of this machine, and still have their network."""
    from greenseg.measurement.process import left
    from greenseg.runs.disk import lost_network

    return [run for run in left(runs) if not lost_network(run)]


def _free_networks(
    keep: str,
    own: "Sequence[RunDirectory]",
    every: "Sequence[RunDirectory]",
    allow_mixed_sources: bool,
    tell: Callable[[str], None],
) -> int:
    """Delete the networks that a sweep does not keep, once it is done; returns their size in bytes.

    Args:
        keep: `front` or `none`.
        own: the runs in the folder of the sweep; only these lose their networks.
        every: all runs of the sweep, which determine the front.
        allow_mixed_sources: as in the table.
        tell: called with each sentence for the user.
    """
    from greenseg.cli.view import warn
    from greenseg.report.pick import beaten
    from greenseg.report.units import count, size
    from greenseg.runs.disk import free_networks

    lost = {run.path for run in beaten(every, allow_mixed_sources)} if keep == "front" else {run.path for run in own}
    found = free_networks([run for run in own if run.path in lost], f"keep: {keep}").values()
    if networks := sum(each.network for each in found):
        freed = size(sum(each.bytes for each in found))
        tell(f"Freed {freed}: deleted {count(networks, 'network')} (keep: {keep}); to have one again, train it again")
    if needed := sum(each.needed_by is not None for each in found):
        tell(f"Kept {count(needed, 'network')} that other runs need as parent or teacher")
    for each in found:
        if each.kept:
            warn(f"not deleted: {each.kept}")
    return sum(each.bytes for each in found)


def _measure(
    jobs: "Sequence[Job]", how: Measuring, view: "JsonView | PlainView", silent: bool, stop: "Stop"
) -> list[str]:
    """Measure the finished runs that lack a measurement of this machine; returns the status of each."""
    from greenseg.cli.measure_view import MeasureView
    from greenseg.cli.sweep_view import JsonView
    from greenseg.cli.view import warn
    from greenseg.measurement import SECONDS
    from greenseg.measurement.process import measure_all, measured

    by_path = {job.run.path: job for job in jobs}
    todo, statuses = _unmeasured(job.run for job in jobs), list[str]()
    with MeasureView(len(todo), silent) as progress:
        for outcome in measure_all(
            todo, how.seconds or SECONDS, how.accelerator, progress.step, lambda: stop.requests > 0
        ):
            statuses.append(outcome.status)
            if outcome.status not in ("measured", "interrupted"):
                warn(f"not measured: {outcome.reason}")
            if isinstance(view, JsonView):
                found = measured(outcome.run) if outcome.status == "measured" else None
                values = {"joules_per_slice": found and found.joules_per_slice}
                values |= {"joules_per_volume": found and found.joules_per_volume}
                job = by_path[outcome.run.path]
                view.tell("measure", job, status=outcome.status, reason=outcome.reason or None, **values)
    return statuses


def _exit_code(stopped: bool, requeue: bool, failed: bool, left: bool, elsewhere: int, halted: str) -> ExitCode:
    """The exit code of a sweep; prints why runs are left.

    Args:
        stopped: by the user.
        requeue: the next start of this job goes on.
        failed: a run failed.
        left: runs or measurements are left.
        elsewhere: number of runs that another process is training.
        halted: why no new run was started.
    """
    from greenseg.cli.view import warn
    from greenseg.report.units import count

    if requeue:
        warn("The next start of this job continues where this one stopped")
        return ExitCode.REQUEUE
    if stopped:
        warn("Interrupted; the same command continues where this one stopped")
    if halted:
        warn(f"No new run was started: {halted}")
    elif elsewhere and not stopped:
        warn(f"{count(elsewhere, 'run')} left to another process that is training; run the same command again later")
    if stopped:
        return ExitCode.INTERRUPTED
    if failed:
        return ExitCode.FAILED
    return ExitCode.INCOMPLETE if left else ExitCode.OK


def _accounts(planned: Sweep, runs: "Sequence[RunDirectory]") -> "list[Account]":
    """The account of the search of a sweep, if it has one."""
    if not planned.search:
        return []
    from greenseg.search.account import account_of

    account = account_of(planned.name, runs)
    return [account] if account else []


def plan_of(sweep: Sweep, out: Path, retry_failed: bool) -> "Plan":
    """The plan of a sweep, with the status of its runs."""
    from greenseg.sweep.plan import make_plan  # not on the way to --help

    return make_plan(sweep, out, retry_failed)


def view_of(
    planned: Sweep, todo: int, done: "list[RunDirectory]", quiet: bool, as_json: bool
) -> "JsonView | PlainView":
    """The view that fits the options and the terminal."""
    from greenseg.cli.sweep_view import JsonView, LiveView, PlainView, QuietView
    from greenseg.cli.view import console, errors

    if as_json:
        return JsonView()
    if quiet:
        return QuietView(errors, planned.runs, todo)
    if console.is_terminal:
        return LiveView(console, planned.runs, todo, done)
    return PlainView(console, planned.runs, todo)
