"""Which directory holds a run: by what its settings train and by its content, not by its name.

A name only says where to look first. It ends with the identity of the settings: sixteen hex digits, or eight where an
earlier version made the directory.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from greenseg.data import content as contents
from greenseg.data.content import Content
from greenseg.errors import UserError
from greenseg.files import OUT_REMEDY, locked
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, NewerRecord, Record
from greenseg.settings import Settings, read_config, trained, trained_anywhere

_NAME = re.compile(r"(.*)-([0-9a-f]{16}|[0-9a-f]{8})(?:\.\d+)?")
_EARLIER_DIGITS = 8
_ORDER = ("finished", "running", "interrupted", "failed", "new")
"""Of two copies of a run, which one to take."""


@dataclass(frozen=True)
class Entry:
    """A run directory, and what it says about its run.

    Attributes:
        directory: of the run.
        record: None where the run has not begun, or its record cannot be read.
        problem: why the record cannot be read; empty where it can.
        newer: whether that is because a later version of greenseg wrote it.
    """

    directory: RunDirectory
    record: Record | None
    problem: str = ""
    newer: bool = False

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """Its resolved settings; None where they cannot be read."""
        if self.record:
            settings = self.record.settings
        else:
            try:
                settings = Settings.of(read_config(self.directory.path / "config.yaml")).resolved()
            except UserError:
                return None
        return settings if settings.keys() >= {"encoder", "decoder"} else None

    def status(self) -> str:
        """Where the run stands, as `RunDirectory.status`."""
        return self.directory.status_by(self.record)

    def same_content(self, settings: Settings, content: Content | None) -> bool | None:
        """Whether it is trained on this content; None where that cannot be known."""
        if content is None:
            return None
        if self.record and self.record.content:
            return (self.record.content, self.record.preprocessing) == (content.digest, content.preprocessing)
        then = self.content_then(settings, content)
        return None if then is None and not (self.record and self.record.data) else then == content

    def same_files(self, settings: Settings, content: Content) -> bool:
        """Whether it is trained on the files and the split of this content, by whatever preprocessing."""
        if self.record and self.record.content:
            return self.record.content == content.digest
        then = self.content_then(settings, content)
        return then is not None and then.digest == content.digest

    def content_then(self, settings: Settings, content: Content) -> Content | None:
        """What it was trained on; None where neither its directory tells, nor today's content, since it is another."""
        record = self.record
        if record and not record.content and record.data:
            then = content.before_it_was_named()  # the name of its slices tells whether it is the same
            split = {name: sorted(subjects) for name, subjects in record.data.subjects.items()}
            here = {name: content.of_split(name) for name in ("train", "validation")}
            return then if record.data.cache == then.slices_key(settings) and split == here else None
        return contents.read(self.directory.content)


@dataclass(frozen=True)
class Found:
    """What an index knows of a run.

    Attributes:
        entry: its directory; None where it has none.
        by_path: only settings and path say so, since the content is not known.
        contents: how many contents its settings and path were trained on; more than one where these do not decide.
        other: a directory of the same settings, trained on another content under the same path, or on the same files by
            another preprocessing.
    """

    entry: Entry | None = None
    by_path: bool = False
    contents: int = 1
    other: Entry | None = None


