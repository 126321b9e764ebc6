"""The Pareto front, against its definition."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.report.front import front, on_front
from greenseg.report.results import Result, Run, by_configuration
from greenseg.run_directory import RunDirectory
from tests.runs import Json, energy, record

Point = tuple[float, float]

# Few distinct values: ties and duplicates are the rule.
_POINTS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3)) | st.tuples(st.floats(0, 1), st.floats(0, 9)))


def beats(one: Point, other: Point) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def reference(points: list[Point]) -> list[int]:
    return [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


@given(_POINTS)
@example([])
@example([(0.5, 1), (0.5, 1), (0.5, 2), (0.4, 1), (0.6, 2)])
@example([(0.0, 0.0), (-0.0, 0.0), (0.0, -0.0)])
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    assert front(points) == reference(points)


@given(_POINTS.flatmap(lambda points: st.tuples(st.just(points), st.permutations(points))))
def test_the_order_of_the_points_does_not_matter(both: tuple[list[Point], list[Point]]) -> None:
    points, shuffled = both
    assert sorted(points[i] for i in front(points)) == sorted(shuffled[i] for i in front(shuffled))


def result(dice: float, total: Json, unmeasured: tuple[str, ...] = (), status: str = "finished") -> Result:
    written = record(status=status, dice=dice, total=total, unmeasured=unmeasured)
    (joined,) = by_configuration([Run(RunDirectory(Path("nowhere")), status, written)])
    return joined


def test_an_estimate_neither_beats_a_measurement_nor_is_beaten_by_one() -> None:
    measured = [result(0.8, energy(1, cpu_rapl=100)), result(0.7, energy(1, cpu_rapl=200))]
    estimated = [result(0.9, energy(1, cpu_estimate=1)), result(0.6, energy(1, cpu_estimate=300))]
    assert on_front([*measured, *estimated]) == {0, 2}
    assert on_front([*estimated, *measured]) == {0, 2}


def test_only_results_that_count_the_same_components_compete() -> None:
    results = [
        result(0.8, energy(1, gpu_nvml=100, cpu_rapl=50)),
        result(0.8, energy(1, cpu_rapl=50)),  # its GPU was not counted, so it cannot win by that
        result(0.8, energy(1, gpu_nvml=100, cpu_estimate=20)),
        result(0.8, energy(1, cpu_rapl=50), unmeasured=("gpu",)),
        result(0.7, energy(1, cpu_rapl=40), unmeasured=("gpu",)),
        result(0.7, energy(1, gpu_nvml=100, cpu_rapl=60)),
    ]
    assert on_front(results) == {0, 1, 2, 3, 4}


def test_the_kind_of_sensor_does_not_matter_where_it_measures() -> None:
    assert on_front([result(0.8, energy(1, gpu_nvml=100)), result(0.8, energy(1, gpu_amdsmi=200))]) == {0}


def test_partly_estimated_is_estimated() -> None:
    assert on_front([result(0.8, energy(1, cpu_rapl=100, cpu_estimate=1)), result(0.8, energy(1, cpu_rapl=50))]) == {
        0,
        1,
    }


def test_what_did_not_finish_is_not_on_the_front() -> None:
    assert on_front([result(0.9, energy(1, cpu_rapl=1), status="failed"), result(0.8, energy(1, cpu_rapl=2))]) == {1}
    assert on_front([]) == set()


_KINDS = ["cpu_rapl", "cpu_estimate", "gpu_nvml"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from(_KINDS)), max_size=8))
@settings(deadline=None)
def test_each_kind_of_joules_has_its_own_front(rows: list[tuple[int, int, str]]) -> None:
    results = [result(dice / 4, energy(1, **{kind: joules})) for dice, joules, kind in rows]
    assert on_front(results) == {
        i
        for i, (dice, joules, kind) in enumerate(rows)
        if not any(beats((d, j), (dice, joules)) for d, j, k in rows if k == kind)
    }


def test_dice_of_zero_is_a_dice() -> None:
    (found,) = by_configuration([Run(RunDirectory(Path("nowhere")), "finished", record(dice=0.0))])
    assert found.dice == pytest.approx(0.0)
    assert on_front([found]) == {0}
