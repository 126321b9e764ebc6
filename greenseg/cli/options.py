"""Settings as command-line options, made from their declaration."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from greenseg.config import Settings, choices, group_of
from greenseg.errors import UserError
from greenseg.sweep import quantity

IDLE_HELP = "First measure for so long, such as 30s, what the idle machine draws, to tell joules above idle."


def parse_seconds(text: str) -> float:
    """Seconds of a time such as `30`, `30s` or `2m`; 0 for an empty one.

    Raises:
        UserError: it is not a time.
    """
    try:
        return quantity.seconds(text) if text else 0.0
    except ValueError as error:
        raise UserError(f"--idle-baseline: {error}") from None


def check_out(out: Path) -> None:
    """Whether a folder of runs may be there.

    Raises:
        UserError: it is a file, or below one.
    """
    there = next((path for path in (out, *out.parents) if path.exists()), None)
    if there and not there.is_dir():
        raise UserError(f"--out {out}: {there} is a file; give the folder of all runs")


def measure_idle(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """`{"idle_watts": {component: watts}}`, measured for so many seconds; empty for 0 seconds or without sensors."""
    if not seconds:
        return {}
    from greenseg.energy.idle import idle_watts
    from greenseg.energy.sensors import visible_gpus

    say(f"Measuring the idle machine for {seconds:g} s")
    watts = idle_watts(seconds, tuple(range(visible_gpus())))
    if not watts:
        say("No sensor here: an idle machine cannot be measured, and estimates count only what a run itself does.")
    return {"idle_watts": watts} if watts else {}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for every setting; it gets those that were given as `settings`, a mapping.

    The options only know the type: what is valid is for `Settings` to say, in the same words as for a YAML file.
    """

    def wrapper(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in Settings.model_fields}
        command(**arguments, settings={name: value for name, value in given.items() if value is not None})

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
    options = [_option(name) for name in Settings.model_fields]
    wrapper.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *options)}
    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    return wrapper


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    kind: Any = field.annotation if field.annotation in (bool, int, float) else str
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
        metavar={int: "N", float: "X", str: "NAME"}.get(kind),
    )
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
