"""Who finds whom: real processes, with folders of their own, in the folders that all machines have.

What other processes of greenseg leave there does not disturb: those of a test give the machine a name of their own.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from greenseg.energy import neighbours
from greenseg.energy.estimate import Usage, usage
from greenseg.energy.neighbours import Neighbours
from tests.conftest import fixed_folders
from tests.energy.fakes import FakeRapl

PEER = """
import sys, time
from greenseg.energy import neighbours
neighbours.machine = lambda: sys.argv[1]
from greenseg.energy.estimate import usage
mine = neighbours.Neighbours()
mine.exchange(usage())
print("here", flush=True)
for line in sys.stdin:
    end = time.process_time() + float(line)
    while time.process_time() < end: pass
    print(mine.exchange(usage()), flush=True)
mine.leave()
"""

METERED = """
import sys, time, pathlib
if __name__ == "__main__":
    from tests.energy.fakes import look_for_rapl_in
    look_for_rapl_in(pathlib.Path(sys.argv[2]))
    from greenseg.energy import EnergyMeter, neighbours
    from greenseg.energy.estimate import usage
    neighbours.machine = lambda: sys.argv[1]
    meter, publisher = EnergyMeter(), neighbours.Neighbours()
    time.sleep(0.5)  # until Zeus's helpers have started: their CPU time is this process's
    print("here", flush=True)
    for line in sys.stdin:
        seconds, what = line.split()
        end = time.process_time() + float(seconds)
        while time.process_time() < end: pass
        if what == "publish":
            publisher.exchange(usage())
            print("published", flush=True)
        else:
            energy = meter.lap()
            print(energy.component("cpu"), *energy.marks, flush=True)
    meter.close()
"""

Start = Callable[..., "Peer"]


class Peer:
    """Another process with a meter."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | environment, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert self.ask() == "here"

    def ask(self, line: str | float = "") -> str:
        """Say something, if not empty, and return the answer."""
        assert self.process.stdin
        assert self.process.stdout
        if line:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Let it end, as it would."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(20)
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of a machine that is only this test's."""
    return f"test-{os.getpid()}-{tmp_path.name}".replace(".", "-")


@pytest.fixture
def start(tmp_path: Path, name: str) -> Iterator[Start]:
    """Starts another process, with a TMPDIR of its own, after a prefix to its command."""
    peers: list[Peer] = []

    def begin(*prefix: str, **environment: str) -> Peer:
        private = tmp_path / f"tmp{len(peers)}"
        private.mkdir()
        command = [*prefix, sys.executable, "-c", PEER, name]
        peers.append(Peer(command, {"TMPDIR": str(private)} | environment))
        return peers[-1]

    yield begin
    for peer in peers:
        peer.end()
    left = [file for folder in folders() for file in folder.glob(f"{name}*")]
    assert left == [], "they take away what they left"


def folders() -> list[Path]:
    return list(Neighbours()._folders)


def test_processes_with_a_tmpdir_each_find_each_other_and_count_once(start: Start) -> None:
    one, other = start(), start()
    one.ask(0.01)  # each has met the other
    other.ask(0.01)
    assert float(one.ask(0.3)) < 0.1
    assert float(other.ask(0.05)) == pytest.approx(0.3, abs=0.1), "once, though it is seen through every folder"
    assert float(one.ask(0.01)) == pytest.approx(0.05, abs=0.05)


def test_a_neighbour_counts_up_to_now_and_not_up_to_the_end_of_its_own_window(start: Start) -> None:
    """With usage that is too old, a share is too large, and the shares of a counter add up to more than all of it."""
    burning, watching = start(), start()
    watching.ask(0.01)
    assert burning.process.stdin
    burning.process.stdin.write("1.0\n")  # one window of a second
    burning.process.stdin.flush()
    seen = []
    for _ in range(3):
        time.sleep(0.3)
        seen.append(float(watching.ask(0.01)))
    burning.ask()
    seen.append(float(watching.ask(0.01)))
    assert min(seen[:3]) > 0.1
    assert sum(seen) == pytest.approx(1.0, abs=0.15)


