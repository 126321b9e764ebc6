"""Hosts of the tests are apart in what tests need, and share what they need."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import Host, Hosts
from tests.slurm import wait_for

_LOCK = """
import fcntl, os, signal, sys
mode, kind, path = sys.argv[1:4]
file = open(path, mode)
try:
    fcntl.flock(file, getattr(fcntl, kind) | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(9)
print("held", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


def _hold(host: Host, path: Path, mode: str = "a", kind: str = "LOCK_EX") -> subprocess.Popen[Any]:
    """A process that tries to get a lock, and then runs lines of Python."""
    command: list[str | Path] = [sys.executable, "-S", "-c", _LOCK, mode, kind, path]
    return host.run(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _holds(process: subprocess.Popen[Any]) -> bool:
    """Whether it got the lock."""
    assert process.stdout
    held: bool = process.stdout.readline() == "held\n"
    assert held or process.wait() == 9
    return held


def _do(process: subprocess.Popen[Any], line: str) -> None:
    """Have it run a line of Python."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def _end(process: subprocess.Popen[Any]) -> None:
    """Have it end with open files."""
    process.kill()
    process.wait()


def _is_free(host: Host, path: Path, mode: str = "a", kind: str = "LOCK_EX") -> bool:
    process = _hold(host, path, mode, kind)
    held = _holds(process)
    _end(process)
    return held


def test_hosts_have_their_own_name_processes_network_and_memory(hosts: Hosts) -> None:
    one, two = hosts("one"), hosts("two")
    assert [host.call(["hostname"]).stdout for host in (one, two)] == ["one\n", "two\n"]
    assert os.uname().nodename not in ("one", "two")
    (sleeper := one.run(["sleep", "60"])).poll()
    assert one.processes() == [sleeper.pid]
    assert "sleep" in one.call(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout
    assert "sleep" not in two.call(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout
    assert one.call(["sh", "-c", "echo x > /dev/shm/x; cat /proc/net/dev | wc -l"]).stdout == "3\n"  # lo alone
    assert two.call(["ls", "/dev/shm"]).stdout == ""


def test_hosts_share_files(hosts: Hosts, tmp_path: Path) -> None:
    one, two = hosts("one"), hosts("two")
    assert one.call(["sh", "-c", "echo hello > file"], cwd=tmp_path).returncode == 0
    assert two.call(["cat", "file"], cwd=tmp_path).stdout == "hello\n"


def test_a_lock_counts_within_its_host_alone(hosts: Hosts, tmp_path: Path) -> None:
    one, two = hosts("one"), hosts("two")
    path = tmp_path / "lock"
    first = _hold(one, path)
    assert _holds(first)
    assert not _is_free(one, path)
    assert not _is_free(one, path, "rb", "LOCK_SH")
    assert not _is_free(one, path, "a", "LOCK_SH")
    second = _hold(two, path)
    assert _holds(second)  # the other host has it, too
    _end(second)
    assert not _is_free(one, path)
    _end(first)
    assert _is_free(one, path)


@pytest.mark.parametrize("modes", [("a", "a"), ("a", "rb"), ("rb", "a"), ("rb", "rb"), ("r+b", "a")])
def test_shared_locks_share_and_keep_exclusive_ones_out(hosts: Hosts, tmp_path: Path, modes: tuple[str, str]) -> None:
    one = hosts("one")
    path = tmp_path / "lock"
    path.touch()
    first, second = (_hold(one, path, mode, "LOCK_SH") for mode in modes)
    assert _holds(first)
    assert _holds(second)
    assert not _is_free(one, path)
    _end(first)
    assert not _is_free(one, path)
    _end(second)
    assert _is_free(one, path)


def test_an_exclusive_lock_becomes_a_shared_one(hosts: Hosts, tmp_path: Path) -> None:
    one = hosts("one")
    path = tmp_path / "lock"
    first = _hold(one, path)
    assert _holds(first)
    _do(first, "fcntl.flock(file, fcntl.LOCK_SH)")
    assert _is_free(one, path, "a", "LOCK_SH")
    assert not _is_free(one, path)
    _end(first)
    assert _is_free(one, path)


@pytest.mark.parametrize("act", ["file.close()", "os._exit(0)"])
def test_a_child_that_closes_the_file_does_not_unlock_it(hosts: Hosts, tmp_path: Path, act: str) -> None:
    one, path = hosts("one"), tmp_path / "lock"
    first = _hold(one, path)
    assert _holds(first)
    _do(first, f"os.waitpid(os.fork() or ({act}, os._exit(0)), 0)")
    assert not _is_free(one, path)
    _end(first)
    assert _is_free(one, path)


@pytest.mark.parametrize("live", ["signal.pause()", "os.set_inheritable(file.fileno(), True), os.execlp('cat', 'cat')"])
def test_a_child_that_lives_on_has_the_lock(hosts: Hosts, tmp_path: Path, live: str) -> None:
    one, path = hosts("one"), tmp_path / "lock"
    first = _hold(one, path)
    assert _holds(first)
    _do(first, f"child = os.fork() or ({live})")
    _do(first, "open(file.name + '.pid', 'w').write(str(child))")
    _end(first)
    assert not _is_free(one, path)
    one.call(["kill", "-9", (tmp_path / "lock.pid").read_text()])
    assert wait_for(lambda: _is_free(one, path))


def test_a_child_that_unlocks_a_file_unlocks_it_for_all(hosts: Hosts, tmp_path: Path) -> None:
    one, path = hosts("one"), tmp_path / "lock"
    first = _hold(one, path)
    assert _holds(first)
    _do(first, "os.waitpid(os.fork() or (fcntl.flock(file, fcntl.LOCK_UN), os._exit(0)), 0)")
    assert _is_free(one, path)


def test_a_lock_is_waited_for(hosts: Hosts, tmp_path: Path) -> None:
    one = hosts("one")
    path = tmp_path / "lock"
    first = _hold(one, path)
    assert _holds(first)
    waiter = one.run(
        [sys.executable, "-S", "-c", f"import fcntl; fcntl.flock(open({str(path)!r}, 'a'), fcntl.LOCK_EX)"]
    )
    time.sleep(0.3)
    assert waiter.poll() is None
    _end(first)
    assert waiter.wait(10) == 0


def test_a_lock_outside_of_the_shared_folders_is_an_ordinary_one(hosts: Hosts, tmp_path_factory: Any) -> None:
    one, two = hosts("one"), hosts("two")
    path = tmp_path_factory.mktemp("other") / "lock"
    first = _hold(one, path)
    assert _holds(first)
    assert not _is_free(two, path)
    _end(first)


def test_a_paused_host_does_nothing_until_it_resumes(hosts: Hosts, tmp_path: Path) -> None:
    one, two = hosts("one"), hosts("two")
    count = ["sh", "-c", "while :; do echo x >> $0; sleep 0.01; done"]
    mine, other = tmp_path / "mine", tmp_path / "other"
    process = one.run([*count, mine])
    two.run([*count, other])
    assert wait_for(lambda: mine.exists() and other.exists())
    one.pause()
    length, others = mine.stat().st_size, other.stat().st_size
    time.sleep(0.3)
    assert mine.stat().st_size == length
    assert other.stat().st_size > others
    one.resume()
    assert wait_for(lambda: mine.stat().st_size > length)
    one.kill()
    assert process.wait(10) == -9
    assert not one.processes()
