"""The JSON Schema of a sweep file, generated from the declaration of the settings, for completion in editors.

A schema checks single values. `read_sweep` checks that rules name axes, that ranges reach their ends and that networks
exist.
"""

import json
from collections.abc import Sequence
from typing import Any

from greenseg import model_names as names
from greenseg import quantity
from greenseg.launchers import LAUNCHERS
from greenseg.settings import Settings
from greenseg.sweep.file import ACCELERATORS, KEEP, KEYS, NAME, OBJECTIVES, ORDERS, SAMPLERS

Schema = dict[str, Any]

_COMPLETED = {"encoder": [*names.ALIASES, *names.ENCODERS], "decoder": list(names.DECODERS)}
"""Values that an editor suggests; others may be valid, too (`tu-…`, or in capitals)."""

_ABOVE_0: Schema = {"type": "number", "exclusiveMinimum": 0}


def schema() -> Schema:
    """The schema, as plain values (JSON Schema, draft 7)."""
    own = Settings.model_json_schema()["properties"]
    values: dict[str, Schema] = {}
    for name, declared in own.items():
        values[name] = {key: part for key, part in declared.items() if key not in ("title", "group", "neutral")}
        if name in _COMPLETED:
            values[name]["anyOf"] = [{"enum": _COMPLETED[name]}, {"type": values[name].pop("type")}]
    settings = _closed({name: _ref(name) for name in values}, minProperties=1)
    any_setting = "|".join(values)
    definitions = {
        **values,
        "settings": settings,
        "range": _any(_range("step"), _range("times"), _between()),
        "when": _closed({name: _any(_ref(name), _list(_ref(name))) for name in values}, minProperties=1),
    }
    grid = _closed({name: _axis(name, values[name]) for name in values}, minProperties=1)
    row = {"type": "array", "minItems": 2, "items": {"type": ["string", "number", "boolean"]}}
    grid["patternProperties"] = {f"^({any_setting})(,\\s*({any_setting}))+$": _branches([_values(row)], _list(row))}
    keys: dict[str, tuple[str, Schema]] = {
        "name": ("Folder of the runs; default: the name of the file.", {"type": "string", "pattern": f"^{NAME}$"}),
        "base": (
            "Settings of all runs, a file with them, or a list of both; later entries override earlier ones.",
            _any(_ref("settings"), _FILE, _list(_any(_ref("settings"), _FILE))),
        ),
        "grid": ("Axes: every combination of their values is a run.", grid),
        "exclude": (
            "Drops combinations that match all the keys of an entry.",
            {"type": "array", "items": _ref("settings")},
        ),
        "include": (
            "Adds each entry to the combinations that it does not contradict; if there are none, as a new combination.",
            {"type": "array", "items": _ref("settings")},
        ),
        "seeds": ("Seeds; every combination runs once per seed.", _list(_ref("seed"))),
        "order": ("Order of the runs; default: listed.", {"enum": list(ORDERS)}),
        "cool_down": (
            "Pause before a run, in seconds; with a temperature of the GPUs, in °C, this is the maximum.",
            _any(
                _ABOVE_0,
                _closed({"seconds": _ABOVE_0, "temperature": _ABOVE_0}, required=["seconds"]),
            ),
        ),
        "retries": ("Number of times to repeat a failed run at once.", {"type": "integer", "minimum": 0}),
        "timeout": (
            "Time after which a run is stopped: seconds, or a text such as 30min.",
            _any(_ABOVE_0, {"type": "string", "pattern": quantity.TIME}),
        ),
        "max_energy": (
            "Energy of all runs after which no new run starts: joules, or a text such as 2 kWh.",
            _any(_ABOVE_0, {"type": "string", "pattern": quantity.ENERGY}),
        ),
        "measure": (
            "Measure prediction with every trained network after the last run, one after the other; default: false.",
            _any(
                {"type": "boolean"},
                _closed({"seconds": _ABOVE_0, "accelerator": {"enum": list(ACCELERATORS)}}),
            ),
        ),
        "keep": (
            "Checkpoints of finished runs to keep: the networks (best, the default), those on the front, with the last "
            "checkpoints (all), or none.",
            {"enum": list(KEEP)},
        ),
        "search": (
            "Search for the front: pause runs that cannot be on it (halving), or draw configurations (optuna, which "
            "needs their number); default: none. A budget is joules, or a text such as 2 MJ; for halving, also a "
            "share of the predicted joules of the grid, such as 25 %.",
            _any(
                {"enum": ["none", "halving"]},
                _closed(_search_keys(["none", "halving"], {"type": "string", "pattern": "%$"})),
                _closed(
                    _search_keys(["optuna"])
                    | {"sampler": {"enum": list(SAMPLERS)}, "configurations": {"type": "integer", "minimum": 1}},
                    required=["method", "configurations"],
                ),
            ),
        ),
    }
    for name, launcher in LAUNCHERS.items():
        options = {
            key: {"description": option.description, **option.schema}
            for key, option in launcher.OPTIONS.items()
            if option.schema is not None
        }
        keys[name] = (f"Options for --launcher {name}.", _closed(options))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "greenseg sweep",
        **_closed({key: {"description": keys[key][0], **keys[key][1]} for key in KEYS}, minProperties=1),
        "definitions": definitions,
    }


_FILE: Schema = {"type": "string", "minLength": 1}


def _search_keys(methods: list[str], *budgets: Schema) -> dict[str, Schema]:
    """The keys that all these methods have, with further forms of a budget."""
    return {
        "method": {"enum": methods},
        "budget": _any(_ABOVE_0, {"type": "string", "pattern": quantity.ENERGY}, *budgets),
        "objectives": {"const": OBJECTIVES},
        "seed": {"type": "integer", "minimum": 0},
    }


def _axis(name: str, value: Schema) -> Schema:
    """Values of one setting: a list, a range if it is a number, or these with a condition."""
    kinds = [value.get("type"), *(kind.get("type") for kind in value.get("anyOf", []))]
    ranges = [_ref("range")] if "integer" in kinds or "number" in kinds else []
    return {"description": value["description"], **_branches([_values(_ref(name)), *ranges], _list(_ref(name)))}


def _range(by: str) -> Schema:
    number = {"type": "number"}
    return _closed({"from": number, "to": number, by: number, "when": _ref("when")}, required=["from", "to", by])


def _between() -> Schema:
    number = {"type": "number"}
    properties: dict[str, Schema] = {"from": number, "to": number, "log": {"type": "boolean"}}
    return _closed(properties, required=[*properties])


def _values(item: Schema) -> Schema:
    return _closed({"values": _list(item), "when": _ref("when")}, required=["values"])


def _branches(branches: Sequence[Schema], plain: Schema) -> Schema:
    return _any(plain, *branches, _list(_any(*branches)))


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)} if len(schemas) > 1 else schemas[0]


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _closed(properties: dict[str, Schema], **more: Any) -> Schema:
    return {"type": "object", "additionalProperties": False, **more, "properties": properties}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
