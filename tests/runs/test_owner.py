"""Claiming a run: what it costs, who counts as its owner, and which files an owner has."""

import errno
import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from greenseg.energy import Energy, Reading
from greenseg.leases import Holder
from greenseg.runs.directory import RunDirectory
from greenseg.runs.disk import free
from greenseg.runs.index import _first_made, _made, make_directory
from greenseg.runs.owner import Owner
from greenseg.runs.record import Record
from greenseg.runs.summary import add_late_joules, apply_accounting
from greenseg.settings import Settings
from tests.runs import epoch, held_by, record, write

SETTINGS = Settings.of({"epochs": 1})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of the operating system for files, in their order."""
    made: list[str] = []
    names = "open", "read", "write", "close", "link", "unlink", "replace", "rename", "listdir", "mkdir", "rmdir", "stat"
    for name in names:
        original: Callable[..., Any] = getattr(os, name)

        def call(*arguments: Any, _name: str = name, _original: Callable[..., Any] = original, **options: Any) -> Any:
            made.append(_name)
            return _original(*arguments, **options)

        monkeypatch.setattr(os, name, call)
    return made


@pytest.mark.parametrize("others", [0, 40])
def test_a_claim_takes_at_most_20_file_operations_whatever_the_number_of_runs_and_of_workers(
    others: int, tmp_path: Path, calls: list[str]
) -> None:
    for number in range(others):
        settings = Settings.of({"epochs": 1, "seed": number + 1})
        made = make_directory(RunDirectory(tmp_path / "runs" / "s" / settings.slug), settings, None)
        for _ in range(3):
            with made.claim():
                pass
    (tmp_path / "runs" / "s").mkdir(parents=True, exist_ok=True)
    calls.clear()
    wanted = tmp_path / "runs" / "s" / SETTINGS.slug
    run = _first_made(_made(wanted, SETTINGS, None), tmp_path / "runs", SETTINGS, None)  # whose directory it is
    lock = 3  # open, flock, close
    with run.claim() as mine:
        claiming = len(calls) + lock
        assert mine
    assert claiming <= 20, calls


def test_an_owner_that_waits_for_another_needs_few_file_operations(tmp_path: Path, calls: list[str]) -> None:
    run = write(tmp_path, record(status="running"))
    with run.claim():
        owner = Owner(run.path)
        calls.clear()
        assert owner.look()
        assert len(calls) <= 5, calls


# ── who owns it


HERE = Holder.here()


@pytest.mark.parametrize(
    ("holder", "status"),
    [
        pytest.param(replace(HERE, pid=1), "interrupted", id="this host"),
        pytest.param(replace(HERE, pid=1, kernel=f"earlier/{HERE.host}"), "interrupted", id="before a reboot"),
        pytest.param(Holder("other", 1, "its/other"), "running", id="another host"),
    ],
)
def test_a_run_without_a_lock_is_interrupted_unless_another_host_has_it(
    holder: Holder, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, record(status="running"))
    held_by(run, holder, monkeypatch)
    assert run.status() == status


@pytest.mark.parametrize("boot", ["this", "earlier"])
def test_a_run_that_a_host_left_before_its_end_goes_on_at_once(
    boot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, record(status="running"))
    kernel = HERE.kernel if boot == "this" else f"earlier/{HERE.host}"
    held_by(run, replace(HERE, pid=1, kernel=kernel), monkeypatch)
    assert not Owner(run.path).wait()
    with run.claim() as mine:
        assert mine
        assert (mine.files == run.path) == (boot == "this"), "another host may have the same name"


def test_an_owner_on_another_host_lives_only_if_it_renews_while_it_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, record(status="running"))
    monkeypatch.setattr("greenseg.runs.owner._LOOK_SECONDS", 0.0)
    held_by(run, Holder("other", 7, "its/other"), monkeypatch)
    owner = Owner(run.path)
    assert owner.look()
    file = run.path / ".lease" / "run.1"
    renewed = file.read_bytes().replace(b'"counter": 0', b'"counter": 1')
    file.write_bytes(renewed)  # once, before the wait
    looks = 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            monkeypatch.setattr("greenseg.leases.Watch._is_silent", True)
        return looks > 10

    assert not owner.wait(stopped)
    assert looks == 5
    monkeypatch.setattr("greenseg.leases.Watch._is_silent", False)

    def renews() -> bool:
        nonlocal looks
        looks += 1
        file.write_bytes(renewed.replace(b'"counter": 1', b'"counter": %d' % looks))
        return looks > 20

    assert owner.wait(renews)
    assert looks < 10


def test_without_locks_the_death_of_a_process_of_this_host_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, record(status="running"))
    gone = subprocess.Popen(["true"])
    gone.wait()
    held_by(run, replace(HERE, pid=gone.pid), monkeypatch)

    def no_locks(*_: Any) -> NoReturn:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert run.status() == "interrupted"
    with run.claim() as mine:
        assert mine
        assert run.status() == "running"


def test_accounting_that_does_not_change_writes_nothing(tmp_path: Path) -> None:
    run = write(tmp_path, record())
    before = sorted(tmp_path.rglob("*"))
    assert apply_accounting(run, Settings()) == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"x", b"../../etc", b"a/b/c"])
def test_a_damaged_note_of_a_directory_counts_for_nothing(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenseg.runs.index._PATIENCE", 1)
    root = tmp_path / "runs"
    (root / ".runs").mkdir(parents=True)
    (root / ".runs" / f"{SETTINGS.identity}-unknown.1").write_bytes(content)
    made = make_directory(RunDirectory(root / "s" / SETTINGS.slug), SETTINGS, None)
    assert made.path == root / "s" / SETTINGS.slug
    again = make_directory(RunDirectory(root / "t" / SETTINGS.slug), SETTINGS, None)
    assert again.path == made.path, "the first one, from another sweep"
    assert not (root / "t" / SETTINGS.slug).exists()


def test_a_process_that_a_scheduler_calls_dead_is_taken_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, record(status="running"))
    held_by(run, Holder("other", 7, "its/other"), monkeypatch)
    with run.claim() as mine:
        assert mine is None
    with run.claim(Owner(run.path, dead=("other", 8))) as mine:
        assert mine is None
    dead = Owner(run.path, dead=("other", 7))
    assert dead.look() is None
    with run.claim(Owner(run.path, dead.knowledge)) as mine:
        assert mine
        assert mine.files == run.path / "takeovers" / "2", "it may go on, cut off from its scheduler"


# ── files of a takeover


@pytest.fixture
def taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run of two epochs, with files of another host that was silent for a whole lease."""
    run = write(tmp_path, record(status="running") | {"attempts": [attempt()]}, [epoch(0), epoch(1)])
    run.checkpoints.mkdir(exist_ok=True)
    run.last_checkpoint.write_bytes(b"after epoch 1")
    held_by(run, Holder("other", 7, "its/other"), monkeypatch)
    owner = Owner(run.path)
    owner.look()
    monkeypatch.setattr("greenseg.leases.Watch._is_silent", True)
    with run.claim(owner) as mine:
        assert mine
        assert mine.files != run.path
    return run


