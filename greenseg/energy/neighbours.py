"""Who else measures on this machine: runs side by side share its CPU counters, and must not each take all of them.

Every process with a meter leaves a small file with the CPU seconds of its process tree; the others read it. Slurm and
containers give each job folders of its own, some here, some there: so the file goes into several folders whose names
are fixed, and two processes find each other if they share one of them. A file's name says whose it is:

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

from greenseg.energy.estimate import Usage

_FRESH_SECONDS = 60.0
"""How long after it last published a process of another pid namespace counts as running: nobody else can look."""

_STALE_SECONDS = 86_400.0
"""When a file of another machine or pid namespace goes: its process has ended, or its clock is off by a day."""


class Neighbours:
    """The other processes of this machine that measure, of the same user.

    Args:
        folder: where they leave their files, and nowhere else; by default several fixed folders, so that neither
            `TMPDIR` nor a private `/tmp` or `/dev/shm` hides one from another.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folders = (folder,) if folder else _fixed_folders()
        self._machine, self._namespace = machine(), _pid_namespace()
        self._name = f"{self._machine}.{self._namespace}.{os.getpid()}.{_token(os.getpid())}.json"
        self._started = psutil.Process().create_time()
        self._first: float | None = None
        self._seen: dict[str, float] = {}  # CPU seconds, by name of the file; of those that are gone, too
        self._met = False  # whether the neighbours that were here before are known

    def exchange(self, used: Usage) -> float:
        """Publish what this run has used; returns the CPU seconds that all others used since the last call.

        A neighbour that came since counts from its own start; what one used after it last published and before it ended
        is not known. Processes of this run's own tree are no neighbours. Where no folder can be used there are none: a
        training must not die of that.
        """
        folders = [folder for folder in self._folders if _is_ours(folder)]
        self._publish(used, folders)
        if not self._met:
            for folder in folders:
                self._sweep_out(folder)
        others = 0.0
        for name, entry in self._read(folders, used).items():
            alive = self._runs(name, entry)
            ended = not alive and _owner(name).namespace == self._namespace
            if not ended or name in self._seen:
                first = entry.first if self._met and alive else entry.cpu_seconds
                others += max(entry.cpu_seconds - self._seen.get(name, first), 0.0)
                self._seen[name] = entry.cpu_seconds
            if ended:
                _remove(name, folders)
        self._met = True
        return others

    def leave(self) -> None:
        """Take this process's files away."""
        _remove(self._name, [folder for folder in self._folders if _is_ours(folder, make=False)])

    def _publish(self, used: Usage, folders: list[Path]) -> None:
        self._first = used.cpu_seconds if self._first is None else self._first
        entry = _Entry(used.cpu_seconds, self._first, self._started, time.time())
        text = json.dumps(entry._asdict()).encode()
        for folder in folders:
            unfinished = folder / f"{self._name}.tmp"
            # Where there is no room, an old file stays; others find the new one in another folder.
            with contextlib.suppress(OSError):
                unfinished.write_bytes(text)
                unfinished.replace(folder / self._name)

    def _read(self, folders: list[Path], used: Usage) -> dict[str, "_Entry"]:
        """What each neighbour published last, by the name of its file; whichever folders it is seen through."""
        latest: dict[str, _Entry] = {}
        fresh = time.time() - _FRESH_SECONDS
        for folder in folders:
            for name in (file.name for file in _files(folder)):
                owner = _owner(name)
                mine = owner.namespace == self._namespace and owner.pid in used.processes
                if owner.machine != self._machine or mine:
                    continue
                known = latest.get(name)
                if known and known.published > fresh:  # most are: then the other folders are not worth the time
                    continue
                entry = _published(folder, name)
                if entry and (not known or known.published < entry.published):
                    latest[name] = entry
        return latest

    def _runs(self, name: str, entry: "_Entry") -> bool:
        owner = _owner(name)
        if owner.namespace != self._namespace:
            return time.time() - entry.published < _FRESH_SECONDS
        try:
            return abs(psutil.Process(owner.pid).create_time() - entry.started) < 1
        except psutil.Error:
            return False

    def _sweep_out(self, folder: Path) -> None:
        """Remove what other machines and pid namespaces left long ago; whether they still run, only time tells."""
        for file in _files(folder):
            owner = _owner(file.name.removesuffix(".tmp"))
            ours = (owner.machine, owner.namespace) == (self._machine, self._namespace)
            if owner.pid and not (ours and file.suffix == ".json"):
                with contextlib.suppress(OSError):
                    if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                        file.unlink()


class _Entry(NamedTuple):
    """What a file holds; CPU seconds of a process tree, and times in seconds since 1970."""

    cpu_seconds: float
    first: float  # CPU seconds when it first published
    started: float
    published: float


class _Owner(NamedTuple):
    machine: str
    namespace: str
    pid: int


def machine() -> str:
    """What tells this machine from others that share its home folders, and is the same in all its containers."""
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
    """Tells this process from others that had or will have the same id: a process may make several meters."""
    return secrets.token_hex(4)


def _fixed_folders() -> tuple[Path, ...]:
    """The folders of this user, that other users cannot write to.

    A process that has private ones of some shares the others: Slurm's job_container makes /tmp and /dev/shm private,
    systemd's PrivateTmp /tmp and /var/tmp, and many containers all three, but mount the home folder.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "")
    shared = [Path(root, f"greenseg-meters-{user}") for root in ("/dev/shm", "/tmp", "/var/tmp")]
    kept = []
    with contextlib.suppress(OSError, RuntimeError):  # not ours to write; no home
        cache = Path(os.environ.get("GREENSEG_CACHE") or platformdirs.user_cache_dir("greenseg")).expanduser()
        kept = [cache / "meters"]
        cache.mkdir(parents=True, exist_ok=True)
    if not hasattr(os, "geteuid"):  # Windows: one folder for temporary files a user
        shared = [Path(tempfile.gettempdir(), f"greenseg-meters-{user}")]
    return (*shared, *kept)


def _is_ours(folder: Path, make: bool = True) -> bool:
    """Whether a folder can be used: names in /tmp are anybody's to take, so it must be this user's alone."""
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
    """Whose a file is; process 0 where the name is none of greenseg's."""
    parts = name.split(".")
    if len(parts) != 5 or parts[4] != "json" or not parts[2].isdecimal():
        return _Owner("", "", 0)
    return _Owner(parts[0], parts[1], int(parts[2]))


def _published(folder: Path, name: str) -> _Entry | None:
    """What a neighbour published; None where that is gone, or cannot be read."""
    try:
        fields = json.loads((folder / name).read_bytes())
        return _Entry(**{field: float(fields[field]) for field in _Entry._fields})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remove(name: str, folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
