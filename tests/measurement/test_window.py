"""Windows of prediction, with a scripted network, a scripted clock, and RAPL's files instead of hardware."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenseg.data.grid import FloatArray
from greenseg.energy import Energy, EnergyMeter
from greenseg.energy.neighbours import Neighbours
from greenseg.inference.recipe import Recipe
from greenseg.measurement import SECONDS
from greenseg.measurement.window import best_batch, window
from tests.energy.fakes import FakeRapl, look_for_rapl_in
from tests.inference.fakes import Intensity

IMAGES = np.zeros((10, 1, 4, 4), np.float32)


@dataclass
class Scripted(Intensity):
    """A network with a script of the joules and of the seconds that a batch takes."""

    joules: Callable[[int], float] = lambda slices: 0.0
    takes: Callable[[int], float] = lambda slices: 0.5
    rapl: FakeRapl | None = None
    now: float = 0.0
    calls: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def probabilities(self, images: FloatArray) -> FloatArray:
        found = super().probabilities(images)
        self.calls.append(len(images))
        self.now += self.takes(len(images))
        if self.rapl:
            self.rapl.use(self.joules(len(images)))
        return found


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRapl]:
    from zeus.device.cpu import rapl as of_zeus

    root = tmp_path / "powercap"
    root.mkdir()
    look_for_rapl_in(root, monkeypatch.setattr)
    yield FakeRapl(root, dram=False)
    of_zeus.rapl_is_available.cache_clear()


@pytest.fixture
def meter(rapl: FakeRapl, tmp_path: Path) -> Iterator[EnergyMeter]:
    metered = EnergyMeter(neighbours=Neighbours(tmp_path / "meters"))
    yield metered
    metered.close()


def scripted(rapl: FakeRapl | None = None, **script: object) -> Scripted:
    return Scripted(Recipe(4, 1.0), rapl=rapl, **script)  # type: ignore[arg-type]


def test_a_window_counts_its_own_batches_and_not_the_warm_up(rapl: FakeRapl, meter: EnergyMeter) -> None:
    network = scripted(rapl)
    network.joules = lambda slices: 100.0 if len(network.calls) <= 4 else 3.0
    found = window(network, IMAGES, 2, SECONDS, meter, network.clock)
    # Of half a second each: 4 for the 2 s of the warm-up, then 40 for 20 s.
    assert network.calls == [2] * 44
    assert (found.batch_size, found.slices) == (2, 80)
    energy = Energy.from_json(found.energy)
    assert energy.sources["cpu"] == "rapl"
    assert energy.component("cpu") == pytest.approx(40 * 3.0)
    assert found.joules_per_slice * found.slices == pytest.approx(energy.joules)
    assert (found.p50_ms, found.p95_ms) == pytest.approx((500, 500))


def test_the_default_window_lasts_20_seconds(meter: EnergyMeter) -> None:
    assert SECONDS == 20
    network = scripted(takes=lambda slices: 0.7)
    window(network, IMAGES, 1, SECONDS, meter, network.clock)
    # The warm-up takes 3 batches, for 2 s. The last batch of the window begins before its 20 s are over.
    assert (len(network.calls) - 3 - 1) * 0.7 < 20 <= (len(network.calls) - 3) * 0.7


def test_slow_batches_are_in_the_95th_percentile_alone(meter: EnergyMeter) -> None:
    network = scripted()
    network.takes = lambda slices: 0.2 if len(network.calls) % 10 == 0 else 0.01
    found = window(network, IMAGES, 1, 10.0, meter, network.clock)
    assert found.p50_ms == pytest.approx(10)
    assert found.p95_ms == pytest.approx(200)


@pytest.mark.parametrize(
    ("joules", "best", "tried"),
    [
        (lambda slices: 200 + 50 * slices, 8, [1, 2, 4, 8]),  # there are 10 slices
        (lambda slices: 50 * slices * (1 + abs(slices - 2)), 2, [1, 2, 4, 8]),  # two worse in a row end the trials
        (lambda slices: 50 * slices**3, 1, [1, 2, 4]),
    ],
)
def test_the_best_batch_has_the_fewest_joules_per_slice(
    joules: Callable[[int], float], best: int, tried: list[int], rapl: FakeRapl, meter: EnergyMeter
) -> None:
    network = scripted(rapl, joules=joules)
    found, trials = best_batch(network, IMAGES, SECONDS, meter, network.clock)
    assert found == best
    assert [each.batch_size for each in trials] == tried
    for each in trials:
        assert each.joules_per_slice == pytest.approx(joules(each.batch_size) / each.batch_size, rel=0.02)


def test_trials_end_where_memory_does(rapl: FakeRapl, meter: EnergyMeter) -> None:
    network = scripted(rapl, joules=lambda slices: 200 + 50 * slices, fits=2)
    found, trials = best_batch(network, IMAGES, SECONDS, meter, network.clock)
    assert (found, [each.out_of_memory for each in trials]) == (2, [False, False, True])


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 10), st.floats(0.1, 9), st.floats(0.05, 2))
def test_joules_per_slice_times_slices_are_the_joules_of_the_window(
    rapl: FakeRapl, meter: EnergyMeter, size: int, joules: float, takes: float
) -> None:
    network = scripted(rapl, joules=lambda slices: joules, takes=lambda slices: takes)
    found = window(network, IMAGES, size, 2.0, meter, network.clock)
    calls = found.slices / size
    assert calls * takes >= 2.0 - 1e-9
    assert found.joules_per_slice * found.slices == pytest.approx(Energy.from_json(found.energy).joules)
    assert Energy.from_json(found.energy).component("cpu") == pytest.approx(calls * joules, rel=1e-3)
