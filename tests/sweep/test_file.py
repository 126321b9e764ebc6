"""Sweep files: what they expand to, and what is wrong with them where."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.settings import Settings
from greenseg.sweep.file import Sweep, read_sweep
from tests.conftest import times

Values = dict[str, Any]


def sweep(folder: Path, text: str) -> Sweep:
    file = folder / "sweep.yaml"
    file.write_text(text)
    return read_sweep(file)


def mistakes(folder: Path, text: str) -> list[str]:
    """What is said of a sweep file, without the path of the file: `line:column: message`."""
    with pytest.raises(UserError) as caught:
        sweep(folder, text)
    start = f"{folder / 'sweep.yaml'}:"
    assert all(problem.startswith(start) for problem in caught.value.problems)
    return [problem.removeprefix(start) for problem in caught.value.problems]


def differing(found: Sweep) -> list[Values]:
    """The settings of each run that are not the defaults."""
    defaults = Settings().resolved()
    return [{k: v for k, v in run.resolved().items() if v != defaults[k]} for run in found.runs]


# ── expansion


def test_every_combination_of_the_axes_for_every_seed(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        """
        base: {epochs: 50}
        grid:
          precision: [16-mixed, bf16-mixed]
          batch_size: [16, 32]
        seeds: [1, 2]
        """,
    )
    assert found.name == "sweep"
    assert differing(found) == [
        {"epochs": 50, "precision": precision, "batch_size": size, "seed": seed}
        for precision in ("16-mixed", "bf16-mixed")
        for size in (16, 32)
        for seed in (1, 2)
    ]


SWEEPS = Path(__file__).parents[2] / "sweeps"
COUNTS = {
    "batch_size": 21, "compile": 8, "compress": 39, "demo": 4, "distill": 6, "encoders": 24, "light_networks": 32,
    "optimizers": 63, "paper": 48, "power_limit": 12, "precision": 18, "strategy": 12, "workers": 12,
}  # fmt: skip


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_sweeps_that_come_with_greenseg(file: Path) -> None:
    found = read_sweep(file)
    assert found.name == file.stem
    assert len(found.runs) == COUNTS[file.stem]
    assert f" {COUNTS[file.stem]} runs" in file.read_text(encoding="utf-8"), "its head tells the size"


def test_base_alone_is_one_run(tmp_path: Path) -> None:
    assert differing(sweep(tmp_path, "base: {epochs: 2}")) == [{"epochs": 2}]
    assert differing(sweep(tmp_path, "base: {epochs: 2}\nseeds: [1, 2]")) == [
        {"epochs": 2, "seed": 1},
        {"epochs": 2, "seed": 2},
    ]
    assert sweep(tmp_path, "name: other.name_1\nseeds: [0]") == Sweep("other.name_1", (Settings(),))


def test_exclude_drops_combinations_that_match_all_its_keys(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        """
        grid: {precision: [16-mixed, bf16-mixed], batch_size: [16, 32], workers: [1, 2]}
        exclude:
          - {precision: bf16-mixed, batch_size: 16}
          - workers: 2
        """,
    )
    assert differing(found) == [
        {"precision": "16-mixed", "batch_size": 16, "workers": 1},
        {"precision": "16-mixed", "batch_size": 32, "workers": 1},
        {"precision": "bf16-mixed", "batch_size": 32, "workers": 1},
    ]


def test_include_means_what_it_means_in_github_actions(tmp_path: Path) -> None:
    """The example of their documentation, with precision for fruit and optimizer for animal."""
    found = sweep(
        tmp_path,
        """
        grid:
          precision: [16-mixed, bf16-mixed]     # apple, pear
          optimizer: [adam, sgd]                # cat, dog
        include:
          - schedule: cosine                    # color: green
          - schedule: constant                  # color: pink
            optimizer: adam
          - {precision: 16-mixed, augment: flips}
          - precision: 16-true                  # banana
          - {precision: 16-true, optimizer: adam}
        """,
    )
    assert differing(found) == [
        {"precision": "16-mixed", "optimizer": "adam", "schedule": "constant", "augment": "flips"},
        {"precision": "16-mixed", "optimizer": "sgd", "schedule": "cosine", "augment": "flips"},
        {"precision": "bf16-mixed", "optimizer": "adam", "schedule": "constant"},
        {"precision": "bf16-mixed", "optimizer": "sgd", "schedule": "cosine"},
        {"precision": "16-true"},
        {"precision": "16-true", "optimizer": "adam"},
    ]


def test_include_is_applied_after_exclude(tmp_path: Path) -> None:
    found = sweep(tmp_path, "grid: {epochs: [1, 2]}\nexclude: [{epochs: 1}, {epochs: 2}]\ninclude: [{epochs: 1}]")
    assert differing(found) == [{"epochs": 1}]


def test_include_without_a_grid_lists_the_runs(tmp_path: Path) -> None:
    found = sweep(tmp_path, "base: {lr: 1}\ninclude:\n- {epochs: 1, lr: 2}\n- {epochs: 2}\n")
    assert differing(found) == [{"epochs": 1, "lr": 2.0}, {"epochs": 2, "lr": 1.0}]


def test_combinations_that_are_the_same_are_one_run(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        """
        grid: {encoder: [mobilenet, mobilenet_v2, resnet, resnet18], lr: [1, 1.0, 1e0]}
        include: [{encoder: resnet18, epochs: 30}]
        seeds: [0, 0]
        """,
    )
    assert [run.encoder for run in found.runs] == ["mobilenet_v2", "resnet18"]


@pytest.mark.parametrize(
    ("axis", "dropped"),
    [
        ("encoder: [ResNet, mobilenet]", "encoder: resnet18"),
        ("decoder: [unet, FPN]", "decoder: fpn"),
        ("model: [resnet-unet, mobilenet-unet]", "model: resnet18-unet"),
        ("data: [./a/, phantom]", "data: a"),
        ("lr: [1, 2]", "lr: 1.0"),
    ],
)
def test_exclude_compares_what_is_meant_not_what_is_written(axis: str, dropped: str, tmp_path: Path) -> None:
    found = sweep(tmp_path, f"grid: {{{axis}}}\nexclude: [{{{dropped}}}]")
    assert len(found.runs) == 1


@pytest.mark.parametrize(
    ("base", "axis", "dropped"),
    [
        ("encoder: tu-resnet18", "decoder: [DPT, FPN]", "decoder: dpt"),
        ("decoder: unet", "model: [MIT-linknet, resnet18-unet]", "model: mit_b0-linknet"),
    ],
)
def test_exclude_compares_what_is_meant_even_if_it_does_not_go_with_the_defaults(
    base: str, axis: str, dropped: str, tmp_path: Path
) -> None:
    found = sweep(tmp_path, f"base: {{{base}}}\ngrid: {{{axis}}}\nexclude: [{{{dropped}}}]")
    assert len(found.runs) == 1


def test_a_model_in_the_grid_replaces_the_halves_of_base(tmp_path: Path) -> None:
    text = "base: {encoder: resnet34, decoder: fpn}\ngrid: {model: [resnet18-unet, mobilenet-linknet]}"
    assert [run.model for run in sweep(tmp_path, text).runs] == ["resnet18-unet", "mobilenet_v2-linknet"]


def test_halves_in_the_grid_go_over_the_model_of_base(tmp_path: Path) -> None:
    text = "base: {model: resnet34-fpn}\ngrid: {encoder: [resnet18, ''], decoder: [unet, '']}"
    assert [run.model for run in sweep(tmp_path, text).runs] == [
        "resnet18-unet", "resnet18-fpn", "resnet34-unet", "resnet34-fpn",
    ]  # fmt: skip


def test_a_model_in_include_is_refused_or_trained_as_it_is_named(tmp_path: Path) -> None:
    """An axis of encoders must not quietly turn it into another network."""
    text = "grid: {encoder: [mobilenet, resnet34]}\ninclude: [{model: resnet18-fpn, epochs: 5}]"
    with contextlib.suppress(UserError):
        models = [run.model for run in sweep(tmp_path, text).runs]
        assert models == ["mobilenet_v2-unet", "resnet34-unet", "resnet18-fpn"]


# ── expansion, against a reference that takes its time

_POOLS: dict[str, list[Any]] = {
    "precision": ["32-true", "16-mixed", "bf16-mixed"],
    "batch_size": [1, 2, 3],
    "workers": [0, 1],
    "epochs": [1, 2, 30],
}


def some(least: int = 0) -> st.SearchStrategy[Values]:
    pools = {name: st.sampled_from(values) for name, values in _POOLS.items()}
    return st.fixed_dictionaries({}, optional=pools).filter(lambda values: len(values) >= least)


@st.composite
def sweeps(draw: st.DrawFn) -> Values:
    axes = {name: st.lists(st.sampled_from(values), min_size=1, max_size=3) for name, values in _POOLS.items()}
    grid = draw(st.fixed_dictionaries({}, optional=axes))
    content: Values = {"grid": grid, "base": draw(some())}
    if grid:
        pools = {name: st.sampled_from(_POOLS[name]) for name in grid}
        rules = st.fixed_dictionaries({}, optional=pools).filter(bool)
        content["exclude"] = draw(st.lists(rules, max_size=3))
    content["include"] = draw(st.lists(some(least=1), max_size=4))
    content["seeds"] = draw(st.lists(st.integers(0, 2), max_size=3))
    return {key: value for key, value in content.items() if value} or {"seeds": [0]}


def reference(
    base: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    exclude: Sequence[Values] = (),
    include: Sequence[Values] = (),
    seeds: Sequence[int] = (),
) -> list[Values]:
    """The values of every run, by the letter of GitHub's documentation."""
    matrix: list[Values] = [{}] if grid else []
    for axis, values in (grid or {}).items():
        longer = []
        for cell in matrix:
            for value in values:
                longer.append({**cell, axis: value})
        matrix = longer
    for rule in exclude:
        kept = []
        for cell in matrix:
            matches = True
            for key in rule:
                if cell[key] != rule[key]:
                    matches = False
            if not matches:
                kept.append(cell)
        matrix = kept

    added: list[Values] = [{} for _ in matrix]
    extra: list[Values] = []
    for entry in include:
        anywhere = False
        for cell, more in zip(matrix, added, strict=True):
            overwrites = False
            for key in entry:
                if key in cell and cell[key] != entry[key]:
                    overwrites = True
            if not overwrites:
                anywhere = True
                for key in entry:
                    more[key] = entry[key]
        if not anywhere:
            extra.append(entry)

    rows = [{**cell, **more} for cell, more in zip(matrix, added, strict=True)] + extra
    if not grid and not include:
        rows = [{}]
    runs: list[Values] = []
    for row in rows:
        for seed in seeds or [0]:
            run = {**Settings().resolved(), **(base or {}), **row, "seed": seed}
            if run not in runs:
                runs.append(run)
    return runs


