"""Reads `grid`: lists, ranges, axes that change together, axes that depend on others, and ends to draw between."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

from greenseg import quantity
from greenseg.errors import did_you_mean
from greenseg.settings import MAPPINGS, Settings
from greenseg.sweep.findings import Findings
from greenseg.sweep.grid import Axis, Between, Branch, Values, in_order, spread
from greenseg.yamlfile import Key

_RANGE = ("from", "to", "step", "times")
_AXIS = (*_RANGE, "values", "when")
_BETWEEN = ("from", "to", "log")


class AxesReader:
    """Reads the axes of a sweep.

    Args:
        findings: findings of the sweep file.

    Attributes:
        labels: setting of an axis → its key under `grid`.
    """

    def __init__(self, findings: Findings) -> None:
        self._found = findings
        self.labels: dict[str, Hashable] = {}
        self._conditions: list[tuple[Key, str, list[Any]]] = []

    def read(self, grid: Any) -> list[Axis]:
        """The axes under `grid`, in the order of `in_order`; reports their problems."""
        if not isinstance(grid, dict) or not grid:
            self._found.report(("grid",), "grid: is empty; it maps settings to lists of values")
            return []
        named = [(label, tuple(re.split(r",\s*", str(label)))) for label in grid]
        axes: list[Axis] = []
        for label, settings in named:
            unknown = [name for name in settings if name not in Settings.model_fields]
            for name in unknown:
                self._found.value(("grid", label), name, None)  # one report per axis, not per value
            for name in settings:
                if name in self.labels:
                    self._found.report(("grid", label), f"{name}: is already an axis, '{self.labels[name]}'")
                self.labels.setdefault(name, label)
            content = grid[label]
            if not unknown and isinstance(content, dict) and "log" in content:
                axes.append(Axis(settings, (), self._between(("grid", label), settings, content)))
            elif not unknown:
                axes.append(Axis(settings, tuple(self._branches(("grid", label), settings, content))))
        for short in ("encoder", "decoder"):
            if "model" in self.labels and short in self.labels:
                self._found.report(
                    ("grid", self.labels[short]),
                    f"{short}: 'model' is an axis and already names the {short}; drop one of them",
                )
        self._check_conditions(axes)
        try:
            return in_order(axes)
        except ValueError as error:
            if not self._found.problems:
                self._found.report(("grid",), f"grid: axes depend on each other in a circle: {error}")
            return axes

    def _branches(self, key: Key, settings: tuple[str, ...], content: Any) -> list[Branch]:
        """The content of an axis: a list of values, a mapping such as a range, or a list of such mappings."""
        if isinstance(content, dict):
            return [self._branch(key, settings, content)]
        if not isinstance(content, list):
            self._found.report(key, f"{key[-1]}: an axis is a list of values; write [{content}], or move it to 'base'")
            return []
        if content and all(isinstance(part, dict) for part in content) and not _are_values(settings, content):
            return [self._branch((*key, i), settings, part) for i, part in enumerate(content)]
        return [Branch(self._rows(key, settings, content))]

    def _rows(self, key: Key, settings: tuple[str, ...], values: list[Any]) -> tuple[Values, ...]:
        if not values:
            self._found.report(key, f"{', '.join(settings)}: the axis is empty; add a value or leave it out")
        rows = []
        for i, value in enumerate(values):
            place = (*key, i)
            if len(settings) == 1:
                rows.append({settings[0]: self._found.value(place, settings[0], value)})
            elif isinstance(value, list) and len(value) == len(settings):
                parts = enumerate(zip(settings, value, strict=True))
                rows.append({n: self._found.value((*place, j), n, part) for j, (n, part) in parts})
            else:
                self._found.report(
                    place, f"{', '.join(settings)}: needs a list of {len(settings)} values, one per setting"
                )
        return tuple(rows)

    def _branch(self, key: Key, settings: tuple[str, ...], content: Mapping[Any, Any]) -> Branch:
        label = ", ".join(settings)
        for part in content:
            if part not in _AXIS:
                hint = did_you_mean(str(part), _AXIS)
                self._found.report((*key, part), f"{label}: unknown key '{part}'{hint}; valid: {', '.join(_AXIS)}")
        rows: tuple[Values, ...] = ()
        ranging = [part for part in _RANGE if part in content]
        if "values" in content and ranging:
            self._found.report(key, f"{label}: has 'values' and '{ranging[0]}'; drop one of them")
        elif "values" in content and isinstance(content["values"], list):
            rows = self._rows((*key, "values"), settings, content["values"])
        elif "values" in content:
            self._found.report((*key, "values"), f"{label}: values: must be a list")
        elif ranging:
            rows = self._range(key, settings, content)
        elif set(content) <= {"when"}:
            self._found.report(key, f"{label}: needs 'values', or a range: 'from', 'to' and 'step' or 'times'")
        return Branch(rows, self._condition((*key, "when"), label, content["when"]) if "when" in content else {})

    def _range(self, key: Key, settings: tuple[str, ...], content: Mapping[str, Any]) -> tuple[Values, ...]:
        label = ", ".join(settings)
        before = len(self._found.problems)
        given = {part: content[part] for part in _RANGE if part in content}
        for part, number in given.items():
            if not quantity.is_number(number):
                self._found.report((*key, part), f"{label}: {part}: {number!r} is not a number")
        if not {"from", "to"} <= given.keys() or len(given) != 3:
            self._found.report(
                key,
                f"{label}: a range needs 'from', 'to', and one of 'step' and 'times'; or 'log: true' or 'log: false' "
                f"with `method: optuna` under 'search'",
            )
        if len(settings) > 1:
            self._found.report(key, f"{label}: a range gives one value; axes that change together need a list of lists")
        if len(self._found.problems) > before:
            return ()
        try:
            values = spread(given["from"], given["to"], step=given.get("step"), times=given.get("times"))
        except ValueError as error:
            self._found.report(key, f"{label}: {error}")
            return ()
        place = (*key, "from")
        rows = []
        for value in values:
            rows.append({label: self._found.value(place, label, value)})
            if len(self._found.problems) > before:  # report only the first of many wrong values
                break
        return tuple(rows)

    def _between(self, key: Key, settings: tuple[str, ...], content: Mapping[Any, Any]) -> Between | None:
        """The ends of an axis that has all numbers between them; None after a mistake."""
        label = ", ".join(settings)
        before = len(self._found.problems)
        for part in content:
            if part not in _BETWEEN:
                hint = did_you_mean(str(part), _BETWEEN)
                valid = f"with 'log', valid are {', '.join(_BETWEEN)}"
                self._found.report((*key, part), f"{label}: unknown key '{part}'{hint}; {valid}")
        if not isinstance(content["log"], bool):
            self._found.report((*key, "log"), f"{label}: log: {content['log']!r} is neither true nor false")
        ends = [(end, content.get(end)) for end in ("from", "to")]
        for end, number in ends:
            if not quantity.is_number(number):
                message = f"{number!r} is not a number" if end in content else "is missing"
                self._found.report((*key, end), f"{label}: {end}: {message}")
        if len(settings) > 1:
            self._found.report(key, f"{label}: a range gives one value; axes that change together need a list of lists")
        if len(self._found.problems) > before:
            return None
        try:
            unit = _unit(label)
        except ValueError as error:
            self._found.report(key, f"{label}: {error}")
            return None
        low, high = (self._found.value((*key, end), label, number) for end, number in ends)
        if len(self._found.problems) > before:
            return None
        if not low < high:
            self._found.report(key, f"{label}: 'from' {low} is not below 'to' {high}")
        elif content["log"] and low <= 0:
            self._found.report((*key, "from"), f"{label}: a range with 'log: true' needs numbers above 0")
        return Between(low, high, content["log"], unit)

    def _condition(self, key: Key, label: str, condition: Any) -> dict[str, tuple[Any, ...]]:
        if not isinstance(condition, dict) or not condition:
            self._found.report(key, f"{label}: when: must be a mapping of other axes to a value, or a list of values")
            return {}
        found = {}
        for name, value in condition.items():
            place = (*key, name)
            if value == []:
                self._found.report(place, f"when: {name}: the list is empty")
            if isinstance(value, list):
                values = [self._found.value((*place, i), str(name), v) for i, v in enumerate(value)]
            else:
                values = [self._found.value(place, str(name), value)]
            found[str(name)] = tuple(values)
            self._conditions.append((place, str(name), values))
        return found

    def _check_conditions(self, axes: list[Axis]) -> None:
        """Report conditions with unknown axes or values."""
        possible: dict[str, set[Any]] = {}
        for axis in axes:
            for branch in axis.branches:
                for row in branch.rows:
                    for name, value in row.items():
                        possible.setdefault(name, set()).add(value)
        for key, name, values in self._conditions:
            if name not in Settings.model_fields:
                continue  # already reported
            if name not in self.labels:
                hint = did_you_mean(name, list(self.labels))
                self._found.report(
                    key, f"when: '{name}' is not an axis of the grid{hint}; axes: {', '.join(self.labels)}"
                )
                continue
            if values and None not in values and possible.get(name, set()).isdisjoint(values):
                never = " or ".join(map(repr, values))
                self._found.report(key, f"when: the axis '{name}' is never {never}, so these values are never used")


def _unit(setting: str) -> int | None:
    """What the values of a setting are multiples of; None if they need not be whole numbers.

    Raises:
        ValueError: they are no numbers.
    """
    declared = Settings.model_json_schema()["properties"][setting]
    kinds = {str(kind.get("type")): kind for kind in declared.get("anyOf", [declared])}
    if "number" in kinds:
        return None
    if "integer" not in kinds:
        raise ValueError("its values are no numbers, so it has no range; list them")
    return int(kinds["integer"].get("multipleOf", 1))


def _are_values(settings: tuple[str, ...], mappings: list[dict[Any, Any]]) -> bool:
    """Whether the mappings are values of the setting, not branches of its axis."""
    return settings[0] in MAPPINGS and not any(part.keys() & set(_AXIS) for part in mappings)
