"""Where a run stands: its directory, if it has one, and what that says."""

from pathlib import Path
from typing import NamedTuple

from greenseg.data.content import Content
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import RunIndex, entry_of
from greenseg.runs.record import BadRecord, Record
from greenseg.runs.summary import accounted_otherwise, summary
from greenseg.settings import Settings

STATUSES = ("finished", "failed", "interrupted", "running", "damaged", "newer", "new")


class Spent(NamedTuple):
    """What a run took so far."""

    seconds: float
    joules: float
    epochs: int


class PlannedRun(NamedTuple):
    """A run and where it stands.

    Attributes:
        known: its directory, where it has one already.
        status: one of `STATUSES`; `damaged`: its record cannot be read, it starts over; `newer`: a later version of
            greenseg wrote it, it is left alone.
        spent: so far, where its record tells.
        outdated: it has finished, and was accounted for with other settings.
        problem: what is wrong with its record.
        content: what it would be trained on now; None where the data are not here.
        by_path: settings and path alone say that `known` is its directory.
        contents: that these were trained on; where there are several, they do not decide.
        name: that its directory will have, where it has none yet.
        other: a run of the same settings that was trained on other content; see `Found`.
        other_status: where that one stands.
    """

    settings: Settings
    folder: str
    known: RunDirectory | None = None
    status: str = "new"
    spent: Spent | None = None
    outdated: bool = False
    problem: str = ""
    content: Content | None = None
    by_path: bool = False
    contents: int = 1
    name: str = ""
    other: RunDirectory | None = None
    other_status: str = ""

    @property
    def directory(self) -> RunDirectory:
        """Its directory, or the one that it will have."""
        return self.known or RunDirectory(Path(self.folder, self.name or self.settings.slug))


def look(settings: Settings, content: Content | None, index: RunIndex, folder: str) -> PlannedRun:
    """Where a run stands.

    Args:
        settings: of the run.
        content: what it would be trained on now; None where that is not known.
        index: the directories that there are.
        folder: of the sweep, in which the run gets a directory where it has none.
    """
    found = index.find(settings, content, folder)
    other, other_status = (found.other.directory, found.other.status()) if found.other else (None, "")
    run = PlannedRun(
        settings, folder, content=content, by_path=found.by_path, contents=found.contents, other=other,
        other_status=other_status,
    )  # fmt: skip
    if found.entry is None:
        return run._replace(name=index.free_name(settings, folder)) if found.other else run
    directory, record = found.entry.directory, found.entry.record
    if found.entry.problem:
        status = "newer" if found.entry.newer else "damaged"
        return run._replace(known=directory, status=status, problem=found.entry.problem)
    status = found.entry.status()
    if record is None:
        return run._replace(known=directory, status=status)
    outdated = status == "finished" and accounted_otherwise(record, settings)
    return run._replace(known=directory, status=status, spent=_spent(directory, record), outdated=outdated)


def leave_alone(run: PlannedRun) -> str:
    """Why a run that a later version of greenseg has written is not touched, and what to do."""
    return f"{run.problem}, or keep today's runs in another folder with --out"


def refusal(run: PlannedRun) -> str:
    """Why a run does not start in place of one that was interrupted on other content, and what to do."""
    return (
        f"{run.other and run.other.path}: this run was interrupted, and {run.settings.data} gives other slices now"
        f"{difference(run)}. Bring back the earlier data, or the greenseg that prepared them, to continue it, or start "
        f"over with --again"
    )


def difference(run: PlannedRun) -> str:
    """How the content of a run differs from that of the other one, in brackets; empty where that is not known."""
    if not (run.other and run.content):
        return ""
    then = entry_of(run.other).content_then(run.settings, run.content)
    found = run.content.difference(then) if then else ""
    return f" ({found})" if found else ""


def _spent(directory: RunDirectory, record: Record) -> Spent | None:
    metrics = record.metrics
    if record.status == "running":  # of one that was killed, what it had finished stands in its epochs
        try:
            metrics = summary(record, directory.epochs()).metrics
        except (BadRecord, TypeError, ValueError):
            return None
    if metrics.seconds is None or metrics.joules is None or metrics.epochs is None:
        return None
    return Spent(metrics.seconds, metrics.joules, metrics.epochs)
