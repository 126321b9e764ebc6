"""Reading a sweep file: what it says, what is wrong with it and where, and the runs that it expands to.

    name: precision                 # default: the file's name
    base: {epochs: 50}              # any setting; or other.yaml, whose base it takes; or a list of both
    grid:                           # every combination of these axes
      precision: [32-true, bf16-mixed]
      batch_size: {from: 8, to: 32, times: 2}
      encoder, lr: [[mobilenet, 3e-3], [resnet18, 1e-3]]              # these change together
      compile: {values: [true, false], when: {precision: 32-true}}    # an axis for some combinations only
    exclude:                        # drop combinations that match all keys given
      - {precision: bf16-mixed, batch_size: 16}
    include:                        # extra keys for combinations that match, else an extra combination
      - {precision: bf16-mixed, batch_size: 32, compile: true}
    seeds: [0, 1, 2]                # each combination once for each
    order: shuffled                 # default: listed; a fixed shuffle over configurations and seeds
    cool_down: {temperature: 50, seconds: 300}   # before every run: until all GPUs are as cool, at most so long
    retries: 1                      # how often a run that failed is tried again at once
    timeout: 2h                     # of one run
    max_energy: 2 kWh               # after so much no new run starts

`include` and `exclude` mean what they mean in a matrix of GitHub Actions: first `exclude` drops, then each entry of
`include` is added to every combination whose axes it does not contradict, and becomes a combination of its own where it
contradicts all.
"""

import math
import random
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenseg.config import CONSTRAINTS, Settings, canonical, overlay, violations
from greenseg.errors import UserError, did_you_mean
from greenseg.sweep import quantity
from greenseg.sweep.cool_down import CoolDown
from greenseg.sweep.grid import Axis, Branch, Values, expand, in_order, spread
from greenseg.yamlfile import Document, Key, load, parse

KEYS = (
    "name", "base", "grid", "exclude", "include", "seeds", "order", "cool_down", "retries", "timeout", "max_energy",
)  # fmt: skip
ORDERS = ("listed", "shuffled")
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_RANGE = ("from", "to", "step", "times")
_AXIS = (*_RANGE, "values", "when")


Places = tuple[Mapping[tuple[str, Any], str], ...]
"""(setting, value) → where it is said: under grid, in each entry of include, under base or in an option."""


def find_place(places: Places, run: Settings, settings: Sequence[str]) -> str | None:
    """Where it is said that a run has its values of these settings; None where none of them is named."""
    pairs = [(name, getattr(run, name)) for name in settings]
    return next((said[pair] for said in places for pair in pairs if pair in said), None)


@dataclass(frozen=True)
class Exclusion:
    """A rule of `exclude`: where it stands, what it says, and how many combinations it dropped (as the first to)."""

    place: str
    rule: Values
    combinations: int


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, the settings of every run in the order to run them, without duplicates, and how to run them.

    Attributes:
        retries: how often a run that failed is tried again at once.
        timeout: seconds after which a run is stopped; None for no limit.
        max_energy: joules of all runs after which no new run starts; None for no limit.
        excluded: what each rule of `exclude` dropped.
        duplicates: runs that were merged with one that trains the same.
        varied: settings that need not be the same in all runs, in the order of the file.
        places: for `find_place`.
    """

    name: str
    runs: tuple[Settings, ...]
    order: str = "listed"
    cool_down: CoolDown | None = None
    retries: int = 0
    timeout: float | None = None
    max_energy: float | None = None
    excluded: tuple[Exclusion, ...] = ()
    duplicates: int = 0
    varied: tuple[str, ...] = field(default=(), compare=False)
    places: Places = field(default=(), repr=False, compare=False)


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and expand it.

    Args:
        path: of the file.
        overrides: `setting=value`, the value in YAML; they go over `base`.

    Raises:
        UserError: everything that is wrong with it, each with file, line and column.
    """
    return _Reader(load(path), overrides).sweep()


@dataclass(frozen=True)
class _Layer:
    """Settings, canonical, and where each of them stands."""

    values: Values = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def under(self, upper: "_Layer") -> "_Layer":
        return _Layer(overlay(self.values, upper.values), self.places | upper.places)


