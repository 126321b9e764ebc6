"""The answer in words, and the warnings beside it."""

from typing import Any

import pytest

from greenseg.report import answer
from tests.report.comparisons import compared
from tests.report.test_comparison import grid, one
from tests.runs import Json, energy, record


def test_the_decision_of_a_sweep() -> None:
    records = [
        one(dice + 0.001 * seed, joules + seed, epochs=i + 1, seed=seed)
        for i, (dice, joules) in enumerate([(0.5, 1_000), (0.88, 2_000), (0.896, 5_000), (0.9, 20_000)])
        for seed in (0, 1, 2)
    ]
    best, cheapest, knee, volume = answer.decision(compared(*records))
    assert best == "Best Dice: epochs=4, Dice 0.9010 ±0.0013, 20,001 J (3 runs)."
    assert cheapest.startswith(
        "Cheapest within 1 % of it: epochs=3, Dice 0.8970 ±0.0013, 5,001 J (3 runs), 75 % (75 to 75 %)"
    )
    assert cheapest.endswith("less than the best.")
    assert knee.startswith("Knee: epochs=2, Dice 0.8810 ±0.0015, 2,001 J (3 runs). ")
    assert volume == "Hypervolume: 0.830 of the box from (Dice 0, 20,001 J) to (Dice 1, 0 J)."


def test_a_quality_of_which_less_is_better() -> None:
    records = [
        one(dice + 0.01 * seed, joules, epochs=i + 1, seed=seed)
        for i, (dice, joules) in enumerate([(0.5, 1_000), (0.88, 2_000), (0.9, 20_000)])
        for seed in (0, 1, 2)
    ]
    distances = compared(*records, quality="hd95")
    best, _, knee, volume = answer.decision(distances)
    assert best.startswith("Best HD95 mm: epochs=3, HD95 mm 4.50 ±")
    assert best.endswith(", 20,000 J (3 runs).")
    assert knee.startswith("Knee: epochs=2, HD95 mm 5.50 ±")
    assert volume.endswith("of the box from (HD95 mm 24.5, 20,000 J) to (HD95 mm 0, 0 J).")
    assert "no other configuration here has at most its HD95 mm for less energy." in answer.legend(distances)[0]
    assert {row[3] for row in answer.effect_rows(distances)} == {"+1.00 ±0.00", "+20.00 ±0.00"}, "of the worse ones"


def test_a_best_one_that_cannot_be_told_from_others_says_so() -> None:
    records = [
        one(d, 10, epochs=e, seed=s) for e, dice in ((1, (0.7, 0.9)), (2, (0.75, 0.8))) for s, d in enumerate(dice)
    ]
    said = answer.decision(compared(*records))[0]
    assert said.endswith("; 1 other configuration cannot be distinguished from the best in Dice.")


def test_where_the_best_is_the_cheapest() -> None:
    said = answer.decision(compared(one(0.9, 10, epochs=1), one(0.8, 20, epochs=2)))
    assert "No cheaper configuration is within 1 % of it." in said


def test_a_best_one_that_costs_less_than_its_equal_is_named_once() -> None:
    (said,) = answer.decision(compared(one(0.9, 10)))[1:]
    assert said == "No cheaper configuration is within 1 % of it."


def test_what_each_setting_does() -> None:
    rows = answer.effect_rows(compared(*grid()))
    assert rows == [
        ["batch_size", "16", "8", "+0.0000 ±0.0000", "+50 % (+50 to +50)", "6"],
        ["precision", "bf16-mixed", "32-true", "−0.0100 ±0.0000", "−40 % (−40 to −40)", "6"],
    ]
    assert answer.effect_rows(compared(*grid()), most=1) == rows[:1]
    assert answer.unpaired(compared(one(0.8, 10, batch_size=8, lr=0.1), one(0.9, 20, batch_size=16, lr=0.2))) == [
        "batch_size",
        "lr",
    ]


def other(**hardware: Any) -> Json:
    return record({"epochs": 2, "seed": 1}, hardware=hardware)


def marked(mark: str) -> Json:
    total = energy(1, cpu_rapl=1) | {"marks": {"cpu": {"rapl": [mark]}}}
    return record({"epochs": 2}, total=total)


def with_metric(name: str, value: Any, **settings: Any) -> Json:
    written = record(settings)
    written["metrics"][name] = value
    return written


