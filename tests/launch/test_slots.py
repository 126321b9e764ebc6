"""Who runs where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.launch.slots import Slot, Slots
from greenseg.machine import gpus
from greenseg.settings import Settings

ONE, TWO, CPU = Settings(), Settings(devices=2, strategy="ddp"), Settings(accelerator="cpu")


def test_without_a_gpu_one_run_at_a_time_has_all_cores() -> None:
    slots = Slots((), cores=8)
    slot = slots.take(ONE)
    assert slot == Slot((), 8)
    assert slots.take(CPU) is None
    slots.give_back(slot)
    assert slots.take(CPU) == Slot((), 8)


def test_runs_side_by_side_divide_the_cores() -> None:
    slots = Slots((), cores=8, jobs=3)
    assert [slots.take(ONE) for _ in range(4)] == [Slot((), 2)] * 3 + [None]
    assert Slot((), 2).environment == {"GREENSEG_THREADS": "2"}


def test_one_run_a_gpu_and_several_gpus_for_one_run() -> None:
    slots = Slots(("0", "2", "3"), cores=8)
    first = slots.take(ONE)
    assert first == Slot(("0",), None)
    assert slots.take(TWO) == Slot(("2", "3"), None)
    assert slots.full is False
    assert slots.take(ONE) is None, "no GPU is free"
    slots.give_back(first)
    assert slots.take(ONE) == Slot(("0",), None)
    assert Slot(("2", "3"), None).environment == {"CUDA_VISIBLE_DEVICES": "2,3"}


def test_more_jobs_than_gpus_share_them_evenly() -> None:
    slots = Slots(("0", "1"), cores=8, jobs=4)
    assert [slot.gpus for _ in range(4) if (slot := slots.take(ONE))] == [("0",), ("1",), ("0",), ("1",)]
    assert slots.full


def test_a_run_that_wants_more_gpus_than_there_are_does_not_wait_for_ever() -> None:
    assert Slots(("0",), cores=8).take(TWO) == Slot(("0",), None)


@given(
    st.integers(0, 4),
    st.integers(1, 16),
    st.none() | st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from([ONE, TWO, CPU]), st.booleans()), max_size=40),
)
def test_nothing_is_ever_given_away_too_often(
    gpus: int, cores: int, jobs: int | None, wishes: list[tuple[Settings, bool]]
) -> None:
    slots = Slots([str(gpu) for gpu in range(gpus)], cores, jobs)
    most = jobs or max(gpus, 1)
    taken: list[Slot] = []
    for settings, give_back in wishes:
        if give_back and taken:
            slots.give_back(taken.pop(0))
        slot = slots.take(settings)
        taken += [slot] if slot else []
        loads = [sum(gpu in slot.gpus for slot in taken) for gpu in map(str, range(gpus))]
        assert len(taken) <= most
        assert all(load <= -(-most // gpus) for load in loads)
        assert sum(slot.threads or 0 for slot in taken) <= max(cores, len(taken))
        assert slots.full == (len(taken) == most)
    for slot in taken:
        slots.give_back(slot)
    assert slots.take(TWO), "whatever it is, it runs once all is free"


def test_gpus_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenseg.machine.gpus.visible_gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.choose() == ["0", "1"]
    assert gpus.choose("1") == ["1"]
    with pytest.raises(UserError) as caught:
        gpus.choose("1,2,x")
    assert caught.value.problems == ["--gpus: no GPU '2'; available: 0, 1", "--gpus: no GPU 'x'; available: 0, 1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-1f")
    assert gpus.choose() == ["4", "GPU-1f"]
