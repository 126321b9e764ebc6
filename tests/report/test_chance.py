"""Chances to be on the front, and which configurations may be the best, against their definitions."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings

from greenseg.report.chance import Estimates, correlation, front_chances, joint_freedom, near_best
from greenseg.report.front import front
from tests.report.test_front import Point, array, points_of, reference


def known(
    means: Sequence[Point], error: float = 0.0, freedom: float = 5.0, together: float = 0.0, dimensions: int = 2
) -> Estimates:
    points = array(list(means), dimensions)
    matrix = np.full((dimensions, dimensions), together) + (1 - together) * np.eye(dimensions)
    return Estimates(points, np.full(points.shape, error), np.full(points.shape, freedom), matrix)


@given(points_of(2).map(lambda points: [point for point in points if not any(map(np.isnan, point))]))
@settings(deadline=None)
def test_without_error_the_chance_is_the_front(points: list[Point]) -> None:
    found = front_chances(known(points), [True, False], draws=2)
    assert found.tolist() == reference(points, [True, False])


def test_one_against_one_is_a_t_test() -> None:
    """The dearer one is on the front if its quality is better: the posterior of a difference of two t's."""
    estimates = Estimates(
        array([(0.0, 1.0), (0.5, 2.0)], 2), array([(0.3, 0.0), (0.4, 0.0)], 2), np.full((2, 2), 4.0), np.eye(2)
    )
    found = front_chances(estimates, [True, False], draws=20_000)
    random = np.random.default_rng(1)
    better = 0.5 + 0.4 * random.standard_t(4, 100_000) > 0.3 * random.standard_t(4, 100_000)
    assert found[0] == 1
    assert found[1] == pytest.approx(better.mean(), abs=0.015)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_chances_are_shares_of_fronts(dimensions: int) -> None:
    random = np.random.default_rng(7)
    estimates = known([tuple(p) for p in random.random((8, dimensions))], 0.1, 3.0, 0.6, dimensions)
    maximise = [True, False, False][:dimensions]
    found = front_chances(estimates, maximise, draws=4000)
    normal = random.multivariate_normal(np.zeros(dimensions), estimates.correlation, (4000, 8))
    draws = estimates.means + 0.1 * normal / np.sqrt(random.chisquare(3, (4000, 8, dimensions)) / 3)
    expected = np.mean([front(sample, maximise) for sample in draws], axis=0)
    assert found == pytest.approx(expected, abs=0.04)
    assert any(0.05 < chance < 0.95 for chance in found)


def test_what_cannot_be_on_the_front_has_no_chance_and_takes_none() -> None:
    good = [(0.9, 1.0), (0.8, 0.9)]
    alone = front_chances(known(good, 0.01), [True, False])
    found = front_chances(known([*good, (0.1, 9.0), (0.2, 8.0)], 0.01), [True, False])
    assert found.tolist() == [*alone.tolist(), 0, 0]


def test_chances_are_the_same_each_time() -> None:
    estimates = known([(0.8, 1.0), (0.85, 1.1), (0.9, 1.3)], 0.1)
    assert front_chances(estimates, [True, False]).tolist() == front_chances(estimates, [True, False]).tolist()


def test_correlation_is_pooled_over_configurations() -> None:
    random = np.random.default_rng(0)
    normal = random.standard_normal((2000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    assert correlation(normal)[0, 1] == pytest.approx(0.6, abs=0.05)
    assert correlation(np.zeros((0, 2))).tolist() == np.eye(2).tolist()
    assert correlation(np.stack([normal[:, 0], np.zeros(2000)], axis=1)).tolist() == np.eye(2).tolist()


def test_variances_of_one_pool_share_its_degrees_of_freedom() -> None:
    one = np.array([1.0, 1.0, 0.0, 0.0])
    other = np.array([1.0, 0.0, 1.0, 0.0])
    found = joint_freedom(one, other, np.full(4, 6.0), np.full(4, 3.0))
    assert found.tolist() == pytest.approx([(2 / (6**-0.5 + 3**-0.5)) ** 2, 6, 3, np.inf])


# ── the best


def test_without_error_only_the_best_may_be_the_best() -> None:
    assert near_best(known([(0.8,), (0.9,), (0.9,), (0.1,)], dimensions=1), True).tolist() == [False, True, True, False]
    assert near_best(known([(0.8,), (0.9,), (0.1,)], dimensions=1), False).tolist() == [False, False, True]


def test_only_what_is_far_behind_is_told_from_the_best() -> None:
    found = near_best(known([(0.90,), (0.89,), (0.60,)], 0.02, dimensions=1), True)
    assert found.tolist() == [True, True, False]


@pytest.mark.parametrize("number", [3, 12])
@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_the_best_is_among_those_not_told_from_it(number: int, gap: float) -> None:
    """Of equal ones, any is the best: then all are held against each other, which needs the joint quantile."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(300):
        means = gap * np.arange(number) + random.standard_normal(number)
        variance = random.chisquare(10) / 10
        errors = np.full((number, 1), np.sqrt(variance))
        estimates = Estimates(means[:, None], errors, np.full((number, 1), 10.0), np.eye(1))
        held.append(near_best(estimates, True)[-1])
    assert np.mean(held) >= 0.94


def test_more_than_200_need_no_simulation() -> None:
    random = np.random.default_rng(0)
    found = near_best(known([(mean,) for mean in random.random(300)], 0.01, dimensions=1), True)
    assert 1 < found.sum() < 60
