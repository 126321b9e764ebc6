"""What is held against what: baseline, savings, effects, and what stands out."""

from typing import Any

import pytest

from greenseg.report.answer import warnings
from greenseg.report.comparison import Comparison
from greenseg.report.page import page_data
from tests.report.comparisons import compared, row
from tests.runs import Json, energy, record


def one(dice: float, joules: float, sensor: str = "cpu_rapl", **settings: Any) -> Json:
    return record(settings, dice=dice, total=energy(10, **{sensor: joules}))


def grid() -> list[Json]:
    """Precision × batch size × seed: half precision costs 0.01 Dice and saves 40 %; batch 16 gains nothing."""
    return [
        one(
            0.8 + 0.002 * seed - (0.01 if precision == "bf16-mixed" else 0),
            1000 * (0.6 if precision == "bf16-mixed" else 1) * (1.5 if batch == 16 else 1) * (1 + 0.1 * seed),
            precision=precision,
            batch_size=batch,
            seed=seed,
        )
        for precision in ("32-true", "bf16-mixed")
        for batch in (8, 16)
        for seed in (0, 1, 2)
    ]


def test_savings_count_against_the_best_unless_told() -> None:
    comparison = compared(*grid())
    assert comparison.baseline is comparison.best
    assert row(comparison, precision="32-true", batch_size=8).saved == 0
    assert row(comparison, precision="bf16-mixed", batch_size=8).saved == pytest.approx(0.4)
    assert row(comparison, precision="32-true", batch_size=16).saved == pytest.approx(-0.5)
    told = compared(*grid(), baseline="precision=bf16-mixed,batch_size=16")
    assert row(told, precision="bf16-mixed", batch_size=8).saved == pytest.approx(1 / 3)


def test_no_savings_between_measured_and_estimated_joules() -> None:
    records = one(0.9, 100, epochs=1), one(0.8, 10, "cpu_estimate", epochs=2)
    assert row(compared(*records), epochs=2).saved is None
    assert row(compared(*records, allow_mixed_sources=True), epochs=2).saved == pytest.approx(0.9)


def test_a_baseline_may_be_left_out_of_the_table() -> None:
    comparison = compared(*grid(), where=("precision=bf16-mixed",), baseline="precision=32-true")
    assert {result.settings["precision"] for result in comparison.results} == {"bf16-mixed"}
    assert row(comparison, batch_size=8).saved == pytest.approx(0.4)


def effects(comparison: Comparison) -> dict[tuple[str, Any], tuple[float, float, int]]:
    return {
        (e.axis, e.value): (e.quality.value, e.energy.share if e.energy else 0.0, e.quality.n)
        for e in comparison.effects
    }


def test_effects_are_paired_over_all_else() -> None:
    found = effects(compared(*grid()))
    assert set(found) == {("precision", "bf16-mixed"), ("batch_size", 16)}
    assert found["precision", "bf16-mixed"] == pytest.approx((-0.01, -0.4, 6))
    assert found["batch_size", 16] == pytest.approx((0.0, 0.5, 6))
    exact = compared(*grid()).effects[0]
    assert exact.energy is not None
    assert exact.energy.low == pytest.approx(exact.energy.high), "every pair has the same ratio"


def test_effects_are_held_against_the_baselines_values() -> None:
    found = effects(compared(*grid(), baseline="precision=bf16-mixed"))
    assert found["precision", "32-true"] == pytest.approx((0.01, 1 / 0.6 - 1, 6))


def test_a_pair_differs_in_nothing_but_the_axis() -> None:
    """What a missing combination would add to one side only is not counted."""
    records = [written for written in grid() if written["settings"] != grid()[-1]["settings"]]
    records[0] = record(dict(records[0]["settings"]), "failed")  # and what failed has no figures
    assert effects(compared(*records))["precision", "bf16-mixed"] == pytest.approx((-0.01, -0.4, 4))


def test_settings_that_change_together_have_no_effect_of_their_own() -> None:
    comparison = compared(one(0.8, 10, batch_size=8, lr=0.1), one(0.9, 20, batch_size=16, lr=0.2))
    assert comparison.effects == []
    assert comparison.swept == ["batch_size", "lr"]


def test_what_is_only_accounted_for_is_no_axis() -> None:
    assert compared(one(0.8, 10, epochs=1, pue=1.1), one(0.9, 20, epochs=2, pue=1.2)).swept == ["epochs"]


def test_joules_of_different_sources_make_no_pair() -> None:
    records = one(0.8, 100, epochs=1), one(0.9, 10, "cpu_estimate", epochs=2)
    (effect,) = compared(*records).effects
    assert effect.energy is None
    assert effect.quality.value == pytest.approx(-0.1)
    (effect,) = compared(*records, allow_mixed_sources=True).effects
    assert effect.energy is not None


