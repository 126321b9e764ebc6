"""The ancestors of a run: the parent whose network it compresses, and the teacher that it learns from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from greenseg.data.content import Content
from greenseg.errors import UserError, did_you_mean
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.runs.disk import remedy
from greenseg.runs.index import RunIndex, entry_of
from greenseg.runs.record import Ancestor, BadRecord, Head, Lineage, Record
from greenseg.runs.standing import PlannedRun
from greenseg.runs.summary import own_energy
from greenseg.settings import BEST_OF, NEUTRAL, Settings, parent_of, run_key


@dataclass(frozen=True)
class Ancestors:
    """The finished runs that a run needs.

    Attributes:
        parent: the run whose network it compresses; None if it trains its own.
        teacher: the run whose soft masks it learns from, or None.
        lineage: all runs whose joules are part of its cost.
    """

    parent: RunDirectory | None = None
    teacher: RunDirectory | None = None
    lineage: Lineage = field(default_factory=Lineage)


def ancestors_of(run: RunDirectory, settings: Settings, content: Content) -> Ancestors:
    """The ancestors of a run, which lie below the same folder.

    Args:
        run: directory of the run, `root/<sweep>/<name>`.
        settings: settings of the run.
        content: content of its data.

    Raises:
        UserError: one is missing, has not finished, or has lost its network.
    """
    parent, teacher = None, None
    found: list[Ancestor] = []
    if wanted := parent_of(settings):
        root = run.path.parent.parent
        entry = RunIndex(root).find(wanted, content).entry
        if entry is None:
            raise UserError(f"{run.path}: its parent, {wanted.slug}, has not been trained below {root}")
        parent = entry.directory
        _add(found, parent, "parent")
    if settings.teacher and not settings.converts:
        teacher = RunDirectory(Path(settings.teacher))
        _add(found, teacher, "teacher")
    return Ancestors(parent, teacher, Lineage(ancestors=found) if found else Lineage())


def _add(found: list[Ancestor], run: RunDirectory, role: Literal["parent", "teacher"]) -> None:
    """Add a run and its own ancestors, each once."""
    record = with_network(run, role)
    own = Ancestor(
        role=role,
        identity=record.identity or run_key(run.path.name),
        id=record.known_as,
        directory=str(run.path),
        energy=own_energy(record).to_json(),
        **{name: value for name, value in _known(record).items() if value is not None},
    )
    for each in (own, *record.lineage.ancestors):
        # What a teacher learned from is part of the teacher.
        each = each if role == "parent" else each.model_copy(update={"role": role})
        if not any(other.id == each.id for other in found):
            found.append(each)


def _known(record: Record) -> dict[str, Any]:
    cpus = {attempt.cpu for attempt in record.attempts}
    watts = {attempt.estimate.watts if attempt.estimate else None for attempt in record.attempts}
    alike = len(cpus) == len(watts) == 1  # else its estimate cannot be converted as a whole
    return {
        "dice": record.metrics.dice,
        "cpu": record.attempts[0].cpu if alike else None,
        "estimate": record.attempts[0].estimate if alike else None,
    }


def with_network(run: RunDirectory, role: str) -> Record:
    """The record of a finished run that still has its network.

    Raises:
        UserError: it is no run directory, has not finished, or has lost its network.
    """
    try:
        record = run.record() if (run.path / "config.yaml").exists() else None
    except BadRecord as error:
        raise UserError(f"{role}: {error}") from None
    if record is None:
        raise UserError(f"{role}: {run.path}: not the directory of a run that has begun")
    if record.status != "finished":
        raise UserError(f"{role}: {run.path}: the run is {run.status_by(record)}, not finished")
    if not run.best_checkpoint.exists():
        raise UserError(f"{role}: {run.path}: {remedy(run, record)}")
    return record


def lost_parents(runs: Sequence[PlannedRun], todo: Iterable[PlannedRun]) -> list[tuple[Settings, str]]:
    """The runs to do whose parent has finished and has lost its network, each with the reason and the remedy.

    Args:
        runs: all planned runs, with the parents.
        todo: the runs to do.
    """
    if not (children := [run for run in todo if parent_of(run.settings)]):
        return []
    finished = {run.settings.identity: run.directory for run in runs if run.status == "finished"}
    found = []
    for run in children:
        wanted = parent_of(run.settings)
        parent = finished.get(wanted.identity) if wanted else None
        if parent and not parent.best_checkpoint.exists():
            try:
                with_network(parent, "parent")
            except UserError as error:
                found.append((run.settings, str(error)))
    return found


# ── the teacher that a user names


def resolve_teacher(settings: Settings, out: Path) -> Settings:
    """The settings with the directory of a run as teacher, in place of `best of SWEEP`.

    Args:
        settings: settings of the student.
        out: folder of all runs.

    Raises:
        UserError: there is no such run, or the student cannot learn from it.
    """
    if not settings.teacher:
        return settings
    named = BEST_OF.fullmatch(settings.teacher)
    path = _best_of(named[1], out) if named else Path(settings.teacher)
    record = with_network(RunDirectory(path), "teacher")
    if run_key(path.name) == path.name:
        raise UserError(
            f"teacher: {path}: the directory was renamed; its name must end with its identity, -{record.identity}"
        )
    if problem := _unsuitable(settings, Settings.of(NEUTRAL | record.settings)):
        raise UserError(f"teacher: {path}: {problem}")
    return settings.changed(teacher=str(path))


def _best_of(name: str, out: Path) -> Path:
    """The directory of the finished run with the best Dice in a sweep, given by its name or its folder."""
    folder = out / name if (out / name).is_dir() else Path(name)
    if not folder.is_dir():
        known = sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
        raise UserError(
            f"teacher: no sweep '{name}' in {out}{did_you_mean(name, known)}; valid: {', '.join(known) or 'none yet'}"
        )
    scored: list[tuple[float, Path]] = []
    for run in find_runs([folder]):
        head = entry_of(run).record
        if head and _teaches(head) and head.metrics.dice is not None:
            scored.append((head.metrics.dice, run.path))
    if not scored:
        raise UserError(f"teacher: {folder}: has no finished run to learn from")
    return max(scored, key=lambda each: (each[0], each[1].name))[1]


def _teaches(head: Head) -> bool:
    return head.status == "finished" and not Settings.model_validate(NEUTRAL | head.settings).converts


ALIKE = ("image_size", "spacing", "labels", "channels")
"""Settings that teacher and student share."""


def _unsuitable(student: Settings, teacher: Settings) -> str:
    """Why a student cannot learn from a teacher; empty if it can."""
    if teacher.converts:
        return f"its network is converted (runtime {teacher.runtime}, quantize {teacher.quantize}); name its parent"
    other = [
        f"{name} {getattr(teacher, name)!r}, not {getattr(student, name)!r}"
        for name in ALIKE
        if getattr(teacher, name) != getattr(student, name)
    ]
    return f"was trained with {' and '.join(other)}" if other else ""
