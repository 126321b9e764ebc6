"""Figures that follow from joules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenseg.energy.derived import carbon_intensities, joules_to_reach


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([0.2, 0.4, 0.8], 30 + 100 + 100 + 100 * 0.5),  # half-way between 0.4 and 0.8
        ([0.9], 30 + 100 * 0.6 / 0.9),  # within the first epoch, from 0
        ([0.6, 0.1], 30 + 100),  # exactly at the end of the first
        ([0.5, None, 0.7], 30 + 100 + 100 + 100 * 0.5),  # an epoch without Dice is passed over
        ([0.1, 0.5], None),
        ([], None),
    ],
)
def test_joules_to_a_dice_are_interpolated_between_epochs(dice: list[float | None], expected: float | None) -> None:
    assert joules_to_reach(0.6, dice, [100.0] * len(dice), 30.0) == (expected and pytest.approx(expected))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6)), max_size=20), st.floats(0.01, 1), st.floats(0, 1e5))
def test_joules_to_a_dice_are_some_that_were_spent(
    epochs: list[tuple[float, float]], target: float, start: float
) -> None:
    reached = joules_to_reach(target, [dice for dice, _ in epochs], [joules for _, joules in epochs], start)
    if any(dice >= target for dice, _ in epochs):
        assert reached is not None
        assert start <= reached <= start + sum(joules for _, joules in epochs) + 1e-6
    else:
        assert reached is None


def test_carbon_intensities_come_from_a_table_without_network() -> None:
    pytest.importorskip("codecarbon", reason="the extra 'carbon' is not installed")
    table = carbon_intensities()
    assert len(table) > 150
    assert table["FRA"] < 100 < table["DEU"] < table["POL"]
