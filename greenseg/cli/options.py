"""Settings as command-line options, generated from their declaration."""

import contextlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from greenseg import quantity
from greenseg.batch_job import WORKER, job_id
from greenseg.errors import UserError, did_you_mean
from greenseg.files import OUT_REMEDY
from greenseg.launchers import LAUNCHERS
from greenseg.settings import Settings, choices, group_of

IDLE_HELP = "Measure idle power for this long first, such as 30s, to report energy above idle."


def parse_seconds(text: str) -> float:
    """Seconds of a time such as `30`, `30s` or `2m`; 0 for an empty text.

    Raises:
        UserError: it is not a time.
    """
    try:
        return quantity.seconds(text) if text else 0.0
    except ValueError as error:
        raise UserError(f"--idle-baseline: {error}") from None


def check_out(out: Path, to_write: bool = False) -> None:
    """Check that the folder of runs can exist.

    Args:
        out: the folder.
        to_write: also check that it can be written to.

    Raises:
        UserError: it is a file, lies below a file, or cannot be written to.
    """
    there = next((path for path in (out, *out.parents) if path.exists()), None)
    if there and not there.is_dir():
        raise UserError(f"--out {out}: {there} is a file; name the folder of all runs")
    if to_write and there and not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {there} cannot be written to; {OUT_REMEDY}")


def check_launcher(launcher: str | None, detach: bool, cancel: bool, gpus: str) -> None:
    """Check the options of `greenseg sweep` that concern a launcher.

    Raises:
        UserError: all problems.
    """
    problems = []
    if launcher is not None and launcher not in LAUNCHERS:
        hint = did_you_mean(launcher, [*LAUNCHERS])
        problems.append(f"--launcher: no '{launcher}'{hint}; valid: {', '.join(LAUNCHERS)}")
    if detach and cancel:
        problems.append("--detach, --cancel: give one of them")
    if WORKER in os.environ and (detach or launcher not in (None, "local")):
        problems.append("--detach, --launcher: not in a worker, which trains the runs itself")
    elif detach and launcher is None and job_id():
        problems.append("--detach: in a job, also give --launcher slurm; without both, this job trains the runs")
    if gpus and launcher not in (None, "local"):
        problems.append(f"--gpus: GPUs of this machine, not of --launcher {launcher}, which gives workers their GPUs")
    if problems:
        raise UserError(problems)


def measure_idle(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """`{"idle_watts": {component: watts}}`, measured for `seconds`; empty for 0 seconds or without sensors."""
    if not seconds:
        return {}
    from greenseg.energy.idle import idle_watts
    from greenseg.energy.sensors import visible_gpus

    say(f"Measuring idle power for {seconds:g} s")
    watts = idle_watts(seconds, tuple(range(visible_gpus())))
    if not watts:
        say("No sensor: idle power cannot be measured. Estimates count only the activity of the run itself.")
    return {"idle_watts": watts} if watts else {}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option per setting to a command. The command receives the options that were given as mapping `settings`.

    The options do not validate. `Settings` does, for all settings at once and in the same words as for a YAML file.
    """

    def wrapper(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in Settings.model_fields}
        command(**arguments, settings={n: _value(n, text) for n, text in given.items() if text is not None})

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
    options = [_option(name) for name in Settings.model_fields]
    wrapper.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *options)}
    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    return wrapper


_METAVARS = {int: "N", float: "X", str: "NAME"}


def _metavar(name: str) -> str | None:
    if name == "labels":
        return "NAME=N+N,…"
    annotation = Settings.model_fields[name].annotation
    numbers = [get_origin(kind) is Annotated and get_args(kind)[0] for kind in get_args(annotation)]  # or auto
    number = next((_METAVARS[kind] for kind in numbers if kind), None)
    return f"{number}|auto" if number else _METAVARS.get(annotation, "NAME")  # type: ignore[arg-type]


def _value(name: str, given: Any) -> Any:
    """The given value, converted to a number if the setting is numeric; else unchanged."""
    kind = Settings.model_fields[name].annotation
    if kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(given)
    return given


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    kind: Any = bool if field.annotation is bool else str
    valid = choices(name)
    texts = [field.description or ""]
    if valid:
        texts.append(f"One of: {', '.join(valid)}.")
    if field.default != "":
        texts.append("Default: {}.".format(json.dumps(field.default).strip('"')))
    option = typer.Option(
        help=" ".join(texts),
        show_default=False,
        rich_help_panel=group_of(name),
        metavar=None if kind is bool else _metavar(name),
    )
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
