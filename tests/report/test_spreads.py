"""Means, savings and chances of a comparison rest on the spread of all its configurations, and say so."""

import csv
import io
import math

import pytest
import scipy.stats

from greenseg.report import answer
from greenseg.report.columns import column
from greenseg.report.comparison import Comparison
from greenseg.report.export import as_csv
from greenseg.report.objectives import COSTS, ENERGIES, QUALITIES
from greenseg.report.statistics import Mean
from tests.report.comparisons import compared, row
from tests.report.test_comparison import one
from tests.runs import Json

DICE, JOULES = QUALITIES["dice"], ENERGIES["total"]
STEPS = (-1.0, 1.0, 0.0, 0.5, -0.5)


def repeats(
    epochs: int, dice: float, joules: float, number: int, spread: float = 0.01, sensor: str = "cpu_rapl"
) -> list[Json]:
    return [
        one(dice + spread * step, joules * (1 + spread * step), sensor, epochs=epochs, seed=seed)
        for seed, step in enumerate(STEPS[:number] if number > 1 else [0.0])
    ]


def mean(comparison: Comparison, epochs: int) -> Mean:
    found = comparison.figure(row(comparison, epochs=epochs).result, DICE)
    assert found
    return found


def half(comparison: Comparison, epochs: int) -> float:
    found = mean(comparison, epochs).half
    assert found is not None
    return found


def test_two_repeats_borrow_from_the_others() -> None:
    own = 12.706 * 0.01
    alone = compared(*repeats(1, 0.8, 100, 2))
    assert half(alone, 1) == pytest.approx(own, rel=1e-3), "alone, it is Student's t with 1 degree of freedom"
    three = compared(*(written for e in (1, 2, 3) for written in repeats(e, 0.8, 100 * e, 2)))
    six = compared(*(written for e in range(1, 7) for written in repeats(e, 0.8, 100 * e, 2)))
    assert half(six, 1) < half(three, 1) < own / 2


def test_a_single_repeat_has_an_interval_from_the_others_and_is_marked() -> None:
    comparison = compared(*(w for e in (1, 2, 3) for w in repeats(e, 0.8, 100 * e, 3)), *repeats(4, 0.85, 500, 1))
    found = mean(comparison, 4)
    assert found.borrowed
    assert half(comparison, 4) > half(comparison, 1) * math.sqrt(3)
    assert column(comparison, "dice").text(row(comparison, epochs=4)) == f"0.8500 (±{found.half:.4f})"
    assert row(comparison, epochs=4).probability is not None
    assert "(±): of a single repeat, from the spread of the others." in " ".join(answer.legend(comparison))
    assert "1 configuration ran once: the interval rests on the spread of the others." in " ".join(
        answer.warnings(comparison)
    )
    (cells,) = [r for r in csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, None))) if r["epochs"] == "4"]
    assert float(cells["dice_high"]) == pytest.approx(found.high)


def test_one_configuration_with_repeats_tells_nothing_of_others() -> None:
    comparison = compared(*repeats(1, 0.8, 100, 3), *repeats(2, 0.85, 200, 1))
    assert mean(comparison, 2).half is None
    assert row(comparison, epochs=2).probability is None
    assert column(comparison, "chance").text(row(comparison, epochs=2)) == "–"
    assert half(comparison, 1) == pytest.approx(scipy.stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3))


def test_the_spread_of_a_quality_is_even_in_its_logit() -> None:
    """Near 1, a Dice varies less; the interval of a single repeat is narrower there."""
    comparison = compared(
        *(w for e in (1, 2, 3) for w in repeats(e, 0.8, 100 * e, 3)), *repeats(4, 0.98, 500, 1), *repeats(5, 0.5, 10, 1)
    )
    ratio = (0.98 * 0.02) / (0.5 * 0.5)
    assert half(comparison, 4) / half(comparison, 5) == pytest.approx(ratio)


def test_seeds_that_collapse_keep_their_own_spread() -> None:
    ordinary = [w for e in range(1, 8) for w in repeats(e, 0.8, 100 * e, 3)]
    collapsed = [one(dice, 900, epochs=9, seed=seed) for seed, dice in enumerate((0.8, 0.81, 0.1))]
    comparison = compared(*ordinary, *collapsed)
    assert half(comparison, 9) > 0.5
    assert half(comparison, 1) == pytest.approx(half(compared(*ordinary), 1), rel=0.2)


def test_estimates_and_measurements_do_not_share_a_spread() -> None:
    measured = [w for e in (1, 2, 3) for w in repeats(e, 0.8, 100 * e, 3, 0.001)]
    estimated = [w for e in (4, 5, 6) for w in repeats(e, 0.8, 100 * e, 3, 0.1, "cpu_estimate")]
    both, alone = compared(*measured, *estimated), compared(*measured)
    found = [c.figure(row(c, epochs=1).result, JOULES) for c in (both, alone)]
    assert found[0] == found[1]


def test_what_never_varies_has_an_interval_of_no_width() -> None:
    comparison = compared(*(w for e in (1, 2) for w in repeats(e, 0.8, 100, 2)), *repeats(3, 0.8, 100, 1))
    for result in comparison.results:
        found = comparison.figure(result, COSTS["params"])
        assert found
        assert found.half == 0


def test_a_saving_has_the_interval_of_the_ratio_of_means() -> None:
    comparison = compared(*(w for e in (1, 2, 3, 4) for w in repeats(e, 0.8, 100 * e, 3)))
    before, after = (row(comparison, epochs=e).result for e in (4, 1))
    found = comparison.change(before, after)
    assert found
    assert found.share == pytest.approx(-0.75)
    assert found.low is not None
    assert found.high is not None
    assert math.log1p(found.high) - math.log1p(found.share) == pytest.approx(
        math.log1p(found.share) - math.log1p(found.low)
    )
    error = 0.01 * math.sqrt(2 / 3)
    assert 1.96 * error < math.log1p(found.high) - math.log1p(found.share) < 3 * error
    single = compared(*repeats(1, 0.8, 100, 1), *repeats(2, 0.8, 200, 1))
    unknown = single.change(*(row(single, epochs=e).result for e in (1, 2)))
    assert unknown
    assert unknown.share == pytest.approx(1.0)
    assert (unknown.low, unknown.high, unknown.n) == (None, None, 1)


def test_those_not_told_from_the_best_are_counted() -> None:
    close = compared(*(w for e, dice in ((1, 0.8), (2, 0.805), (3, 0.6)) for w in repeats(e, dice, 100 * e, 3)))
    assert [result.settings["epochs"] for result in close.near_best] == [2, 1]
    assert "1 other configuration cannot be distinguished from the best in Dice." in answer.decision(close)[0]
    assert compared(*repeats(1, 0.8, 100, 1), *repeats(2, 0.9, 100, 1)).near_best == []


def test_an_effect_that_differs_between_configurations_says_so() -> None:
    records = [
        one(0.8 + 0.001 * step + drop * (batch == 16), 100, batch_size=batch, epochs=epochs, seed=seed)
        for epochs, drop in ((1, 0.05), (2, -0.05), (3, 0.0))
        for batch in (8, 16)
        for seed, step in enumerate(STEPS[:3])
    ]
    assert any(
        said.startswith(("batch_size 16: the effect depends on the other settings: Dice −0.0500 to +0.0500",
                         "batch_size 8: the effect depends on the other settings: Dice −0.0500 to +0.0500"))
        for said in answer.uneven(compared(*records))
    )  # fmt: skip
