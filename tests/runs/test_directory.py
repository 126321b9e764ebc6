"""The directory of a run, and what its attempts and epochs add up to."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.energy import Energy
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.runs.record import BadRecord
from greenseg.settings import Settings, read_config
from tests.runs import (
    Json,
    accounted,
    append,
    energy,
    epoch,
    lines_of,
    record,
    recorded,
    summary_of,
    typed,
    write,
    write_record,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return write(tmp_path, record())


# ── making


def test_create_writes_the_configuration_where_it_is_not_there_already(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "b")
    run.create(Settings.of({"epochs": 3, "data": "/data/für alle"}))
    assert Settings.of(read_config(run.path / "config.yaml")) == Settings.of({"epochs": 3, "data": "/data/für alle"})
    before = (run.path / "config.yaml").stat().st_mtime_ns
    run.create(Settings.of({"epochs": 3, "data": "/data/für alle"}))
    assert (run.path / "config.yaml").stat().st_mtime_ns == before
    run.create(Settings.of({"epochs": 3, "data": "/data/für alle", "cpu_watts": 20.0}))
    assert read_config(run.path / "config.yaml")["cpu_watts"] == 20.0, "what is accounted for may change"
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "config.yaml"]


def test_clear_forgets_all_but_the_configuration(run: RunDirectory) -> None:
    append(run, epoch(0))
    for file in (run.log, run.last_checkpoint, run.best_checkpoint):
        file.write_text("something")
    with run.log.open("a") as log:  # as the one who starts a run has it open
        run.clear()
        log.write("now")
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "config.yaml", "run.log"]
    assert run.log.read_text() == "now", "what was printed before is gone, what is printed now is kept"
    assert not list(run.checkpoints.iterdir())
    assert run.status() == "new"
    run.clear()


def test_runs_are_found_wherever_they_are(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "sweep", record({"seed": 1}))
    two = write(tmp_path / "b", record({"seed": 2}))
    (tmp_path / "a" / "no run").mkdir()
    assert find_runs([tmp_path]) == [one, two]
    assert find_runs([two.path, tmp_path / "a", one.path, two.path]) == [one, two]
    assert find_runs([tmp_path / "nowhere"]) == []


# ── run.json


def test_a_record_is_read_as_it_was_written(run: RunDirectory) -> None:
    assert typed(recorded(run)).to_json() == recorded(run) == record()
    assert RunDirectory(run.path / "nowhere").record() is None


def test_a_record_that_is_missing_beside_epochs_is_damage(run: RunDirectory) -> None:
    append(run, epoch(0))
    (run.path / "run.json").unlink()
    with pytest.raises(BadRecord, match="missing"):
        run.record()
    (run.path / "epochs.jsonl").unlink()
    assert run.record() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"settings": {}}', b'{"settings": 3, "status": "finished"}'],
)
def test_a_damaged_record_is_named(content: bytes, run: RunDirectory) -> None:
    file = run.path / "run.json"
    file.write_bytes(content)
    for read in (run.record, run.status):
        with pytest.raises(BadRecord) as caught:
            read()
        assert str(caught.value).startswith(f"{file}: ")


def test_a_record_that_cannot_be_written_leaves_the_old_one(run: RunDirectory) -> None:
    before = sorted(run.path.iterdir())
    for impossible in ({"dice": float("nan")}, {"dice": object()}):
        with pytest.raises((ValueError, TypeError)):
            run.write_record(typed(record() | impossible))
    assert recorded(run) == record()
    assert sorted(run.path.iterdir()) == before


# ── epochs.jsonl


def test_epochs_are_read_as_they_were_appended(run: RunDirectory) -> None:
    assert lines_of(run) == []
    lines = [epoch(0), epoch(1, dice=None), epoch(1, attempt=1)]
    for line in lines:
        append(run, line)
    assert lines_of(run) == lines


@given(cut=st.integers(0), lines=st.integers(1, 3))
@settings(deadline=None)
def test_a_torn_last_line_is_ignored_and_cut_off(
    cut: int, lines: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    for number in range(lines):
        append(run, epoch(number))
    file = run.path / "epochs.jsonl"
    content = file.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    file.write_bytes(kept)
    whole = [epoch(number) for number in range(kept.count(b"\n"))]
    assert lines_of(run) == whole
    append(run, epoch(9))
    assert lines_of(run) == [*whole, epoch(9)]


@pytest.mark.parametrize("line", [b"{", b"", b"\xff\xfe", b"\0\0\0", b'{"epoch": 1}{"epoch": 2}'])
def test_a_damaged_line_is_named(line: bytes, run: RunDirectory) -> None:
    file = run.path / "epochs.jsonl"
    good = json.dumps(epoch(0)).encode()
    file.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    with pytest.raises(BadRecord) as caught:
        run.epochs()
    assert str(caught.value).startswith(f"{file}:2: ")


@pytest.mark.parametrize("torn", [b"\xff", b"\xc3", b"\0\0\0"])
def test_any_torn_last_line_is_ignored(torn: bytes, run: RunDirectory) -> None:
    append(run, epoch(0))
    with (run.path / "epochs.jsonl").open("ab") as file:
        file.write(torn)
    assert lines_of(run) == [epoch(0)]


def test_not_a_number_is_never_written(run: RunDirectory) -> None:
    append(run, epoch(0))
    with pytest.raises(ValueError, match="JSON"):
        append(run, epoch(1, dice=float("nan")))
    assert lines_of(run) == [epoch(0)]


# ── lock and status


def hold(path: Path, held: Any, leave: Any) -> None:
    with RunDirectory(path).claim() as claimed:
        assert claimed
        held.set()
        leave.wait()


def test_one_process_trains_a_run(run: RunDirectory) -> None:
    write_record(run, record(status="running"))
    context = multiprocessing.get_context("fork")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run.path, held, leave))
    other.start()
    assert held.wait(10)
    try:
        assert run.in_use()
        assert run.status() == "running"
        with run.claim() as claimed:
            assert not claimed
        assert run.in_use()
    finally:
        other.kill()
        other.join()
    assert not run.in_use(), "the lock dies with its process"
    assert run.status() == "interrupted"
    with run.claim() as claimed:
        assert claimed


def test_asking_does_not_take_the_lock(run: RunDirectory) -> None:
    assert not run.in_use()
    assert not run.in_use()
    assert not RunDirectory(run.path / "nowhere").in_use()
    assert not (run.path / "nowhere").exists()


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_a_run_that_ended_has_the_status_it_ended_with(status: str, run: RunDirectory) -> None:
    write_record(run, record(status=status))
    with run.claim():
        assert run.status() == status


def test_a_run_without_record_is_new(tmp_path: Path) -> None:
    assert RunDirectory(tmp_path).status() == "new"
    assert RunDirectory(tmp_path / "nowhere").status() == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_the_status_of_somebody_elses_run_can_be_asked(run: RunDirectory) -> None:
    write_record(run, record(status="running"))
    run.path.chmod(0o500)
    try:
        assert run.status() == "interrupted"
    finally:
        run.path.chmod(0o700)


# ── attempts and epochs


def attempt(**phases: Json) -> Json:
    return {"status": "interrupted", "energy": phases}


KILLED: Json = {"status": "running", "pid": 1}


def summed(attempts: list[Json], epochs: list[Json]) -> tuple[Energy, Json]:
    found = summary_of({"attempts": attempts}, epochs)
    total = Energy.from_json(found["energy"]["total"])
    metrics = found["metrics"]
    assert metrics["joules"] == pytest.approx(total.joules)
    assert metrics["seconds"] == pytest.approx(total.seconds)
    return total, found


def test_joules_of_all_attempts_add_up() -> None:
    total, found = summed(
        [
            attempt(startup=energy(2, cpu_rapl=20), train=energy(5, cpu_rapl=50, gpu_nvml=500)),
            attempt(startup=energy(3, cpu_rapl=30), validation=energy(1, cpu_estimate=7)),
        ],
        [epoch(0), epoch(1, attempt=1)],
    )
    assert total.seconds == pytest.approx(11)
    assert found["energy"]["total"]["joules"] == {"cpu": {"estimate": 7, "rapl": 100}, "gpu": {"nvml": 500}}
    assert {phase: e["seconds"] for phase, e in found["energy"]["phases"].items()} == {
        "startup": 5,
        "train": 5,
        "validation": 1,
    }


def test_a_killed_attempt_keeps_the_joules_of_its_finished_epochs() -> None:
    lines = [
        epoch(0, so_far={"train": energy(1, cpu_rapl=10)}),
        epoch(1, so_far={"train": energy(2, cpu_rapl=20), "other": energy(1, cpu_rapl=1)}),
        epoch(1, attempt=1, so_far={"train": energy(1, cpu_rapl=5)}),
    ]
    first, second = accounted([KILLED, attempt(train=energy(4, cpu_rapl=40))], lines)
    assert first == {**KILLED, "status": "killed", "energy": lines[1]["attempt_so_far"]}
    assert second == attempt(train=energy(4, cpu_rapl=40))
    total, _ = summed([KILLED, attempt(train=energy(4, cpu_rapl=40))], lines)
    assert total.joules == pytest.approx(61)
    total, _ = summed([KILLED, KILLED], lines)
    assert total.joules == pytest.approx(26)


def test_an_attempt_that_was_killed_before_its_first_epoch_is_known_to_have_been() -> None:
    assert accounted([KILLED], []) == [{**KILLED, "status": "killed", "energy": {}}]
    total, found = summed([KILLED], [])
    assert total == Energy()
    assert {name: found["metrics"][name] for name in ("seconds", "joules", "epochs")} == dict.fromkeys(
        ("seconds", "joules", "epochs"), 0
    )
    assert "dice" not in found["metrics"]


def test_accounting_again_changes_nothing() -> None:
    once = accounted([KILLED, KILLED], [epoch(0)])
    assert accounted(once, [epoch(0), epoch(1)]) == once
    assert KILLED == {"status": "running", "pid": 1}


def test_repeated_epochs_count_once() -> None:
    lines = [
        epoch(0, dice=0.2, train=energy(1, cpu_rapl=10), validation=energy(1, cpu_rapl=1)),
        epoch(1, dice=0.9, train=energy(1, cpu_rapl=1000), validation=energy(1, cpu_rapl=1)),
        epoch(1, 1, dice=0.6, train=energy(1, cpu_rapl=20), validation=energy(1, cpu_rapl=2)),
        epoch(2, 1, dice=0.5, train=energy(1, cpu_rapl=30), validation=energy(1, cpu_rapl=3)),
    ]
    _, found = summed([attempt(train=energy(2, cpu_rapl=1012)), attempt(train=energy(2, cpu_rapl=55))], lines)
    metrics = found["metrics"]
    assert metrics["epochs"] == 3
    assert metrics["best_epoch"] == 1
    assert metrics["dice"] == pytest.approx(0.6), "not that of the epoch that was done again"
    assert metrics["iou"] == pytest.approx(0.6 / 1.4)
    assert metrics["volume_dice"] == {"a": 0.6, "b": 0.6}
    assert metrics["last_dice"] == pytest.approx(0.5)
    assert metrics["joules_per_epoch"] == pytest.approx((11 + 22 + 33) / 3)
    assert metrics["joules"] == pytest.approx(1067), "what was spent twice was spent"


def to_dice(target: float, attempts: list[Json], epochs: list[Json]) -> float | None:
    found = summary_of({"attempts": attempts, "settings": {"energy_to_dice": target}}, epochs)
    joules: float | None = found["metrics"]["energy_to_dice"]["joules"]
    return joules


BEFORE = {"startup": energy(2, cpu_rapl=60), "preparation": energy(1, cpu_rapl=30), "probe": energy(1, cpu_rapl=10)}


def test_joules_to_a_dice_do_not_grow_once_it_is_reached() -> None:
    lines = [epoch(0, dice=0.3), epoch(1, dice=0.6), epoch(2, dice=0.9)]
    once = [attempt(**BEFORE, train=energy(9, cpu_rapl=90), validation=energy(3, cpu_rapl=30))]
    assert to_dice(0.6, once, lines) == pytest.approx(100 + 80)
    assert to_dice(0.45, once, lines) == pytest.approx(100 + 40 + 20), "half-way through the second epoch"
    for more in (1, 2, 3):
        resumed = [*once, *[attempt(**BEFORE)] * more]
        assert to_dice(0.45, resumed, [*lines, epoch(3, more, dice=0.9)]) == pytest.approx(160)


def test_joules_to_a_dice_are_all_that_the_run_had_spent_until_then() -> None:
    first = attempt(
        **BEFORE, train=energy(6, cpu_rapl=60), validation=energy(3, cpu_rapl=20), other=energy(1, cpu_rapl=7)
    )
    nothing = attempt(startup=energy(1, cpu_rapl=5))  # was stopped before its first epoch ended
    last = attempt(
        **BEFORE, train=energy(6, cpu_rapl=60), validation=energy(3, cpu_rapl=20), other=energy(1, cpu_rapl=9)
    )
    lines = [epoch(0, dice=0.2), epoch(1, dice=0.4), epoch(2, 2, dice=0.6), epoch(3, 2, dice=0.8)]
    assert to_dice(0.5, [first, nothing, last], lines) == pytest.approx(187 + 5 + 100 + 20)
    assert to_dice(0.9, [first, nothing, last], lines) is None


def test_a_dice_is_reached_when_it_was_first_reached_though_that_epoch_was_repeated() -> None:
    killed = {**KILLED, "energy": {**BEFORE, "train": energy(6, cpu_rapl=60), "validation": energy(2, cpu_rapl=20)}}
    lines = [epoch(0, dice=0.2), epoch(1, dice=0.6), epoch(1, 1, dice=0.6), epoch(2, 1, dice=0.8)]
    assert to_dice(0.6, [killed, attempt(**BEFORE)], lines) == pytest.approx(180)
    assert to_dice(0.7, [killed, attempt(**BEFORE)], lines) == pytest.approx(180 + 100 + 40 + 20)


def test_joules_to_a_dice_are_told_though_the_record_has_lost_an_attempt() -> None:
    lines = [epoch(0, dice=0.2), epoch(1, 1, dice=0.4), epoch(2, 2, dice=0.6)]
    assert to_dice(0.6, [attempt(**BEFORE)], lines) == pytest.approx(100 + 3 * 40)


@pytest.mark.parametrize(
    ("data", "ran", "train", "validation"),
    [
        ({"slices_per_epoch": {"train": 32, "validation": 5}}, {}, 32, 5),
        ({}, {"batch_size": 8}, 32, 5),  # a record of an earlier version: the last batch of one slice was dropped
        ({}, {"batch_size": 11}, 33, 5),
        ({}, {"batch_size": 8, "devices": 2}, 32, 5),  # 17 each, the last dropped
        ({}, {"batch_size": 4, "devices": 2, "nodes": 2}, 32, 5),  # 9 each
        ({}, {"batch_size": 3, "devices": 2, "nodes": 2}, 36, 5),  # dealt twice counts twice
        ({}, {}, 33, 5),
    ],
)
def test_joules_per_slice_are_of_the_slices_that_an_epoch_really_had(
    data: Json, ran: Json, train: int, validation: int
) -> None:
    written = {"attempts": [KILLED], "data": {"slices": {"train": 33, "validation": 5}} | data, "ran": ran}
    metrics = summary_of(written, [epoch(0), epoch(1)])["metrics"]
    assert metrics["joules_per_slice"] == pytest.approx(30 / train)
    assert metrics["joules_per_inference"] == pytest.approx(10 / validation)


def test_the_first_of_equal_epochs_is_the_best() -> None:
    _, found = summed([KILLED], [epoch(0, dice=0.5), epoch(1, dice=0.7), epoch(2, dice=0.7)])
    assert found["metrics"]["best_epoch"] == 1


def test_an_epoch_without_dice_is_no_best_epoch() -> None:
    _, found = summed([KILLED], [epoch(0, dice=None), epoch(1, dice=0.0), epoch(2, dice=None)])
    assert found["metrics"]["best_epoch"] == 1
    assert found["metrics"]["last_dice"] == pytest.approx(0)
    _, found = summed([KILLED], [epoch(0, dice=None)])
    assert "dice" not in found["metrics"]
    assert found["metrics"]["epochs"] == 1


_JOULES = st.integers(0, 1000)
_PHASES = st.dictionaries(
    st.sampled_from(["startup", "train", "validation"]),
    st.builds(lambda s, c, e, g: energy(s, cpu_rapl=c, cpu_estimate=e, gpu_nvml=g), _JOULES, _JOULES, _JOULES, _JOULES),
)


def of_all(attempts: list[Json], what: Callable[[Json], float]) -> float:
    return sum(what(phase) for attempt in attempts for phase in attempt["energy"].values())


@given(st.lists(st.builds(lambda phases: attempt(**phases), _PHASES), max_size=4))
@settings(deadline=None)
def test_nothing_that_was_spent_is_lost_or_invented(attempts: list[Json]) -> None:
    total, found = summed(attempts, [])
    for component in ("cpu", "gpu"):
        spent = of_all(attempts, lambda phase, c=component: sum(phase["joules"][c].values()))  # type: ignore[misc]
        assert sum(r.joules for r in total.readings if r.component == component) == pytest.approx(spent)
    assert total.seconds == pytest.approx(of_all(attempts, lambda phase: phase["seconds"]))
    phases = [Energy.from_json(phase) for phase in found["energy"]["phases"].values()]
    assert sum(phase.joules for phase in phases) == pytest.approx(total.joules)