@given(content=sweeps())
@example(content={"grid": {"epochs": [1, 2]}, "exclude": [{"epochs": 1}, {"epochs": 2}]})
@example(content={"grid": {"epochs": [1, 2]}, "include": [{"workers": 1}, {"workers": 0, "epochs": 2}]})
@settings(deadline=None, max_examples=times(3))
def test_expansion_is_that_of_github_actions(content: Values, tmp_path_factory: pytest.TempPathFactory) -> None:
    expected = reference(**content)
    folder = tmp_path_factory.getbasetemp()
    text = yaml.safe_dump(content, sort_keys=False)
    if expected:
        assert [run.resolved() for run in sweep(folder, text).runs] == expected
    else:
        (problem,) = mistakes(folder, text)
        assert problem.endswith("exclude drops every combination; no run is left")


def test_numbers_are_what_people_read(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        "base: {data: 2024-01-01, lr: 1e-3, weight_decay: .5, spacing: 1., country: '', image_size: 0x20}\n"
        "grid: {epochs: [010, 020], batch_size: {from: 08, to: 010, step: 2}}\n"
        "seeds: [007]\nretries: 010\ntimeout: 090\n",
    )
    assert [(run.epochs, run.batch_size) for run in found.runs] == [(10, 8), (10, 10), (20, 8), (20, 10)]
    run = found.runs[0]
    assert (run.data, run.lr, run.weight_decay, run.spacing, run.seed) == ("2024-01-01", 0.001, 0.5, 1.0, 7)
    assert (run.image_size, found.retries, found.timeout) == (32, 10, 90)


