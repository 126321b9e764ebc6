"""The disk space of runs, and the files of finished runs that can go.

`last.ckpt` only serves to resume training, so a finished run has no use for it. Its network is needed to predict, to
measure, and by runs that compress it or learn from it. A file goes only after run.json says that the run has finished,
and under the lock of the run. Before a network goes, run.json says why.
"""

import contextlib
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from greenseg.compression import RUNTIMES
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import Entry, entry_of
from greenseg.runs.record import BadRecord, Record
from greenseg.settings import NEUTRAL, Settings, parent_of, run_key, trained_anywhere

_NETWORKS = tuple(dict.fromkeys(name for runtime in RUNTIMES.values() for name in runtime.files))
"""Names of the files with a network, of all engines."""


@dataclass(frozen=True)
class Freed:
    """The result of an attempt to delete files of a run.

    Attributes:
        bytes: size of the deleted files.
        network: whether its network is among them.
        kept: why files stay that were to go; empty if none do.
        busy: they stay because another process is working on the run.
        needed_by: directory of a run that needs its network, which therefore stays; None if no run does.
    """

    bytes: int = 0
    network: bool = False
    kept: str = ""
    busy: bool = False
    needed_by: Path | None = None


def free(run: RunDirectory, rule: str = "", dry_run: bool = False) -> Freed:
    """Delete the files that a finished run can lose. A run with another status keeps all its files.

    Args:
        run: directory of the run.
        rule: why its network goes, too, such as `keep: none`, for its record; empty to keep the network.
        dry_run: delete nothing, and return the result of a deletion.
    """
    last, networks = _to_resume(run), networks_of(run) if rule else []
    if not last and not networks:
        return Freed()
    freed = 0
    try:
        unused = None if dry_run and run.in_use() else run
        with contextlib.nullcontext(unused) if dry_run else run.claim() as mine:
            if mine is None:
                return Freed(kept=f"{run.path}: another process is working on this run", busy=True)
            record = mine.record()
            if record is None or record.status != "finished":
                return Freed()
            if dry_run:
                return Freed(sum(path.stat().st_size for path in (*last, *networks)), network=bool(networks))
            freed += _delete(last)  # first, since a full disk has no room for the record
            if networks and record.deleted != rule:
                record.deleted = rule
                mine.write_record(record)
            return Freed(freed + _delete(networks), network=bool(networks))
    except BadRecord as error:
        return Freed(kept=str(error))
    except OSError as error:
        return Freed(freed, kept=f"{run.path}: {error.strerror}: {error.filename or 'lock'}")


def networks_of(run: RunDirectory) -> list[Path]:
    """The files with the network of a run; empty if it has none."""
    return _present(run.checkpoints / name for name in _NETWORKS)


def size_of(run: RunDirectory) -> int:
    """The size of all files of a run, in bytes."""
    size, folders = 0, [os.fspath(run.path)]
    while folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:  # a plan may have thousands
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):  # a running run replaces its files
                    size += entry.stat().st_size
    return size


def _to_resume(run: RunDirectory) -> list[Path]:
    """The files that a finished run does not need: its last.ckpt, and the checkpoints before a takeover."""
    before = (path for owner in run.earlier_owners() for path in owner.checkpoints.glob("*.ckpt"))
    return _present([run.last_checkpoint, *before])


