"""The pooled spread: what it does to variances, and that its intervals hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.report.chance import t_quantiles
from greenseg.report.moderation import POSITIVE, SHARE, Scale, moderate


def array(*values: float) -> np.typing.NDArray[np.float64]:
    return np.array(values, dtype=float)


@pytest.mark.parametrize(("scale", "means"), [(SHARE, [-0.1, 0.0, 0.005, 0.5, 0.9, 1.0]), (POSITIVE, [-1, 0, 1, 2, 9])])
def test_a_scale_rises_by_its_slope(scale: Scale, means: list[float]) -> None:
    step = 1e-6
    at = array(*means)
    # The median, which decides where the logarithm becomes a straight line, must not move.
    both = scale.even(np.concatenate([at, at + step, at - step]))[len(at) : 2 * len(at)]
    here = scale.even(np.concatenate([at, at + step, at - step]))[: len(at)]
    assert (both - here) / step == pytest.approx(1 / scale.slope(at), rel=1e-3)


def test_a_variance_is_drawn_to_the_others_and_gains_their_degrees_of_freedom() -> None:
    variances = array(0.2, 1.0, 1.1, 0.9, 1.2, 0.8)
    found = moderate(variances, array(*[2] * 6))
    assert 0.5 < found.variance[0] < 1.1
    assert (found.freedom > 3).all()
    assert found.total == 12


def test_what_ran_once_gets_the_spread_of_the_others() -> None:
    found = moderate(array(1.0, 1.1, 0.9, 1.2, 0.0), array(2, 2, 2, 2, 0))
    assert 0.8 < found.variance[-1] < 1.3
    assert 1 < found.freedom[-1] < found.freedom[0], "its own variance may differ from theirs"


def test_an_outlier_keeps_its_own_variance() -> None:
    """As that of seeds of which one failed to learn; the others are not widened by it."""
    ordinary = array(1.0, 1.1, 0.9, 1.2, 0.8, 1.0)
    found = moderate(np.append(ordinary, 1e4), array(*[2] * 7))
    assert found.variance[-1] == pytest.approx(1e4, rel=0.3)
    assert found.freedom[-1] < 3
    assert found.variance[:-1] == pytest.approx(moderate(ordinary, array(*[2] * 6)).variance, rel=0.3)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_repeats_that_never_differ_have_no_spread(number: int) -> None:
    found = moderate(array(*[0] * number), array(*[2] * number))
    assert found.variance.tolist() == [0] * number
    assert (found.freedom == 2).all()


def test_one_that_never_differs_among_others_that_do_is_chance() -> None:
    assert moderate(array(0, 1, 1, 1), array(1, 1, 1, 1)).variance[0] > 0.1


def test_most_that_never_differ_are_no_chance() -> None:
    assert moderate(array(0, 0, 0, 1), array(1, 1, 1, 1)).variance.tolist() == [0, 0, 0, 1]


def test_one_configuration_with_repeats_has_nothing_to_pool_with() -> None:
    found = moderate(array(2, 0, 0), array(1, 0, 0))
    assert (found.variance.tolist(), found.freedom.tolist()) == ([2, 0, 0], [1, 0, 0])
    nothing = moderate(array(0, 0), array(0, 0))
    assert nothing.freedom.tolist() == [0, 0]


@given(st.lists(st.tuples(st.just(0.0) | st.floats(1e-30, 1e12), st.integers(0, 9)), max_size=12), st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_any_variances_are_moderated_in_their_unit(rows: list[tuple[float, int]], unit: float) -> None:
    variances, freedoms = array(*(v for v, _ in rows)), array(*(f for _, f in rows))
    found = moderate(variances, freedoms)
    assert np.isfinite(found.variance).all()
    assert (found.variance >= 0).all()
    assert (found.freedom[freedoms > 0] > 0).all()
    other = moderate(variances * unit, freedoms)
    assert other.variance == pytest.approx(found.variance * unit, rel=1e-6, abs=1e-300)
    assert other.freedom == pytest.approx(found.freedom, rel=1e-6)


def test_two_times_two_thousand_repeats_are_their_own_variance() -> None:
    found = moderate(array(1.0, 9.0), array(2000, 2000))
    assert found.variance == pytest.approx([1, 9], rel=0.01)
    assert found.freedom == pytest.approx([2000, 2000], rel=0.05)


@pytest.mark.parametrize("configurations", [2, 3, 12])
@pytest.mark.parametrize("unevenness", [1.0, 4.0])
def test_intervals_of_two_repeats_hold_and_are_half_as_wide(configurations: int, unevenness: float) -> None:
    random = np.random.default_rng(0)
    held, widths = [], []
    for _ in range(1200 // configurations):
        sigma = np.exp(random.uniform(-0.5, 0.5, configurations) * np.log(unevenness))
        values = random.standard_normal((configurations, 2)) * sigma[:, None]
        variances = values.var(axis=1, ddof=1)
        found = moderate(variances, np.ones(configurations))
        halves = t_quantiles(found.freedom, 0.025) * np.sqrt(found.variance / 2)
        held.append(abs(values.mean(axis=1)) <= halves)
        widths.append(halves / (12.706 * np.sqrt(variances / 2)))
    assert 0.93 <= np.mean(held) <= 0.985
    assert np.median(widths) < 0.5