def test_mappings_are_merged_into_others(tmp_path: Path) -> None:
    found = sweep(
        tmp_path, "base: &b {epochs: 5, lr: 0.1}\ninclude:\n- &i {<<: *b, seed: 1}\n- {lr: 0.2, <<: [*i, *b]}\n"
    )
    assert [(run.epochs, run.lr, run.seed) for run in found.runs] == [(5, 0.1, 1), (5, 0.2, 1)]


# ── mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: a sweep is a mapping with the keys name, base, grid"]),
        ("- grid", ["1:1: a sweep is a mapping"]),
        ("{}", ["1:1: a sweep is a mapping"]),
        ("grid: {epochs: [1]}\ngird: 2", ["2:1: unknown key 'gird' (did you mean 'grid'?); valid: name, base, grid"]),
        ("epochs: 3", ["1:1: unknown key 'epochs' (a setting; it belongs under 'base' or 'grid')"]),
        ("3: 3", ["1:1: unknown key '3'; valid:"]),
        ("name: a/b\nseeds: [1]", ["1:1: name: 'a/b' is not a name"]),
        ("name: 7\nseeds: [1]", ["1:1: name: 7 is not a name"]),
        ("name: ..\nseeds: [1]", ["1:1: name: '..' is not a name"]),
        ("base: 3", ["1:1: base: must be a mapping of settings to values"]),
        ("base:", ["1:1: base: must be a mapping"]),
        ("base:\n  epoch: 3", ["2:3: unknown setting 'epoch' (did you mean 'epochs'?)"]),
        ("base:\n  epochs: 0", ["2:3: epochs: 0: must be greater than or equal to 1"]),
        ("base:\n  precision: 16", ["2:3: precision: 16 is not valid; valid: 32-true"]),
        ("base:\n  precision: bf16-mix", ["2:3: precision: 'bf16-mix' is not valid (did you mean 'bf16-mixed'?)"]),
        (
            "base:\n  epochs: [1, 2]",
            ["2:3: epochs: must be one value here; a list is an axis and belongs under 'grid'"],
        ),
        ("base:\n  epochs: {a: 1}", ["2:3: epochs: must be one value, not a mapping"]),
        ("base:\n  model: resnet17-unet", ["2:3: model: no encoder 'resnet17' (did you mean 'resnet18'?)"]),
        ("base:\n  7: 8", ["2:3: unknown setting '7'"]),
        ("grid:", ["1:1: grid: is empty"]),
        ("grid: {}", ["1:1: grid: is empty"]),
        ("grid: [1]", ["1:1: grid: is empty; it maps settings to lists of values"]),
        ("grid:\n  epochs: []", ["2:3: epochs: the axis is empty"]),
        ("grid:\n  epochs: 3", ["2:3: epochs: an axis is a list of values; write [3], or move it to 'base'"]),
        ("grid:\n  epoch: 3", ["2:3: unknown setting 'epoch' (did you mean 'epochs'?)"]),
        ("grid:\n  epoch: [3, 4]", ["2:3: unknown setting 'epoch' (did you mean 'epochs'?)"]),
        ("grid:\n  epochs: [3, 0, 4, x]", ["2:15: epochs: 0: must be", "2:21: epochs: 'x' is not a whole number"]),
        ("grid:\n  epochs: [3, [4]]", ["2:15: epochs: must be one value here"]),
        ("grid:\n  epochs: [3, {a: 4}]", ["2:15: epochs: must be one value, not a mapping"]),
        (
            "grid:\n  model: [resnet-unet]\n  encoder: [resnet]\n  decoder: [fpn]",
            ["3:3: encoder: 'model' is an axis", "4:3: decoder: 'model' is an axis"],
        ),
        ("grid: {epochs: [1]}\nexclude: {epochs: 1}", ["2:1: exclude: must be a list of mappings"]),
        ("grid: {epochs: [1]}\nexclude:\n- epochs", ["3:3: exclude: must be a mapping"]),
        ("grid: {epochs: [1]}\nexclude:\n- {}", ["3:3: exclude: must be a mapping"]),
        (
            "grid: {epochs: [1], workers: [1]}\nexclude:\n- epochs: 1\n  lr: 1",
            ["4:3: exclude: 'lr' is not an axis of the grid; axes: epochs, workers"],
        ),
        ("grid: {epochs: [1]}\nexclude:\n- epochs: x", ["3:3: epochs: 'x' is not a whole number"]),
        ("grid: {epochs: [1]}\nexclude:\n- epoch: 1", ["3:3: unknown setting 'epoch' (did you mean 'epochs'?)"]),
        ("grid: {epochs: [1]}\nexclude:\n- epochs: [1, 2]", ["3:3: epochs: must be one value here"]),
        ("grid: {epochs: [1, 2]}\nexclude:\n- epochs: 1\n- epochs: 2", ["2:1: exclude drops every combination"]),
        ("include:", ["1:1: include: must be a list of mappings"]),
        ("include:\n- lr: x\n- ly: 1\n", ["2:3: lr: 'x' is neither a number nor auto", "3:3: unknown setting 'ly'"]),
        ("seeds: []", ["1:1: seeds: must be a list of one or more whole numbers"]),
        ("seeds: 3", ["1:1: seeds: must be a list"]),
        ("seeds:", ["1:1: seeds: must be a list"]),
        ("seeds: [0, 1.5, -1]", ["1:12: seed: 1.5 is not a whole number", "1:17: seed: -1: must be"]),
        ("base: {seed: 1}\nseeds: [1]", ["2:1: seeds: 'seed' is also set under base"]),
        ("grid: {seed: [1]}\nseeds: [1]", ["2:1: seeds: 'seed' is also set under grid"]),
        ("include: [{seed: 1}]\nseeds: [1]", ["2:1: seeds: 'seed' is also set under include 1"]),
        ("grid:\n  lr: [1]\n  lr: [2]", ["3:3: duplicate key 'lr' (first on line 2)"]),
        ("grid:\n  lr: [1", ["2:9: not valid YAML: "]),
        ("grid:\n  epochs: [1_0, 1:30]", ["2:12: epochs: '1_0' is not a whole number", "2:17: epochs: '1:30' is not"]),
        (
            "grid:\n  lr: [0b1, 1_0, 1e-3_0]",
            [f"2:{c}: lr: '{v}' is" for c, v in ((8, "0b1"), (13, "1_0"), (18, "1e-3_0"))],
        ),
        ("base:\n  epochs: 1e3", ["2:3: epochs: 1000.0 is not a whole number; write 1000"]),
        ("base:\n  compile: off", ["2:3: compile: 'off' is not true or false; write false"]),
        ("base:\n  compile: Yes", ["2:3: compile: 'Yes' is not true or false; write true"]),
        ("base:\n  data: 010", ["2:3: data: 10 is not text; write it in quotes"]),
        (
            "keep: bets\nseeds: [1]",
            ["1:1: keep: 'bets' is not valid (did you mean 'best'?); valid: best, front, all, none"],
        ),
        ("keep: false\nseeds: [1]", ["1:1: keep: False is not valid"]),
        ("timeout: 1:30\nseeds: [1]", ["1:1: timeout: '1:30' is not a time such as 90"]),
        ("base: &b\n  lr: x\ninclude:\n- {<<: *b}", ["2:3: lr: 'x' is neither a number nor auto"]),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, expected: list[str], tmp_path: Path) -> None:
    problems = mistakes(tmp_path, text)
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    problems = mistakes(
        tmp_path,
        "name: a/b\n"
        "epochs: 3\n"
        "base:\n"
        "  lr: fast\n"
        "grid:\n"
        "  precision: [32-tru, bf16-mixed]\n"
        "  batch_size: 8\n"
        "exclude:\n"
        "  - {workers: 3}\n"
        "include:\n"
        "  - compile: maybe\n"
        "seeds: []\n",
    )
    places = {"1:1", "2:1", "4:3", "6:15", "7:3", "9:6", "11:5", "12:1"}
    assert len(problems) == len(places)
    assert {problem.partition(": ")[0] for problem in problems} == places


