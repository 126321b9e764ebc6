"""The identity of a run: what its settings train, no matter how, where and by which version they were written."""

import hashlib
import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from greenseg.settings.fields import ACCOUNTING, REPEATS, Fields, group_of, neutral

_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


_DIGITS = 16
"""Hex digits of an identity. Runs made before had the first eight of them, which coincide among some ten thousand."""


def digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical_json(values).encode()).hexdigest()[:_DIGITS]


_NEUTRAL = {
    name: neutral(name)
    for name, field in Fields.model_fields.items()
    if group_of(name) != ACCOUNTING and name not in ("model", "encoder", "decoder")
}
_trained_values = itemgetter(*_NEUTRAL)


def trained(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What resolved settings train, seed included, no matter how, where and by which version they were written.

    Settings that have their neutral value are left out: writing a default out changes nothing, nor does a setting that
    a later version adds. A default that a later version changes does, as its neutral value stays. The network always
    counts, since `model` and its halves say the same thing twice; what is only accounted for never does.
    """
    given = resolved if resolved.keys() >= _NEUTRAL.keys() else {**_NEUTRAL, **resolved}
    values = zip(_NEUTRAL, _trained_values(given), _NEUTRAL.values(), strict=True)
    differing = {name: value for name, value, neutral in values if value != neutral}
    return {"encoder": resolved["encoder"], "decoder": resolved["decoder"], **differing}


REPEATED = frozenset(name for name in _NEUTRAL if group_of(name) == REPEATS)
_WHERE = frozenset({"data", "layout"})
"""Settings that say where the data lie, and how they are found there; the content is what is trained on."""


def without(values: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The values of all other settings."""
    return {name: value for name, value in values.items() if name not in names}


def trained_anywhere(resolved: Mapping[str, Any]) -> str:
    """What resolved settings train, wherever the data lie, as text: together with the content, it tells runs apart."""
    return _canonical_json(without(trained(resolved), _WHERE))


def repeated_anywhere(resolved: Mapping[str, Any]) -> str:
    """Like `trained_anywhere`, without seed and fold: repeats share it."""
    return _canonical_json(without(trained(resolved), _WHERE | REPEATED))
