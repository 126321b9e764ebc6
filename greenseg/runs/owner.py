"""The process that may write the files of a run: by a `flock` within a host, and by a lease between hosts.

A lock of the host comes first, and proves that an owner on this host is dead. Then the lease keeps other hosts away;
see docs/leases.md.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from greenseg import locks
from greenseg.leases import Held, Holder, Lease, Terms, Watch


class Owner:
    """The owner of a run, as far as this host can tell. Keep it: the longer it watches, the more it knows.

    Args:
        run: path of the run's directory.
        knowledge: the knowledge of another instance on this host; empty if there is none.
        dead: host name and ID of a process that is known to be dead, from a scheduler for instance.
    """

    def __init__(self, run: Path, knowledge: str = "", dead: tuple[str, int] | None = None) -> None:
        self.run = run
        self._lock = run / ".lock"
        self._watch = Watch(run / ".lease", "run", Terms.here())
        self._looked = bool(knowledge)
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
        self._looked = True
        held = self._watch.look()
        holder = held.holder if held else None
        if held is None or (has_lock is False and holder and holder.would_have_lock):
            return None
        return None if holder and holder.is_same_process(self._dead) else str(held)

    def lives(self) -> bool | None:
        """Whether the run has a living owner; None if that is not known yet: look again, every few seconds.

        The owner on another host lives if its counter changes between two looks.
        """
        before, looked = self._watch.knowledge, self._looked
        if locks.is_held(self._lock):
            return True
        if self.look() is None:
            return False
        return True if looked and self._watch.knowledge != before else None

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
