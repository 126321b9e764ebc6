"""Axes that are ranges, change together or depend on each other, against a reference that takes its time."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.settings import Overlays, Settings, overlay, problems_of
from greenseg.sweep.file import Sweep, read_sweep
from greenseg.sweep.grid import spread
from tests.conftest import times
from tests.settings.test_settings import MAPPINGS
from tests.sweep.test_file import Values, differing, mistakes, sweep

POOLS: dict[str, list[Any]] = {
    "precision": ["32-true", "16-mixed", "bf16-mixed"],
    "batch_size": [1, 2, 3],
    "workers": [0, 1],
    "epochs": [1, 2, 30],
    "schedule": ["cosine", "constant"],
}
UNITS = [("precision",), ("batch_size", "schedule"), ("workers",), ("epochs",)]

Branch = tuple[list[Values], Values]  # rows, and the condition: setting → values


@st.composite
def contents(draw: st.DrawFn, downward: bool) -> tuple[Values, list[list[Branch]], dict[tuple[str, ...], int]]:
    """A sweep file, and its axes as the reference takes them.

    Args:
        downward: axes depend only on axes above them.
    """
    units = draw(st.lists(st.sampled_from(UNITS), min_size=1, max_size=4, unique=True))
    rank = list(range(len(units))) if downward else draw(st.permutations(range(len(units))))
    grid: Values = {}
    axes: list[list[Branch]] = []
    for i, names in enumerate(units):
        others = [n for j, other in enumerate(units) if rank[j] < rank[i] for n in other]
        row = st.tuples(*(st.sampled_from(POOLS[name]) for name in names)).map(list)
        branches: list[Branch] = []
        written: list[Values] = []
        for _ in range(draw(st.integers(1, 2))):
            rows = draw(st.lists(row, min_size=1, max_size=3))
            when: Values = {}
            for name in others:
                if draw(st.booleans()):
                    when[name] = draw(st.lists(st.sampled_from(POOLS[name]), min_size=1, max_size=2))
            branches.append(([dict(zip(names, r, strict=True)) for r in rows], when))
            values: list[Any] = [r if len(names) > 1 else r[0] for r in rows]
            written.append({"values": values, **({"when": when} if when else {})})
        plain = len(written) == 1 and "when" not in written[0]
        grid[", ".join(names)] = written[0]["values"] if plain else written
        axes.append(branches)
    possible: dict[str, set[Any]] = {}
    for branches in axes:
        for rows_, _ in branches:
            for cell in rows_:
                for name, value in cell.items():
                    possible.setdefault(name, set()).add(value)
    for branches in axes:  # a condition may name only what the other axis can be
        for _, when in branches:
            for name in when:
                when[name][:] = [v for v in when[name] if v in possible[name]] or [min(possible[name], key=str)]
    settings_ = [name for names in units for name in names]
    pools = {name: st.sampled_from(POOLS[name]) for name in settings_}
    content: Values = {"grid": grid}
    content["exclude"] = draw(st.lists(st.fixed_dictionaries({}, optional=pools).filter(bool), max_size=4))
    content["include"] = draw(
        st.lists(
            st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in POOLS.items()}).filter(bool),
            max_size=3,
        )
    )
    content["seeds"] = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    return content, axes, {names: i for i, names in enumerate(units)}


def reference(content: Values, axes: list[list[Branch]]) -> tuple[list[Values], list[int], int]:
    """Runs, what each rule drops, and duplicates: every assignment of rows to axes, kept where it is consistent.

    An axis must have a row of a branch whose condition the rest of the assignment fulfils, or be absent where there is
    no such branch.
    """
    cells = []
    choices = [[None, *((b, r) for b, (rows, _) in enumerate(branches) for r in range(len(rows)))] for branches in axes]
    for choice in itertools.product(*choices):
        cell: Values = {}
        for branches, chosen in zip(axes, choice, strict=True):
            if chosen is not None:
                cell |= branches[chosen[0]][0][chosen[1]]
        consistent = True
        for branches, chosen in zip(axes, choice, strict=True):
            open_ = [
                b
                for b, (_, when) in enumerate(branches)
                if all(name in cell and cell[name] in values for name, values in when.items())
            ]
            consistent &= (chosen is None and not open_) or (chosen is not None and chosen[0] in open_)
        if consistent:
            cells.append(cell)
    dropped = [0] * len(content["exclude"])
    kept = []
    for cell in cells:
        for number, rule in enumerate(content["exclude"]):
            if all(name in cell and cell[name] == value for name, value in rule.items()):
                dropped[number] += 1
                break
        else:
            kept.append(cell)
    added: list[Values] = [{} for _ in kept]
    extra = []
    for entry in content["include"]:
        fitting = [i for i, cell in enumerate(kept) if all(cell.get(n, v) == v for n, v in entry.items())]
        for i in fitting:
            added[i] |= entry
        if not fitting:
            extra.append(entry)
    rows = [cell | more for cell, more in zip(kept, added, strict=True)] + extra
    everything = [{**Settings().resolved(), **row, "seed": seed} for row in rows for seed in content["seeds"]]
    runs: list[Values] = []
    for run in everything:
        if run not in runs:
            runs.append(run)
    return runs, dropped, len(everything) - len(runs)


@pytest.mark.parametrize("downward", [True, False])
@given(data=st.data())
@settings(deadline=None, max_examples=times(2))
def test_expansion_is_that_of_the_reference(
    downward: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, axes, _ = data.draw(contents(downward))
    runs, dropped, duplicates = reference(content, axes)
    file = tmp_path_factory.getbasetemp() / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    if not runs:
        with pytest.raises(UserError, match="exclude drops every combination"):
            read_sweep(file)
        return
    found = read_sweep(file)
    resolved = [run.resolved() for run in found.runs]
    if downward:
        assert resolved == runs
    key = repr
    assert sorted(resolved, key=key) == sorted(runs, key=key)
    assert [exclusion.combinations for exclusion in found.excluded] == dropped
    assert found.duplicates == duplicates
    file.write_text(yaml.safe_dump(content | {"order": "shuffled"}, sort_keys=False))
    shuffled = read_sweep(file)
    assert Counter(run.identity for run in shuffled.runs) == Counter(run.identity for run in found.runs)


@given(base=MAPPINGS, values=MAPPINGS)
@example(base={"encoder": "resnet18"}, values={"model": "mobilenet-fpn"})
@example(base={"model": "resnet18-fpn"}, values={"encoder": "", "decoder": "unet"})
@settings(deadline=None)
def test_settings_that_are_not_validated_again_are_those_that_are(base: Values, values: Values) -> None:
    from greenseg.settings import canonical

    expected = overlay(base, values)
    if problems_of(expected) or problems_of(base):
        return
    fast = Overlays(base).over({name: canonical(name, value) for name, value in values.items()})
    assert fast == Settings.of(expected)
    assert fast.identity == Settings.of(expected).identity
    assert fast.resolved() == Settings.of(expected).resolved()


# ── ranges


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("batch_size: {from: 8, to: 128, times: 2}", [8, 16, 32, 64, 128]),
        ("batch_size: {from: 8, to: 100, times: 2}", [8, 16, 32, 64]),
        ("batch_size: {from: 32, to: 8, times: 0.5}", [32, 16, 8]),
        ("batch_size: {from: 2, to: 8, step: 3}", [2, 5, 8]),
        ("batch_size: {from: 8, to: 2, step: -3}", [8, 5, 2]),
        ("batch_size: {from: 8, to: 8, step: 1}", [8]),
        ("lr: {from: 0.1, to: 0.5, step: 0.1}", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("lr: {from: 1e-4, to: 1, times: 10}", [0.0001, 0.001, 0.01, 0.1, 1.0]),
        ("lr: {from: 1, to: 2, step: 1}", [1.0, 2.0]),
    ],
)
def test_ranges(text: str, values: list[float], tmp_path: Path) -> None:
    name = text.partition(":")[0]
    found = [getattr(run, name) for run in sweep(tmp_path, f"grid: {{{text}}}").runs]
    assert found == values
    assert {type(value) for value in found} == {type(values[0])}


@given(
    st.integers(-1000, 1000) | st.decimals(-1000, 1000, places=3).map(float),
    st.integers(1, 300) | st.decimals("0.001", 300, places=3).map(float),
    st.integers(0, 50),
)
def test_a_range_by_steps_ends_where_it_says(first: float, step: float, count: int) -> None:
    last = first + step * count
    values = spread(first, last + step / 2, step=step)
    assert values[0] == first
    assert len(values) == count + 1
    assert values == pytest.approx([first + step * i for i in range(count + 1)])


# ── linked and dependent axes


def test_axes_that_change_together(tmp_path: Path) -> None:
    found = sweep(tmp_path, "grid:\n  batch_size, lr: [[16, 0.1], [32, 0.2]]\n  workers: [1, 2]\n")
    assert differing(found) == [
        {"batch_size": 16, "lr": 0.1, "workers": 1},
        {"batch_size": 16, "lr": 0.1, "workers": 2},
        {"batch_size": 32, "lr": 0.2, "workers": 1},
        {"batch_size": 32, "lr": 0.2, "workers": 2},
    ]
    assert found.varied == ("batch_size", "lr", "workers")


def test_an_axis_for_some_values_of_another(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        """
        base: {weight_decay: 0.5}
        grid:
          weight_decay: {values: [0, 0.1], when: {optimizer: [adam, lion]}}
          optimizer: [adam, sgd]
          lr:
            - {from: 0.1, to: 1, times: 10, when: {optimizer: sgd}}
            - {values: [0.002], when: {optimizer: adam}}
        """,
    )
    assert [(run.optimizer, run.weight_decay, run.lr) for run in found.runs] == [
        ("adam", 0.0, 0.002),
        ("adam", 0.1, 0.002),
        ("sgd", 0.5, 0.1),
        ("sgd", 0.5, 1.0),
    ]


# ── files to inherit from, options, how to run


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "sweep.yaml"


def read(folder: Path, *overrides: str, **files: str) -> Sweep:
    return read_sweep(write(folder, **files), overrides)


def refused(folder: Path, *overrides: str, **files: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(folder, *overrides, **files)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def test_base_takes_settings_from_other_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.yaml").write_text("epochs: 3\nlr: 1\nseed: 7\nencoder: resnet34\ndecoder: fpn\n")
    (tmp_path / "sub" / "other.yaml").write_text("base: [config.yaml, {lr: 2}]\ngrid: {workers: [1, 2]}\n")
    found = read(tmp_path, sweep="base: sub/other.yaml\nseeds: [1]\n")
    assert differing(found) == [{"epochs": 3, "lr": 2.0, "encoder": "resnet34", "decoder": "fpn", "seed": 1}]
    found = read(tmp_path, sweep="base: [sub/config.yaml, {model: resnet18-unet}]\n")
    assert differing(found) == [{"epochs": 3, "lr": 1.0, "encoder": "resnet18", "seed": 7}]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sweep": "base: nowhere.yaml"}, ["sweep.yaml:1:1: base: nowhere.yaml: no such file"]),
        ({"sweep": "base:\n- {lr: 1}\n- nowhere.yaml"}, ["sweep.yaml:3:3: base: nowhere.yaml: no such file"]),
        ({"sweep": 'base: "a\\0b"'}, ["sweep.yaml:1:1: base: 'a\\x00b' is not a file"]),
        ({"sweep": "base: []"}, ["sweep.yaml:1:1: base: the list is empty"]),
        (
            {"sweep": "base: sweep.yaml"},
            ["sweep.yaml:1:1: base: files inherit from each other in a circle: sweep.yaml → sweep.yaml"],
        ),
        (
            {"sweep": "base: a.yaml", "a": "base: b.yaml", "b": "# b\nbase: [{lr: 1}, a.yaml]"},
            ["b.yaml:2:17: base: files inherit from each other in a circle: a.yaml → b.yaml → a.yaml"],
        ),
        (
            {"sweep": "base: a.yaml\ngrid: {epoch: [1]}", "a": "lr: x\nepochz: 3"},
            [
                "a.yaml:1:1: lr: 'x' is neither a number nor auto",
                "a.yaml:2:1: unknown setting 'epochz' (did you mean 'epochs'?)",
                "sweep.yaml:2:8: unknown setting 'epoch' (did you mean 'epochs'?)",
            ],
        ),
        (
            {"sweep": "base: a.yaml", "a": "grid: {lr: [1]}"},
            ["sweep.yaml:1:1: base: a.yaml is a sweep without 'base'; only the base of a sweep is inherited"],
        ),
        ({"sweep": "base: a.yaml", "a": "- 1"}, ["a.yaml:1:1: base: must be a mapping of settings to values"]),
        ({"sweep": "base: a.yaml", "a": "lr: ["}, ["sweep.yaml:1:1: base: a.yaml:1:6: not valid YAML"]),
    ],
)
def test_what_is_wrong_with_a_file_to_inherit_from(files: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    problems = refused(tmp_path, **files)
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_options_go_over_base(tmp_path: Path) -> None:
    text = "base: {epochs: 3, model: resnet18-fpn}\ngrid: {lr: [1, 2]}\n"
    found = read(tmp_path, "epochs=5", "model=mobilenet-unet", "workers=2", sweep=text)
    assert [(run.epochs, run.model, run.workers) for run in found.runs] == [(5, "mobilenet_v2-unet", 2)] * 2


def test_what_is_wrong_with_options_is_said_with_everything_else(tmp_path: Path) -> None:
    text = "base: {epochs: x}\ngrid: {lr: [1, 2], model: [resnet-unet]}\ninclude: [{workers: 1}]\nseeds: [1]\n"
    problems = refused(
        tmp_path, "epochs=y", "epoch=3", "lr=1", "encoder=resnet", "workers=2", "seed=3", "compile", "data=[",
        sweep=text,
    )  # fmt: skip
    assert problems == [
        "sweep.yaml:1:8: epochs: 'x' is not a whole number",
        "--set epochs=y: epochs: 'y' is not a whole number",
        "--set epoch=3: unknown setting 'epoch' (did you mean 'epochs'?)",
        "--set lr=1: 'lr' is an axis of the grid; change it there",
        "--set encoder=resnet: 'encoder' is named by the axis 'model' of the grid; change it there",
        "--set workers=2: 'workers' is set by include 1; change it there",
        "--set seed=3: 'seed' is given by seeds; change it there",
        "--set compile: must be setting=value, such as epochs=5",
        "--set data=[: '[' is not valid YAML",
    ]


def test_how_to_run(tmp_path: Path) -> None:
    found = read(tmp_path, sweep="seeds: [0]\nretries: 2\ntimeout: 1h 30min\nmax_energy: 0.5 kWh\n")
    assert (found.retries, found.timeout, found.max_energy) == (2, 5400.0, 1.8e6)
    plain = read(tmp_path, sweep="seeds: [0]\n")
    assert (plain.retries, plain.timeout, plain.max_energy) == (0, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grid:\n  lr: {from: 1, to: 2}", ["2:3: lr: a range needs 'from', 'to', and one of 'step' and 'times'"]),
        ("grid:\n  lr: {from: 1, to: 2, step: 1, times: 2}", ["2:3: lr: a range needs"]),
        ("grid:\n  lr: {form: 1}", ["2:8: lr: unknown key 'form' (did you mean 'from'?); valid: from, to, step"]),
        ("grid:\n  lr: {from: a, to: true, step: .inf}", ["2:8: lr: from: 'a' is not a number", "2:17:", "2:27:"]),
        ("grid:\n  lr: {from: 1, to: 2, step: -1}", ["2:3: lr: 'step' -1 never leads from 1 to 2"]),
        ("grid:\n  lr: {from: 1, to: 2, times: 1}", ["2:3: lr: 'times' 1 never leads from 1 to 2"]),
        ("grid:\n  lr: {from: 0, to: 2, times: 2}", ["2:3: lr: a range with 'times' needs numbers above 0"]),
        ("grid:\n  lr: {from: 1, to: 2, step: 1e-9}", ["2:3: lr: more than 10000 values from 1 to 2"]),
        ("grid:\n  epochs: {from: 1, to: 9, step: 0.5}", ["2:12: epochs: 1.5 is not a whole number"]),
        ("grid:\n  lr: {values: 3}", ["2:8: lr: values: must be a list"]),
        ("grid:\n  lr: {values: [3], to: 3}", ["2:3: lr: has 'values' and 'to'; drop one of them"]),
        ("grid:\n  lr: {}", ["2:3: lr: needs 'values', or a range"]),
        (
            "grid:\n  lr: {when: {epochs: 1}}\n  epochs: [1]",
            ["2:3: lr: needs 'values', or a range"],
        ),
        ("grid:\n  lr, epochs: {from: 1, to: 2, step: 1}", ["2:3: lr, epochs: a range gives one value"]),
        ("grid:\n  lr, epochs: [[1, 2], 3, [4]]", ["2:24: lr, epochs: needs a list of 2 values", "2:27:"]),
        ("grid:\n  lr, epochs: [[1, x]]", ["2:20: epochs: 'x' is not a whole number"]),
        ("grid:\n  lr, epoch: [[1, 2]]", ["2:3: unknown setting 'epoch' (did you mean 'epochs'?)"]),
        ("grid:\n  lr, epochs: [[1, 2]]\n  lr: [1]", ["3:3: lr: is already an axis, 'lr, epochs'"]),
        (
            "grid:\n  lr: {values: [1], when: {epoch: 1}}\n  epochs: [1]",
            ["2:28: unknown setting 'epoch' (did you mean 'epochs'?)"],
        ),
        (
            "grid:\n  lr: {values: [1], when: {workers: 1}}\n  epochs: [1]",
            ["2:28: when: 'workers' is not an axis of the grid; axes: lr, epochs"],
        ),
        (
            "grid:\n  lr: {values: [1], when: {epochs: [2, 3]}}\n  epochs: [1]",
            ["2:28: when: the axis 'epochs' is never 2 or 3"],
        ),
        ("grid:\n  lr: {values: [1], when: 3}", ["2:21: lr: when: must be a mapping"]),
        ("grid:\n  lr: {values: [1], when: {epochs: []}}\n  epochs: [1]", ["2:28: when: epochs: the list is empty"]),
        (
            "grid:\n  lr: {values: [1], when: {epochs: 1}}\n  epochs: {values: [1], when: {lr: 1}}",
            ["1:1: grid: axes depend on each other in a circle: lr and epochs"],
        ),
        ("seeds: [1]\nretries: -1", ["2:1: retries: -1 is not a whole number of 0 or more"]),
        ("seeds: [1]\nretries: true", ["2:1: retries: True is not"]),
        ("seeds: [1]\ntimeout: 3 parsecs", ["2:1: timeout: '3 parsecs': no unit 'parsecs'"]),
        (f"seeds: [1]\ntimeout: 1{'0' * 400}", ["2:1: timeout: 1000"]),
        (f"seeds: [1]\ncool_down: 1{'0' * 400}", ["2:1: cool_down: seconds: 1000"]),
        (f"grid:\n  lr: {{from: 1, to: 1{'0' * 400}, times: 2}}", ["2:17: lr: to: 1000"]),
        ("seeds: [1]\ntimeout: 0", ["2:1: timeout: 0 is not a time such as 90, 30min or 2h, above 0"]),
        ("seeds: [1]\nmax_energy: 2 kwh", ["2:1: max_energy: '2 kwh': no unit 'kwh' (did you mean 'kWh'?)"]),
        ("seeds: [1]\nmax_energy: [2]", ["2:1: max_energy: [2] is not an energy such as 5000, 500 kJ or 2 kWh"]),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, expected: list[str], tmp_path: Path) -> None:
    problems = mistakes(tmp_path, text)
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)
