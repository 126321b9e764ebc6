"""All problems of a mapping of settings, in the same words for the command line and for YAML files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from greenseg.errors import did_you_mean
from greenseg.settings.constraints import CONSTRAINTS, violations
from greenseg.settings.fields import Fields, choices


@dataclass(frozen=True)
class Problem:
    """One problem of a mapping of settings: its key (None if the problem is a combination) and the message."""

    key: str | None
    message: str

    def __str__(self) -> str:
        return self.message


def problems_of(values: Mapping[str, Any]) -> list[Problem]:
    """All problems of a mapping of settings: names, types and limits first, else combinations that are not valid."""
    try:
        fields = Fields.model_validate(values)
    except ValidationError as error:
        return [_problem(details) for details in error.errors(include_url=False)]
    return [Problem(None, message) for _, _, message in violations(CONSTRAINTS, [fields])]


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _problem(details: Any) -> Problem:
    if not details["loc"]:
        return Problem(None, details["msg"])
    key, kind, value = str(details["loc"][0]), details["type"], details["input"]
    if kind == "extra_forbidden":
        return Problem(key, f"unknown setting '{key}'{did_you_mean(key, list(Fields.model_fields))}")
    if kind == "literal_error":
        valid = choices(key)
        return Problem(
            key, f"{key}: {value!r} is not valid{did_you_mean(str(value), valid)}; valid: {', '.join(valid)}"
        )
    if kind == "value_error":
        return Problem(key, f"{key}: {details['ctx']['error']}")
    annotation = Fields.model_fields[key].annotation if key in Fields.model_fields else None
    if kind.endswith("_type") and annotation in _TYPE_NAMES:
        return Problem(key, f"{key}: {value!r} is not {_TYPE_NAMES[annotation]}{_remedy(annotation, value)}")
    return Problem(key, f"{key}: {value!r}: {details['msg'].lower().replace('input should be', 'must be')}")


_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _remedy(kind: type, value: Any) -> str:
    """How to write the value that the user probably meant; empty if that is unknown."""
    if kind is str and isinstance(value, int | float):
        return "; write it in quotes"
    if kind is bool and str(value).lower() in _SWITCHES:
        return f"; write {_SWITCHES[str(value).lower()]}"
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    return ""
