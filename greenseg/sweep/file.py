"""Reads a sweep file: its settings, all its problems with their places, and the runs that it expands to.

    name: precision                 # default: the name of the file
    base: {epochs: 50}              # any setting; or other.yaml, to use its base; or a list of both
    grid:                           # every combination of these axes
      precision: [32-true, bf16-mixed]
      batch_size: {from: 8, to: 32, times: 2}
      encoder, lr: [[mobilenet, 3e-3], [resnet18, 1e-3]]              # these change together
      compile: {values: [true, false], when: {precision: 32-true}}    # an axis for some combinations only
    exclude:                        # drop combinations that match all the keys of an entry
      - {precision: bf16-mixed, batch_size: 16}
    include:                        # add settings to matching combinations, else add a combination
      - {precision: bf16-mixed, batch_size: 32, compile: true}
    seeds: [0, 1, 2]                # train each combination once per seed
    order: shuffled                 # default: listed; a fixed shuffle over configurations and seeds
    cool_down: {temperature: 50, seconds: 300}   # before every run, wait until the GPUs are at 50 °C, at most 300 s
    retries: 1                      # number of times to repeat a failed run at once
    timeout: 2h                     # of one run
    max_energy: 2 kWh               # afterwards, no new run starts
    measure: true                   # after all runs, measure prediction with each network, one after the other;
                                    # or {seconds: 60, accelerator: cpu}
    keep: front                     # networks to keep; default: best, those of all runs
    search: halving                 # pause runs that cannot be on the front;
                                    # or {method: halving, budget: 25 %, seed: 0};
                                    # or {method: optuna, configurations: 60} draws configurations, also from ranges
                                    # such as lr: {from: 1e-4, to: 1e-1, log: true}
    slurm: {partition: gpu, time: 4h, gpus_per_node: 1, array: 20}   # for --launcher slurm

`include` and `exclude` work as in a matrix of GitHub Actions: first `exclude` drops combinations, then each entry of
`include` is added to every combination whose axes it does not contradict. If it contradicts all, it becomes a new
combination.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from greenseg import quantity
from greenseg.errors import UserError, did_you_mean
from greenseg.launchers import LAUNCHERS
from greenseg.machine.cool_down import CoolDown
from greenseg.settings import CONSTRAINTS, Settings, violations
from greenseg.sweep.axes import AxesReader
from greenseg.sweep.findings import Findings, Layer
from greenseg.sweep.grid import Axis, Expansion, Space, Values, expand
from greenseg.yamlfile import Document, Key, load, parse

KEYS = (
    "name", "base", "grid", "exclude", "include", "seeds", "order", "cool_down", "retries", "timeout", "max_energy",
    "measure", "keep", "search", *(name for name, launcher in LAUNCHERS.items() if launcher.OPTIONS),
)  # fmt: skip
ORDERS = ("listed", "shuffled")
KEEP = ("best", "front", "all", "none")
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"


Places = tuple[Mapping[tuple[str, Any], str], ...]
"""(setting, value) → its place: under grid, in each entry of include, under base or in an option."""


def find_place(places: Places, run: Settings, settings: Sequence[str]) -> str | None:
    """The place that gives a run its values of these settings; None if no place names them."""
    pairs = [(name, getattr(run, name)) for name in settings]
    return next((said[pair] for said in places for pair in pairs if pair in said), None)


@dataclass(frozen=True)
class Exclusion:
    """A rule of `exclude`: its place, its settings, and the number of combinations that it dropped (as the first)."""

    place: str
    rule: Values
    combinations: int


ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Measuring:
    """How prediction is measured after the last run.

    Attributes:
        seconds: length of a window; None for the default.
        accelerator: one of `ACCELERATORS`.
    """

    seconds: float | None = None
    accelerator: str = "auto"


METHODS = ("none", "halving", "optuna")
SAMPLERS = ("tpe", "random", "nsga2")
OBJECTIVES = ["dice", "total"]
_SEARCH_KEYS = {
    "halving": ("method", "budget", "objectives", "seed"),
    "optuna": ("method", "sampler", "configurations", "budget", "objectives", "seed"),
}


@dataclass(frozen=True)
class Searching:
    """How a sweep searches for the front instead of training every run to its end; see `greenseg.search`.

    Attributes:
        method: one of `METHODS` but `none`.
        joules: joules after which no further step is taken; None for no such limit.
        share: the same as a share of the predicted joules of the whole grid.
        seed: seed of all random choices.
        sampler: what draws configurations, one of `SAMPLERS`; empty if none are drawn.
        configurations: number of configurations to draw.
    """

    method: str = "halving"
    joules: float | None = None
    share: float | None = None
    seed: int = 0
    sampler: str = ""
    configurations: int = 0


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, its runs, and the rules for running them.

    Attributes:
        name: name of the sweep.
        runs: settings of every run, in their order, without duplicates.
        order: one of `ORDERS`.
        cool_down: pause before every run, or None.
        retries: number of times to repeat a run after a failure that may be accidental.
        timeout: seconds for one attempt at a run; None for no limit.
        max_energy: joules of all its runs after which no new run starts; None for no limit.
        measure: how to measure prediction with all networks after the last run; None to not measure it.
        keep: checkpoints of finished runs to keep, one of `KEEP`: `best` networks; the networks on the `front`, or
            `none`, after the last run and the last measurement; `all`, with the last checkpoints.
        search: how to search for the front; None to train every run to its end.
        space: what a search draws configurations from; then `runs` has only those drawn so far.
        launching: launcher → its options, in canonical form.
        resolved: content of the file as plain values, without other files, options and launchers.
        excluded: dropped combinations per rule of `exclude`.
        duplicates: number of runs merged with an equal run.
        varied: settings that may differ between runs, in the order of the file.
        places: for `find_place`.
    """

    name: str
    runs: tuple[Settings, ...]
    order: str = "listed"
    cool_down: CoolDown | None = None
    retries: int = 0
    timeout: float | None = None
    max_energy: float | None = None
    measure: Measuring | None = None
    keep: str = "best"
    search: Searching | None = None
    space: Space | None = None
    launching: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    resolved: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    excluded: tuple[Exclusion, ...] = ()
    duplicates: int = 0
    varied: tuple[str, ...] = field(default=(), compare=False)
    places: Places = field(default=(), repr=False, compare=False)


