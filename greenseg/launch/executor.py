"""Where runs are carried out, as the queue sees it. `greenseg.launch.local` is this machine.

The queue decides which run starts, and when. An executor starts it, reports its end, and stops it on request. The queue
reads the rest in the run's directory (`greenseg.launch.follow`, `greenseg.launch.judge`), so that an executor whose
runs have no pipe, on another host perhaps, has to report their ends alone.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, Self

from greenseg.data.content import Content
from greenseg.launch.slots import Slot, Slots
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.training import events


@dataclass(eq=False)
class Job:
    """A run to do.

    Attributes:
        settings: of the run.
        run: its directory; made if it is not there.
        start_over: discard the earlier attempts of the run.
        context: what surrounds it and belongs into its record: its place in the order, idle watts, pauses.
        content: what it is trained on; None where that is not known.
        tries: how often it was begun here.
    """

    settings: Settings
    run: RunDirectory
    start_over: bool = False
    context: dict[str, Any] = field(default_factory=dict)
    content: Content | None = None
    tries: int = 0

    def environment(self, **context: Any) -> dict[str, str]:
        """Variables that the program of the run reads.

        Args:
            context: what the executor adds to the context.
        """
        variables = {events.CONTEXT: json.dumps(self.context | context)}
        return variables | ({events.START_OVER: "1"} if self.start_over else {})


class Force(Enum):
    """How an executor stops a run."""

    ASK = auto()
    """Let it finish what must not be cut short, so that it can go on later."""
    WAKE = auto()
    """Ask it, and continue it first where it is suspended: it is overdue."""
    KILL = auto()
    """End it at once."""


Handle = Hashable
"""An attempt at a run that an executor has started."""


@dataclass(frozen=True)
class Said:
    """A run sent an event; see `greenseg.training.events`. Not every executor has such a source of progress."""

    handle: Handle
    event: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """An attempt at a run is over; nothing of it runs any more.

    Attributes:
        handle: of the attempt.
        code: exit code of its program; below 0, the signal that ended it; None where the executor cannot know.
        lost: its surroundings ended it, through no fault of its own, so that it is tried again.
        out_of_memory: the kernel killed it for want of memory.
        unrestored: a message for each limit of a GPU that the run set and that could not be put back.
    """

    handle: Handle
    code: int | None = None
    lost: bool = False
    out_of_memory: bool = False
    unrestored: Sequence[str] = ()


class NotStarted(Exception):
    """The run was not started; ask again."""


class Executor(Protocol):
    """Starts, watches and stops runs while its context lasts, and ends at once those that run when it is left."""

    @property
    def slots(self) -> Slots:
        """Where runs may run; the queue takes one for each run, and gives it back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def problems(self, runs: Sequence[Settings]) -> list[str]:
        """Why these runs cannot run here now, beyond what their settings rule out; a message each."""

    def prepare(self, job: Job, wanted: Callable[[], bool]) -> bool:
        """Get ready to start a run, which may take seconds.

        Args:
            job: the run.
            wanted: asked meanwhile.

        Returns:
            False if the run was no longer wanted before all was ready.
        """

    def start(self, job: Job, slot: Slot) -> Handle:
        """Start a run whose directory is there.

        Raises:
            NotStarted: it did not start; prepare it again.
            OSError: its directory cannot be written.
        """

    def wait(self, seconds: float) -> Iterable[Said | Ended]:
        """Wait until something happens, but no longer than that; returns all that has happened since the last call."""

    def stop(self, handle: Handle, force: Force) -> None:
        """Stop a run; `wait` reports its end. It may be asked again, with more force, and may have ended already."""