def test_meters_with_a_tmpdir_each_share_the_counter(tmp_path: Path, name: str) -> None:
    root, script = tmp_path / "powercap", tmp_path / "metered.py"
    rapl = FakeRapl(root, dram=False)
    script.write_text(METERED)  # a file, since Zeus's helpers import it
    peers = []
    for n in range(2):
        (tmp_path / f"private{n}").mkdir()
        environment = {"TMPDIR": str(tmp_path / f"private{n}"), "PYTHONPATH": str(Path(__file__).parents[2])}
        peers.append(Peer([sys.executable, str(script), name, str(root)], environment))
    for peer in peers:  # each has met the other, and its helpers are up
        peer.ask("0.01 publish")
    rapl.use(1)  # a counter that does not move would be given up
    for peer in peers:
        peer.ask("0.01 lap")
    rapl.use(100)
    for peer in peers:  # both publish what they have burnt before either reads
        peer.ask("0.4 publish")
    joules, *marks = peers[0].ask("0.01 lap").split()
    others, *other_marks = peers[1].ask("0.01 lap").split()
    for peer in peers:
        peer.end()
    assert marks == other_marks == ["apportioned"]
    assert float(joules) + float(others) == pytest.approx(100, rel=0.15), "not 100 J each"


@pytest.fixture
def unshare() -> Callable[..., list[str]]:
    """The beginning of a command that runs in namespaces of its own, with these folders as private ones."""
    program = shutil.which("unshare")
    if (
        not program
        or subprocess.run([program, "-m", "-p", "-f", "--mount-proc", "true"], capture_output=True).returncode
    ):
        pytest.skip("this process may not make namespaces (unshare): no root, or a container without CAP_SYS_ADMIN")

    def prefix(*private: str, options: tuple[str, ...] = (), first: str = "true") -> list[str]:
        for needed in (Path(sys.prefix), Path(__file__)):
            if hidden := [folder for folder in private if needed.is_relative_to(folder)]:
                pytest.skip(f"{needed} is in {hidden[0]}, which this test hides from the other process")
        mounts = [f"mount -t tmpfs private {folder}" for folder in private]
        return [program, "-m", *options, "sh", "-c", " && ".join([first, *mounts, 'exec "$@"']), "sh"]

    return prefix


def test_one_with_a_private_tmp_and_shm_is_found(start: Start, unshare: Callable[..., list[str]]) -> None:
    here, there = start(), start(*unshare("/tmp", "/dev/shm"))
    here.ask(0.01)
    there.ask(0.3)
    assert float(here.ask(0.01)) == pytest.approx(0.3, abs=0.1)


