"""Means, intervals and changes, against scipy.stats and by hand."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.report.statistics import change, mean_of, paired_change, t_quantile

_VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)
_POSITIVE = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8)


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


@given(_POSITIVE, st.floats(0.1, 10))
@settings(deadline=None)
def test_a_factor_that_all_pairs_share_is_the_change(values: list[float], factor: float) -> None:
    found = paired_change(values, [value * factor for value in values])
    assert found is not None
    assert (found.share, found.low, found.high) == pytest.approx((factor - 1,) * 3, abs=1e-6)
    assert found.n == len(values)


def test_a_paired_change_is_the_t_interval_of_log_ratios() -> None:
    befores, afters = [100.0, 200.0, 50.0], [70.0, 150.0, 30.0]
    found = paired_change(befores, afters)
    logs = np.log(np.array(afters) / befores)
    low, high = scipy.stats.t.interval(0.95, 2, logs.mean(), scipy.stats.sem(logs))
    assert found is not None
    assert (found.share, found.low, found.high) == pytest.approx(
        (math.expm1(logs.mean()), math.expm1(low), math.expm1(high))
    )


def test_changes_that_cannot_be_told() -> None:
    assert paired_change([], []) is None
    assert paired_change([0.0], [1.0]) is None
    assert change([], [1.0]) is None
    for single in (paired_change([2.0], [1.0]), change([2.0], [1.0, 1.0])):
        assert single is not None
        assert single.share == pytest.approx(-0.5)
        assert (single.low, single.high) == (None, None)


@given(_POSITIVE, _POSITIVE)
@settings(deadline=None)
def test_the_change_between_groups_is_welchs(befores: list[float], afters: list[float]) -> None:
    found = change(befores, afters)
    assert found is not None
    one, two = np.log(befores), np.log(afters)
    assert found.share == pytest.approx(math.expm1(two.mean() - one.mean()), rel=1e-6, abs=1e-9)
    if np.ptp(one) > 1e-3 and np.ptp(two) > 1e-3:
        low, high = scipy.stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-4)