class RunIndex:
    """The run directories in `root/<sweep>/`, listed once.

    Args:
        root: folder of all runs; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._by_digits: dict[str, list[RunDirectory]] = defaultdict(list)
        self._by_start: dict[str, list[RunDirectory]] = defaultdict(list)
        self._trained: dict[str, dict[str, list[RunDirectory]]] = {}
        self._renamed: list[RunDirectory] = []
        sweeps = sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []
        for sweep in sweeps:
            if sweep.is_dir():
                for entry in os.scandir(sweep):
                    if match := _NAME.fullmatch(entry.name):
                        if entry.is_dir():
                            directory = RunDirectory(Path(entry.path))
                            self._by_digits[match[2]].append(directory)
                            self._by_start[match[1]].append(directory)
                    elif entry.is_dir() and os.path.exists(f"{entry.path}/run.json"):  # noqa: PTH110  (thousands)
                        self._renamed.append(RunDirectory(Path(entry.path)))

    @property
    def is_empty(self) -> bool:
        """Whether there is no run at all."""
        return not self._by_digits and not self._renamed

    def find(self, settings: Settings, content: Content | None, folder: str = "") -> Found:
        """The directory of a run.

        Args:
            settings: of the run.
            content: what it would be trained on now; None where the data are not here: settings and path then decide.
            folder: where to look first: of several copies of a run that got equally far, it is the one in this folder.
        """
        if self.is_empty:
            return Found()
        named = self._named(settings)
        wanted = settings.trained
        exact = [entry for entry in named if entry.settings and trained(entry.settings) == wanted]
        judged = {id(entry): entry.same_content(settings, content) for entry in exact}
        if same := [entry for entry in exact if judged[id(entry)]]:
            return Found(_first(same, folder))
        others = [entry for entry in exact if judged[id(entry)] is False]
        if content is not None:  # the data may have moved, and the name says another path
            like = self._like(settings)
            if moved := [entry for entry in like if entry.same_content(settings, content)]:
                return Found(_first(moved, folder))
            others = others or [entry for entry in like if entry.same_files(settings, content)]
        other = _first(others, folder) if others else None
        if unknown := [entry for entry in exact if judged[id(entry)] is None]:
            first = _first(unknown, folder)
            several = len({entry.record.content for entry in unknown if entry.record})
            return Found(first, first.record is not None, max(1, several), other)
        if damaged := [entry for entry in named if entry.problem and entry.settings is None]:
            return Found(damaged[0], other=other)  # nothing in it says that it is of another run
        return Found(other=other)

    def free_name(self, settings: Settings, folder: str) -> str:
        """A name for the directory of a run that has none: that of its settings, with a number where another has it."""
        taken = {os.fspath(directory.path) for directory in self._by_digits.get(settings.identity, ())}
        return _numbered(settings.slug, lambda name: os.path.join(folder, name) in taken)  # noqa: PTH118

    def _named(self, settings: Settings) -> list[Entry]:
        """Those whose name says that they are of these settings."""
        digits = (settings.identity, settings.identity[:_EARLIER_DIGITS])
        named = [entry_of(directory) for each in digits for directory in self._by_digits.get(each, ())]
        if self._renamed:
            renamed = self._by_settings.get(trained_anywhere(settings.resolved()), ())
            named += [entry_of(directory) for directory in renamed]
        return named

    @cached_property
    def _by_settings(self) -> dict[str, list[RunDirectory]]:
        """Directories with names of their own, by what their records say that they train."""
        found: dict[str, list[RunDirectory]] = defaultdict(list)
        for directory in self._renamed:
            entry = entry_of(directory)
            if entry.record and entry.settings:
                found[trained_anywhere(entry.settings)].append(directory)
        return found

    def _like(self, settings: Settings) -> list[Entry]:
        """Those that train the same wherever the data lie, among those whose names begin alike."""
        start = settings.slug.rpartition("-")[0]
        if start not in self._trained:
            known = self._trained[start] = defaultdict(list)
            for directory in self._by_start.get(start, ()):
                entry = entry_of(directory)
                if entry.record and entry.settings:
                    known[trained_anywhere(entry.settings)].append(directory)
        wanted = trained_anywhere(settings.resolved())
        renamed = self._by_settings.get(wanted, []) if self._renamed else []
        return [entry_of(each) for each in [*self._trained[start].get(wanted, []), *renamed]]


def entry_of(directory: RunDirectory) -> Entry:
    """A run directory with its record, or with what is wrong with that."""
    # Not kept: ten thousand records in memory cost the garbage collector more time than reading a few again.
    try:
        return Entry(directory, directory.record())
    except BadRecord as error:
        return Entry(directory, None, str(error), isinstance(error, NewerRecord))


def _first(entries: list[Entry], folder: str) -> Entry:
    """Of copies of a run, the one that got furthest."""
    if len(entries) == 1:
        return entries[0]

    def key(entry: Entry) -> tuple[int, int, bool]:
        try:
            epochs = len(entry.directory.epochs())
        except BadRecord:
            epochs = 0
        return _ORDER.index(entry.status()), -epochs, os.fspath(entry.directory.path.parent) != folder

    return min(entries, key=key)


def make_directory(run: RunDirectory, settings: Settings, content: Content | None) -> RunDirectory:
    """Make the directory of a run, `root/<sweep>/<slug>`, unless another sweep below that root has made one since.

    Args:
        run: the directory to make; where another run has that name, a number is added to it.
        settings: of the run.
        content: what it is trained on; None where that is not known.

    Returns:
        The one directory for these settings and this content.

    Raises:
        UserError: the root cannot be written, or its file system has no locks.
        OSError: the directory cannot be made.
    """
    root = run.path.parent.parent
    with locked(root / ".lock", OUT_REMEDY):  # two sweeps may begin the same run at the same moment
        if not run.path.exists():
            made = (RunDirectory(path) for path in sorted(root.glob(f"*/*-{settings.identity}*")))
            run = next((each for each in made if _is_of(each, settings, content)), run)
        first = run.path

        def is_taken(name: str) -> bool:
            path = first.with_name(name)
            return path.exists() and not _is_of(RunDirectory(path), settings, content)

        run = RunDirectory(first.with_name(_numbered(first.name, is_taken)))
        run.create(settings, None if content is None else content.to_json())
    return run


def _numbered(name: str, is_taken: Callable[[str], bool]) -> str:
    """The name, or the first of `name.2`, `name.3`, … that is free."""
    return name if not is_taken(name) else next(n for n in (f"{name}.{i}" for i in count(2)) if not is_taken(n))


def _is_of(directory: RunDirectory, settings: Settings, content: Content | None) -> bool:
    """Whether a directory belongs to this run, or nothing in it says whose it is."""
    entry = entry_of(directory)
    if entry.settings is None:
        return not entry.newer
    if trained_anywhere(entry.settings) != trained_anywhere(settings.resolved()):
        return False
    return entry.same_content(settings, content) is not False
