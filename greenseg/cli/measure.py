"""`greenseg measure`: the cost of prediction with trained networks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenseg.cli.network import PICK_HELP, find_network
from greenseg.errors import ExitCode, UserError, did_you_mean
from greenseg.measurement import SECONDS

if TYPE_CHECKING:
    from greenseg.measurement.process import Outcome
    from greenseg.runs.directory import RunDirectory
    from greenseg.runs.record import Measured

_ACCELERATORS = ("auto", "cpu", "gpu")


def measure(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Directories of finished runs, or folders that contain them.")
    ],
    pick: Annotated[str, typer.Option(metavar="best|knee|cheapest", help=PICK_HELP)] = "",
    seconds: Annotated[
        float,
        typer.Option(metavar="S", help="Length of each window, in seconds. Shorter windows get the mark 'short'."),
    ] = SECONDS,
    accelerator: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or gpu.")] = "auto",
    again: Annotated[
        bool, typer.Option("--again", help="Also measure runs with a measurement on this machine.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per run.")] = False,
) -> None:
    """Measure prediction with trained networks: joules, CPU seconds, latency, size on disk.

    The machine should do nothing else meanwhile. A second measurement waits for the first one. Nothing is measured
    while greenseg trains on this machine. The results become part of the runs; greenseg report compares them.
    """
    _check(seconds, accelerator)
    found = _runs(runs, pick)

    from greenseg.cli.measure_view import MeasureView, measured_panel
    from greenseg.cli.view import print_uncut, say, warn
    from greenseg.launch.stop import Stop
    from greenseg.measurement.process import left, measure_all, measured
    from greenseg.report.units import count

    todo = found if again else left(found)
    done = [run for run in found if run not in todo]
    if done and not as_json:
        which = str(done[0].path) if len(done) == 1 else count(len(done), "run")
        say(f"Already measured on this machine (--again measures again): {which}")
    for run in done:
        if as_json:
            _print_json(run, "already", "", measured(run))
    outcomes: list[Outcome] = []
    with Stop().installed() as stop, MeasureView(len(todo), silent=as_json) as view:
        for outcome in measure_all(todo, seconds, accelerator, view.step, lambda: stop.requests > 0):
            outcomes.append(outcome)
            result = measured(outcome.run) if outcome.status == "measured" else None
            if as_json:
                _print_json(outcome.run, outcome.status, outcome.reason, result)
            elif result:
                print_uncut(measured_panel(str(outcome.run.path), result))
            else:
                warn(f"not measured: {outcome.reason}")
    code = exit_code([outcome.status for outcome in outcomes], stop.requests > 0)
    if stop.requests:
        warn("Interrupted; the same command continues where this one stopped")
    if code:
        raise typer.Exit(code)


def exit_code(statuses: Sequence[str], stopped: bool) -> ExitCode:
    """The exit code of measurements with these statuses."""
    if stopped:
        return ExitCode.INTERRUPTED
    if "failed" in statuses:
        return ExitCode.FAILED
    if "wrong" in statuses:
        return ExitCode.USAGE if {*statuses} == {"wrong"} else ExitCode.FAILED
    return ExitCode.INCOMPLETE if "busy" in statuses else ExitCode.OK


def _check(seconds: float, accelerator: str) -> None:
    problems = []
    if accelerator not in _ACCELERATORS:
        hint = did_you_mean(accelerator, _ACCELERATORS)
        problems.append(f"--accelerator: no '{accelerator}'{hint}; valid: {', '.join(_ACCELERATORS)}")
    if not 0 < seconds < 1e5:
        problems.append(f"--seconds {seconds:g}: must be above 0 and below 100,000; the default is {SECONDS:g}")
    if problems:
        raise UserError(problems)


def _runs(paths: Sequence[Path], pick: str) -> "list[RunDirectory]":
    """The finished runs at these paths; a path that is itself a run must have finished.

    Raises:
        UserError: there is no such path, or no finished run; lists all problems.
    """
    from greenseg.runs.directory import RunDirectory, find_runs
    from greenseg.runs.record import BadRecord

    if pick:
        if len(paths) > 1:
            raise UserError("--pick chooses from one folder; name only one RUN")
        paths = [find_network(paths[0], pick)]
    problems: list[str] = []
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        if not path.is_dir():
            what = "is a file, and has no record for a measurement" if path.exists() else "no such run directory"
            problems.append(f"{path}: {what}")
            continue
        runs, finished = find_runs([path]), 0
        for run in runs:
            try:
                status = run.status()
            except BadRecord as error:
                problems.append(str(error))
                continue
            if status == "finished":
                found[run.path.resolve()] = run
                finished += 1
            elif run.path == path:
                problems.append(f"{path}: the run is {status}; a measurement needs a finished run")
        if not runs:
            problems.append(f"{path}: no runs here")
        elif not finished and RunDirectory(path) not in runs:
            problems.append(f"{path}: none of its runs has finished")
    if problems:
        raise UserError(problems)
    return list(found.values())


def _print_json(run: "RunDirectory", status: str, reason: str, found: "Measured | None") -> None:
    told = {"run": str(run.path), "status": status, "reason": reason, "measured": found.to_json() if found else None}
    print(json.dumps(told), flush=True)
