"""Fronts, ranks, hypervolume and chances, against their definitions."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.report import front as fronts
from greenseg.report.comparison import Comparison
from greenseg.report.front import front, hypervolume, knee, ranks
from greenseg.report.objectives import ENERGIES, QUALITIES
from greenseg.report.results import Result
from tests.report.comparisons import compared, results
from tests.runs import Json, energy, record

Point = tuple[float, ...]

NAN = float("nan")


def points_of(dimensions: int) -> st.SearchStrategy[list[Point]]:
    """Few distinct values: ties and duplicates are the rule; and NaN, and infinity, and -0."""
    few = st.integers(-2, 2).map(float)
    any_number = few | st.floats(-9, 9) | st.sampled_from([NAN, -0.0, 0.0, 1e300, -1e-300])
    return st.lists(st.tuples(*[few] * dimensions) | st.tuples(*[any_number] * dimensions), max_size=12)


def beats(one: Point, other: Point, maximise: list[bool]) -> bool:
    pairs = list(zip(one, other, maximise, strict=True))
    return all(a >= b if more else a <= b for a, b, more in pairs) and any(a != b for a, b, _ in pairs)


def reference(points: list[Point], maximise: list[bool]) -> list[bool]:
    """Whether nothing beats it, by looking at all pairs; a NaN is beaten by definition and beats nothing."""
    return [
        not any(map(np.isnan, point)) and not any(beats(other, point, maximise) for other in points) for point in points
    ]


def array(points: list[Point], dimensions: int) -> fronts.Points:
    return np.array(points, dtype=float).reshape(len(points), dimensions)


@given(points_of(2))
@example([])
@example([(0.5, 1), (0.5, 1), (0.5, 2), (0.4, 1), (0.6, 2)])
@example([(0.0, 0.0), (-0.0, 0.0), (0.0, -0.0)])
@example([(NAN, 0.0), (1.0, NAN), (NAN, NAN)])
@settings(deadline=None)
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    assert front(array(points, 2), [True, False]).tolist() == reference(points, [True, False])


@given(points_of(3), st.lists(st.booleans(), min_size=3, max_size=3))
@settings(deadline=None)
def test_the_front_of_three_objectives(points: list[Point], maximise: list[bool]) -> None:
    assert front(array(points, 3), maximise).tolist() == reference(points, maximise)


@given(points_of(2).flatmap(lambda points: st.tuples(st.just(points), st.permutations(points))))
@settings(deadline=None)
def test_the_order_of_the_points_does_not_matter(both: tuple[list[Point], list[Point]]) -> None:
    chosen = [
        sorted(
            point for point, on_front in zip(points, front(array(points, 2), [True, False]), strict=True) if on_front
        )
        for points in both
    ]
    assert chosen[0] == chosen[1]


@given(points_of(2))
@settings(deadline=None)
def test_ranks_are_fronts_of_what_is_left(points: list[Point]) -> None:
    found = ranks(array(points, 2), [True, False])
    left = list(range(len(points)))
    expected, rank = [0] * len(points), 1
    while left and any(on := reference([points[i] for i in left], [True, False])):
        for i, on_front in zip(left, on, strict=True):
            expected[i] = rank if on_front else 0
        left, rank = [i for i, on_front in zip(left, on, strict=True) if not on_front], rank + 1
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 0.0),
        ([(NAN, 1.0)], 0.0),
        ([(1.0, 0.0)], 1.0),  # the ideal itself
        ([(0.5, 5.0)], 0.25),
        ([(0.5, 5.0), (0.5, 5.0), (0.4, 6.0)], 0.25),
        ([(0.5, 5.0), (1.0, 10.0)], 0.25),  # what costs as much as the reference adds nothing
        ([(0.2, 0.0), (0.8, 5.0)], 0.2 + 0.6 * 0.5),
        ([(0.5, 20.0)], 0.0),  # worse than the reference
    ],
)
def test_hypervolume(points: list[Point], expected: float) -> None:
    found = hypervolume(array(points, 2), [True, False], reference=[0.0, 10.0], ideal=[1.0, 0.0])
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("quality", "cost", "expected"),
    [
        ([0.1, 0.8, 0.9], [1, 10, 100], 1),
        ([0.1, 0.2, 0.9], [1, 10, 100], None),  # hollow: each step is worth more than the last
        ([0.1, 0.5, 0.9], [1, 10, 100], None),  # straight, by decades
        ([0.1, 0.7, 0.8, 0.9], [1, 2, 50, 100], 1),
        ([0.1, 0.9], [1, 10], None),
        ([0.5, 0.5, 0.5], [1, 1, 1], None),
        ([0.1, 0.5, 0.9], [0, 1, 2], None),
    ],
)
def test_the_knee(quality: list[float], cost: list[float], expected: int | None) -> None:
    assert knee(np.array(quality), np.array(cost, dtype=float)) == expected


@given(st.lists(points_of(2), min_size=1, max_size=5), st.lists(st.booleans(), min_size=2, max_size=2))
@settings(deadline=None)
def test_the_fronts_of_many_samples_are_those_of_each(samples: list[list[Point]], maximise: list[bool]) -> None:
    number = min(map(len, samples))
    arrays = np.stack([np.nan_to_num(array(points[:number], 2), nan=0.5) for points in samples])
    if number:
        expected = [front(sample, maximise).tolist() for sample in arrays]
        assert fronts.fronts(arrays, maximise).tolist() == expected


# ── of results


def result(dice: float, total: Json, unmeasured: tuple[str, ...] = (), status: str = "finished") -> Result:
    (joined,) = results(record(status=status, dice=dice, total=total, unmeasured=unmeasured))
    return joined


def on_front(those: list[Result], allow_mixed_sources: bool = False) -> set[int]:
    comparison = Comparison(those, QUALITIES["dice"], ENERGIES["total"], allow_mixed_sources=allow_mixed_sources)
    chosen = {id(row.result) for row in comparison.rows if row.on_front}
    return {i for i, one in enumerate(those) if id(one) in chosen}


def test_an_estimate_neither_beats_a_measurement_nor_is_beaten_by_one() -> None:
    measured = [result(0.8, energy(1, cpu_rapl=100)), result(0.7, energy(1, cpu_rapl=200))]
    estimated = [result(0.9, energy(1, cpu_estimate=1)), result(0.6, energy(1, cpu_estimate=300))]
    assert on_front([*measured, *estimated]) == {0, 2}
    assert on_front([*estimated, *measured]) == {0, 2}
    assert on_front([*measured, *estimated], allow_mixed_sources=True) == {2}


def test_only_results_that_count_the_same_components_compete() -> None:
    those = [
        result(0.8, energy(1, gpu_nvml=100, cpu_rapl=50)),
        result(0.8, energy(1, cpu_rapl=50)),  # its GPU was not counted, so it cannot win by that
        result(0.8, energy(1, gpu_nvml=100, cpu_estimate=20)),
        result(0.8, energy(1, cpu_rapl=50), unmeasured=("gpu",)),
        result(0.7, energy(1, cpu_rapl=40), unmeasured=("gpu",)),
        result(0.7, energy(1, gpu_nvml=100, cpu_rapl=60)),
    ]
    assert on_front(those) == {0, 1, 2, 3, 4}


def test_the_kind_of_sensor_does_not_matter_where_it_measures() -> None:
    assert on_front([result(0.8, energy(1, gpu_nvml=100)), result(0.8, energy(1, gpu_amdsmi=200))]) == {0}


def test_partly_estimated_is_estimated() -> None:
    partly, measured = energy(1, cpu_rapl=100, cpu_estimate=1), energy(1, cpu_rapl=50)
    assert on_front([result(0.8, partly), result(0.8, measured)]) == {0, 1}


def test_where_only_the_gpu_counts_only_its_source_matters() -> None:
    one = record({"epochs": 1}, dice=0.8, total=energy(1, gpu_nvml=100, cpu_rapl=5))
    two = record({"epochs": 2}, dice=0.7, total=energy(1, gpu_nvml=200, cpu_estimate=5))
    assert [row.on_front for row in compared(one, two, energy="gpu").rows] == [True, False]
    assert [row.on_front for row in compared(one, two).rows] == [True, True]


def test_what_did_not_finish_is_not_on_the_front() -> None:
    assert on_front([result(0.9, energy(1, cpu_rapl=1), status="failed"), result(0.8, energy(1, cpu_rapl=2))]) == {1}


_KINDS = ["cpu_rapl", "cpu_estimate", "gpu_nvml"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from(_KINDS)), min_size=1, max_size=8))
@settings(deadline=None)
def test_each_kind_of_joules_has_its_own_front(rows: list[tuple[int, int, str]]) -> None:
    those = [result(dice / 4, energy(1, **{kind: joules})) for dice, joules, kind in rows]
    assert on_front(those) == {
        i
        for i, (dice, joules, kind) in enumerate(rows)
        if not any(beats((d, j), (dice, joules), [True, False]) for d, j, k in rows if k == kind)
    }


def test_dice_of_zero_is_a_dice() -> None:
    (found,) = results(record(dice=0.0))
    mean = found.figure(QUALITIES["dice"])
    assert mean is not None
    assert mean.value == pytest.approx(0.0)
    assert on_front([found]) == {0}


def test_a_third_objective_lets_more_on_the_front() -> None:
    def one(epochs: int, dice: float, joules: float, parameters: int) -> Json:
        return record({"epochs": epochs}, dice=dice, total=energy(1, cpu_rapl=joules), parameters=parameters)

    records = one(1, 0.9, 10, 500), one(2, 0.8, 20, 100), one(3, 0.7, 30, 300)
    assert [row.on_front for row in compared(*records).rows] == [True, False, False]
    assert [row.on_front for row in compared(*records, third="params").rows] == [True, True, False]