def _nothing(sweep: Sweep) -> Iterable[str]:
    return ()


def read_sweep(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    search: str | None = None,
    further: Callable[[Sweep], Iterable[str]] = _nothing,
) -> Sweep:
    """Read a sweep file and expand it.

    Args:
        path: path of the file.
        overrides: `setting=value`, with the value in YAML; they override `base`.
        search: overrides the method of `search`.
        further: called if some runs are not valid; returns more problems of the runs, to report all at once.

    Raises:
        UserError: all problems, each with file, line and column.
    """
    sweep, impossible = _Reader(load(path), overrides, search).sweep()
    if impossible:
        raise UserError([*impossible, *further(sweep)])
    return sweep


def _budget(value: Any) -> tuple[float | None, float | None]:
    """Joules, or a share of those of the grid, from a number of joules, a text such as `2 MJ`, or one such as `25 %`.

    Raises:
        ValueError: it is none of these, or not above 0, or above 100 %.
    """
    if not isinstance(value, str) or not value.rstrip().endswith("%"):
        return quantity.joules(value), None
    try:
        share = float(value.rstrip()[:-1])
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        raise ValueError(f"{value!r} is not a share above 0 % and up to 100 %")
    return None, share / 100


class _Reader:
    def __init__(self, document: Document, overrides: Sequence[str] = (), search: str | None = None) -> None:
        self._document = document
        self._overrides = overrides
        self._search = search
        self._found = Findings(document)
        self._axes = AxesReader(self._found)

    def sweep(self) -> tuple[Sweep, list[str]]:
        """The sweep, and the problems of its combinations that are not valid, each once, with its place."""
        content = self._document.value
        if not isinstance(content, dict) or not content:
            raise UserError(f"{self._document.where()}: a sweep is a mapping with the keys {', '.join(KEYS)}")
        for key in content:
            if key not in KEYS:
                hint = did_you_mean(str(key), KEYS)
                if not hint and str(key) in Settings.model_fields:
                    hint = " (a setting; it belongs under 'base' or 'grid')"
                self._found.report((key,), f"unknown key '{key}'{hint}; valid: {', '.join(KEYS)}")
        name = content.get("name", self._document.path.stem)
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            valid = "letters, digits, '_', '.' and '-'"
            if "name" in content:
                message = f"name: {name!r} is not a name of {valid}"
            else:
                like = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("_.-") or "sweep"
                message = f"the file name cannot name the sweep, which needs {valid}; add `name: {like}`"
            self._found.report(("name",), message)
        base = self._base(self._document, ()) if "base" in content else Layer()
        axes = self._axes.read(content["grid"]) if "grid" in content else []
        exclude = [self._rule(("exclude", i), rule) for i, rule in enumerate(self._list(content, "exclude"))]
        include = [self._found.settings(("include", i), e) for i, e in enumerate(self._list(content, "include"))]
        seeds = self._seeds(content, include)
        base = base.under(self._overriding(axes, include, bool(seeds)))
        order = content.get("order", "listed")
        if order not in ORDERS:
            hint = did_you_mean(str(order), ORDERS)
            self._found.report(("order",), f"order: {order!r} is not valid{hint}; valid: {', '.join(ORDERS)}")
        cool_down = self._cool_down(content["cool_down"]) if "cool_down" in content else None
        retries = content.get("retries", 0)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            self._found.report(("retries",), f"retries: {retries!r} is not a whole number of 0 or more")
        timeout = self._quantity(content, "timeout", quantity.seconds)
        max_energy = self._quantity(content, "max_energy", quantity.joules)
        measure = self._measuring(content.get("measure", False))
        keep = content.get("keep", "best")
        if keep not in KEEP:
            hint = did_you_mean(str(keep), KEEP)
            self._found.report(("keep",), f"keep: {keep!r} is not valid{hint}; valid: {', '.join(KEEP)}")
        search = self._searching(content.get("search", "none"))
        launching = {key: self._launcher(key, content[key]) for key in LAUNCHERS if key in content and key in KEYS}
        drawn = search is not None and search.method == "optuna"
        if drawn:
            self._check_drawn(content, axes)
        else:
            self._check_ranges(axes)
        if self._found.problems:
            raise UserError(self._found.problems)
        places = self._places(axes, include, base)
        space = Space(base.values, tuple(axes), tuple(seeds)) if drawn else None
        found = (
            Expansion([], [], 0)
            if space
            else expand(base.values, axes, [rule.values for rule in exclude], [e.values for e in include], seeds)
        )
        if not found.runs and not space:
            raise UserError(f"{self._document.where('exclude')}: exclude drops every combination; no run is left")
        impossible = [
            f"{find_place(places, run, constraint.settings) or self._document.where('grid')}: {message}"
            for run, constraint, message in violations(CONSTRAINTS, found.runs)
        ]
        if search:
            single = [space.runs(row)[0] for axis in axes for row in axis.rows({})] if space else found.runs
            impossible += self._not_searched(single, places)
        runs = found.runs
        seeds_vary = ["seed"] if seeds else []
        if order == "shuffled":
            # Spreads drift of the machine over all configurations. A resumed sweep has the same order.
            random.Random(str(name)).shuffle(runs)
        excluded = [
            Exclusion(self._document.where("exclude", i), rule.values, found.dropped[i])
            for i, rule in enumerate(exclude)
        ]
        sweep = Sweep(
            str(name),
            tuple(runs),
            order=str(order),
            cool_down=cool_down,
            retries=retries,
            timeout=timeout,
            max_energy=max_energy,
            measure=measure,
            keep=str(keep),
            search=search,
            space=space,
            launching=launching,
            resolved=self._resolved(content, str(name), base, bool(seeds)),
            excluded=tuple(excluded),
            duplicates=found.duplicates,
            varied=tuple(
                dict.fromkeys([*self._axes.labels, *(name for e in include for name in e.values), *seeds_vary])
            ),
            places=places,
        )
        return sweep, list(dict.fromkeys(impossible))

    def _not_searched(self, runs: Iterable[Settings], places: Places) -> list[str]:
        """Why a search cannot take some of the runs, with the place; each message once."""
        derived = ("prune", "quantize", "runtime")
        return list(
            dict.fromkeys(
                f"{find_place(places, run, derived) or self._document.where('search')}: a search takes no runs that "
                f"compress or convert another one, since they need its finished network; sweep them afterwards, or use "
                f"`--search none`"
                for run in runs
                if run.prune or run.converts
            )
        )

    def _resolved(self, content: Mapping[str, Any], name: str, base: Layer, seeds: bool) -> dict[str, Any]:
        """The content of a file with the same runs that needs neither other files nor options."""
        values = {key: value for key, value in base.values.items() if not (seeds and key == "seed")}
        found: dict[str, Any] = {"name": name, "base": values} if values else {"name": name}
        found |= {key: value for key, value in content.items() if key not in (*found, "base", *LAUNCHERS)}
        if self._search is not None:
            given = content.get("search", {})
            method = {"method": self._search}
            found["search"] = given | method if isinstance(given, dict) and self._search != "none" else self._search
        return found

    # ── parts of the file

    def _list(self, content: Mapping[str, Any], key: str) -> list[Any]:
        value = content.get(key, [])
        if isinstance(value, list):
            return value
        self._found.report((key,), f"{key}: must be a list of mappings, each line beginning with '- '")
        return []

    def _base(self, document: Document, inheriting: tuple[Path, ...]) -> Layer:
        """The settings under `base`: settings, a file, or a list of both, where later entries override earlier ones."""
        base = document.value["base"]
        if not isinstance(base, list):
            return self._layer(document, ("base",), base, inheriting)
        if not base:
            self._found.report(("base",), "base: the list is empty", document)
        layers = [self._layer(document, ("base", i), part, inheriting) for i, part in enumerate(base)]
        joined = Layer()
        for layer in layers:
            joined = joined.under(layer)
        return joined

    def _layer(self, document: Document, key: Key, part: Any, inheriting: tuple[Path, ...]) -> Layer:
        if not isinstance(part, str):
            return self._found.settings(key, part, document)
        chain = (*inheriting, document.path.resolve())
        path = document.path.parent / part
        try:
            resolved = path.resolve()
        except (ValueError, OSError, RuntimeError):  # a null byte, a loop of links
            self._found.report(key, f"base: {part!r} is not a file", document)
            return Layer()
        if resolved in chain:
            circle = " → ".join(p.name for p in (*chain[chain.index(resolved) :], path))
            self._found.report(key, f"base: files inherit from each other in a circle: {circle}", document)
            return Layer()
        try:
            other = load(path)
        except UserError as error:
            where = document.where(*key)
            self._found.problems += [f"{where}: base: {problem}" for problem in error.problems]
            return Layer()
        if not isinstance(other.value, dict) or not set(KEYS) & other.value.keys():  # settings, as in a config.yaml
            return self._found.settings((), other.value, other)
        if "base" not in other.value:
            self._found.report(
                key, f"base: {path} is a sweep without 'base'; only the base of a sweep is inherited", document
            )
            return Layer()
        return self._base(other, chain)

    def _overriding(self, axes: list[Axis], include: list[Layer], seeds: bool) -> Layer:
        """The settings from options `--set`."""
        varied = {name: "an axis of the grid" for axis in axes for name in axis.settings}
        if "model" in varied:
            varied |= dict.fromkeys(("encoder", "decoder"), "named by the axis 'model' of the grid")
        for number, entry in enumerate(include, 1):
            varied |= {name: f"set by include {number}" for name in entry.values if name not in varied}
        if seeds:
            varied["seed"] = "given by seeds"
        layer = Layer()
        for override in self._overrides:
            place = f"--set {override}"
            name, equals, text = override.partition("=")
            try:
                if not equals:
                    raise ValueError("must be setting=value, such as epochs=5")
                value = parse(text)
                if name in varied:
                    raise ValueError(f"'{name}' is {varied[name]}; change it there")
            except ValueError as error:
                self._found.problems.append(f"{place}: {error}")
                continue
            layer.values[name] = self._found.value_at(place, name, value)
            layer.places[name] = place
        return layer

    def _rule(self, key: Key, value: Any) -> Layer:
        rule = self._found.settings(key, value)
        axes = list(self._axes.labels)
        for name in rule.values:
            if name in Settings.model_fields and name not in axes:
                hint = did_you_mean(name, axes)
                valid = f"axes: {', '.join(axes)}" if axes else "there is no grid"
                self._found.report((*key, name), f"exclude: '{name}' is not an axis of the grid{hint}; {valid}")
        return rule

    def _seeds(self, content: Mapping[str, Any], include: list[Layer]) -> list[int]:
        if "seeds" not in content:
            return []
        base = content.get("base")
        own = [part for part in (base if isinstance(base, list) else [base]) if isinstance(part, dict)]
        # An inherited seed does not count: every run's config.yaml names its seed.
        given = [("base", part) for part in own] + [("grid", self._axes.labels)]
        for where, settings in (*given, *((f"include {i + 1}", entry.values) for i, entry in enumerate(include))):
            if "seed" in settings:
                self._found.report(("seeds",), f"seeds: 'seed' is also set under {where}; drop one of them")
        seeds = content["seeds"]
        if not isinstance(seeds, list) or not seeds:
            self._found.report(("seeds",), "seeds: must be a list of one or more whole numbers, such as [0, 1, 2]")
            return []
        return [self._found.value(("seeds", i), "seed", seed) for i, seed in enumerate(seeds)]

    def _cool_down(self, value: Any) -> CoolDown | None:
        numbers = value if isinstance(value, dict) else {"seconds": value}
        for key, number in numbers.items():
            place = ("cool_down", key) if isinstance(value, dict) else ("cool_down",)
            if key not in ("seconds", "temperature"):
                self._found.report(place, f"cool_down: unknown key '{key}'; valid: seconds, temperature")
            elif not quantity.is_number(number) or number <= 0:
                self._found.report(place, f"cool_down: {key}: {number!r} is not a number above 0")
        if "seconds" not in numbers:
            self._found.report(("cool_down",), "cool_down: needs 'seconds', the longest pause")
        if self._found.problems:
            return None
        return CoolDown(float(numbers["seconds"]), numbers.get("temperature"))

    def _measuring(self, value: Any) -> Measuring | None:
        if isinstance(value, bool):
            return Measuring() if value else None
        keys = ("seconds", "accelerator")
        if not isinstance(value, dict):
            self._found.report(
                ("measure",), f"measure: {value!r} is not true, false or a mapping with {' and '.join(keys)}"
            )
            return None
        for key in value:
            if key not in keys:
                hint = did_you_mean(str(key), keys)
                self._found.report(("measure", key), f"measure: unknown key '{key}'{hint}; valid: {', '.join(keys)}")
        seconds: Any = value.get("seconds")
        accelerator = value.get("accelerator", "auto")
        if "seconds" in value and (not quantity.is_number(seconds) or seconds <= 0):
            self._found.report(("measure", "seconds"), f"measure: seconds: {seconds!r} is not a number above 0")
        if accelerator not in ACCELERATORS:
            hint = did_you_mean(str(accelerator), ACCELERATORS)
            self._found.report(
                ("measure", "accelerator"),
                f"measure: accelerator: {accelerator!r} is not valid{hint}; valid: {', '.join(ACCELERATORS)}",
            )
        return Measuring(seconds, accelerator)

    def _launcher(self, name: str, value: Any) -> dict[str, Any]:
        """The options of a launcher."""
        options = LAUNCHERS[name].OPTIONS
        valid = [key for key, option in options.items() if option.schema is not None]
        found: dict[str, Any] = {}
        if not isinstance(value, dict):
            self._found.report((name,), f"{name}: must be a mapping with keys of {', '.join(valid)}")
            return found
        for key, given in value.items():
            if key not in options:
                hint = did_you_mean(str(key), valid)
                self._found.report((name, key), f"{name}: unknown key '{key}'{hint}; valid: {', '.join(valid)}")
                continue
            try:
                found[key] = options[key].read(given)
            except ValueError as error:
                self._found.report((name, key), f"{name}: {key}: {error}")
        return found

    def _searching(self, value: Any) -> Searching | None:
        given = dict(value) if isinstance(value, dict) else {"method": value}
        within = ("search",) if isinstance(value, dict) else ()

        def report(key: str, message: str) -> None:
            self._found.report((*within, key) if within else ("search",), f"search: {message}")

        method = given.get("method", "halving")
        if method not in METHODS:
            hint = did_you_mean(str(method), METHODS)
            report("method", f"{method!r} is not a method{hint}; valid: {', '.join(METHODS)}")
        if self._search is not None:
            method = self._search
            if method not in METHODS:
                hint = did_you_mean(method, METHODS)
                valid = ", ".join(METHODS)
                self._found.problems.append(f"--search {method}: not a method{hint}; valid: {valid}")
        every = list(dict.fromkeys(key for keys in _SEARCH_KEYS.values() for key in keys))
        valid_keys = _SEARCH_KEYS.get(str(method), every)
        for key in given:
            if key not in valid_keys:
                hint = did_you_mean(str(key), valid_keys)
                what = f"'{key}' is not valid with method {method}" if key in every else f"unknown key '{key}'{hint}"
                report(key, f"{what}; valid: {', '.join(valid_keys)}")
        joules, share = None, None
        if "budget" in given:
            try:
                joules, share = _budget(given["budget"])
            except ValueError as error:
                report("budget", f"budget: {error}")
        if given.get("objectives", OBJECTIVES) != OBJECTIVES:
            report("objectives", f"objectives: {given['objectives']!r} is not valid; valid: {OBJECTIVES}")
        seed: Any = given.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            report("seed", f"seed: {seed!r} is not a whole number of 0 or more")
        if method == "none":
            return None
        sampler, configurations = self._drawing(given, share, report) if method == "optuna" else ("", 0)
        return Searching(str(method), joules, share, seed, sampler, configurations)

    def _drawing(
        self, given: Mapping[str, Any], share: float | None, report: Callable[[str, str], None]
    ) -> tuple[str, int]:
        """The sampler and the number of configurations of a search that draws them."""
        if find_spec("optuna") is None:
            report("method", "method optuna needs optuna: pip install 'greenseg[search]'")
        if share is not None:
            report("budget", "budget: with method optuna, there is no grid to take a share of; give joules, or 2 MJ")
        sampler = given.get("sampler", SAMPLERS[0])
        if sampler not in SAMPLERS:
            hint = did_you_mean(str(sampler), SAMPLERS)
            report("sampler", f"sampler: {sampler!r} is not valid{hint}; valid: {', '.join(SAMPLERS)}")
        number: Any = given.get("configurations")
        if "configurations" not in given:
            report("configurations", "method optuna needs 'configurations', the number of configurations to draw")
        elif isinstance(number, bool) or not isinstance(number, int) or number < 1:
            report("configurations", f"configurations: {number!r} is not a whole number of 1 or more")
        return str(sampler), number

    def _check_ranges(self, axes: Iterable[Axis]) -> None:
        """Report ranges that a grid cannot have."""
        for axis in axes:
            if axis.between:
                label = self._axes.labels[axis.settings[0]]
                option = f"--search {self._search}: " if self._search else ""
                self._found.report(
                    ("grid", label),
                    f"{option}{label}: a range with 'log' has too many values for a grid; only `method: optuna` under "
                    f"'search' draws from it; else give 'step' or 'times' instead of 'log', or a list",
                )

    def _check_drawn(self, content: Mapping[str, Any], axes: Sequence[Axis]) -> None:
        """Report parts of the file that configurations cannot be drawn from."""
        if "grid" not in content:
            self._found.report(("search",), "search: method optuna needs 'grid', the axes to draw from")
        for key in ("exclude", "include"):
            if key in content:
                self._found.report(
                    (key,), f"{key}: not valid with method optuna, which draws from axes alone; tie settings that "
                    f"belong together in one axis, such as `optimizer, lr: [[sgd, 1e-2], [adamw, 1e-3]]`",
                )  # fmt: skip
        for axis in axes:
            label = self._axes.labels[axis.settings[0]]
            if any(branch.when for branch in axis.branches):
                self._found.report(
                    ("grid", label), f"{label}: 'when' is not valid with method optuna, which draws from every axis; "
                    f"tie settings that belong together in one axis",
                )  # fmt: skip
            if "seed" in axis.settings:
                self._found.report(
                    ("grid", label), f"{label}: method optuna draws no seeds; list them under 'seeds', and every "
                    f"configuration runs with each of them",
                )  # fmt: skip

    def _quantity(self, content: Mapping[str, Any], key: str, read: Callable[[Any], float]) -> float | None:
        if key not in content:
            return None
        try:
            return read(content[key])
        except ValueError as error:
            self._found.report((key,), f"{key}: {error}")
            return None

    def _places(self, axes: list[Axis], include: list[Layer], base: Layer) -> Places:
        grid: dict[tuple[str, Any], str] = {}
        for axis in axes:
            place = self._document.where("grid", self._axes.labels[axis.settings[0]])
            grid |= {pair: place for branch in axis.branches for row in branch.rows for pair in row.items()}
        others = [
            {(name, layer.values[name]): layer.places[name] for name in layer.values} for layer in (*include, base)
        ]
        return (grid, *others)