@pytest.mark.parametrize(("stem", "like"), [("my sweep", "my-sweep"), ("größe", "gr-e"), ("_", "sweep")])
def test_a_file_whose_name_makes_no_name_is_told_to_give_one(stem: str, like: str, tmp_path: Path) -> None:
    file = tmp_path / f"{stem}.yaml"
    file.write_text("seeds: [0]\n")
    with pytest.raises(UserError) as caught:
        read_sweep(file)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:1:1: the file name cannot name the sweep")
    assert problem.endswith(f"; add `name: {like}`")
    file.write_text(f"name: {like}\nseeds: [0]\n")
    assert read_sweep(file).name == like


def test_an_axis_with_a_mistake_is_not_said_to_be_no_axis(tmp_path: Path) -> None:
    (problem,) = mistakes(tmp_path, "grid:\n  epochs: 3\nexclude:\n  - epochs: 3\n")
    assert problem.startswith("2:3: epochs: an axis is a list")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("grid:\n  encoder: [resnet18, vgg11]\n  decoder: [unet, deeplabv3]\n", "3:3"),
        ("base:\n  decoder: deeplabv3\ngrid:\n  encoder: [resnet18, vgg11]\n", "4:3"),
        ("base:\n  epochs: 3\n  model: vgg11-deeplabv3\nseeds: [1, 2]\n", "3:3"),
        ("grid:\n  model: [vgg11-deeplabv3, resnet18-unet, vgg11-unet]\n", "2:3"),
        ("include:\n  - epochs: 3\n  - model: vgg11-deeplabv3\n", "3:5"),
    ],
)
def test_halves_that_do_not_go_together_are_said_once(text: str, place: str, tmp_path: Path) -> None:
    (problem,) = mistakes(tmp_path, text)
    assert problem.startswith(f"{place}: vgg11-deeplabv3: deeplabv3 needs a dilated encoder")