def _present(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _delete(paths: Iterable[Path]) -> int:
    """Delete files; returns their size in bytes."""
    freed = 0
    for path in paths:
        size = path.stat().st_size
        path.unlink()
        freed += size
    return freed


def lost_network(run: RunDirectory) -> bool:
    """Whether the network of a run was deleted on purpose.

    Raises:
        BadRecord: run.json is damaged.
    """
    if networks_of(run):
        return False
    record = run.record()
    return record is not None and record.deleted is not None


def remedy(run: RunDirectory, record: Record) -> str:
    """Why a finished run has no network, with the remedy."""
    root = run.path.parent.parent
    out = "" if root == Path("runs") else f" --out {shlex.quote(str(root))}"
    again = f"greenseg train --config {shlex.quote(str(run.path / 'config.yaml'))}{out} --again"
    why = f"its network was deleted on purpose ({record.deleted})" if record.deleted else "its network is missing"
    return f"{why}; to have it again, train the run again: {again}"


@dataclass(frozen=True)
class Usage:
    """The disk space of a run.

    Attributes:
        run: its directory.
        status: its status, or `damaged`, or `newer` if a later version of greenseg wrote its record.
        dice: its Dice; None if it has none.
        bytes: size of all its files.
        last: size of its last.ckpt if it has finished, which can go; else 0.
        problem: why its record is unreadable; empty if it is readable.
    """

    run: RunDirectory
    status: str
    dice: float | None
    bytes: int
    last: int
    problem: str = ""


def usage_of(run: RunDirectory) -> Usage:
    """The disk space of a run."""
    entry = entry_of(run)
    if entry.problem:
        return Usage(run, "newer" if entry.newer else "damaged", None, size_of(run), 0, entry.problem)
    status = entry.status()
    last = sum(path.stat().st_size for path in _to_resume(run)) if status == "finished" else 0
    return Usage(run, status, entry.record.metrics.dice if entry.record else None, size_of(run), last)


# ── networks that other runs need


def needed(runs: Iterable[RunDirectory]) -> dict[Path, Path]:
    """The networks that must stay, because other runs need them.

    These are the parents of unfinished runs with their own parents, and the teachers of all runs: a sweep checks its
    teachers whenever it is planned. All runs below the same folder count, `root/<sweep>/<run>`.

    Args:
        runs: the runs whose networks may go.

    Returns:
        Resolved directory of a run → directory of a run that needs its network.
    """
    roots = dict.fromkeys(run.path.resolve().parent.parent for run in runs)
    entries = [
        entry_of(RunDirectory(config.parent)) for root in roots for config in sorted(root.glob("*/*/config.yaml"))
    ]
    parents: dict[str, Path] = {}
    teachers: dict[str, Path] = {}
    for entry in entries:
        settings = _settings(entry)
        if settings is None:
            continue
        if settings.teacher:
            teachers[run_key(Path(settings.teacher).name)] = entry.directory.path
        ancestor = parent_of(settings) if entry.record is None or entry.record.status != "finished" else None
        while ancestor:
            parents[trained_anywhere(ancestor.resolved())] = entry.directory.path
            ancestor = parent_of(ancestor)
    if not parents and not teachers:
        return {}
    found: dict[Path, Path] = {}
    for entry in entries:
        path = entry.directory.path
        student = teachers.get(run_key(path.name))
        child = parents.get(trained_anywhere(entry.settings)) if parents and entry.settings else None
        if needs := student or child:
            found[path.resolve()] = needs
    return found


def _settings(entry: Entry) -> Settings | None:
    """The settings of a run; None if they are unreadable, or have a value that this version does not know."""
    if entry.settings is None:
        return None
    try:
        return Settings.model_validate(NEUTRAL | entry.settings)
    except ValidationError:
        return None


def free_networks(runs: Iterable[RunDirectory], rule: str, dry_run: bool = False) -> dict[Path, Freed]:
    """Delete the networks of finished runs that no other run needs, and the last checkpoints of all finished ones.

    Args:
        runs: directories of the runs.
        rule: why the networks go, such as `keep: none`.
        dry_run: delete nothing, and return the results of a deletion.

    Returns:
        Directory of a run → its result.
    """
    runs = list(runs)
    wanted = needed(run for run in runs if networks_of(run))
    freed: dict[Path, Freed] = {}
    for run in runs:
        by = wanted.get(run.path.resolve()) if networks_of(run) else None
        freed[run.path] = replace(free(run, "" if by else rule, dry_run), needed_by=by)
    return freed