def attempt(**changes: Any) -> dict[str, Any]:
    return {"status": "running", "started": "2026-01-01T00:00:00", "host": "other", "pid": 7} | changes


def test_a_takeover_has_a_copy_of_all_files_and_its_host_no_longer_changes_them(taken_over: RunDirectory) -> None:
    earlier = replace(taken_over, takeover=0)
    earlier.last_checkpoint.write_bytes(b"after epoch 2")
    earlier.append_epoch(earlier.epochs()[1].model_copy(update={"epoch": 2}))
    assert taken_over.last_checkpoint.read_bytes() == b"after epoch 1"
    assert [line.epoch for line in taken_over.epochs()] == [0, 1]
    assert taken_over.earlier_owners() == [earlier]
    assert taken_over.status() == "interrupted"


def test_joules_that_a_host_used_after_it_was_taken_over_count(taken_over: RunDirectory) -> None:
    energy = {"train": Energy(5.0, (Reading("cpu", 50.0, "rapl"),)).to_json()}
    late = Record.from_json(record(status="interrupted") | {"attempts": [attempt(status="interrupted", energy=energy)]})
    replace(taken_over, takeover=0).write_record(late)
    found = taken_over.record()
    assert found
    add_late_joules(taken_over, found)
    assert found.metrics.joules == pytest.approx(50)
    assert len(found.attempts) == 1


def test_an_attempt_that_only_the_earlier_files_have_counts(taken_over: RunDirectory) -> None:
    energy = {"train": Energy(5.0, (Reading("cpu", 50.0, "rapl"),)).to_json()}
    attempts = [attempt(), attempt(pid=8, status="interrupted", energy=energy)]
    replace(taken_over, takeover=0).write_record(
        Record.from_json(record(status="interrupted") | {"attempts": attempts})
    )
    found = taken_over.record()
    assert found
    add_late_joules(taken_over, found)
    assert len(found.attempts) == 2
    assert found.metrics.joules == pytest.approx(42 + 50), "that of its epochs, and the other one"


def test_the_next_owner_of_a_takeover_that_was_released_goes_on_with_its_files(taken_over: RunDirectory) -> None:
    with taken_over.claim() as mine:
        assert mine
        assert mine.files == taken_over.files


def test_to_start_over_deletes_the_files_of_earlier_owners_too(taken_over: RunDirectory) -> None:
    with taken_over.claim() as mine:
        assert mine
        mine.clear()
    assert taken_over.status() == "new"
    assert replace(taken_over, takeover=0).status() == "new"
    assert not list(taken_over.path.rglob("*.ckpt"))


def test_a_finished_run_loses_the_checkpoints_from_before_a_takeover(taken_over: RunDirectory) -> None:
    with taken_over.claim() as mine:
        assert mine
        mine.best_checkpoint.write_bytes(b"network")
        mine.write_record(Record.from_json(record(status="finished")))
    assert free(taken_over).bytes == 2 * len(b"after epoch 1")
    assert list(taken_over.path.rglob("*.ckpt")) == [taken_over.best_checkpoint]


def test_a_host_that_is_killed_during_a_takeover_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, record(status="running") | {"attempts": [attempt()]}, [epoch(0)])
    held_by(run, Holder("other", 7, "its/other"), monkeypatch)
    owner = Owner(run.path)
    owner.look()
    monkeypatch.setattr("greenseg.leases.Watch._is_silent", True)
    if not (child := os.fork()):
        monkeypatch.setattr(Path, "rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with run.claim(owner):
            os._exit(1)
    os.waitpid(child, 0)
    assert run.files == run.path
    with run.claim() as mine:
        assert mine
        assert mine.files == run.path / "takeovers" / "2"
        assert [line.epoch for line in mine.epochs()] == [0]
