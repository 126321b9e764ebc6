"""The status of a planned run, from its directory if it has one."""

from pathlib import Path
from typing import NamedTuple

from greenseg.data.content import Content
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import RunIndex, entry_of
from greenseg.runs.record import BadRecord, Head
from greenseg.runs.summary import accounted_otherwise, summary
from greenseg.settings import Settings

STATUSES = ("finished", "failed", "interrupted", "paused", "running", "damaged", "newer", "new")


class Spent(NamedTuple):
    """Cost of a run so far."""

    seconds: float
    joules: float
    epochs: int


class PlannedRun(NamedTuple):
    """A run and its status.

    Attributes:
        settings: settings of the run.
        folder: folder for a new directory.
        known: existing directory, or None.
        status: one of `STATUSES`. `damaged`: its record is unreadable, and it starts over. `newer`: a later version of
            greenseg wrote it, and it is left alone.
        spent: cost so far, if the record has it.
        outdated: it has finished, with other accounting settings.
        problem: problem of its record; empty if none.
        content: present content of its data; None if the data are missing.
        by_path: `known` was matched by settings and path alone.
        contents: number of contents that exist for settings and path; several are ambiguous.
        name: name of its new directory; empty for the default.
        other: a run with the same settings on other content; see `Found`.
        other_status: status of `other`.
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
        """Its existing or future directory."""
        return self.known or RunDirectory(Path(self.folder, self.name or self.settings.slug))


def look(settings: Settings, content: Content | None, index: RunIndex, folder: str) -> PlannedRun:
    """Find the status of a run.

    Args:
        settings: settings of the run.
        content: present content of its data; None if unknown.
        index: index of the existing directories.
        folder: folder of the sweep, for a new directory.
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
    """Why a run from a later version of greenseg is left alone, with the remedy."""
    return f"{run.problem}, or use another folder for new runs with --out"


def refusal(run: PlannedRun) -> str:
    """Why a run does not start if a run with the same settings was interrupted on other content, with the remedy."""
    return (
        f"{run.other and run.other.path}: this run was interrupted, and {run.settings.data} now gives other slices"
        f"{difference(run)}. To continue it, restore the earlier data or the greenseg version that prepared them. To "
        f"start over, use --again"
    )


def difference(run: PlannedRun) -> str:
    """The difference between the contents of a run and its `other`, in brackets; empty if unknown."""
    if not (run.other and run.content):
        return ""
    then = entry_of(run.other).content_then(run.settings, run.content)
    found = run.content.difference(then) if then else ""
    return f" ({found})" if found else ""


def _spent(directory: RunDirectory, head: Head) -> Spent | None:
    metrics = head.metrics
    if head.status == "running":  # the epochs of a killed run have its cost
        try:
            record = directory.record()
            if record:
                metrics = summary(record, directory.epochs()).metrics
        except (BadRecord, TypeError, ValueError):
            return None
    joules, seconds = metrics.own  # those of ancestors are spent once, by their own runs
    if seconds is None or joules is None or metrics.epochs is None:
        return None
    return Spent(seconds, joules, metrics.epochs)
