"""Leases between hosts: at most one host at a time acts as the owner of a folder, without a shared clock.

`flock` works only within a host. Between hosts, a lease is a numbered file, `NAME.1`, `NAME.2`, …, a *generation*:

- It is made exclusively (`link`), so each generation has one owner. Who wants the lease makes the next generation.
- It has a counter, which only its owner raises, every few seconds. Nobody deletes a generation, or changes that of
  another.
- A contender watches the counter. If it stays the same for a whole lease on the contender's own clock, the owner is
  dead, or knows by its own clock that it is overdue. The contender then makes the next generation.
- A host that was paused may still work when it wakes up. So who takes over from a silent owner writes to files of its
  own, which have the number of the generation that did so: the last *takeover*. The highest number wins.

docs/leases.md has the proof, the limits, and the use for runs. After Gray and Cheriton, *Leases: an efficient
fault-tolerant mechanism for distributed file cache consistency* (SOSP 1989), with the file server as storage only.
"""

import contextlib
import errno
import functools
import json
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from greenseg.errors import UserError

Clock = Callable[[], float]
"""Seconds on a clock of this host that never goes back; its zero means nothing."""

_RENEWALS = 6  # in the time after which an owner is overdue: some may fail, or wait for a slow file server
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of `link` on file systems without hard links."""


def now() -> float:
    """Seconds on the clock of this host, which on Linux also runs while the host is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Terms:
    """The durations of a lease. All hosts must use the same.

    Attributes:
        seconds: a contender takes over after this time without a new counter, on its own clock.
        stale: longest time for which a host may see an earlier content of a file, in seconds. NFS: 60 s by default
            (`acregmax`, `acdirmax`).
        skew: while a clock counts one second, that of another host counts at least 1 − skew.

    Raises:
        ValueError: these durations leave an owner no time.
    """

    seconds: float = 120.0
    stale: float = 60.0
    skew: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.fence < math.inf:
            raise ValueError(f"a lease of {self.seconds:g} s is too short for files that are {self.stale:g} s old")

    @classmethod
    def here(cls) -> "Terms":
        """The terms of this host: the lease of `GREENSEG_LEASE` seconds, half of them for `stale`, or the default.

        Raises:
            UserError: the variable is no positive number.
        """
        given = os.environ.get("GREENSEG_LEASE", "")
        try:
            seconds = float(given or cls.seconds)
            return cls(seconds, seconds / 2)
        except ValueError:
            raise UserError(f"GREENSEG_LEASE is {given!r}; it must be a positive number of seconds") from None

    @property
    def fence(self) -> float:
        """An owner whose last confirmed counter is this old is overdue, in seconds of its own clock.

        It began to write this counter before any contender could see it. So a contender that has seen no other for
        `seconds` knows that none was written up to `stale` seconds ago, when the owner was overdue already.
        """
        return self.seconds * (1 - self.skew) - self.stale

    @property
    def every(self) -> float:
        """Time between two counters, in seconds."""
        return self.fence / _RENEWALS


@dataclass(frozen=True)
class Holder:
    """The process that made a generation.

    Attributes:
        host: name of its host.
        pid: its process ID there.
        kernel: identity of its kernel: two processes with the same one see the same `flock`. Empty if unknown.
    """

    host: str
    pid: int
    kernel: str = ""

    @classmethod
    def here(cls) -> "Holder":
        """This process."""
        host = socket.gethostname()
        return cls(host, os.getpid(), f"{_boot()}/{host}" if _boot() else "")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def has_ended(self, here: "Holder", has_flock: bool) -> bool:
        """Whether it has certainly ended, since it ran on this kernel.

        Args:
            here: a process of this kernel.
            has_flock: the `flock` that it would have is free, or the caller has it.
        """
        return bool(self.kernel) and self.kernel == here.kernel and (has_flock or not _exists(self.pid))

    def seems_dead(self, here: "Holder", has_flock: bool, dead: "Holder | None") -> bool:
        """Whether it has probably ended: before a reboot of this host, or by the word of a scheduler.

        Yet hosts may share a name, and a node that a scheduler has lost may go on. The other arguments are those of
        `has_ended`.

        Args:
            here: a process of this kernel.
            has_flock: the `flock` that it would have is free, or the caller has it.
            dead: a process that a scheduler calls dead.
        """
        before_boot = has_flock and bool(here.kernel) and self.host == here.host
        return before_boot or (dead is not None and (self.host, self.pid) == (dead.host, dead.pid))


