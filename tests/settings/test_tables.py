"""The tables of optimizers, precisions and strategies name what there is."""

import importlib.util
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from greenseg.compression import QUANTIZATIONS, RUNTIMES
from greenseg.losses import LOSSES
from greenseg.optimizers import OPTIMIZERS
from greenseg.precisions import PRECISIONS
from greenseg.settings import choices, problems_of
from greenseg.strategies import STRATEGIES
from greenseg.training.optimization import SCHEDULES

KINDS = {"cpu", "gpu", "mps"}
EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_settings_take_every_name_of_a_table_and_no_other() -> None:
    tables: dict[str, Iterable[str]] = {
        "loss": LOSSES,
        "optimizer": OPTIMIZERS,
        "precision": PRECISIONS,
        "quantize": QUANTIZATIONS,
        "runtime": ["auto", *RUNTIMES],
        "schedule": SCHEDULES,
        "strategy": STRATEGIES,
    }
    for name, table in tables.items():
        assert choices(name) == tuple(table)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_with_values_that_exist(name: str) -> None:
    strategy = STRATEGIES[name]
    assert set(strategy.runs_on) <= KINDS
    assert not strategy.extra or strategy.extra in EXTRAS
    for setting, values in strategy.only.items():
        for value in values:
            assert not [problem for problem in problems_of({setting: value}) if problem.key]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_names_devices_and_an_extra_that_exist(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    assert set(optimizer.runs_on) <= KINDS
    assert bool(optimizer.package) == bool(optimizer.extra)
    assert not optimizer.extra or optimizer.extra in EXTRAS


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_a_strategy_refuses_an_optimizer_until_it_is_known_to_work(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for name, optimizer in OPTIMIZERS.items():
        refused = any(f"optimizer: {name}" in str(problem) for problem in problems_of(
            {"strategy": strategy, "optimizer": name, "devices": 2}
        ) if str(problem).startswith("strategy"))  # fmt: skip
        assert refused == (STRATEGIES[strategy].optimizes not in optimizer.works_on)
