"""The process that may write the files of a run: by a `flock` within a host, and by a lease between hosts.

A lock of the host comes first, and proves that an owner on this host is dead. Then the lease keeps other hosts away;
see docs/leases.md.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from greenseg import locks
from greenseg.leases import Held, Holder, Lease, Terms, Watch

_LOOK_SECONDS = 1.0  # between looks at an owner on another host


class Owner:
    """Watches the owner of a run. Keep the instance: an owner that stays silent long enough counts as dead.

    Args:
        run: path of the run's directory.
        knowledge: the knowledge of another instance on this host; empty if there is none.
        dead: host name and ID of a process that a scheduler calls dead.
    """

    def __init__(self, run: Path, knowledge: str = "", dead: tuple[str, int] | None = None) -> None:
        self.run = run
        self._lock = run / ".lock"
        self._watch = Watch(run / ".lease", "run", Terms.here())
        if knowledge:
            watched, dead = json.loads(knowledge)
            self._watch.learn(watched)
        self._dead = Holder(*dead) if dead else None

    @property
    def knowledge(self) -> str:
        """What it knows, for another instance on this host."""
        return json.dumps([self._watch.knowledge, self._dead and (self._dead.host, self._dead.pid)])

    def look(self) -> str | None:
        """The process that trains this run, or may do so; None if there is none, or if it was silent for a whole lease.

        A first look cannot tell whether an owner on another host still lives.
        """
        has_lock = locks.is_held(self._lock)
        if has_lock:
            return "another process on this host"
        held, here, is_free = self._watch.look(), Holder.here(), has_lock is False
        if held is None:
            return None
        holder = held.holder
        if holder and (holder.has_ended(here, is_free) or holder.seems_dead(here, is_free, self._dead)):
            return None
        return str(held)

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it is known whether the run has a living owner; returns whether it has, or may have.

        An owner on another host lives if its counter changes meanwhile, and is dead if it was silent for a whole lease.

        Args:
            stopped: whether the caller no longer wants to know.
        """
        before = ""
        while not stopped():
            if self.look() is None:
                return False
            if locks.is_held(self._lock) or self._watch.knowledge != (before or self._watch.knowledge):
                return True
            before = self._watch.knowledge
            time.sleep(_LOOK_SECONDS)
        return True

    @contextlib.contextmanager
    def claim(self, on_loss: Callable[[], None] | None = None) -> Iterator[Lease | None]:
        """Claim the run for this process while the context lasts; yields None if it has another owner.

        Args:
            on_loss: called in another thread if another host takes over, since this one was silent. Without it, the
                context must last only for an instant, since nothing renews the lease.

        Raises:
            OSError: the directory is not writable.
        """
        with _flock(self._lock) as has_flock:
            if has_flock is None:
                yield None
                return
            lease = self._watch.claim(has_flock, self._dead)
            if isinstance(lease, Held):
                yield None
            elif on_loss:
                with lease.kept(on_loss):
                    yield lease
            else:
                try:
                    yield lease
                finally:
                    lease.release()


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[bool | None]:
    """Hold a `flock`; yields False if the file system has none, and None if another process has it."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(locks.hold(path))
        except OSError as error:
            if not locks.has_no_locks(error):
                raise
            yield False
        else:
            yield None if file is None else True


def last_takeover(run: Path) -> int:
    """Number of the last takeover of a run from a silent host; 0 if there was none."""
    try:
        names = os.listdir(run / "takeovers")  # noqa: PTH208  (for every run of a report)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max((int(name) for name in names if name.isdecimal()), default=0)