@functools.cache
def _boot() -> str:
    """Identifier of the present boot: that of Linux, or its time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _exists(pid: int) -> bool:
    """Whether this host has a process with this ID, perhaps a later one."""
    return psutil.pid_exists(pid)


class Files(Protocol):
    """The operations on a folder's files that leases need. Any host may see an old listing or content for a while.

    An `OSError` leaves open whether a write has happened: the reply of the server may be lost.
    """

    def names(self) -> list[str]:
        """Names of files; empty if the folder is missing."""

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: it is missing.
        """

    def create(self, name: str, content: bytes) -> None:
        """Make a file that no one else has made; also makes the folder.

        Raises:
            FileExistsError: another one made it, or this call did and its reply was lost.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file atomically."""


class Folder:
    """The files of a real folder, at most 10 calls of `os` each.

    Args:
        path: its path. Its parent must exist before a file is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)

    def names(self) -> list[str]:
        """Names of files; empty if the folder is missing."""
        try:
            return os.listdir(self._path)  # noqa: PTH208  (one call, names only)
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """The content of a file; at most 64 KiB."""
        try:
            return self._read(name)
        except OSError as error:
            if error.errno != errno.ESTALE:  # NFS: its owner replaced it between two calls
                raise
            return self._read(name)

    def _read(self, name: str) -> bytes:
        file = os.open(self._at(name), os.O_RDONLY)
        try:
            return os.read(file, 1 << 16)
        finally:
            os.close(file)

    def create(self, name: str, content: bytes) -> None:
        """Make a file that no one else has made; also makes the folder."""
        try:
            temporary = self._write_temporary(content)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._path)  # noqa: PTH102  (not its parents: a deleted run must not come back)
            temporary = self._write_temporary(content)
        try:
            os.link(temporary, self._at(name))  # the name never has half a content
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write(self._at(name), content)
        finally:
            os.unlink(temporary)  # noqa: PTH108  (its own)

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file atomically."""
        temporary = self._write_temporary(content)
        try:
            os.replace(temporary, self._at(name))  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # it was replaced, and the reply was lost
                os.unlink(temporary)  # noqa: PTH108
            raise

    def _write_temporary(self, content: bytes) -> str:
        path = self._at(f".{uuid.uuid4().hex}.tmp")
        try:
            _write(path, content)
        except FileNotFoundError:  # the folder is
            raise
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            raise
        return path

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


