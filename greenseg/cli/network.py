"""The argument RUN: a run directory, an exported file, or a sweep with --pick."""

from pathlib import Path

from greenseg.errors import UserError

PICK_HELP = "RUN is a folder with runs: use the best, the knee or the cheapest (near the best) of them."


def find_network(run: Path, pick: str) -> Path:
    """The run directory or exported file that RUN and --pick name; says which run was picked.

    Raises:
        UserError: there is no such run, or the choice is unknown.
    """
    if not pick:
        if not run.exists():
            raise UserError(f"{run}: no such run directory or exported file")
        return run
    from greenseg.cli.view import say
    from greenseg.report.pick import pick as pick_run

    if not run.is_dir():
        raise UserError(f"--pick chooses from a folder with runs; {run} is not a folder")
    found, words = pick_run(run, pick)
    say(f"Picked {words}: {found.directory.path}")
    return found.directory.path
