"""A small form of `python -m benchmarks calibration`: chances come true as often as they say, and intervals hold."""

import numpy as np
import pytest

from benchmarks.calibration import Coverage, Factorial, Scenario, coverage, effect_coverage, reliability


@pytest.mark.parametrize("repeats", [(2,), (3,), (1, 3)])
def test_chances_are_true_as_often_as_they_say(repeats: tuple[int, ...]) -> None:
    bootstrap, found = reliability(Scenario(repeats=repeats), trials=120, draws=300)
    assert found.brier < bootstrap.brier
    none, unlikely, *_, likely, almost, sure = found.bins
    assert none[1] <= 0.01
    assert unlikely[1] <= 0.06
    assert likely[1] >= 0.80
    assert almost[1] >= 0.93
    assert np.isnan(sure[1]) or sure[1] >= 0.97
    assert bootstrap.bins[0][1] > none[1], "more of what it called impossible happened"


@pytest.mark.parametrize("scenario", [Scenario(repeats=(2,)), Scenario(repeats=(3,), unevenness=4)])
def test_intervals_hold(scenario: Scenario) -> None:
    found = coverage(scenario, trials=150)
    for name in ("Dice", "joules", "saving"):
        each = found[name]
        assert isinstance(each, Coverage)
        assert 0.925 <= each.share <= 0.985, name
        assert each.width < (0.5 if scenario.repeats == (2,) else 0.85), name
    assert isinstance(found["best"], float)
    assert found["best"] >= 0.95


@pytest.mark.parametrize("factorial", [Factorial(seeds=3, shared=0.2), Factorial((2,), seeds=2)])
def test_effects_hold(factorial: Factorial) -> None:
    found = effect_coverage(factorial, trials=100)
    assert 0.90 <= found.share <= 0.99