def test_exclude_drops_halves_that_do_not_go_together(tmp_path: Path) -> None:
    text = "grid: {encoder: [resnet18, vgg11], decoder: [unet, pan]}\nexclude: [{encoder: vgg11, decoder: pan}]"
    assert [run.model for run in sweep(tmp_path, text).runs] == ["resnet18-unet", "resnet18-pan", "vgg11-unet"]


_FIELDS = st.sampled_from(list(Settings.model_fields))
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary(max_size=4)
    | st.text(max_size=5) | st.sampled_from(["phantom", "resnet18", "unet", "resnet18-dpt", "32-true", "none", 1, 32])
)  # fmt: skip
_NESTED = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS | _SCALARS, inner, max_size=4),
    max_leaves=10,
)
_SETTINGS = st.dictionaries(_FIELDS, _SCALARS, max_size=3) | _NESTED
_ALMOST_A_SWEEP = st.fixed_dictionaries(
    {},
    optional={
        "name": _SCALARS,
        "base": _SETTINGS,
        "grid": st.dictionaries(_FIELDS, st.lists(_SCALARS, max_size=3) | _NESTED, max_size=3) | _NESTED,
        "exclude": st.lists(_SETTINGS, max_size=2) | _NESTED,
        "include": st.lists(_SETTINGS, max_size=2) | _NESTED,
        "seeds": st.lists(st.integers(0, 3), max_size=3) | _NESTED,
        "sed": _NESTED,
    },
)


