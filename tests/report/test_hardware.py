"""Joules of different machines: apart by default, relative to a common configuration, or mixed on request."""

import csv
import io
import json
from typing import Any

import pytest

from benchmarks.subjects import relative
from greenseg.errors import UserError
from greenseg.report import answer
from greenseg.report.columns import default_columns
from greenseg.report.export import as_csv, as_json
from greenseg.report.objectives import ENERGIES
from tests.report.comparisons import compared, row
from tests.runs import Json, energy, record

FAST = {"cpu": "Fast CPU", "host": "fast", "gpus": ["A100"]}
SLOW = {"cpu": "Slow CPU", "host": "slow", "gpus": []}


def on(hardware: dict[str, Any] | None, joules: float, dice: float = 0.8, **settings: Any) -> Json:
    written = record(settings, dice=dice, total=energy(1, cpu_rapl=joules), hardware=hardware)
    return written if hardware else {**written, "hardware": {}}


def two_machines(*slow: int) -> list[Json]:
    """Epochs 1 and 2 on the fast one, others on the slow one, with three times the joules; two seeds each."""
    return [
        on(machine, factor * 100 * n * (1 + s / 50), 0.7 + n / 50, epochs=n, seed=s)
        for machine, factor, those in ((FAST, 1, (1, 2)), (SLOW, 3, slow))
        for n in those
        for s in (0, 1)
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"cores": 64},
        {"gpus": ["A100", "A100"]},
        {"gpus": []},
        {"host": "its twin"},
        {"memory_gb": 130.0},
    ],
)
def test_one_machine_is_one_class_whatever_the_slot_of_a_run(other: dict[str, Any]) -> None:
    known = {**FAST, "memory_gb": 128.0}
    comparison = compared(on(known, 10, epochs=1), on({**known, **other}, 20, epochs=1, seed=1), on(known, 5, epochs=2))
    assert len(comparison.results) == 2
    assert "hardware" not in comparison.results[0].settings
    assert len(comparison.groups) == 1


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (SLOW, {"A100", "Slow CPU"}),
        ({**FAST, "cpu": "Other CPU"}, {"Fast CPU, A100", "Other CPU, A100"}),
        ({**FAST, "gpus": ["H100"]}, {"A100", "H100"}),
        ({**FAST, "memory_gb": 64.0}, {"Fast CPU, A100, unknown memory", "Fast CPU, A100, 64 GB"}),
        (None, {"A100", "unknown"}),
    ],
)
def test_repeats_on_two_classes_are_two_rows_with_the_shortest_different_names(
    other: dict[str, Any] | None, names: set[str]
) -> None:
    comparison = compared(on(FAST, 10), on(other, 20, seed=1))
    assert {result.settings["hardware"] for result in comparison.results} == names
    assert "hardware" in default_columns(comparison)
    assert len({result.configuration for result in comparison.results}) == 2
    assert [result.figure(ENERGIES["total"]).n for result in comparison.results] == [1, 1]  # type: ignore[union-attr]


def test_joules_of_different_hardware_do_not_compete_unless_asked() -> None:
    records = two_machines(1, 2)
    comparison = compared(*records)
    assert len(comparison.groups) == 2
    assert row(comparison, epochs=1, hardware="Slow CPU").on_front
    assert [r.saved for r in comparison.rows if r.result.settings["hardware"] == "Slow CPU"] == [None, None]
    assert any("Joules are compared within the same hardware only" in said for said in answer.warnings(comparison))
    mixed = compared(*records, allow_mixed_hardware=True)
    assert len(mixed.results) == 2
    assert len(mixed.groups) == 1
    assert any("Their joules and seconds are not comparable" in said for said in answer.warnings(mixed))


def test_effects_on_joules_are_those_within_a_class() -> None:
    (effect,) = compared(*two_machines(1, 2)).effects
    assert effect.axis == "epochs"
    assert effect.energy
    assert effect.energy.share == pytest.approx(-0.5)
    assert effect.energy.n == 4
    assert compared(on(FAST, 10, epochs=1), on(SLOW, 20, epochs=2)).effects == []


def test_ratios_to_a_configuration_compare_over_classes() -> None:
    comparison = compared(*two_machines(1, 2), relative_to="epochs=1")
    ratios = {
        (found["epochs"], found["hardware"]): found
        for found in csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, None)))
    }
    for name in ("A100", "Slow CPU"):
        assert float(ratios["1", name]["relative"]) == pytest.approx(1)
        found = ratios["2", name]
        assert float(found["relative"]) == pytest.approx(2)
        assert float(found["relative_low"]) < 2 < float(found["relative_high"])
    exported = json.loads(as_json(comparison, comparison.rows, None))["configurations"][0]["relative"]
    assert exported["ratio"] == pytest.approx(2)
    assert "relative" in default_columns(comparison)
    assert any("energy of epochs=1 on the same hardware" in line for line in answer.legend(comparison))


def test_a_class_without_the_configuration_has_no_ratio_and_a_note() -> None:
    comparison = compared(*two_machines(1), relative_to="epochs=2")
    assert comparison.relative(row(comparison, hardware="Slow CPU").result) is None
    assert any("Slow CPU lacks this configuration" in said for said in answer.warnings(comparison))
    both = compared(*two_machines(1), relative_to=f"lr={record()['settings']['lr']}")
    assert all(both.relative(result) for result in both.results), "the one that both have is chosen"


def test_one_that_is_no_configuration_is_refused() -> None:
    with pytest.raises(UserError, match="--relative-to: no run has epochs '9'"):
        compared(*two_machines(1), relative_to="epochs=9")


def test_ratios_hold() -> None:
    assert relative(3, trials=100) >= 0.93