def _write(path: str, content: bytes) -> None:
    """Make a file exclusively. Closing it sends it to the server; a half-written one counts for a lease at most."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(file, content)
    finally:
        os.close(file)


@dataclass(frozen=True)
class Held:
    """The lease seems to have an owner. One look cannot show whether that owner still lives.

    Attributes:
        generation: highest known generation; 0 if there is none: then its folder was not reachable.
        holder: its owner; None if its file is unreadable.
        silent: seconds of this host's clock for which its counter has stayed the same while this host watched. Says
            nothing after a single look.
    """

    generation: int
    holder: Holder | None
    silent: float

    def __str__(self) -> str:
        return f"{self.holder or 'an unknown process'} (generation {self.generation}, silent for {self.silent:.0f} s)"


@dataclass(frozen=True)
class _Seen:
    """The highest generation, as this host sees it.

    Attributes:
        generation: its number; 0 if there is none.
        content: content of its file; empty if it is half-written, or not visible yet.
    """

    generation: int = 0
    content: bytes = b""

    @functools.cached_property
    def _values(self) -> dict[str, Any]:
        try:
            values = json.loads(self.content)
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def released(self) -> bool:
        """Whether its owner has given it up."""
        return self._values.get("released") is True

    @property
    def takeover(self) -> int:
        """Number of the last takeover. Of an unreadable file, its own: that of the owner is unknown."""
        found = self._values.get("takeover")
        return found if isinstance(found, int) else self.generation

    @property
    def token(self) -> Any:
        """Identity of the claim that made it."""
        return self._values.get("token")

    @functools.cached_property
    def holder(self) -> Holder | None:
        """Its owner; None if the file is unreadable."""
        try:
            return Holder(**self._values["holder"])
        except (LookupError, TypeError):
            return None


class Watch:
    """Watches a lease: remembers its counter, and since when this host has seen no other.

    Args:
        files: folder of its generations.
        name: name of the lease.
        terms: its durations.
        holder: who claims it; this process by default.
        clock: clock of this host.
    """

    def __init__(
        self,
        files: Files | Path,
        name: str,
        terms: Terms | None = None,
        holder: Holder | None = None,
        clock: Clock = now,
    ) -> None:
        self._files: Files = Folder(files) if isinstance(files, Path) else files
        self._name, self._pattern = name, re.compile(rf"{re.escape(name)}\.([1-9]\d*)")
        self._terms, self._clock = terms or Terms(), clock
        self._holder = holder or Holder.here()
        self._seen = _Seen()
        self._since = clock()
        self._silent = 0.0

    @property
    def knowledge(self) -> str:
        """What this watch knows, for one of another process of the same host that continues it."""
        return json.dumps([self._seen.generation, self._seen.content.decode(errors="replace"), self._since])

    def learn(self, knowledge: str) -> None:
        """Continue another watch of this host."""
        generation, content, self._since = json.loads(knowledge)
        self._seen = _Seen(generation, content.encode())

    def look(self) -> Held | None:
        """Look at the lease once, in two file operations; None if it is released, or was silent for a whole lease.

        Raises:
            OSError: the folder is not readable.
        """
        names = self._files.names()
        generation = max((int(match[1]) for name in names if (match := self._pattern.fullmatch(name))), default=0)
        # A listing may be old. Generations are never deleted, so a known one exists.
        self._see(max(generation, self._seen.generation))
        return None if self._is_released or self._is_silent else self._held()

    def _see(self, generation: int) -> None:
        """Read a generation. Time without a new counter runs from the end of one look to the begin of another."""
        begin = self._clock()
        content = b""
        if generation:
            with contextlib.suppress(FileNotFoundError):  # a listing or a failed `create` has it, and this look not yet
                content = self._files.read(_file(self._name, generation))
        seen = _Seen(generation, content)
        if seen != self._seen:
            self._seen, self._since = seen, self._clock()
        self._silent = max(0.0, begin - self._since)

    @property
    def _is_silent(self) -> bool:
        return self._silent >= self._terms.seconds

    @property
    def _is_released(self) -> bool:
        return not self._seen.generation or self._seen.released

    def _has_ended(self, has_flock: bool) -> bool:
        """Whether the last owner certainly writes no more; see `claim`."""
        holder = self._seen.holder
        return self._is_released or (holder is not None and holder.has_ended(self._holder, has_flock))

    def _held(self) -> Held:
        return Held(self._seen.generation, self._seen.holder, self._silent)

    def claim(self, has_flock: bool = False, dead: Holder | None = None) -> "Lease | Held":
        """Claim the lease if it is free; in at most 20 calls of `os` on files, however many generations there are.

        The first call finds out about a silent owner only that there is one. Call it again with the same watch, every
        few seconds: after `Terms.seconds` of silence, it takes over.

        Args:
            has_flock: the caller holds a `flock` that each process holds from before it claims this lease until after
                it has released it. An owner on the same host is then dead, and the lease is taken over at once.
            dead: a process that a scheduler calls dead. Its lease is taken over at once, but it may still write.

        Raises:
            OSError: the folder is not readable or not writable.
        """
        self.look()
        has_ended = self._has_ended(has_flock)
        holder = self._seen.holder
        seems_dead = holder is not None and holder.seems_dead(self._holder, has_flock, dead)
        if not (has_ended or seems_dead or self._is_silent):
            return self._held()
        generation, token = self._seen.generation + 1, uuid.uuid4().hex
        takeover = self._seen.takeover if has_ended else generation
        lease = Lease(self._files, self._name, generation, takeover, token, self._holder, self._terms, self._clock)
        try:
            lease._make()
        except FileExistsError:
            self._see(generation)
            if self._seen.token != token:  # else this claim made it, and the first reply was lost
                return self._held()
        except OSError:
            if not lease._is_made():  # not `_see`: a generation that may not exist must not be followed by the next
                raise
        if lease.lost():  # this host was paused meanwhile
            lease.release()
            return Held(generation, self._holder, 0.0)
        return lease


class Lease:
    """A lease that this process has claimed with `Lease.claim` or `Watch.claim`.

    Attributes:
        generation: number of the generation, from 1.
        takeover: the last generation whose owner took over from a silent one, which may still write; 0 if there was
            none. The owner writes to the files of this number.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        generation: int,
        takeover: int,
        token: str,
        holder: Holder,
        terms: Terms,
        clock: Clock,
    ) -> None:
        self.generation, self.takeover = generation, takeover
        self._files, self._name, self._token, self._holder = files, name, token, holder
        self._terms, self._clock = terms, clock
        self._counter = 0
        self._confirmed = clock()  # when the last write began that certainly happened
        self._why = ""
        self._has_next = False
        self._failure = ""
        self._writing = threading.Lock()

    @classmethod
    def claim(cls, folder: Path, name: str, terms: Terms | None = None, *, has_flock: bool = False) -> "Lease | Held":
        """Claim a lease once; see `Watch.claim`, which also takes over from a silent owner."""
        return Watch(folder, name, terms).claim(has_flock)

    # ── the owner's view

    @property
    def overdue(self) -> bool:
        """Whether its last confirmed counter is so old that another host may take over. Needs no file."""
        return bool(self._why) or self._clock() - self._confirmed >= self._terms.fence

    def lost(self) -> bool:
        """Whether it is lost or may be lost; one file operation. Call it before a write.

        Once true, it stays true, unless `regain` succeeds. After `release`, the host may also claim it as any other.
        """
        if not self._why:
            self._look_for_next()
        if not self._why and self.overdue:
            failure = f"; last error: {self._failure}" if self._failure else ""
            self._why = f"not renewed for {self._clock() - self._confirmed:.0f} s{failure}"
        return bool(self._why)

    @property
    def why(self) -> str:
        """Why it is lost; empty if it is not known to be lost."""
        return self._why

    def _look_for_next(self) -> None:
        following = self.generation + 1
        try:
            content = self._files.read(_file(self._name, following))
        except FileNotFoundError:
            return
        except OSError as error:  # no answer: the clock decides
            self._failure = str(error)
            return
        self._has_next = True
        owner = _Seen(following, content).holder or "an unknown process"
        self._why = f"generation {following} belongs to {owner}"

    # ── writing

    def renew(self) -> bool:
        """Write the next counter, and look for a higher generation; returns whether the lease is still held.

        A failed write is tried again by the next call. A lease that is overdue is never renewed.
        """
        with self._writing:
            if self.overdue:
                return not self.lost()
            begin = self._clock()
            self._counter += 1
            content = self._content()
            try:
                self._files.replace(_file(self._name, self.generation), content)
                written = True
            except OSError as error:
                self._failure = str(error)
                written = self._has(content)
            if written and not self.overdue:
                self._confirmed, self._failure = begin, ""
            return not self.lost()

    def regain(self) -> bool:
        """Make the next generation of a lease that is overdue, unless another host has; returns whether it is held.

        The owner was late, but nobody has noticed: it goes on as if it had renewed in time.

        Raises:
            OSError: the folder is not writable; call it again.
        """
        with self._writing:
            if self._has_next:
                return False
            following = Lease(
                self._files, self._name, self.generation + 1, self.takeover, uuid.uuid4().hex, self._holder,
                self._terms, self._clock,
            )  # fmt: skip
            try:
                following._make()
            except FileExistsError:
                if not following._is_made():
                    self._look_for_next()
                    return False
            except OSError:
                if not following._is_made():
                    raise
            self.generation, self._token, self._counter = following.generation, following._token, 0
            self._confirmed, self._why, self._failure = following._confirmed, "", ""
            return not self.lost()  # this host may have been paused meanwhile

    @property
    def superseded(self) -> bool:
        """Whether another host is known to have the next generation."""
        return self._has_next

    def release(self) -> None:
        """Give it up: others may claim the next generation at once. The caller must have stopped to write."""
        with self._writing:
            self._why = self._why or "released"
            if not self._has_next:
                with contextlib.suppress(OSError):  # others then wait for a whole lease
                    self._files.replace(_file(self._name, self.generation), self._content(released=True))

    @contextlib.contextmanager
    def kept(self, on_loss: Callable[[], None] = lambda: None) -> "Iterator[Lease]":
        """Renew it in a thread while the context lasts, or regain it if it is overdue; then release it.

        The thread ends with its process, and stops with it (SIGSTOP). A process that is forked meanwhile has no such
        thread: only this one may act as the owner.

        Args:
            on_loss: called in the thread once another host has the lease.
        """
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(self._terms.every):
                if self._is_kept():
                    continue
                if self.superseded:
                    on_loss()
                    return

        thread = threading.Thread(target=keep, name=f"lease {self._name}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            self.release()

    def _is_kept(self) -> bool:
        try:
            return self.renew() or self.regain()
        except OSError as error:  # the file server does not answer: the next time may succeed
            self._failure = str(error)
            return False

    def _make(self) -> None:
        self._files.create(_file(self._name, self.generation), self._content())

    def _is_made(self) -> bool:
        """Whether the file was made, although its reply was lost."""
        return self._has(self._content())

    def _has(self, content: bytes) -> bool:
        """Whether a write whose reply was lost has happened."""
        try:
            return self._files.read(_file(self._name, self.generation)) == content
        except OSError:
            return False

    def _content(self, released: bool = False) -> bytes:
        values = {
            "token": self._token, "counter": self._counter, "released": released, "takeover": self.takeover,
            "holder": asdict(self._holder),
        }  # fmt: skip
        return json.dumps(values).encode() + b"\n"


def _file(name: str, generation: int) -> str:
    return f"{name}.{generation}"
