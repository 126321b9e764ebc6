"""The program of one run: `python -m greenseg.training RUN_DIRECTORY`, or a fork of a warm process.

A separate process contains the failure of a run. Also, a strategy that starts its other ranks by executing the program
again (as Lightning's ddp does) starts this program and never a sweep. Heavy imports come after the meter, so that they
are part of the cost of the run.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from greenseg.runs.directory import RunDirectory

_PATIENCE_SECONDS = 1800.0  # for rank 0 on another node to begin; as long as torch waits for ranks
_LAST_SECONDS = 3.0  # for rank 0 to record a failure that all ranks have; srun kills it once another rank has failed


def main(directory: Path) -> int:
    """Train the run in a directory that has a config.yaml; returns the exit code."""
    from greenseg.energy import EnergyMeter
    from greenseg.energy.estimate import Model
    from greenseg.energy.sensors import visible_gpus
    from greenseg.errors import ExitCode, UserError
    from greenseg.machine.cores import launch_of, ranks
    from greenseg.machine.signals import STOP_SIGNALS
    from greenseg.runs.directory import RunDirectory
    from greenseg.runs.owner import Owner
    from greenseg.settings import Settings, read_config
    from greenseg.training import events

    # Until there is a handler, a signal waits. Helper processes of Zeus, which start meanwhile, never get this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    settings = Settings.of(read_config(directory / "config.yaml"))
    run = RunDirectory(directory)
    rank, local_rank = ranks(settings)
    gpus = visible_gpus() if settings.accelerator in ("auto", "gpu") else 0
    model = Model.of_this_machine(settings.cpu_watts, settings.dram_watts)
    meter = EnergyMeter((local_rank,) if local_rank < gpus else (), model=model)

    from greenseg.training.run import Interrupted, train

    _warn_once()
    signals: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        signals.append(number)
        if len(signals) == 1:  # a second signal must not truncate the record
            raise Interrupted(signal.Signals(number).name)

    for number in STOP_SIGNALS:
        signal.signal(number, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    launch = launch_of(settings)
    lost: list[bool] = []

    def give_up() -> None:
        lost.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        if rank > 0:
            if not _is_done(run):
                run.wait_for_start(launch, _PATIENCE_SECONDS)
                train(run, settings, meter, rank, lambda: bool(signals))
            return ExitCode.OK
        with run.claim(Owner(directory, os.environ.get(events.OWNER, "")), give_up) as mine:
            if mine is None:
                print(f"{directory}: another process is training this run", file=sys.stderr)
                return events.BUSY
            if os.environ.get(events.START_OVER):
                mine.clear()
            elif _is_done(mine):
                return ExitCode.OK
            train(mine, settings, meter, rank, lambda: bool(signals), launch)
    except Interrupted as signal_name:
        if lost:
            print(f"{directory}: another host has taken over this run, since this one was silent", file=sys.stderr)
            return events.BUSY
        print(f"interrupted by {signal_name}", file=sys.stderr)
        # srun has passed this signal on to all ranks. A failure of this one would make it kill rank 0 at its record.
        passed_on = rank > 0 and signals[0] == signal.SIGUSR1
        return ExitCode.OK if passed_on else ExitCode.INTERRUPTED
    except UserError as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    except Exception:
        traceback.print_exc()
        if rank > 0:
            time.sleep(_LAST_SECONDS)
        return ExitCode.FAILED
    return ExitCode.OK


def _is_done(run: "RunDirectory") -> bool:
    """Whether another process has done the run after planning: it has all epochs for now, or has failed since."""
    from greenseg.runs.record import BadRecord
    from greenseg.runs.summary import last_of_each
    from greenseg.training import events

    if os.environ.get(events.START_OVER):
        return False
    try:
        record = run.record()
    except BadRecord:
        return False
    if record is None or record.status != "paused":
        failed_since = record is not None and record.status == "failed" and events.UNLESS_FAILED in os.environ
        return failed_since or (record is not None and record.status == "finished")
    until = os.environ.get(events.UNTIL)
    return bool(until) and len(last_of_each(run.epochs())) >= int(until or 0)


def _warn_once() -> None:
    """Print each warning once. Python intends this, but forgets printed warnings when a filter changes."""
    printed: set[str] = set()
    show = warnings.showwarning

    def show_new(message: Any, category: Any, filename: str, *more: Any, **options: Any) -> None:
        if str(message) not in printed:
            printed.add(str(message))
            show(message, category, filename, *more, **options)

    warnings.showwarning = show_new


def run_and_exit(directory: Path) -> NoReturn:
    """Train the run in a directory and end this process."""
    code = main(directory)
    sys.stdout.flush()
    sys.stderr.flush()
    for helper in multiprocessing.active_children():  # Zeus reads RAPL in processes that would stay forever
        helper.kill()
    os._exit(code)  # all is written, and tearing down torch would only take time
