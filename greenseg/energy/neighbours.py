"""Other meters on this machine: runs side by side share its CPU counters, and must not each count all of it.

Every process with a meter writes a small file with the CPU seconds of its process tree, which the others read. Slurm
and containers give jobs private folders, but not always the same ones. So the file goes into several folders with fixed
names, and two processes find each other if they share one of them. The name of a file identifies its process:

    <machine>.<pid namespace>.<pid>.<token of the process>.json
"""

import contextlib
import json
import os
import secrets
import socket
import stat
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import platformdirs
import psutil

from greenseg.energy.estimate import Usage, usage

_FRESH_SECONDS = 60.0
"""Seconds after its last file in which a process of another pid namespace, which we cannot see, counts as running."""

_STALE_SECONDS = 86_400.0
"""Age at which a file of another machine or pid namespace is removed: its process has surely ended."""


class Neighbours:
    """The other measuring processes of the same user on this machine.

    Args:
        folder: the only folder for their files; by default several fixed folders, so that processes with different
            `TMPDIR`s or a private `/tmp` or `/dev/shm` find each other.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folders = (folder,) if folder else _fixed_folders()
        self._machine, self._namespace = machine(), _pid_namespace()
        self._name = f"{self._machine}.{self._namespace}.{os.getpid()}.{_token(os.getpid())}.json"
        self._started = psutil.Process().create_time()
        # A meter of a process that started this one counts this run as well: it is not beside this run, but around it.
        self._around = _ancestors()
        self._first: float | None = None
        self._seen: dict[str, float] = {}  # name of the file → CPU seconds, also of ended processes
        self._met = False  # whether the earlier neighbours are known

    def exchange(self, used: Usage) -> float:
        """Publish the usage of this run; returns the CPU seconds of all others since the last call.

        A new neighbour counts from its own start. Living neighbours are asked for their usage now, since their files
        are from the ends of their own windows: with these, shares of the same joules would add up to more than all of
        them. Of neighbours in another pid namespace, and of ended ones, only the last known usage counts. Processes of
        this run's own tree, and those that started it, are not neighbours. If no folder can be used, there are no
        neighbours, since this must not stop a training.
        """
        folders = [folder for folder in self._folders if _is_ours(folder)]
        self._publish(used, folders)
        if not self._met:
            for folder in folders:
                self._sweep_out(folder)
        others = 0.0
        entries = self._read(folders, used)
        trees = self._trees(entries)
        for name, entry in entries.items():
            if any(_owner(name).pid in tree.processes for other, tree in trees.items() if other != name):
                self._seen[name] = max(trees[name].cpu_seconds if name in trees else 0.0, entry.cpu_seconds)
                continue  # the tree of another neighbour has it already
            alive = self._runs(name, entry)
            ended = not alive and _owner(name).namespace == self._namespace
            if not ended or name in self._seen:
                known = self._seen.get(name, 0.0)
                now = trees[name].cpu_seconds if name in trees else 0.0
                seconds = max(known, now, entry.cpu_seconds)
                if name not in self._seen:
                    known = entry.first if self._met and alive else seconds
                others += max(seconds - known, 0.0)
                self._seen[name] = seconds
            if ended:
                _remove(name, folders)
        self._met = True
        return others

    def present(self) -> list[int]:
        """Process IDs of the others that run now.

        As with `exchange`, processes of this run's own tree, and those that started it, are not among them.
        """
        entries = self._read([folder for folder in self._folders if _is_ours(folder, make=False)], usage())
        return sorted(
            _owner(name).pid for name, entry in entries.items() if self._runs(name, entry) and not self._is_zombie(name)
        )

    def leave(self) -> None:
        """Remove the files of this process."""
        _remove(self._name, [folder for folder in self._folders if _is_ours(folder, make=False)])

    def _publish(self, used: Usage, folders: list[Path]) -> None:
        self._first = used.cpu_seconds if self._first is None else self._first
        entry = _Entry(used.cpu_seconds, self._first, self._started, time.time())
        text = json.dumps(entry._asdict()).encode()
        for folder in folders:
            unfinished = folder / f"{self._name}.tmp"
            # If the disk is full, an old file stays, and others find the new one in another folder.
            with contextlib.suppress(OSError):
                unfinished.write_bytes(text)
                unfinished.replace(folder / self._name)

    def _read(self, folders: list[Path], used: Usage) -> dict[str, "_Entry"]:
        """The latest entry of each neighbour over all folders, by the name of its file."""
        latest: dict[str, _Entry] = {}
        fresh = time.time() - _FRESH_SECONDS
        for folder in folders:
            for name in (file.name for file in _files(folder)):
                owner = _owner(name)
                mine = owner.namespace == self._namespace and owner.pid in used.processes | self._around
                if owner.machine != self._machine or mine:
                    continue
                known = latest.get(name)
                if known and known.published > fresh:  # usual case: the other folders need not be read
                    continue
                entry = _published(folder, name)
                if entry and (not known or known.published < entry.published):
                    latest[name] = entry
        return latest

    def _trees(self, entries: dict[str, "_Entry"]) -> dict[str, Usage]:
        """The usage, now, of the living neighbours of this pid namespace, by the name of their file."""
        here = [name for name in entries if _owner(name).namespace == self._namespace]
        return {name: usage(_owner(name).pid) for name in here if self._runs(name, entries[name])}

    def _runs(self, name: str, entry: "_Entry") -> bool:
        owner = _owner(name)
        if owner.namespace != self._namespace:
            return time.time() - entry.published < _FRESH_SECONDS
        try:
            return abs(psutil.Process(owner.pid).create_time() - entry.started) < 1
        except psutil.Error:
            return False

    def _is_zombie(self, name: str) -> bool:
        """Whether a process of this pid namespace has ended, and its parent does not know it yet."""
        owner = _owner(name)
        try:
            return owner.namespace == self._namespace and psutil.Process(owner.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True  # ended just now

    def _sweep_out(self, folder: Path) -> None:
        """Remove old files of other machines and pid namespaces, whose processes cannot be checked."""
        for file in _files(folder):
            owner = _owner(file.name.removesuffix(".tmp"))
            ours = (owner.machine, owner.namespace) == (self._machine, self._namespace)
            if owner.pid and not (ours and file.suffix == ".json"):
                with contextlib.suppress(OSError):
                    if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                        file.unlink()


def _ancestors() -> frozenset[int]:
    """The processes that started this one, directly or not."""
    try:
        return frozenset(process.pid for process in psutil.Process().parents())
    except psutil.Error:  # one has just ended
        return frozenset()


class _Entry(NamedTuple):
    """The content of a file: CPU seconds of a process tree, and times in seconds since 1970."""

    cpu_seconds: float
    first: float  # CPU seconds when it first published
    started: float
    published: float


class _Owner(NamedTuple):
    machine: str
    namespace: str
    pid: int


def machine() -> str:
    """An identifier of this machine that is the same in all its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return socket.gethostname().replace(".", "-")


