"""The identity of a run: a digest of the settings that affect training, independent of notation, path and version."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from greenseg.classes import without_names
from greenseg.settings.fields import ACCOUNTING, REPEATS, Fields, group_of, neutral

_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


_DIGITS = 16
"""Hex digits of an identity. Earlier versions used the first eight, which collide among some ten thousand runs."""


def digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical_json(values).encode()).hexdigest()[:_DIGITS]


_NEUTRAL = {
    name: neutral(name)
    for name, field in Fields.model_fields.items()
    if group_of(name) != ACCOUNTING and name not in ("model", "encoder", "decoder")
}
_trained_values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*_NEUTRAL)
_network_of = itemgetter("encoder", "decoder")


def _values_of(resolved: Mapping[str, Any]) -> tuple[Any, ...]:
    try:
        return _trained_values(resolved)
    except KeyError:  # of a version without some of the settings
        return _trained_values({**_NEUTRAL, **resolved})


def trained(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that affect training, seed included, independent of notation, path and version.

    Settings with their neutral value are left out. So an explicit default changes nothing, nor does a setting that a
    later version adds. A default that a later version changes does count, because the neutral value stays. The network
    always counts, since `model` and its two halves are redundant. Accounting settings never count.
    """
    values = zip(_NEUTRAL, _values_of(resolved), _NEUTRAL.values(), strict=True)
    differing = {name: value for name, value, neutral in values if value != neutral}
    if "=" in (named := differing.get("labels", "")):
        differing["labels"] = without_names(named)
    if "teacher" in differing:
        differing["teacher"] = run_key(differing["teacher"])
    return {"encoder": resolved["encoder"], "decoder": resolved["decoder"], **differing}


_KEY = re.compile(r"[0-9a-f]{16}(?:\.\d+)?$")


def run_key(directory: str) -> str:
    """The end of the name of a run's directory, which names the run wherever the directory is.

    It is the identity of its settings; directories with other contents of the same data have a number after it. The
    whole text if the directory has another name.
    """
    found = _KEY.search(directory)
    return found[0] if found else directory


def same_training(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `trained(one) == trained(other)`. It is faster: a plan compares ten thousand runs."""
    return (one["encoder"], one["decoder"], *_values_of(one)) == (
        other["encoder"],
        other["decoder"],
        *_values_of(other),
    )


REPEATED = frozenset(name for name in _NEUTRAL if group_of(name) == REPEATS)
_WHERE = frozenset({"data", "layout", "split_from"})
"""Settings for the location and layout of the data, and for the file that names its split. Runs are compared by the
content of the data, which includes the split, not by these: the same split from another file is the same run, and a
changed split under the same path is another one."""


def without(values: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The values of all settings except `names`."""
    return {name: value for name, value in values.items() if name not in names}


def trained_anywhere(resolved: Mapping[str, Any]) -> str:
    """The settings that affect training, without the location of the data and of its split, as text.

    With the content, it names a run.
    """
    return _canonical_json(without(trained(resolved), _WHERE))


def repeated_anywhere(resolved: Mapping[str, Any], others: frozenset[str] = frozenset()) -> str:
    """Like `trained_anywhere`, without seed and fold: repeats share it; and without `others`."""
    return _canonical_json(without(trained(resolved), _WHERE | REPEATED | others))