def test_what_stands_out() -> None:
    records = [
        one(dice, joules, epochs=i + 1)
        for i, (dice, joules) in enumerate([(0.5, 10), (0.88, 20), (0.895, 60), (0.896, 50), (0.9, 200), (0.7, 300)])
    ]
    comparison = compared(*records)
    best, cheapest, knee = comparison.best, comparison.cheapest_within(0.01), comparison.knee()
    assert best is row(comparison, epochs=5).result
    assert cheapest is row(comparison, epochs=4).result
    assert knee is row(comparison, epochs=2).result
    assert comparison.cheapest_within(0.0) is best
    (volume,) = comparison.volumes()
    assert (volume.reference, volume.ideal, volume.configurations) == ((0.0, 300.0), (1.0, 0.0), 6)
    area = (0.5 * 10 + 0.88 * 30 + 0.896 * 150 + 0.9 * 100) / 300
    assert volume.share == pytest.approx(area)


def test_the_cheapest_is_of_the_same_kind_as_the_best() -> None:
    comparison = compared(one(0.9, 100, epochs=1), one(0.9, 1, "cpu_estimate", epochs=2))
    assert comparison.cheapest_within(0.01) is comparison.best


def test_nothing_finished() -> None:
    comparison = compared(record({"epochs": 1}, "failed"), record({"epochs": 2}, "interrupted"))
    assert comparison.best is comparison.baseline is comparison.knee() is comparison.cheapest_within() is None
    assert comparison.volumes() == []
    assert comparison.effects == []
    assert [(row.on_front, row.rank, row.saved) for row in comparison.rows] == [(False, None, None)] * 2


def test_chances_need_repeats() -> None:
    assert {row.probability for row in compared(one(0.8, 1, epochs=1), one(0.9, 2, epochs=2)).rows} == {None}
    chances = [row.probability for row in compared(*grid()).rows]
    assert all(chance is not None and 0 <= chance <= 1 for chance in chances)


def test_energy_per_epoch_or_the_gpu_alone_may_be_what_counts() -> None:
    records = [
        record({"epochs": 1}, dice=0.8, total=energy(1, gpu_nvml=10, cpu_rapl=90), joules_per_epoch=100.0),
        record({"epochs": 10}, dice=0.7, total=energy(1, gpu_nvml=50, cpu_rapl=10), joules_per_epoch=6.0),
    ]
    front = {name: [r.on_front for r in compared(*records, energy=name).rows] for name in ("total", "gpu", "per-epoch")}
    assert front == {"total": [True, True], "gpu": [True, False], "per-epoch": [True, True]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"cpu_estimate": 1050}, {"cpu_rapl": 3000}),
        ({"cpu_rapl": 3000}, {"cpu_rapl": 3000, "dram_rapl": 100}),
        ({"cpu_rapl": 3000}, {"cpu_estimate": 500, "cpu_rapl": 3000}),
    ],
)
def test_repeats_of_different_sources_have_no_joules_to_rank(first: dict[str, float], second: dict[str, float]) -> None:
    mixed = [
        record({"lr": 0.003, "seed": seed}, total=energy(10, **joules)) for seed, joules in enumerate((first, second))
    ]
    records = [*mixed, one(0.7, 950, "cpu_estimate", lr=0.001), one(0.7, 950, lr=0.002)]
    comparison = compared(*records)
    found = row(comparison, lr=0.003)
    assert (found.rank, found.on_front, found.saved) == (None, False, None)
    assert all(found.result not in group for group in comparison.groups)
    assert any("Sources differ within 1 configuration" in said for said in warnings(comparison))
    assert [r["kind"] for r in page_data(comparison, [found], None)["rows"]] == [None]
    assert compared(*mixed).best is None
    as_asked = compared(*records, allow_mixed_sources=True)
    assert row(as_asked, lr=0.003).rank is not None


def test_a_component_that_does_not_count_may_differ_between_repeats() -> None:
    mixed = [
        record({"seed": seed}, total=energy(10, **{"gpu_nvml": 5, cpu: 100}))
        for seed, cpu in enumerate(("cpu_rapl", "cpu_estimate"))
    ]
    assert compared(*mixed, energy="gpu").best is not None
    assert compared(*mixed, energy="cpu").best is None


def test_an_effect_compares_runs_of_equal_sources() -> None:
    """Each pair counts by the sources of its two runs, whatever the other repeats of their rows have."""
    records = [
        one(0.8, joules * (1 + lr), sensor, lr=lr, seed=seed)
        for lr in (0.1, 0.2)
        for seed, (joules, sensor) in enumerate(((1000, "cpu_rapl"), (50, "cpu_estimate")))
    ]
    (effect,) = compared(*records, quality="dice").effects
    assert effect.energy is not None
    assert effect.energy.n == 2
    assert abs(effect.energy.share) == pytest.approx(1.2 / 1.1 - 1)


def test_a_run_of_a_measured_and_an_estimated_attempt_is_held_against_none() -> None:
    partly = [record({"lr": lr}, dice=lr, total=energy(10, cpu_estimate=500, cpu_rapl=3000)) for lr in (0.1, 0.2)]
    comparison = compared(*partly, one(0.7, 950, "cpu_estimate", lr=0.3))
    assert [len(group) for group in comparison.groups] == [1, 1, 1]
    assert all(effect.energy is None for effect in comparison.effects)
    assert any("Sources differ within 2 configurations" in said for said in warnings(comparison))
    assert [found.saved for found in comparison.rows if found.result is not comparison.baseline] == [None, None]
