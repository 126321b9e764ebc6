"""How far the best carries to other subjects, and how much its choice flatters it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.subjects import of_best, of_curve, over_folds, over_subjects, power
from greenseg.report import answer
from greenseg.report.comparison import Comparison
from greenseg.report.export import as_csv, as_json
from greenseg.report.optimism import of_choice, of_epochs
from greenseg.report.reader import read_runs
from greenseg.report.results import by_configuration
from greenseg.report.select import Query
from greenseg.report.statistics import mean_of
from greenseg.report.subjects import detectable
from greenseg.report.trust import said, trust
from tests.report.comparisons import compared, row
from tests.runs import Json, epoch, record, write


def judged(scores: dict[str, float | None], **settings: Any) -> Json:
    """A record with these Dice of subjects."""
    known = [score for score in scores.values() if score is not None]
    written = record(settings, dice=sum(known) / len(known))
    written["metrics"]["volume_dice"] = scores
    return written


def cohort(level: float, number: int = 8, wave: float = 0.01, **settings: Any) -> Json:
    """A record with subjects that differ by 0.3, and by `wave` as is peculiar to this one."""
    own = settings.get("epochs", 0) + 3 * settings.get("seed", 0)
    return judged(
        {f"p{i}": level + 0.3 * (i / number - 0.5) + wave * ((i * (own + 1)) % 3 - 1) for i in range(number)},
        **settings,
    )


def sweep(number: int = 8) -> list[Json]:
    return [cohort(0.7 + 0.02 * n + 0.002 * s, number, epochs=n, seed=s) for n in (1, 2, 3) for s in (0, 1, 2)]


def words(comparison: Comparison) -> str:
    return " ".join(said(trust(comparison), comparison))


# ── subjects


def test_the_interval_over_subjects_is_wider_than_both_of_its_parts() -> None:
    comparison = compared(*sweep())
    found = trust(comparison).over_subjects
    assert comparison.best
    assert found
    seeds = comparison.figure(comparison.best, comparison.quality)
    subjects = mean_of([*comparison.best.of_each_subject(comparison.quality).values()])
    assert seeds
    assert (found.value, found.n) == (seeds.value, 8)
    assert (found.half or 0) > max(seeds.half or 0, subjects.half or 0) * 0.99
    assert "rests on 8 validation subjects: 0.7" in words(comparison)


def test_one_subject_says_nothing_about_others() -> None:
    comparison = compared(*[judged({"a": 0.7 + n / 100}, epochs=n, seed=s) for n in (1, 2) for s in (0, 1)])
    assert "rests on 1 validation subject: it says nothing about others" in words(comparison)
    assert trust(comparison).detectable is None


def test_what_is_hard_for_all_configurations_does_not_hide_their_differences() -> None:
    random = np.random.default_rng(0)
    own, hard = 0.01 * random.standard_normal((4, 12)), 0.2 * random.standard_normal(12)
    assert detectable(own + hard) == pytest.approx(detectable(own))
    assert (detectable(own) or 0) < 0.02
    assert detectable(own[:, :1]) is None
    assert detectable(own[:1]) is None


@pytest.mark.parametrize("subjects", [2, 10, 40])
def test_a_detectable_difference_is_found_in_four_of_five_studies(subjects: int) -> None:
    assert 0.77 <= power(subjects, trials=4000).found <= 0.83


def test_a_subject_without_a_score_counts_only_where_it_has_one() -> None:
    comparison = compared(judged({"a": 0.7, "b": None, "c": 0.8}, epochs=1))
    assert trust(comparison).over_subjects == mean_of([0.7, 0.8])


def test_columns_and_exports_have_it() -> None:
    query = Query(columns="epochs,dice-subjects", sort="dice-subjects")
    comparison = compared(*sweep())
    assert query.names(comparison) == ["epochs", "dice-subjects"]
    assert [found.result.settings["epochs"] for found in query.rows(comparison)] == [3, 2, 1]
    found = next(csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, None))))
    expected = trust(comparison).over_subjects
    assert expected
    names = ("dice_subjects", "dice_subjects_low", "dice_subjects_high", "dice_subjects_number")
    assert [float(found[name]) for name in names] == pytest.approx(
        [expected.value, expected.low, expected.high, expected.n]
    )
    data = json.loads(as_json(comparison, comparison.rows, None))
    assert data["configurations"][0]["over_subjects"]["n"] == 8
    assert data["trust"]["best_of"] == 3
    assert data["trust"]["detectable"] > 0
    assert data["trust"]["said"] == said(trust(comparison), comparison)


@pytest.mark.parametrize(("seeds", "subjects"), [(2, 10), (3, 20)])
def test_intervals_over_subjects_hold_and_those_over_seeds_do_not(seeds: int, subjects: int) -> None:
    found = over_subjects(seeds, subjects, trials=100)
    assert 0.90 <= found.now <= 0.99
    assert found.seeds < found.now
    assert found.bootstrap < found.now


# ── optimism


def test_the_best_of_equal_ones_is_too_good_and_of_clearly_different_ones_is_not() -> None:
    errors = np.full(10, 0.01)
    assert 0.01 < of_choice(np.linspace(0.8, 0.801, 10), errors) < 0.02
    assert of_choice(np.linspace(0.1, 0.9, 10), errors) < 0.001
    assert of_choice(np.array([0.8]), errors[:1]) == 0
    assert of_choice(np.linspace(0.8, 0.801, 10), 0 * errors) == 0


def test_the_best_of_few_configurations_says_so_unless_their_spread_is_unknown() -> None:
    alike = [cohort(0.7 + 0.001 * n + 0.002 * s, epochs=n, seed=s) for n in (1, 2, 3) for s in (0, 1, 2)]
    assert "Chosen as the best of 3: its Dice is about 0.0" in words(compared(*alike))
    assert "Chosen as" not in words(compared(cohort(0.7, epochs=1), cohort(0.8, epochs=2)))


@pytest.mark.parametrize(("n", "spread"), [(4, 0.0), (12, 0.0), (12, 0.2)])
def test_the_optimism_of_the_best_of_n_is_right_on_average(n: int, spread: float) -> None:
    found = of_best(np.random.default_rng(1).normal(2, spread, n).tolist(), trials=150)
    assert found.estimated == pytest.approx(found.true, rel=0.3)


@pytest.mark.parametrize(("epochs", "subjects", "noise"), [(10, 5, 0.04), (50, 20, 0.02)])
def test_the_optimism_of_the_best_epoch_is_right_on_average(epochs: int, subjects: int, noise: float) -> None:
    found = of_curve(epochs, subjects, noise, trials=400)
    assert found.estimated == pytest.approx(found.true, rel=0.15)


def test_a_best_epoch_that_is_best_for_every_subject_is_no_chance() -> None:
    curve = np.linspace(0.5, 0.8, 10)[:, None] + np.array([0.0, 0.05, -0.05])
    assert of_epochs([curve]) == pytest.approx(0)
    assert of_epochs([curve[:1], curve[:, :1]]) is None


def test_epochs_are_read_for_the_best_and_damaged_ones_say_nothing(tmp_path: Path) -> None:
    lines = []
    for number in range(4):
        line = epoch(number)
        line["volume_dice"] = {"a": 0.8 if number == 1 else 0.6, "b": 0.8 if number == 2 else 0.6, "c": None}
        lines.append(line)
    best = write(tmp_path, record({"epochs": 4}, dice=0.7), lines)
    runs, _ = read_runs([best, write(tmp_path, record({"epochs": 3}, dice=0.5))])
    comparison = Query().compare(by_configuration(runs))
    found = trust(comparison)
    # Chosen by b, a has 0.6, and the other way round.
    assert found.epochs == 4
    assert found.of_epochs == pytest.approx(0.1)
    assert "Its best of 4 epochs was chosen on the same subjects: about 0.1000 too high" in words(comparison)
    (best.path / "epochs.jsonl").write_text("{\n{\n")
    assert trust(comparison).of_epochs is None


def test_validation_and_test_are_compared() -> None:
    written = cohort(0.8) | {"test": {"dice": 0.7, "volume_dice": {"x": 0.6, "y": 0.8}, "content": "abc"}}
    found = trust(compared(written)).gap
    assert found
    assert found.value == pytest.approx(sum(written["metrics"]["volume_dice"].values()) / 8 - 0.7)
    assert (found.half or 0) > 0.1
    assert "Validation − test Dice: +0.0" in words(compared(written))


# ── folds


def folded(level: float, fold: int, seed: int = 0, **settings: Any) -> Json:
    return record({"folds": 5, "fold": fold, "seed": seed, **settings}, dice=level)


def test_a_mean_over_folds_has_the_corrected_interval() -> None:
    levels = [0.70, 0.74, 0.78, 0.72, 0.76]
    comparison = compared(*[folded(level, fold) for fold, level in enumerate(levels)])
    found = comparison.figure(comparison.results[0], comparison.quality)
    independent = mean_of(levels)
    assert found
    assert found.n == 5
    assert found.half == pytest.approx((independent.half or 0) * (1 + 5 / 4) ** 0.5)
    assert any("Nadeau & Bengio 2003" in line for line in answer.legend(comparison))


def test_seeds_are_averaged_within_each_fold_first() -> None:
    levels = [0.70, 0.74, 0.78]
    once = compared(*[folded(level, fold) for fold, level in enumerate(levels)])
    twice = compared(
        *[folded(level + 0.01 * (2 * s - 1), fold, s) for fold, level in enumerate(levels) for s in (0, 1)]
    )
    one, two = (each.figure(each.results[0], each.quality) for each in (once, twice))
    assert one
    assert two
    assert (two.value, two.half, two.n) == pytest.approx((one.value, one.half, 3))
    assert any("Seeds are averaged within each fold first." in line for line in answer.legend(twice))


def test_the_spread_of_folds_is_not_that_of_seeds() -> None:
    seeds = [record({"epochs": n, "seed": s}, dice=0.8 + 0.001 * s) for n in (1, 2, 3) for s in (0, 1)]
    folds = [folded(0.7 + 0.05 * fold, fold, epochs=n) for n in (1, 2, 3) for fold in (0, 1)]
    alone, together = compared(*seeds), compared(*seeds, *folds)
    for n in (1, 2, 3):
        expected = alone.figure(row(alone, epochs=n, folds=0).result, alone.quality)
        assert together.figure(row(together, epochs=n, folds=0).result, together.quality) == expected


def test_joules_over_folds_are_independent() -> None:
    comparison = compared(*[folded(0.7, fold) for fold in range(3)])
    moments = comparison.results[0].figure(comparison.energy)
    assert moments
    assert moments.inflation == 1


def test_intervals_over_folds_hold() -> None:
    found = over_folds(5, trials=600)
    assert found.plain < 0.94 <= found.corrected
