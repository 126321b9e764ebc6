"""Reading a sweep file: what it says, what is wrong with it and where, and the runs that it expands to.

    name: precision                 # default: the file's name
    base: {epochs: 50}              # any setting
    grid:                           # every combination of these axes
      precision: [32-true, bf16-mixed]
      batch_size: [16, 32]
    exclude:                        # drop combinations that match all keys given
      - {precision: bf16-mixed, batch_size: 16}
    include:                        # extra keys for combinations that match, else an extra combination
      - {precision: bf16-mixed, batch_size: 32, compile: true}
    seeds: [0, 1, 2]                # each combination once for each
    order: shuffled                 # default: listed; a fixed shuffle over configurations and seeds
    cool_down: {temperature: 50, seconds: 300}   # before every run: until all GPUs are as cool, at most so long

`include` and `exclude` mean what they mean in a matrix of GitHub Actions: first `exclude` drops, then each entry of
`include` is added to every combination whose axes it does not contradict, and becomes a combination of its own where it
contradicts all.
"""

import itertools
import random
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenseg.config import Settings, overlay, problems_of
from greenseg.errors import UserError, did_you_mean
from greenseg.models import names
from greenseg.sweep.cool_down import CoolDown
from greenseg.yamlfile import Document, load

_KEYS = ("name", "base", "grid", "exclude", "include", "seeds", "order", "cool_down")
_ORDERS = ("listed", "shuffled")


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, the settings of every run in the order to run them, without duplicates, pauses and limits.

    Attributes:
        retries: how often a run that failed by what may be chance is tried again.
        timeout: seconds that one attempt at a run may take; None for as long as it takes.
        max_energy: joules of all its runs after which no new one starts; None for no limit.
    """

    name: str
    runs: tuple[Settings, ...]
    order: str = "listed"
    cool_down: CoolDown | None = None
    retries: int = 0
    timeout: float | None = None
    max_energy: float | None = None


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file and expand it.

    Raises:
        UserError: everything that is wrong with it, each with file, line and column.
    """
    return _Reader(load(path)).sweep()


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[str] = []
        self._known: dict[Hashable, tuple[Any, str | None]] = {}

    def sweep(self) -> Sweep:
        content = self._document.value
        if not isinstance(content, dict) or not content:
            raise UserError(f"{self._document.where()}: a sweep is a mapping with the keys {', '.join(_KEYS)}")
        for key in content:
            if key not in _KEYS:
                hint = did_you_mean(str(key), _KEYS)
                if not hint and str(key) in Settings.model_fields:
                    hint = " (a setting; it belongs under 'base' or 'grid')"
                self._report((key,), f"unknown key '{key}'{hint}; valid: {', '.join(_KEYS)}")
        name = content.get("name", self._document.path.stem)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            self._report(("name",), f"name: {name!r} is not a name of letters, digits, '_', '.' and '-'")
        base = self._settings(("base",), content["base"]) if "base" in content else {}
        axes = self._grid(content["grid"]) if "grid" in content else {}
        exclude = [
            self._rule(("exclude", i), e, content.get("grid")) for i, e in enumerate(self._list(content, "exclude"))
        ]
        include = [self._settings(("include", i), e) for i, e in enumerate(self._list(content, "include"))]
        seeds = self._seeds(content, base, axes, include)
        order = content.get("order", "listed")
        if order not in _ORDERS:
            hint = did_you_mean(str(order), _ORDERS)
            self._report(("order",), f"order: {order!r} is not valid{hint}; valid: {', '.join(_ORDERS)}")
        cool_down = self._cool_down(content["cool_down"]) if "cool_down" in content else None
        if self._problems:
            raise UserError(self._problems)
        runs = list(self._expand(base, axes, exclude, include, seeds))
        if order == "shuffled":
            # Drift of the machine then spreads over all configurations; the same shuffle whenever the sweep is resumed.
            random.Random(str(name)).shuffle(runs)
        return Sweep(str(name), tuple(runs), str(order), cool_down)

    # ── parts of the file

    def _report(self, key: tuple[Hashable, ...], message: str) -> None:
        self._problems.append(f"{self._document.where(*key)}: {message}")

    def _list(self, content: Mapping[str, Any], key: str) -> list[Any]:
        value = content.get(key, [])
        if isinstance(value, list):
            return value
        self._report((key,), f"{key}: must be a list of mappings, each line beginning with '- '")
        return []

    def _settings(self, key: tuple[Hashable, ...], value: Any) -> dict[str, Any]:
        """A mapping of settings, canonical; what is wrong is reported."""
        if not isinstance(value, dict) or not value:
            self._report(key, f"{key[0]}: must be a mapping of settings to values")
            return {}
        return {name: self._value((*key, name), str(name), item) for name, item in value.items()}

    def _value(self, key: tuple[Hashable, ...], name: str, value: Any) -> Any:
        """A setting's value in its canonical form (aliases resolved), so that equal values compare equal."""
        if isinstance(value, list):
            self._report(key, f"{name}: one value is needed here; a list makes an axis, under 'grid'")
            return None
        try:
            token = (name, type(value).__name__, value)
            hash(token)
        except TypeError:
            self._report(key, f"{name}: one value is needed, not a mapping")
            return None
        if token not in self._known:
            problems = problems_of({name: value})
            # A combination that cannot be is judged when it is whole; here only the value itself counts.
            own = [problem for problem in problems if problem.key is not None]
            if own:
                self._known[token] = (None, own[0].message)
            else:
                # Empty means the half of another layer's `model`, which is not known here.
                canonical = getattr(Settings.model_validate({name: value}), name) if value != "" else ""
                self._known[token] = (canonical, None)
        canonical, message = self._known[token]
        if message:
            self._report(key, message)
        return canonical

    def _grid(self, grid: Any) -> dict[str, list[Any]]:
        if not isinstance(grid, dict) or not grid:
            self._report(("grid",), "grid: is empty; it maps settings to lists of values")
            return {}
        axes: dict[str, list[Any]] = {}
        for name, values in grid.items():
            key = ("grid", name)
            if not isinstance(values, list):
                if str(name) in Settings.model_fields:
                    self._report(key, f"{name}: an axis is a list of values; write [{values}], or move it to 'base'")
                else:
                    self._value(key, str(name), values)
                continue
            if not values:
                self._report(key, f"{name}: the axis is empty; give it a value or leave it out")
            if str(name) not in Settings.model_fields:
                self._value(key, str(name), None)  # one report for the axis, not one for each value
                continue
            axes[str(name)] = [self._value((*key, i), str(name), value) for i, value in enumerate(values)]
        for short in ("encoder", "decoder"):
            if "model" in axes and short in axes:
                self._report(
                    ("grid", short),
                    f"{short}: 'model' is an axis and names the {short} already; drop one of them",
                )
        return axes

    def _rule(self, key: tuple[Hashable, ...], value: Any, grid: Any) -> dict[str, Any]:
        rule = self._settings(key, value)
        axes = [str(name) for name in grid] if isinstance(grid, dict) else []
        for name in rule:
            if name in Settings.model_fields and name not in axes:
                hint = did_you_mean(name, axes)
                valid = f"axes: {', '.join(axes)}" if axes else "there is no grid"
                self._report((*key, name), f"exclude: '{name}' is not an axis of the grid{hint}; {valid}")
        return rule

    def _seeds(
        self,
        content: Mapping[str, Any],
        base: Mapping[str, Any],
        axes: Mapping[str, Any],
        include: list[dict[str, Any]],
    ) -> list[int]:
        if "seeds" not in content:
            return []
        seeds = content["seeds"]
        for where, given in (
            ("base", base),
            ("grid", axes),
            *((f"include {i + 1}", e) for i, e in enumerate(include)),
        ):
            if "seed" in given:
                self._report(("seeds",), f"seeds: 'seed' stands under {where} as well; drop one of them")
        if not isinstance(seeds, list) or not seeds:
            self._report(("seeds",), "seeds: must be a list of whole numbers that is not empty, such as [0, 1, 2]")
            return []
        return [self._value(("seeds", i), "seed", seed) for i, seed in enumerate(seeds)]

    def _cool_down(self, value: Any) -> CoolDown | None:
        numbers = value if isinstance(value, dict) else {"seconds": value}
        for key, number in numbers.items():
            place = ("cool_down", key) if isinstance(value, dict) else ("cool_down",)
            if key not in ("seconds", "temperature"):
                self._report(place, f"cool_down: unknown key '{key}'; valid: seconds, temperature")
            elif isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
                self._report(place, f"cool_down: {key}: {number!r} is not a number above 0")
        if "seconds" not in numbers:
            self._report(("cool_down",), "cool_down: needs 'seconds', the longest pause")
        if self._problems:
            return None
        return CoolDown(float(numbers["seconds"]), numbers.get("temperature"))

    # ── expansion

    def _expand(
        self,
        base: dict[str, Any],
        axes: dict[str, list[Any]],
        exclude: list[dict[str, Any]],
        include: list[dict[str, Any]],
        seeds: list[int],
    ) -> tuple[Settings, ...]:
        grid = itertools.product(*axes.values()) if axes else []
        originals = [dict(zip(axes, values, strict=True)) for values in grid]
        originals = [
            original for original in originals if not any(rule.items() <= original.items() for rule in exclude)
        ]
        combinations = [(dict(original), self._place("grid", "base")) for original in originals]
        halves = [_with_halves(original) for original in originals]
        for number, extra in enumerate(include):
            wanted = _with_halves(extra)
            fits = [all(half.get(key, value) == value for key, value in wanted.items()) for half in halves]
            for (combination, _), fit in zip(combinations, fits, strict=False):
                if fit:
                    combination.update(extra)
            if not any(fits):
                combinations.append((dict(extra), self._document.where("include", number)))
        if not combinations and not axes:
            combinations = [({}, self._place("base"))]  # the base alone, once for each seed
        if not combinations:
            raise UserError(
                f"{self._document.where('exclude')}: exclude drops every combination; nothing is left to run"
            )
        runs: dict[str, Settings] = {}
        problems: dict[str, None] = {}
        for combination, place in combinations:
            values = overlay(base, combination)
            wrong = problems_of(values)
            if wrong:
                problems.update(dict.fromkeys(f"{place}: {problem}" for problem in wrong))
                continue
            for settings in [values | {"seed": seed} for seed in seeds] or [values]:
                resolved = Settings.model_validate(settings)
                runs.setdefault(resolved.identity, resolved)
        if problems:
            raise UserError(list(problems))
        return tuple(runs.values())

    def _place(self, *sections: str) -> str:
        """Where the file names the network, or else the first section: there a combination is impossible."""
        places = [(section, name) for section in sections for name in ("decoder", "encoder", "model")]
        return self._document.where(*next((place for place in places if place in self._document.marks), sections[:1]))


def _with_halves(combination: Mapping[str, Any]) -> dict[str, Any]:
    """A combination in which `model` stands as the encoder and decoder that it names."""
    if "model" not in combination:
        return dict(combination)
    encoder, decoder = names.split_model(combination["model"])
    rest = {key: value for key, value in combination.items() if key != "model"}
    return {"encoder": encoder, "decoder": decoder} | rest