@pytest.mark.parametrize(
    ("records", "options", "expected"),
    [
        ([record({"epochs": 1}), record({"epochs": 2})], {}, "estimate: joules are modelled"),
        ([one(0.8, 1, epochs=1), one(0.8, 1, "cpu_estimate", epochs=2)], {}, "Sources differ between rows"),
        (
            [one(0.8, 1, epochs=1), one(0.8, 1, "cpu_estimate", epochs=2)],
            {"allow_mixed_sources": True},
            "are ranked against each other, as requested",
        ),
        ([record({"epochs": 1}), record({"epochs": 2})], {}, "All configurations ran once"),
        (
            [record({"epochs": 1}), record({"epochs": 2}), record({"epochs": 2, "seed": 1})],
            {},
            "1 configuration ran once",
        ),
        ([record({"seed": 0}), record({"seed": 1}, "failed", error="E")], {}, "with missing repeats (1 × E)"),
        (
            [record({"epochs": 1}), other(cpu="another CPU")],
            {},
            "Hardware differs between runs: 1 × some CPU (2 cores), 1 × another CPU (2 cores)",
        ),
        ([record({"epochs": 1}), other(gpus=["A100"])], {}, "A100"),
        ([record({"epochs": 1}), marked("apportioned")], {}, "apportioned: other runs or jobs used the same CPU"),
        ([record({"epochs": 1}), marked("shared")], {}, "shared: other processes used the same GPU"),
        ([record({"epochs": 1}), marked("approximate")], {}, "approximate: some windows"),
        ([record({"precision": "16-mixed"}, ran="bf16-mixed")], {}, "Runs used precision bf16-mixed, not 16-mixed"),
        ([record(unmeasured=["gpu"])], {}, "unknown: this component has no sensor"),
        (
            [record({"labels": "a=1,b=2"}), record({"labels": "1,2"}), record({"labels": "x=1,y=2", "epochs": 2})],
            {},
            "Classes differ between rows: x=1,y=2; 1,2.",
        ),
        (
            [record({"spacing": 1.0}, on_grid=True), record({"spacing": 1.5}, on_grid=True)],
            {},
            "Pixels differ between rows: 1 × 128² of 1 mm",
        ),
        (
            [record({"spacing": 1.0}, on_grid=True), record({"spacing": 1.5})],
            {},
            "1 configuration of an earlier version (marked *)",
        ),
        (
            [
                with_metric("energy_to_dice", {"dice": 0.7, "joules": 5.0}, epochs=1),
                with_metric("energy_to_dice", {"dice": 0.8, "joules": 5.0}, epochs=2),
            ],
            {"energy": "to-dice"},
            "energy_to_dice differs between runs: 0.7, 0.8.",
        ),
        (
            [
                with_metric("energy_to_dice", {"dice": 0.7, "joules": 5.0}, epochs=1),
                with_metric("energy_to_dice", {"dice": 0.7, "joules": None}, epochs=2),
            ],
            {"energy": "to-dice"},
            "1 configuration without joules to Dice in every repeat: not ranked.",
        ),
        (
            [
                with_metric("co2e", {"grams": 1.0, "grams_per_kwh": 56, "pue": 1.0}, epochs=1),
                with_metric("co2e", {"grams": 1.0, "grams_per_kwh": 400, "pue": 1.0}, epochs=2),
            ],
            {"energy": "co2e"},
            "co2e differs between runs: 400 g/kWh × 1.0, 56 g/kWh × 1.0.",
        ),
    ],
)  # fmt: skip
def test_warnings(records: list[Json], options: dict[str, Any], expected: str) -> None:
    said = answer.warnings(compared(*records, **options))
    assert any(expected in warning for warning in said), said


def test_joules_of_all_jobs_on_a_node_are_ranked_against_none() -> None:
    shared = [dict(marked("shared"), settings=record({"epochs": n})["settings"]) for n in (2, 3)]
    records = [one(0.8, 10, epochs=1), *shared]
    alone = compared(*records)
    assert len(alone.groups) == 3
    assert any("2 configurations with the joules of all jobs" in said for said in answer.warnings(alone))
    together = compared(*records, allow_mixed_sources=True)
    assert len(together.groups) == 1
    assert any("ranked against each other, as requested" in said for said in answer.warnings(together))


def test_names_of_classes_make_no_difference() -> None:
    said = answer.warnings(compared(record({"labels": "a=1,b=2"}), record({"labels": "x=1,y=2", "epochs": 2})))
    assert not any("Classes differ" in warning for warning in said)


def test_a_sound_sweep_has_no_warning() -> None:
    test = {"dice": 0.8, "volume_dice": {"c": 0.8}, "content": "abc"}
    assert answer.warnings(compared(*[one | {"test": test} for one in grid()])) == []


def test_failures_are_counted_by_reason() -> None:
    failed = [
        record({"epochs": n}, "failed", error="E", kind="out_of_gpu_memory" if n < 3 else "timeout") for n in (1, 2, 3)
    ]
    said = answer.failures(compared(*failed, record({"epochs": 9})))
    assert said == "3 configurations without a finished run: 2 × failed: out of GPU memory, 1 × failed: timed out."
    assert answer.failures(compared(record())) == ""


def test_what_all_runs_cost_together() -> None:
    failed = record({"epochs": 2}, "failed", total=energy(1, cpu_rapl=250))
    assert "All runs together: 350 J, including 250 J for runs that did not finish." in answer.legend(
        compared(record({"epochs": 1}, total=energy(1, cpu_rapl=100)), failed)
    )