def _pid_namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return "0"


@cache
def _token(pid: int) -> str:
    """A token that distinguishes this process from others with the same id, and is the same for all its meters."""
    return secrets.token_hex(4)


def _fixed_folders() -> tuple[Path, ...]:
    """The folders of this user, which other users cannot write to.

    Even a process with some private folders shares others: Slurm's job_container makes /tmp and /dev/shm private,
    systemd's PrivateTmp /tmp and /var/tmp. Many containers make all three private, but mount the home folder.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "")
    shared = [Path(root, f"greenseg-meters-{user}") for root in ("/dev/shm", "/tmp", "/var/tmp")]
    kept = []
    with contextlib.suppress(OSError, RuntimeError):  # not writable, or no home
        cache = Path(os.environ.get("GREENSEG_CACHE") or platformdirs.user_cache_dir("greenseg")).expanduser()
        kept = [cache / "meters"]
        cache.mkdir(parents=True, exist_ok=True)
    if not hasattr(os, "geteuid"):  # Windows has a temporary folder per user
        shared = [Path(tempfile.gettempdir(), f"greenseg-meters-{user}")]
    return (*shared, *kept)


def _is_ours(folder: Path, make: bool = True) -> bool:
    """Whether a folder can be used: anyone may create names in /tmp, so it must belong to this user alone."""
    try:
        if make and not os.path.lexists(folder):
            folder.mkdir(0o700, exist_ok=True)
        found = folder.lstat()  # a link could lead anywhere
    except OSError:
        return False
    if not hasattr(os, "geteuid"):
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


@cache
def _owner(name: str) -> _Owner:
    """The owner of a file; process 0 if the name is not from greenseg."""
    parts = name.split(".")
    if len(parts) != 5 or parts[4] != "json" or not parts[2].isdecimal():
        return _Owner("", "", 0)
    return _Owner(parts[0], parts[1], int(parts[2]))


def _published(folder: Path, name: str) -> _Entry | None:
    """The entry of a neighbour; None if it is gone or unreadable."""
    try:
        fields = json.loads((folder / name).read_bytes())
        return _Entry(**{field: float(fields[field]) for field in _Entry._fields})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remove(name: str, folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
