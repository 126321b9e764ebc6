"""Means and intervals of Student's t, against scipy.stats and by hand."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.report.statistics import mean_of, t_quantile

_VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@given(_VALUES)
@settings(deadline=None)
def test_an_interval_is_that_of_students_t(values: list[float]) -> None:
    mean = mean_of(values)
    assert mean.n == len(values)
    assert mean.value == pytest.approx(np.mean(values), abs=1e-9)
    assert mean.half is not None
    if np.ptp(values) > 1e-6:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
        assert (mean.low, mean.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


def test_an_interval_by_hand() -> None:
    mean = mean_of([0.6, 0.8])
    assert (mean.value, mean.half) == pytest.approx((0.7, 12.706205 * 0.1))


def test_equal_repeats_have_an_interval_of_no_width() -> None:
    assert mean_of([0.5, 0.5, 0.5]).half == 0


def test_one_repeat_has_no_interval() -> None:
    mean = mean_of([0.7])
    assert (mean.value, mean.half, mean.low, mean.high, mean.n) == (0.7, None, 0.7, 0.7, 1)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.7062), (2, 4.30265), (9, 2.26216), (1e6, 1.95996)])
def test_quantiles_are_those_of_the_tables(freedom: float, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, rel=1e-5)
