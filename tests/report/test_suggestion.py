"""Further seeds: for what, how many, and as a sweep that trains them."""

from pathlib import Path
from typing import Any

import pytest

from greenseg.report.comparison import Comparison
from greenseg.report.suggestion import as_sweep, suggest
from greenseg.sweep.file import read_sweep
from tests.report.comparisons import compared
from tests.report.test_comparison import one


def sweep(*means: tuple[float, float], spread: float = 0.01, seeds: int = 3, **settings: Any) -> Comparison:
    """Configurations with these means of Dice and joules, and a spread of Dice and of joules as a share of them."""
    return compared(
        *(
            one(dice + spread * step, joules * (1 + spread * step), epochs=i + 1, seed=seed, **settings)
            for i, (dice, joules) in enumerate(means)
            for seed, step in enumerate([-1, 1, 0, 0.5, -0.5][:seeds])
        )
    )


def number(comparison: Comparison) -> dict[int, int]:
    return {result.settings["epochs"]: more for result, more in suggest(comparison).further}


def test_a_settled_front_needs_no_seeds() -> None:
    comparison = sweep((0.5, 100), (0.7, 200), (0.9, 400), (0.6, 500))
    found = suggest(comparison)
    assert (found.further, found.joules, found.unsettled) == ((), 0, 0)
    assert as_sweep(comparison, found).startswith("# The front is settled")


def test_seeds_go_to_what_is_in_doubt() -> None:
    """Two are nearly alike and a third is far from both."""
    comparison = sweep((0.80, 100), (0.83, 110), (0.5, 10), spread=0.02)
    found = suggest(comparison)
    assert found.unsettled
    assert {result.settings["epochs"] for result, _ in found.further} <= {1, 2}
    spent = sum(more * comparison.value(result, comparison.energy) for result, more in found.further)
    assert found.joules == pytest.approx(spent)


def test_a_smaller_difference_needs_more_seeds() -> None:
    def total(difference: float) -> int:
        return sum(number(sweep((0.80, 100), (0.80 + difference, 110), spread=0.02)).values())

    assert 0 < total(0.03) < total(0.02)


def test_what_is_known_to_the_margin_is_settled() -> None:
    """They differ by a hundredth of a percent: no number of seeds is worth it."""
    alike = (0.80, 100), (0.80005, 100.01)
    assert number(sweep(*alike, spread=0.0005)) == {}
    unknown = sweep(*alike, spread=0.1)
    assert number(unknown) == {}, "they would not help"
    assert "too alike to tell" in as_sweep(unknown, suggest(unknown))


def test_without_any_repeats_the_front_is_repeated() -> None:
    comparison = sweep((0.5, 100), (0.7, 200), (0.6, 300), seeds=1)
    assert number(comparison) == {1: 2, 2: 2}
    assert "Nothing ran twice" in as_sweep(comparison, suggest(comparison))


def test_the_sweep_trains_new_repeats_of_the_same_configurations(tmp_path: Path) -> None:
    comparison = sweep((0.80, 100), (0.83, 110), spread=0.02, precision="bf16-mixed", labels="a=1,b=2", lr=0.01)
    found = suggest(comparison)
    path = tmp_path / "more.yaml"
    path.write_text(as_sweep(comparison, found))
    runs = read_sweep(path).runs
    ran = {run.settings["seed"] for run in comparison.runs}
    for result, more in found.further:
        known = {name: value for name, value in result.settings.items() if value is not None}
        repeats = [r for r in runs if all(getattr(r, name) == value for name, value in known.items())]
        assert [run.seed for run in repeats] == [3 + k for k in range(more)]
        assert not ran & {run.seed for run in repeats}
    assert len(runs) == sum(more for _, more in found.further)


def test_further_folds_of_a_cross_validation_come_first(tmp_path: Path) -> None:
    records = [
        one(0.77 + 0.03 * e + 0.015 * f, 100 * e, epochs=e, folds=10, fold=f, seed=0) for e in (1, 2) for f in (0, 1)
    ]
    comparison = compared(*records)
    path = tmp_path / "more.yaml"
    path.write_text(as_sweep(comparison, suggest(comparison)))
    first = next(run for run in read_sweep(path).runs)
    assert (first.seed, first.fold, first.folds) == (0, 2, 10)


def cross_validation(folds: int, difference: float) -> Comparison:
    """Two configurations that differ by so much in Dice, of which three folds ran; else as `sweep`."""
    return compared(
        *(
            one(dice + 0.01 * step, 100 * e * (1 + 0.01 * step), epochs=e, folds=folds, fold=fold, seed=0)
            for e, dice in ((1, 0.80), (2, 0.80 + difference))
            for fold, step in enumerate([-1, 1, 0])
        )
    )


def test_folds_settle_less_than_as_many_seeds() -> None:
    """The data that they share stays shared: s²(1/k + 1/(K − 1)), Nadeau & Bengio 2003."""
    seeds = sum(number(sweep((0.80, 100), (0.815, 200))).values())
    folds = sum(number(cross_validation(20, 0.015)).values())
    assert 0 < seeds < folds


def test_seeds_of_folds_that_have_all_run_are_not_counted_on() -> None:
    found = suggest(cross_validation(3, 0.02))
    assert (found.further, found.unsettled, found.left) == ((), 1, 1)
    assert suggest(sweep((0.80, 100), (0.82, 200))).further


def test_no_setting_of_a_run_leaves_its_comment(tmp_path: Path) -> None:
    comparison = compared(
        *(
            one(dice, 10 * (i + 1), data=f"d\nbase: [x]{i}", epochs=i + 1, seed=seed)
            for i, pair in enumerate(((0.80, 0.82), (0.83, 0.85)))
            for seed, dice in enumerate(pair)
        )
    )
    path = tmp_path / "more.yaml"
    path.write_text(as_sweep(comparison, suggest(comparison)))
    assert {run.data for run in read_sweep(path).runs} <= {"d\nbase: [x]0", "d\nbase: [x]1"}
