"""Leases between hosts: a model of hosts that share a file system, the real file system, and processes."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from greenseg.errors import UserError
from greenseg.leases import Folder, Held, Holder, Lease, Terms, Watch
from tests.conftest import times

TERMS = Terms(seconds=10.0, stale=3.0, skew=0.2)

# ── a model: hosts with clocks of their own, whose every file operation can be late, fail, or show an old state


@dataclass(frozen=True)
class Turn:
    """What happens in the next operation of a host.

    Attributes:
        fault: what goes wrong; `none` if nothing does.
        age: age of the state that it sees, in seconds.
        choice: what the host does next, where it has a choice.
    """

    fault: str = "none"
    age: float = 0.0
    choice: str = "renew"


class Crash(BaseException):
    """Ends the program of a host."""


class World:
    """The file server: every version of every file, and the time when it became so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.versions: dict[str, list[tuple[float, bytes]]] = {}
        self.tokens: dict[str, str] = {}
        self.late: list[Callable[[], None]] = []
        self.hosts: list[Host] = []
        self.events: list[str] = []

    def seen(self, name: str, age: float) -> bytes | None:
        """The content of a file some time ago; None if it was missing."""
        contents = [content for since, content in self.versions.get(name, []) if since <= self.now - age]
        return contents[-1] if contents else None

    def make(self, name: str, content: bytes, written: bytes | None = None) -> None:
        """Make a file exclusively, and check that its maker may do so."""
        if name in self.versions:
            raise FileExistsError(errno.EEXIST, "exists", name)
        generation = int(name.rpartition(".")[2])
        assert generation == len(self.versions) + 1, "generations grow by one"
        for host in self.hosts:
            assert not host.owns(), f"{host.name} renews in time, and {name} is made"
        self.events.append("generation " + ("1" if generation == 1 else "> 1"))
        self.tokens[name] = json.loads(content)["token"]
        self.versions[name] = [(self.now, content if written is None else written)]

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file, and check that it belongs to the claim that writes."""
        assert self.tokens[name] == json.loads(content)["token"], "a host changes the file of another"
        self.versions[name].append((self.now, content))


class Host:
    """A host whose program claims, renews and releases the lease. Runs only during its turns.

    Args:
        world: what it shares with others.
        name: its name.
        rate: seconds of its clock per second of the world.
    """

    def __init__(self, world: World, name: str, rate: float) -> None:
        self.world, self.name, self.rate = world, name, rate
        self.lease: Lease | None = None
        self.at = ""
        self._thread: threading.Thread | None = None
        self.start()

    def clock(self) -> float:
        return 1000.0 * self.rate + self.rate * self.world.now

    def owns(self) -> bool:
        """Whether it believes to be the owner, and is not overdue by its own clock."""
        return self.lease is not None and not self.lease.overdue

    # ── turns

    def start(self) -> None:
        """Start its program, up to its first turn."""
        self._mine, self._yours = threading.Semaphore(0), threading.Semaphore(0)
        self._turn, self._killed = Turn(), False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def take(self, turn: Turn) -> None:
        """Give it a turn: it does its next operation, up to the next one."""
        if self._thread is None:
            self.start()
            return
        self._turn = turn
        self._mine.release()
        self._wait()

    def crash(self) -> None:
        if self._thread is not None:
            self._killed = True
            self._mine.release()
            self._wait()

    def _wait(self) -> None:
        self._yours.acquire()
        if self._error is not None:
            raise self._error

    def turn(self, at: str) -> Turn:
        """Wait for the next turn."""
        self.at = at
        self._yours.release()
        self._mine.acquire()
        if self._killed:
            raise Crash
        return self._turn

    def _run(self) -> None:
        try:
            self._work()
        except Crash:
            pass
        except BaseException as error:
            self._error = error
        self.lease, self._thread = None, None
        self._yours.release()

    def _work(self) -> None:
        watch = Watch(Shared(self), "run", TERMS, Holder(self.name, 1, self.name), self.clock)
        while True:
            self.turn("idle")
            try:
                claimed = watch.claim(has_flock=True)
            except OSError:
                continue
            if isinstance(claimed, Held):
                continue
            self.lease = claimed
            assert self.owns(), "a claim that succeeds is not overdue"
            self._own(claimed)
            self.lease = None

    def _own(self, lease: Lease) -> None:
        while True:
            choice = self.turn("own").choice
            if choice == "release":
                lease.release()
                return
            if not lease.renew() if choice == "renew" else lease.lost():
                assert lease.why
                choice = self.turn("lost").choice
                if choice == "regain" and self._regains(lease):
                    continue
                if choice == "release":
                    lease.release()
                return

    def _regains(self, lease: Lease) -> bool:
        generation = lease.generation
        try:
            regained = lease.regain()
        except OSError:
            return False
        if regained:
            assert lease.generation == generation + 1
            assert self.owns()
            self.world.events.append("regained")
        return regained


class Shared:
    """The shared folder, as a host sees it."""

    def __init__(self, host: Host) -> None:
        self._host, self._world = host, host.world

    def names(self) -> list[str]:
        turn = self._host.turn("names")
        names = [name for name in self._world.versions if self._world.seen(name, turn.age) is not None]
        self._host.turn("reply")
        return names

    def read(self, name: str) -> bytes:
        turn = self._host.turn("read")
        content = self._world.seen(name, turn.age)
        self._host.turn("reply")
        if turn.fault == "fails":
            raise OSError(errno.EIO, "fails", name)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "missing", name)
        return content

    def create(self, name: str, content: bytes) -> None:
        self._write("create", lambda written: self._world.make(name, content, written), FileExistsError)

    def replace(self, name: str, content: bytes) -> None:
        self._write("replace", lambda _: self._world.replace(name, content), FileNotFoundError)

    def _write(self, what: str, effect: Callable[[bytes | None], None], retried: type[OSError]) -> None:
        fault = self._host.turn(what).fault
        self._world.events.append(f"{what}: {fault}")
        error: OSError | None = OSError(errno.EIO, fault)
        if fault == "late":  # the server does it when the client has given up
            self._world.late.append(lambda: effect(None))
        elif fault != "fails":
            try:
                effect(b"" if fault == "half" and what == "create" else None)
                error = {"reply lost": error, "retried": retried(errno.EEXIST, fault)}.get(fault)
            except FileExistsError as exists:
                error = exists
        if fault == "half":
            raise Crash
        self._host.turn("reply")
        if error:
            raise error


RATES = (1.0, 1 - TERMS.skew, 0.9)
HOSTS = st.integers(0, len(RATES) - 1)
FAULTS = st.sampled_from(("none", "none", "none", "reply lost", "retried", "fails", "late", "half"))
AGES = st.sampled_from((0.0, 1.0, TERMS.stale))
ALMOST = -1.0  # until an owner has just enough time for a renewal
PAUSES = st.sampled_from((0.0, 2.0, ALMOST, ALMOST))
CHOICES = st.sampled_from(("renew", "renew", "look", "release", "regain"))


class Leases(RuleBasedStateMachine):
    """Three hosts with clocks of different rates. Any host may be paused at any operation: others then have turns."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        for number, rate in enumerate(RATES):
            self.world.hosts.append(Host(self.world, f"host{number}", rate))

    def teardown(self) -> None:
        for host in self.world.hosts:
            host.crash()
        for each in sorted(set(self.world.events)):
            event(each)

    # ── whatever can happen

    @rule(host=HOSTS, turns=st.integers(1, 8), fault=FAULTS, age=AGES, choice=CHOICES)
    def operations(self, host: int, turns: int, fault: str, age: float, choice: str) -> None:
        for turn in range(1, turns + 1):
            self.world.hosts[host].take(Turn(fault if turn == turns else "none", age, choice))

    @rule(host=HOSTS, fault=FAULTS, age=AGES, choice=CHOICES)
    def a_write(self, host: int, fault: str, age: float, choice: str) -> None:
        writer = self.world.hosts[host]
        for _ in range(12):
            if writer.at in ("create", "replace"):
                break
            writer.take(Turn(age=age, choice=choice))
        writer.take(Turn(fault, age, choice))

    @rule(host=HOSTS, age=AGES, turns=st.integers(4, 60))
    def contends_while_time_passes(self, host: int, age: float, turns: int) -> None:
        contender = self.world.hosts[host]
        for _ in range(turns):
            if contender.at == "idle":
                self.world.now += 1.0
            elif contender.at == "own":
                return
            contender.take(Turn(age=age, choice="release"))

    @rule(host=HOSTS)
    def almost_overdue(self, host: int) -> None:
        owner = self.world.hosts[host]
        before = self.world.now
        while owner.owns():
            before, self.world.now = self.world.now, self.world.now + 0.1
        self.world.now = before

    @rule(seconds=st.sampled_from((0.5, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 12.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(host=HOSTS)
    def crash(self, host: int) -> None:
        self.world.hosts[host].crash()

    @rule()
    def late_writes_happen(self) -> None:
        while self.world.late:
            with contextlib.suppress(FileExistsError):
                self.world.late.pop(0)()
                self.world.events.append("late write")

    @invariant()
    def at_most_one_owner(self) -> None:
        assert sum(host.owns() for host in self.world.hosts) <= 1

    @rule(
        owner=HOSTS, distance=st.integers(1, 2), before=st.integers(0, 5), first=PAUSES, turns=st.integers(0, 6),
        fault=FAULTS, between=st.integers(0, 8), second=PAUSES, completes=st.booleans(), age=AGES,
    )  # fmt: skip
    def a_renewal_meets_a_look(
        self, owner: int, distance: int, before: int, first: float, turns: int, fault: str, between: int,
        second: float, completes: bool, age: float,
    ) -> None:  # fmt: skip
        """One renewal while another host looks, with pauses anywhere in both. Chance rarely times them so well."""
        one, two = self.world.hosts[owner], self.world.hosts[(owner + distance) % len(RATES)]
        self.all_others_die_and_it_takes_over(owner)
        self._turns(two, 2, 0.0)  # its start, and the begin of its first look, which sees the present counter
        while two.at != "idle":
            self._turns(two, 1, 0.0)
        self._turns(two, before, age)
        self._pause(one, first)
        for _ in range(turns):
            if one.owns():
                one.take(Turn(fault if one.at == "replace" else "none"))
        self._turns(two, between, age)
        self._pause(one, second)
        if completes and one.owns():
            self._until(one, "own", "lost", "idle")
        for _ in range(50):
            self._turns(two, 1, age)
            self.world.now += 0.4 if two.at == "idle" else 0.0
            self.at_most_one_owner()

    def _turns(self, host: Host, number: int, age: float) -> None:
        for _ in range(number):
            host.take(Turn(age=age, choice="release"))

    def _pause(self, owner: Host, seconds: float) -> None:
        if seconds == ALMOST:
            self.almost_overdue(self.world.hosts.index(owner))
        else:
            self.world.now += seconds

    # ── what must happen

    @rule(host=HOSTS)
    def all_others_die_and_it_takes_over(self, host: int) -> None:
        heir = self.world.hosts[host]
        for other in self.world.hosts:
            if other is not heir:
                other.crash()
        self._until(heir, "idle", "own")
        begin = self.world.now
        while not heir.owns():
            self.world.now += 0.5
            heir.take(Turn(age=TERMS.stale))
            self._until(heir, "idle", "own")
            assert self.world.now - begin < TERMS.seconds / heir.rate + TERMS.stale + 2, "no takeover"
        self.world.events.append("alone at once" if self.world.now - begin < 2 else "alone after a while")

    @rule(host=HOSTS, seconds=st.sampled_from((0.0, 3.0, 11.0, 30.0)), others=st.booleans())
    def it_renews_in_time_and_stays_the_owner(self, host: int, seconds: float, others: bool) -> None:
        owner = self.world.hosts[host]
        if not owner.owns():
            return
        end, lease = self.world.now + seconds, owner.lease
        self._until(owner, "own", "lost", "idle")
        self._renew(owner)
        if not owner.owns() or owner.lease is not lease:
            return  # the operation that it was at took too long
        while self.world.now < end:
            self.world.now += TERMS.every
            self._renew(owner)
            for other in self.world.hosts:
                if other is not owner and others:
                    other.take(Turn(age=TERMS.stale))
            assert owner.owns()
            assert owner.lease is lease
        self.world.events.append("stays the owner")

    @rule(host=HOSTS, other=HOSTS, turns=st.integers(0, 40), age=AGES)
    def is_late_and_tries_to_regain(self, host: int, other: int, turns: int, age: float) -> None:
        owner, contender = self.world.hosts[host], self.world.hosts[other]
        self._until(owner, "own", "lost", "idle")
        while owner.owns():
            self.world.now += 0.5
        for _ in range(turns if other != host else 0):
            self.world.now += 0.5 if contender.at == "idle" else 0.0
            contender.take(Turn(age=age))
        if owner.at == "own":
            owner.take(Turn(choice="look"))
            self._until(owner, "lost", "idle")
        owner.take(Turn(choice="regain", age=age))
        self._until(owner, "own", "lost", "idle")

    def _renew(self, host: Host) -> None:
        if host.at == "own":
            host.take(Turn())
        self._until(host, "own", "lost", "idle")

    def _until(self, host: Host, *places: str) -> None:
        """Give turns without faults, and without time, until its program is at one of these places."""
        for _ in range(100):
            if host.at in places and host._thread is not None:
                return
            host.take(Turn(age=TERMS.stale, choice="release" if host.at == "lost" else "renew"))
        raise AssertionError(f"{host.name} is still at {host.at}")


TestModel = Leases.TestCase
TestModel.settings = settings(max_examples=times(1), stateful_step_count=40)


# ── the real file system, with clocks that the test sets


class Machine:
    """A host with a clock that the test sets, on the real file system.

    Args:
        folder: the shared folder.
        name: its name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.time = 0.0
        self.watch = Watch(folder, "run", TERMS, Holder(name, 1, name), lambda: self.time)  # which is always there

    def claim(self, has_flock: bool = False) -> Lease:
        claimed = self.watch.claim(has_flock)
        assert isinstance(claimed, Lease), claimed
        return claimed

    def held(self, has_flock: bool = False) -> Held:
        claimed = self.watch.claim(has_flock)
        assert isinstance(claimed, Held), claimed
        return claimed


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "lease"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_silent_owner_is_taken_over_by_the_next_generation_and_its_file_stays(shared: Path) -> None:
    one, two = Machine(shared, "one"), Machine(shared, "two")
    assert two.watch.look() is None
    lease = one.claim()
    assert (lease.generation, lease.lost(), lease.why) == (1, False, "")
    for _ in range(5):
        one.time += TERMS.every
        two.time += TERMS.seconds - 0.1
        assert lease.renew()
        held = two.held()
        assert (held.generation, held.holder, held.silent) == (1, Holder("one", 1, "one"), 0.0)
    two.time += TERMS.seconds - 0.1
    assert two.held().silent == pytest.approx(TERMS.seconds - 0.1)
    assert "process 1 on one" in str(two.held())
    before = (shared / "run.1").read_bytes()
    two.time += 0.2
    assert two.claim().generation == 2
    assert names(shared) == ["run.1", "run.2"], "no temporary file is left, and no generation is deleted"
    assert (shared / "run.1").read_bytes() == before
    assert not lease.overdue, "its clock stood still, as that of a paused virtual machine"
    assert lease.lost()
    assert "generation 2 belongs to process 1 on two" in lease.why
    assert not lease.renew()
    assert (shared / "run.1").read_bytes() == before, "a lease that is lost is not renewed"


def test_an_overdue_owner_gives_up_before_another_may_take_over_and_may_claim_again(shared: Path) -> None:
    one = Machine(shared, "one")
    lease = one.claim()
    one.time = TERMS.fence - 0.1
    assert not lease.lost()
    one.time = TERMS.fence
    assert lease.overdue
    assert not lease.renew(), "its next counter could come after the look of another"
    one.time = 0.0
    assert lease.lost(), "for ever"
    assert "not renewed for 5 s" in lease.why
    assert one.held().generation == 1
    lease.release()
    assert one.claim().generation == 2


@pytest.mark.parametrize(("begin", "duration", "until"), [(0.0, 4.0, TERMS.fence), (4.0, 0.5, 9.0), (4.0, 2.0, 6.0)])
def test_a_renewal_counts_from_its_begin_and_not_at_all_if_it_ends_too_late(
    begin: float, duration: float, until: float, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Machine(shared, "one")
    lease = one.claim()
    replace = os.replace

    def slow(*names: str) -> None:
        replace(*names)
        one.time += duration

    monkeypatch.setattr(os, "replace", slow)
    one.time = begin
    assert lease.renew() == (begin + duration < TERMS.fence)
    one.time = max(one.time, until - 0.1)
    assert lease.overdue == (begin + duration >= TERMS.fence)
    one.time = until
    assert lease.overdue


@pytest.mark.parametrize("before", [True, False])
def test_a_pause_within_a_look_is_no_silence(before: bool, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Machine(shared, "one"), Machine(shared, "two")
    lease = one.claim()
    two.held()
    read = Folder.read

    def paused(folder: Folder, name: str) -> bytes:
        monkeypatch.undo()
        content = b"" if before else read(folder, name)
        two.time += TERMS.seconds
        assert lease.renew()
        return content or read(folder, name)

    monkeypatch.setattr(Folder, "read", paused)
    assert two.held().silent == 0
    assert two.held().silent == 0
    two.time += TERMS.seconds - 0.1
    assert two.held().silent > 0


def test_a_released_lease_is_free_at_once(shared: Path) -> None:
    one, two = Machine(shared, "one"), Machine(shared, "two")
    with one.claim().kept() as lease:
        assert two.held().holder == Holder("one", 1, "one")
    assert lease.lost()
    assert two.watch.look() is None
    assert two.claim().generation == 2


@pytest.mark.parametrize(("host", "free"), [("one", True), ("two", False)])
def test_with_the_flock_of_a_host_its_own_dead_owner_is_taken_over_at_once(host: str, free: bool, shared: Path) -> None:
    Machine(shared, "one").claim()
    assert isinstance(Machine(shared, host).watch.claim(), Held)
    assert isinstance(Machine(shared, host).watch.claim(has_flock=True), Lease) == free
    kernel = Holder.here().kernel
    assert bool(kernel) == (sys.platform == "linux")
    assert kernel == Holder.here().kernel


@pytest.mark.parametrize("content", [b"", b'{"token": "a', b"[]", b'{"holder": {"pid": 1}}'])
def test_a_half_written_claim_counts_for_a_whole_lease(content: bytes, shared: Path) -> None:
    shared.mkdir()
    (shared / "run.1").write_bytes(content)
    machine = Machine(shared, "one")
    assert machine.held().holder is None
    assert "unknown process" in str(machine.held())
    machine.time = TERMS.seconds
    assert machine.claim().generation == 2


def test_other_files_and_other_leases_in_the_folder_do_not_matter(shared: Path) -> None:
    shared.mkdir()
    for name in ("run.07", "run.x", "other.9", ".run.5", "run.3.tmp"):
        (shared / name).touch()
    assert Machine(shared, "one").claim().generation == 1


def test_without_hard_links_files_are_made_exclusively(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    one, two = Machine(shared, "one"), Machine(shared, "two")
    lease = one.claim()
    assert two.held().holder == Holder("one", 1, "one")
    with pytest.raises(FileExistsError):
        Folder(shared).create("run.1", b"")
    assert lease.renew()
    assert names(shared) == ["run.1"]


def failing(number: int) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def test_an_owner_that_cannot_write_is_overdue_with_the_reason_and_makes_no_folder(shared: Path) -> None:
    one = Machine(shared, "one")
    lease = one.claim()
    (shared / "run.1").unlink()
    shared.rmdir()
    one.time = 1.0
    assert lease.renew(), "it may still succeed"
    one.time = TERMS.fence
    assert not lease.renew()
    assert "No such file" in lease.why
    lease.release()
    assert not shared.exists()


def test_a_folder_that_is_not_writable_is_an_error_and_no_lease(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Watch(tmp_path / "no" / "lease", "run", TERMS).claim()
    with pytest.raises(OSError, match="proc"):
        Lease.claim(Path("/proc/lease"), "run")


def test_terms_that_leave_an_owner_no_time_are_refused() -> None:
    assert Terms().fence == pytest.approx(48)
    for seconds in (60.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="too short"):
            Terms(seconds=seconds, stale=60)


@pytest.mark.parametrize("text", ["nan", "-3", "0", "soon"])
def test_a_lease_without_a_length_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSEG_LEASE", text)
    with pytest.raises(UserError, match="GREENSEG_LEASE") as refused:
        Terms.here()
    assert repr(text) in str(refused.value)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call of the operating system for a file, in their order."""
    made: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            return original(*arguments, **options)

        return call

    for name in ("open", "read", "write", "fsync", "close", "link", "unlink", "replace", "listdir", "mkdir", "stat"):
        monkeypatch.setattr(os, name, counted(name))
    return made


@pytest.mark.parametrize("generations", [0, 1, 30])
@pytest.mark.parametrize("lost_reply", [False, True])
def test_a_claim_takes_at_most_20_calls_of_files(
    generations: int, lost_reply: bool, shared: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(generations):
        Machine(shared, "one").claim().release()
    if lost_reply:
        link = os.link

        def lost(*arguments: Any) -> NoReturn:
            link(*arguments)
            raise FileExistsError(errno.EEXIST, "the client sent it twice")

        monkeypatch.setattr(os, "link", lost)
    calls.clear()
    lease = Machine(shared, "two").claim()
    assert lease.generation == generations + 1
    assert 8 <= len(calls) <= 20, calls
    calls.clear()
    assert lease.renew()
    assert len(calls) <= 6, calls
    calls.clear()
    Machine(shared, "three").held()
    assert len(calls) <= 4, calls


# ── processes

PROCESS = """
import sys, time
from pathlib import Path
from greenseg.leases import Held, Lease, Terms, Watch

watch = Watch(Path(sys.argv[1]), "run", Terms(seconds=3.0, stale=0.3, skew=0.1))
while isinstance(claimed := watch.claim(), Held):
    time.sleep(0.1)
print(claimed.generation, flush=True)
with claimed.kept():
    while not claimed.lost():
        time.sleep(0.1)
print("lost:", claimed.why, flush=True)
"""


@dataclass
class Started:
    """A process that claims the lease, and waits until it has lost it."""

    process: "subprocess.Popen[str]"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@pytest.fixture
def start(shared: Path) -> Iterator[Callable[[], Started]]:
    processes = []

    def begin() -> Started:
        command = [sys.executable, "-c", PROCESS, str(shared)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return Started(processes[-1])

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.process
def test_a_paused_owner_is_taken_over_and_sees_it_and_so_is_a_killed_one(
    start: Callable[[], Started], shared: Path
) -> None:
    first = start()
    assert first.line() == "1"
    second = start()
    first.signal(signal.SIGSTOP)
    paused = time.monotonic()
    assert second.line() == "2"
    assert time.monotonic() - paused > 2, "not before a whole lease"
    first.signal(signal.SIGCONT)
    assert first.line() == f"lost: generation 2 belongs to process {second.process.pid} on {Holder.here().host}"
    third = start()
    second.signal(signal.SIGKILL)
    assert third.line() == "3"
    assert names(shared) == ["run.1", "run.2", "run.3"]


@pytest.mark.process
def test_of_processes_that_claim_at_the_same_time_one_wins(shared: Path) -> None:
    shared.mkdir()
    ready = "import sys; from pathlib import Path; from greenseg.leases import Lease, Terms; sys.stdin.readline(); "
    claim = "print(type(Lease.claim(Path(sys.argv[1]), 'run')).__name__)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ready + claim, str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    won = sorted(process.communicate()[0].strip() for process in processes)
    assert won == ["Held", "Held", "Held", "Lease"]
    assert names(shared) == ["run.1"]
