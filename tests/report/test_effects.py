"""Effects: what their intervals count as noise."""

import numpy as np
import pytest

from greenseg.report.effects import Pairs, mean_differences
from greenseg.report.moderation import Values


def pairs(differences: Values, noise: float = np.nan, freedom: float = 0.0) -> Pairs:
    """Pairs of each configuration (rows) with each seed (columns)."""
    configurations, seeds = differences.shape
    return Pairs(
        differences.ravel(),
        np.arange(configurations).repeat(seeds),
        np.tile(np.arange(seeds), configurations),
        np.full(differences.size, noise),
        freedom,
    )


def half(differences: Values, noise: float = np.nan, freedom: float = 0.0) -> float:
    ((found,),) = mean_differences([[pairs(differences, noise, freedom)]])
    assert found.mean.half is not None
    assert found.mean.value == pytest.approx(differences.mean())
    return found.mean.half


def test_differences_between_configurations_are_no_noise_but_told() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.01, (4, 3))
    same, different = noise, noise + np.array([[0.0], [1.0], [2.0], [3.0]])
    assert half(different, 2e-4, 8) == pytest.approx(half(same, 2e-4, 8))
    ((found,),) = mean_differences([[pairs(different, 2e-4, 8)]])
    assert found.between == pytest.approx((different[0].mean(), different[3].mean()))
    ((found,),) = mean_differences([[pairs(same, 2e-4, 8)]])
    assert found.between is None


def test_what_a_seed_does_in_all_configurations_is_not_averaged_away() -> None:
    of_seed = np.array([-0.1, 0.0, 0.1, 0.2])
    shared = np.tile(of_seed, (10, 1))
    random = np.random.default_rng(0)
    own = np.stack([random.permutation(of_seed) for _ in range(10)])
    assert half(shared, 0.02, 30) > 2 * half(own, 0.02, 30)


def test_seeds_that_cancel_in_pairs_make_effects_exact() -> None:
    constant = np.full((2, 3), 0.5)
    independent = 2.306 * (0.1 / 6) ** 0.5
    assert half(constant, 0.1, 8) < 0.01 * independent


def test_two_seeds_borrow_from_the_spread_of_runs() -> None:
    differences = np.array([[0.1, 0.12]])
    alone = 12.706 * 0.01
    assert half(differences, 2e-4, 11) < 0.5 * alone
    assert half(differences) == pytest.approx(alone, rel=1e-3)


def test_without_repeats_configurations_stand_in_for_noise() -> None:
    ((found,),) = mean_differences([[pairs(np.array([[0.1], [0.3]]))]])
    assert found.mean.half == pytest.approx(12.706 * 0.1, rel=1e-3)
    ((found,),) = mean_differences([[pairs(np.array([[0.1]]))]])
    assert (found.mean.half, found.mean.n) == (None, 1)


def test_without_repeats_of_its_own_an_effect_has_the_noise_of_others() -> None:
    assert half(np.array([[0.1]]), 0.02, 8.0) == pytest.approx(2.306 * 0.02**0.5, rel=1e-3)