@given(content=_ALMOST_A_SWEEP | _NESTED)
@settings(deadline=None, max_examples=times(3))
def test_any_content_is_a_sweep_or_a_mistake(content: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    runs: tuple[Settings, ...] = ()
    problems: list[str] = []
    try:
        runs = sweep(folder, yaml.safe_dump(content)).runs
    except UserError as error:
        problems = error.problems
    assert bool(runs) != bool(problems)
    assert all(problem.startswith(f"{folder / 'sweep.yaml'}:") for problem in problems)


# ── launchers


def test_options_of_slurm_in_canonical_form(tmp_path: Path) -> None:
    found = sweep(
        tmp_path,
        """
        base: {epochs: 5}
        slurm:
          {partition: gpu, account: me, qos: long, time: 1h 30min, gpus_per_node: a100:2, cpus_per_task: 8, mem: 16G,
           constraint: a100|h100, exclusive: true, setup: [module load cuda], array: 20, max_parallel: 8}
        """,
    )
    assert found.launching == {
        "slurm": {
            "partition": "gpu", "account": "me", "qos": "long", "time": "0-01:30:00", "gpus_per_node": "a100:2",
            "cpus_per_task": 8, "mem": "16G", "constraint": "a100|h100", "exclusive": True,
            "setup": ["module load cuda"], "array": 20, "max_parallel": 8,
        }
    }  # fmt: skip
    for time, same in [("04:00:00", "0-04:00:00"), ("2-12:30:00", "2-12:30:00"), ("2d", "2-00:00:00")]:
        assert sweep(tmp_path, f"seeds: [0]\nslurm: {{time: '{time}'}}").launching["slurm"]["time"] == same


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("partiton: gpu", ["2:9: ", "unknown key 'partiton' (did you mean 'partition'?)", "max_parallel"]),
        ("time: 240", ["2:9: ", "time: 240 is not a time with a unit"]),
        ("time: 4x", ["no unit 'x'"]),
        ("time: 60s", ["too short"]),
        ("gpus_per_node: 0", ["gpus_per_node: 0 is not a number of GPUs"]),
        ("mem: 16", ["mem: 16 is not a size such as 16G"]),
        ("array: 0", ["array: 0 is not a whole number of 1 or more"]),
        ("exclusive: 1", ["exclusive: 1 is not true or false"]),
        ("setup: module load cuda", ["setup: must be a list of commands"]),
        ("account: two words", ["account: 'two words' is not a name"]),
        ("nodes: 2", ["nodes: not a key of slurm", "'base' or 'grid'"]),
    ],
)
def test_mistakes_in_options_of_slurm(tmp_path: Path, given: str, expected: list[str]) -> None:
    (said,) = mistakes(tmp_path, f"seeds: [0]\nslurm: {{{given}}}")
    assert all(text in said for text in expected)


def test_slurm_must_be_a_mapping(tmp_path: Path) -> None:
    (said,) = mistakes(tmp_path, "seeds: [0]\nslurm: true")
    assert said.startswith("2:1: slurm: must be a mapping with keys of partition, ")