class _Reader:
    def __init__(self, document: Document, overrides: Sequence[str] = ()) -> None:
        self._document = document
        self._overrides = overrides
        self._problems: list[str] = []
        self._known: dict[Hashable, tuple[Any, str | None]] = {}
        self._labels: dict[str, Hashable] = {}  # setting that is an axis → its key under grid
        self._conditions: list[tuple[Key, str, list[Any]]] = []

    def sweep(self) -> Sweep:
        content = self._document.value
        if not isinstance(content, dict) or not content:
            raise UserError(f"{self._document.where()}: a sweep is a mapping with the keys {', '.join(KEYS)}")
        for key in content:
            if key not in KEYS:
                hint = did_you_mean(str(key), KEYS)
                if not hint and str(key) in Settings.model_fields:
                    hint = " (a setting; it belongs under 'base' or 'grid')"
                self._report((key,), f"unknown key '{key}'{hint}; valid: {', '.join(KEYS)}")
        name = content.get("name", self._document.path.stem)
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            self._report(("name",), f"name: {name!r} is not a name of letters, digits, '_', '.' and '-'")
        base = self._base(self._document, ()) if "base" in content else _Layer()
        axes = self._grid(content["grid"]) if "grid" in content else []
        exclude = [self._rule(("exclude", i), rule) for i, rule in enumerate(self._list(content, "exclude"))]
        include = [self._settings(("include", i), e) for i, e in enumerate(self._list(content, "include"))]
        seeds = self._seeds(content, include)
        base = base.under(self._overriding(axes, include, bool(seeds)))
        order = content.get("order", "listed")
        if order not in ORDERS:
            hint = did_you_mean(str(order), ORDERS)
            self._report(("order",), f"order: {order!r} is not valid{hint}; valid: {', '.join(ORDERS)}")
        cool_down = self._cool_down(content["cool_down"]) if "cool_down" in content else None
        retries = content.get("retries", 0)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            self._report(("retries",), f"retries: {retries!r} is not a whole number of 0 or more")
        timeout = self._quantity(content, "timeout", quantity.seconds)
        max_energy = self._quantity(content, "max_energy", quantity.joules)
        if self._problems:
            raise UserError(self._problems)
        places = self._places(axes, include, base)
        found = expand(base.values, axes, [rule.values for rule in exclude], [e.values for e in include], seeds)
        if not found.runs:
            raise UserError(
                f"{self._document.where('exclude')}: exclude drops every combination; nothing is left to run"
            )
        self._problems += [
            f"{find_place(places, run, constraint.settings) or self._document.where('grid')}: {message}"
            for run, constraint, message in violations(CONSTRAINTS, found.runs)
        ]
        if self._problems:
            raise UserError(self._problems)
        runs = found.runs
        seeds_vary = ["seed"] if seeds else []
        if order == "shuffled":
            # Drift of the machine then spreads over all configurations; the same shuffle whenever the sweep is resumed.
            random.Random(str(name)).shuffle(runs)
        excluded = [
            Exclusion(self._document.where("exclude", i), rule.values, found.dropped[i])
            for i, rule in enumerate(exclude)
        ]
        return Sweep(
            str(name),
            tuple(runs),
            order=str(order),
            cool_down=cool_down,
            retries=retries,
            timeout=timeout,
            max_energy=max_energy,
            excluded=tuple(excluded),
            duplicates=found.duplicates,
            varied=tuple(dict.fromkeys([*self._labels, *(name for e in include for name in e.values), *seeds_vary])),
            places=places,
        )

    # ── parts of the file

    def _report(self, key: Key, message: str, document: Document | None = None) -> None:
        self._problems.append(f"{(document or self._document).where(*key)}: {message}")

    def _list(self, content: Mapping[str, Any], key: str) -> list[Any]:
        value = content.get(key, [])
        if isinstance(value, list):
            return value
        self._report((key,), f"{key}: must be a list of mappings, each line beginning with '- '")
        return []

    def _settings(self, key: Key, value: Any, document: Document | None = None) -> _Layer:
        """A mapping of settings; what is wrong is reported."""
        document = document or self._document
        if not isinstance(value, dict) or not value:
            self._report(key, f"{key[0] if key else 'base'}: must be a mapping of settings to values", document)
            return _Layer()
        return _Layer(
            {str(n): self._value(document.where(*key, n), str(n), item) for n, item in value.items()},
            {str(n): document.where(*key, n) for n in value},
        )

    def _value(self, place: str, name: str, value: Any) -> Any:
        """A setting's value in its canonical form; what is wrong is reported."""
        if isinstance(value, list):
            self._problems.append(f"{place}: {name}: one value is needed here; a list makes an axis, under 'grid'")
            return None
        try:
            token = (name, type(value).__name__, value)
            hash(token)
        except TypeError:
            self._problems.append(f"{place}: {name}: one value is needed, not a mapping")
            return None
        if token not in self._known:
            try:
                self._known[token] = (canonical(name, value), None)
            except UserError as error:
                self._known[token] = (None, str(error))
        known, message = self._known[token]
        if message:
            self._problems.append(f"{place}: {message}")
        return known

    def _base(self, document: Document, inheriting: tuple[Path, ...]) -> _Layer:
        """What stands under `base`: settings, a file to take them from, or a list of both, where later ones win."""
        base = document.value["base"]
        if not isinstance(base, list):
            return self._layer(document, ("base",), base, inheriting)
        if not base:
            self._report(("base",), "base: the list is empty", document)
        layers = [self._layer(document, ("base", i), part, inheriting) for i, part in enumerate(base)]
        joined = _Layer()
        for layer in layers:
            joined = joined.under(layer)
        return joined

    def _layer(self, document: Document, key: Key, part: Any, inheriting: tuple[Path, ...]) -> _Layer:
        if not isinstance(part, str):
            return self._settings(key, part, document)
        chain = (*inheriting, document.path.resolve())
        path = document.path.parent / part
        if path.resolve() in chain:
            circle = " → ".join(p.name for p in (*chain[chain.index(path.resolve()) :], path))
            self._report(key, f"base: files that take their base from each other: {circle}", document)
            return _Layer()
        try:
            other = load(path)
        except UserError as error:
            where = document.where(*key)
            self._problems += [f"{where}: base: {problem}" for problem in error.problems]
            return _Layer()
        if not isinstance(other.value, dict) or not set(KEYS) & other.value.keys():  # settings, as in a config.yaml
            return self._settings((), other.value, other)
        if "base" not in other.value:
            self._report(key, f"base: {path} is a sweep without 'base'; nothing else of a sweep is inherited", document)
            return _Layer()
        return self._base(other, chain)

    def _overriding(self, axes: list[Axis], include: list[_Layer], seeds: bool) -> _Layer:
        """The settings that options give."""
        varied = {name: "an axis of the grid" for axis in axes for name in axis.settings}
        if "model" in varied:
            varied |= dict.fromkeys(("encoder", "decoder"), "named by the axis 'model' of the grid")
        for number, entry in enumerate(include, 1):
            varied |= {name: f"set by include {number}" for name in entry.values if name not in varied}
        if seeds:
            varied["seed"] = "given by seeds"
        layer = _Layer()
        for override in self._overrides:
            place = f"--set {override}"
            name, equals, text = override.partition("=")
            try:
                if not equals:
                    raise ValueError("it is not setting=value, such as epochs=5")
                value = parse(text)
                if name in varied:
                    raise ValueError(f"'{name}' is {varied[name]}; change it there")
            except ValueError as error:
                self._problems.append(f"{place}: {error}")
                continue
            layer.values[name] = self._value(place, name, value)
            layer.places[name] = place
        return layer

    def _grid(self, grid: Any) -> list[Axis]:
        if not isinstance(grid, dict) or not grid:
            self._report(("grid",), "grid: is empty; it maps settings to lists of values")
            return []
        named = [(label, tuple(re.split(r",\s*", str(label)))) for label in grid]
        axes: list[Axis] = []
        for label, settings in named:
            unknown = [name for name in settings if name not in Settings.model_fields]
            for name in unknown:
                self._value(self._document.where("grid", label), name, None)  # one report for the axis, not one a value
            for name in settings:
                if name in self._labels:
                    self._report(("grid", label), f"{name}: is an axis already, '{self._labels[name]}'")
                self._labels.setdefault(name, label)
            if not unknown:
                axes.append(Axis(settings, tuple(self._branches(("grid", label), settings, grid[label]))))
        for short in ("encoder", "decoder"):
            if "model" in self._labels and short in self._labels:
                self._report(
                    ("grid", self._labels[short]),
                    f"{short}: 'model' is an axis and names the {short} already; drop one of them",
                )
        self._check_conditions(axes)
        try:
            return in_order(axes)
        except ValueError as error:
            if not self._problems:
                self._report(("grid",), f"grid: axes depend on each other in a circle: {error}")
            return axes

    def _branches(self, key: Key, settings: tuple[str, ...], content: Any) -> list[Branch]:
        """What stands under an axis: a list of values, a mapping such as a range, or a list of such mappings."""
        if isinstance(content, dict):
            return [self._branch(key, settings, content)]
        if not isinstance(content, list):
            self._report(key, f"{key[-1]}: an axis is a list of values; write [{content}], or move it to 'base'")
            return []
        if content and all(isinstance(part, dict) for part in content):
            return [self._branch((*key, i), settings, part) for i, part in enumerate(content)]
        return [Branch(self._rows(key, settings, content))]

    def _rows(self, key: Key, settings: tuple[str, ...], values: list[Any]) -> tuple[Values, ...]:
        if not values:
            self._report(key, f"{', '.join(settings)}: the axis is empty; give it a value or leave it out")
        rows = []
        for i, value in enumerate(values):
            place = (*key, i)
            if len(settings) == 1:
                rows.append({settings[0]: self._value(self._document.where(*place), settings[0], value)})
            elif isinstance(value, list) and len(value) == len(settings):
                parts = enumerate(zip(settings, value, strict=True))
                rows.append({n: self._value(self._document.where(*place, j), n, part) for j, (n, part) in parts})
            else:
                self._report(place, f"{', '.join(settings)}: needs a list of {len(settings)} values, one for each")
        return tuple(rows)

    def _branch(self, key: Key, settings: tuple[str, ...], content: Mapping[Any, Any]) -> Branch:
        label = ", ".join(settings)
        for part in content:
            if part not in _AXIS:
                hint = did_you_mean(str(part), _AXIS)
                self._report((*key, part), f"{label}: unknown key '{part}'{hint}; valid: {', '.join(_AXIS)}")
        rows: tuple[Values, ...] = ()
        ranging = [part for part in _RANGE if part in content]
        if "values" in content and ranging:
            self._report(key, f"{label}: has 'values' and '{ranging[0]}'; drop one of them")
        elif "values" in content and isinstance(content["values"], list):
            rows = self._rows((*key, "values"), settings, content["values"])
        elif "values" in content:
            self._report((*key, "values"), f"{label}: values: must be a list")
        elif ranging:
            rows = self._range(key, settings, content)
        elif set(content) <= {"when"}:
            self._report(key, f"{label}: needs 'values', or a range: 'from', 'to' and 'step' or 'times'")
        return Branch(rows, self._condition((*key, "when"), label, content["when"]) if "when" in content else {})

    def _range(self, key: Key, settings: tuple[str, ...], content: Mapping[str, Any]) -> tuple[Values, ...]:
        label = ", ".join(settings)
        before = len(self._problems)
        given = {part: content[part] for part in _RANGE if part in content}
        for part, number in given.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                self._report((*key, part), f"{label}: {part}: {number!r} is not a number")
        if not {"from", "to"} <= given.keys() or len(given) != 3:
            self._report(key, f"{label}: a range needs 'from', 'to', and one of 'step' and 'times'")
        if len(settings) > 1:
            self._report(key, f"{label}: a range gives one value; axes that change together need a list of lists")
        if len(self._problems) > before:
            return ()
        try:
            values = spread(given["from"], given["to"], step=given.get("step"), times=given.get("times"))
        except ValueError as error:
            self._report(key, f"{label}: {error}")
            return ()
        place = self._document.where(*key, "from")
        rows = []
        for value in values:
            rows.append({label: self._value(place, label, value)})
            if len(self._problems) > before:  # of many wrong values the first one says it
                break
        return tuple(rows)

    def _condition(self, key: Key, label: str, condition: Any) -> dict[str, tuple[Any, ...]]:
        if not isinstance(condition, dict) or not condition:
            self._report(key, f"{label}: when: must be a mapping of other axes to a value, or a list of values")
            return {}
        found = {}
        for name, value in condition.items():
            place = (*key, name)
            if value == []:
                self._report(place, f"when: {name}: the list is empty")
            if isinstance(value, list):
                values = [self._value(self._document.where(*place, i), str(name), v) for i, v in enumerate(value)]
            else:
                values = [self._value(self._document.where(*place), str(name), value)]
            found[str(name)] = tuple(values)
            self._conditions.append((place, str(name), values))
        return found

    def _check_conditions(self, axes: list[Axis]) -> None:
        """Whether conditions name axes and values that these have."""
        possible: dict[str, set[Any]] = {}
        for axis in axes:
            for branch in axis.branches:
                for row in branch.rows:
                    for name, value in row.items():
                        possible.setdefault(name, set()).add(value)
        for key, name, values in self._conditions:
            if name not in Settings.model_fields:
                continue  # it has been said
            if name not in self._labels:
                hint = did_you_mean(name, list(self._labels))
                self._report(key, f"when: '{name}' is not an axis of the grid{hint}; axes: {', '.join(self._labels)}")
                continue
            if values and None not in values and possible.get(name, set()).isdisjoint(values):
                never = " or ".join(map(repr, values))
                self._report(key, f"when: the axis '{name}' is never {never}, so that these values are for nothing")

    def _rule(self, key: Key, value: Any) -> _Layer:
        rule = self._settings(key, value)
        axes = list(self._labels)
        for name in rule.values:
            if name in Settings.model_fields and name not in axes:
                hint = did_you_mean(name, axes)
                valid = f"axes: {', '.join(axes)}" if axes else "there is no grid"
                self._report((*key, name), f"exclude: '{name}' is not an axis of the grid{hint}; {valid}")
        return rule

    def _seeds(self, content: Mapping[str, Any], include: list[_Layer]) -> list[int]:
        if "seeds" not in content:
            return []
        base = content.get("base")
        own = [part for part in (base if isinstance(base, list) else [base]) if isinstance(part, dict)]
        # One that is inherited says nothing: every run's config.yaml names its seed.
        given = [("base", part) for part in own] + [("grid", self._labels)]
        for where, settings in (*given, *((f"include {i + 1}", entry.values) for i, entry in enumerate(include))):
            if "seed" in settings:
                self._report(("seeds",), f"seeds: 'seed' stands under {where} as well; drop one of them")
        seeds = content["seeds"]
        if not isinstance(seeds, list) or not seeds:
            self._report(("seeds",), "seeds: must be a list of whole numbers that is not empty, such as [0, 1, 2]")
            return []
        return [self._value(self._document.where("seeds", i), "seed", seed) for i, seed in enumerate(seeds)]

    def _cool_down(self, value: Any) -> CoolDown | None:
        numbers = value if isinstance(value, dict) else {"seconds": value}
        for key, number in numbers.items():
            place = ("cool_down", key) if isinstance(value, dict) else ("cool_down",)
            if key not in ("seconds", "temperature"):
                self._report(place, f"cool_down: unknown key '{key}'; valid: seconds, temperature")
            elif isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
                self._report(place, f"cool_down: {key}: {number!r} is not a number above 0")
        if "seconds" not in numbers:
            self._report(("cool_down",), "cool_down: needs 'seconds', the longest pause")
        if self._problems:
            return None
        return CoolDown(float(numbers["seconds"]), numbers.get("temperature"))

    def _quantity(self, content: Mapping[str, Any], key: str, read: Callable[[Any], float]) -> float | None:
        if key not in content:
            return None
        try:
            return read(content[key])
        except ValueError as error:
            self._report((key,), f"{key}: {error}")
            return None

    def _places(self, axes: list[Axis], include: list[_Layer], base: _Layer) -> Places:
        grid: dict[tuple[str, Any], str] = {}
        for axis in axes:
            place = self._document.where("grid", self._labels[axis.settings[0]])
            grid |= {pair: place for branch in axis.branches for row in branch.rows for pair in row.items()}
        others = [
            {(name, layer.values[name]): layer.places[name] for name in layer.values} for layer in (*include, base)
        ]
        return (grid, *others)
