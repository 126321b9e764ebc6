"""The `greenseg` command. Importing it imports no torch, so help and error messages appear at once."""

import inspect
import os
import sys
from typing import NoReturn

import typer

from greenseg import __version__
from greenseg.cli import data, doctor, evaluate, export, measure, models, predict, report, runs, streams, sweep, train
from greenseg.errors import ExitCode, UserError
from greenseg.failures import Failure, kind_of

app = typer.Typer(
    name="greenseg",
    help="How much accuracy does a joule buy? Train segmentation networks over grids of settings, and measure the "
    "energy of every epoch.\n\nExit codes: 0 all done, 1 a run failed, 2 wrong input (nothing was started), 3 "
    "incomplete (no run failed, some are not done), 75 from the worker of a job: start the job again, 130 interrupted "
    "(the same command continues).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    train.train,
    sweep.sweep,
    report.report,
    evaluate.evaluate,
    predict.predict,
    measure.measure,
    export.export,
    doctor.doctor,
    models.models,
):
    # Typer keeps the line breaks of all paragraphs but the first.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    app.command(command.__name__, help="\n\n".join(text.replace("\n", " ") for text in paragraphs))(command)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")


def _version(value: bool) -> None:
    if value:
        print(f"greenseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line and end this process with its exit code."""
    # Threads of numpy's OpenBLAS wait for more work in a busy loop, some 30 ms by default, on the cores that torch then
    # lacks: a prediction on two cores took three times as long. With 4, they sleep at once. numpy reads it on import.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    streams.install()
    code = _run()
    if why := streams.lost():
        print(f"error: standard output: {why}; part of the output is lost", file=sys.stderr)
        code = code or ExitCode.FAILED
    if "torch" in sys.modules:
        _end_at_once(code)
    sys.exit(code)


def _end_at_once(code: int) -> NoReturn:
    """End this process without tearing down torch, which takes a second; all is written."""
    import multiprocessing

    sys.stdout.flush()
    sys.stderr.flush()
    for helper in multiprocessing.active_children():  # Zeus reads RAPL in processes that would stay forever
        helper.kill()
    os._exit(code)


def _run() -> int:
    """Exit code of the command line. A user error prints its message, without a traceback, and gives exit code 2."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return ExitCode.USAGE
    except OSError as error:
        # No space, no permission: a condition of the machine, not a bug.
        print(f"error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        return ExitCode.INCOMPLETE if kind_of(error) == Failure.DISK_FULL else ExitCode.FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return ExitCode.OK