def test_one_that_shares_only_the_home_folder_is_found(
    start: Start, unshare: Callable[..., list[str]], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    here = start(GREENSEG_CACHE=str(home))
    bind = f"mount --bind {home} /mnt"  # before /tmp, in which it is, goes out of sight
    there = start(*unshare("/tmp", "/dev/shm", "/var/tmp", first=bind), GREENSEG_CACHE="/mnt")
    here.ask(0.01)
    there.ask(0.3)
    assert float(here.ask(0.01)) == pytest.approx(0.3, abs=0.1)


def test_one_in_a_pid_namespace_of_its_own_is_found(start: Start, unshare: Callable[..., list[str]]) -> None:
    here, there = start(), start(*unshare(options=("-p", "-f", "--mount-proc")))
    here.ask(0.01)
    there.ask(0.3)
    assert float(here.ask(0.01)) == pytest.approx(0.3, abs=0.1)
    assert float(there.ask(0.01)) == pytest.approx(0.02, abs=0.05)


# ── what stands in the folder, with a clock that the test moves


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in the first place of the list."""
    now = [time.time()]
    monkeypatch.setattr("greenseg.energy.neighbours.time", SimpleNamespace(time=lambda: now[0]))
    return now


def write(folder: Path, name: str, published: float, **fields: Any) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    entry = {"cpu_seconds": 5.0, "first": 1.0, "started": 1.0, "published": published} | fields
    (folder / name).write_text(json.dumps(entry))
    return folder / name


def used(cpu_seconds: float) -> Usage:
    return Usage(cpu_seconds, 0.0, frozenset({os.getpid()}))


def test_one_of_another_pid_namespace_counts_while_it_is_fresh(tmp_path: Path, now: list[float]) -> None:
    mine = Neighbours(tmp_path / "meters")
    here = neighbours.machine()
    mine.exchange(used(0))
    write(tmp_path / "meters", f"{here}.1.7.aa.json", now[0])
    assert mine.exchange(used(0)) == 4, "from its own start"
    stale = write(tmp_path / "meters", f"{here}.1.8.bb.json", now[0] - 90)
    assert mine.exchange(used(0)) == 0, "it may have ended long ago"
    assert stale.exists(), "or it is busy: it is not for this process to say"
    write(tmp_path / "meters", stale.name, now[0], cpu_seconds=7.5)
    assert mine.exchange(used(0)) == 2.5, "it was busy"


def test_one_that_disappears_for_a_while_does_not_count_again(tmp_path: Path, now: list[float]) -> None:
    mine = Neighbours(tmp_path / "meters")
    mine.exchange(used(0))
    file = write(tmp_path / "meters", f"{neighbours.machine()}.1.7.aa.json", now[0])
    assert mine.exchange(used(0)) == 4
    file.unlink()
    assert mine.exchange(used(0)) == 0
    write(tmp_path / "meters", file.name, now[0], cpu_seconds=6.0)
    assert mine.exchange(used(0)) == 1


@pytest.mark.parametrize("machine", ["elsewhere", None])
def test_what_others_left_goes_after_a_day(machine: str | None, tmp_path: Path, now: list[float]) -> None:
    file = write(tmp_path / "meters", f"{machine or neighbours.machine()}.1.7.aa.json", now[0] - 3600)
    mine = Neighbours(tmp_path / "meters")
    mine.exchange(used(0))
    write(tmp_path / "meters", file.name, now[0], cpu_seconds=9.0)
    assert mine.exchange(used(0)) == (0 if machine else 4), "other machines have CPUs of their own"
    assert file.exists()
    now[0] += 25 * 3600
    Neighbours(tmp_path / "meters").exchange(used(0))
    assert not file.exists()


def test_what_a_dead_process_of_this_namespace_left_goes_once_it_is_counted(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(child.pid).create_time()
    mine = Neighbours(tmp_path / "meters")
    mine.exchange(used(0))
    prefix = ".".join(mine._name.split(".")[:2])
    file = write(tmp_path / "meters", f"{prefix}.{child.pid}.aa.json", time.time(), started=started)
    assert mine.exchange(used(0)) == 4
    child.communicate(b"\n")
    write(tmp_path / "meters", file.name, time.time(), started=started, cpu_seconds=6.0)
    assert mine.exchange(used(0)) == 1, "its last word"
    assert mine.exchange(used(0)) == 0


def test_what_a_killed_process_left_before_this_one_came_goes_uncounted(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = Neighbours(tmp_path / "meters")
    prefix = ".".join(mine._name.split(".")[:2])
    file = write(tmp_path / "meters", f"{prefix}.{ended.pid}.aa.json", time.time())
    unfinished = write(tmp_path / "meters", f"{prefix}.{ended.pid}.aa.json.tmp", 0.0)
    os.utime(unfinished, (0, 0))
    assert mine.exchange(used(0)) == 0
    assert not file.exists()
    assert not unfinished.exists()


def test_nonsense_is_ignored(tmp_path: Path, now: list[float]) -> None:
    here = neighbours.machine()
    write(tmp_path / "meters", f"{here}.1.7.aa.json", now[0])
    for name, text in {
        f"{here}.1.8.bb.json": "{",
        f"{here}.1.9.cc.json": "[]",
        f"{here}.1.10.dd.json": '{"cpu_seconds": 1}',
        f"{here}.1.x.ee.json": "{}",
        "4711.json": '{"cpu_seconds": 4.0, "first": 1.0, "started": 1.0}',
        "readme.txt": "",
    }.items():
        (tmp_path / "meters" / name).write_text(text)
    (tmp_path / "meters" / f"{here}.1.11.ff.json").mkdir()
    mine = Neighbours(tmp_path / "meters")
    assert mine.exchange(used(0)) == 0
    assert mine.exchange(used(0)) == 0


def test_two_meters_of_a_process_are_one_neighbour(tmp_path: Path) -> None:
    folder = tmp_path / "meters"
    for _ in range(2):
        Neighbours(folder).exchange(used(1))
    assert len(list(folder.glob("*.json"))) == 1


# ── folders that cannot be trusted


def squat_by_another_user(folder: Path) -> None:
    folder.mkdir()
    try:
        os.chown(folder, 12345, 12345)
    except PermissionError:
        pytest.skip("only root may give a folder to another user")


def squat_by_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def squat_by_a_file(folder: Path) -> None:
    folder.touch()


def squat_open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize("squat", [squat_by_another_user, squat_by_a_link, squat_by_a_file, squat_open_to_all])
def test_a_folder_that_others_may_write_to_is_left_alone(
    squat: Callable[[Path], None], tmp_path: Path, now: list[float]
) -> None:
    folder = tmp_path / "meters"
    squat(folder)
    mine = Neighbours(folder)
    mine.exchange(used(0))
    if folder.is_dir():
        (folder / f"{neighbours.machine()}.1.7.aa.json").write_text(
            json.dumps({"cpu_seconds": 5.0, "first": 1.0, "started": 1.0, "published": now[0]})
        )
    assert mine.exchange(used(1)) == 0
    mine.leave()
    assert not folder.is_dir() or len(list(folder.iterdir())) == 1, "nothing was written, nothing removed"


def test_a_parent_that_is_not_there_or_read_only_is_survived(tmp_path: Path) -> None:
    mine = Neighbours(tmp_path / "nowhere" / "meters")
    assert mine.exchange(used(0)) == 0
    mine.leave()


def test_the_fixed_folders_do_not_follow_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(neighbours, "_fixed_folders", fixed_folders)
    user = os.geteuid()
    assert {Path("/dev/shm") / f"greenseg-meters-{user}", Path("/tmp") / f"greenseg-meters-{user}"} <= set(folders())
    assert not any(folder.is_relative_to(tmp_path) for folder in folders() if "greenseg-meters" in folder.name)
    Neighbours().exchange(used(0))
    made = [folder for folder in folders() if folder.is_dir()]
    assert made
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in made)
    Neighbours().leave()


def test_a_meter_of_the_process_that_started_this_one_is_no_neighbour(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts this process as well, so that each joule would be shared with itself."""
    monkeypatch.setattr(neighbours, "machine", lambda: name)
    monkeypatch.setattr(neighbours, "_fixed_folders", fixed_folders)
    around = Neighbours()
    around.exchange(usage())
    child = Peer([sys.executable, "-c", PEER, name], {})
    shared = []
    for _ in range(2):
        shared.append(float(child.ask(0.2)))
        around.exchange(usage())
    child.end()
    around.leave()
    assert shared == [0, 0]


AROUND = """
import subprocess, sys
from greenseg.energy import neighbours
neighbours.machine = lambda: sys.argv[1]
from greenseg.energy.estimate import usage
mine = neighbours.Neighbours()
mine.exchange(usage())
subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]])
mine.leave()
"""


def test_one_meter_around_another_counts_once(start: Start, name: str) -> None:
    watching = start()
    inner = Peer([sys.executable, "-c", AROUND, name, PEER], {})  # it speaks for the inner one
    watching.ask(0.01)
    inner.ask(0.4)
    seen = float(watching.ask(0.01))
    inner.end()
    assert seen == pytest.approx(0.4, abs=0.15)
