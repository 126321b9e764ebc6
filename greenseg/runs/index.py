"""Finds the directory of a run by its settings and content, not by its name.

The name only narrows the search. It ends with the identity of the settings: sixteen hex digits, or eight in directories
of earlier versions.
"""

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from greenseg.data import content as contents
from greenseg.data.content import Content
from greenseg.errors import UserError
from greenseg.files import OUT_REMEDY, refusal
from greenseg.leases import Folder
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Data, Head, NewerRecord
from greenseg.settings import Settings, read_config, same_training, trained_anywhere

_NAME = re.compile(r"(.*)-([0-9a-f]{16}|[0-9a-f]{8})(?:\.\d+)?")
_EARLIER_DIGITS = 8
_PATIENCE = 10  # looks at a note that is empty
_ORDER = ("finished", "running", "interrupted", "paused", "failed", "new")
"""Of two copies of a run, the one with the earlier status here is taken."""


@dataclass(frozen=True)
class Entry:
    """A run directory and the head of its record.

    Attributes:
        directory: directory of the run.
        record: its head; None if the run has not begun or its record is unreadable.
        problem: why the record is unreadable; empty if it is readable.
        newer: it is unreadable because a later version of greenseg wrote it.
    """

    directory: RunDirectory
    record: Head | None
    problem: str = ""
    newer: bool = False

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """Its resolved settings; None if they are unreadable."""
        if self.record:
            settings = self.record.settings
        else:
            try:
                settings = Settings.of(read_config(self.directory.path / "config.yaml")).resolved()
            except UserError:
                return None
        return settings if settings.keys() >= {"encoder", "decoder"} else None

    @cached_property
    def _data(self) -> Data | None:
        """Its slices, if its version did not record their content."""
        record = self.directory.record() if self.record and not self.record.content else None
        return record.data if record else None

    def status(self) -> str:
        """The status of the run; see `RunDirectory.status`."""
        return self.directory.status_by(self.record)

    def same_content(self, settings: Settings, content: Content | None) -> bool | None:
        """Whether it is trained on this content; None if unknown."""
        if content is None:
            return None
        if self.record and self.record.content:
            return (self.record.content, self.record.preprocessing) == (content.digest, content.preprocessing)
        then = self.content_then(settings, content)
        return None if then is None and self._data is None else then == content

    def same_files(self, settings: Settings, content: Content) -> bool:
        """Whether it is trained on the files and the split of this content, with any preprocessing."""
        if self.record and self.record.content:
            return self.record.content == content.digest
        then = self.content_then(settings, content)
        return then is not None and then.digest == content.digest

    def content_then(self, settings: Settings, content: Content) -> Content | None:
        """The content that it was trained on; None if neither its directory nor the present content has it."""
        if data := self._data:
            then = content.before_it_was_named()  # the name of its slices identifies it
            split = {name: sorted(subjects) for name, subjects in data.subjects.items()}
            here = {name: content.of_split(name) for name in ("train", "validation")}
            return then if data.cache == then.slices_key(settings) and split == here else None
        return contents.read(self.directory.content)


@dataclass(frozen=True)
class Found:
    """The result of a search for a run.

    Attributes:
        entry: its directory; None if it has none.
        by_path: found by settings and path alone, since the content is unknown.
        contents: number of contents that exist for these settings and path; several are ambiguous.
        other: a directory with the same settings, trained on other content at the same path, or on the same files with
            other preprocessing.
    """

    entry: Entry | None = None
    by_path: bool = False
    contents: int = 1
    other: Entry | None = None


class RunIndex:
    """The run directories in `root/<sweep>/`, listed once.

    Args:
        root: folder of all runs; may be missing.
    """

    def __init__(self, root: Path) -> None:
        self._by_digits: dict[str, list[RunDirectory]] = defaultdict(list)
        self._by_start: dict[str, list[RunDirectory]] = defaultdict(list)
        self._trained: dict[str, dict[str, list[RunDirectory]]] = {}
        self._renamed: list[RunDirectory] = []
        sweeps = sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []
        for sweep in sweeps:
            if sweep.is_dir() and not sweep.name.startswith("."):
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
        """Whether there are no runs."""
        return not self._by_digits and not self._renamed

    def find(self, settings: Settings, content: Content | None, folder: str = "") -> Found:
        """Find the directory of a run.

        Args:
            settings: settings of the run.
            content: present content of its data; None if the data are missing: then settings and path decide.
            folder: preferred folder, if several copies of a run have made the same progress.
        """
        if self.is_empty:
            return Found()
        named = self._named(settings)
        wanted = vars(settings)
        exact = [entry for entry in named if entry.settings and same_training(entry.settings, wanted)]
        judged = {id(entry): entry.same_content(settings, content) for entry in exact}
        if same := [entry for entry in exact if judged[id(entry)]]:
            return Found(_first(same, folder))
        others = [entry for entry in exact if judged[id(entry)] is False]
        if content is not None:  # the data may have moved: the name then has another path
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
            return Found(damaged[0], other=other)  # it may belong to this run
        return Found(other=other)

    def free_name(self, settings: Settings, folder: str) -> str:
        """A name for a new directory of a run: that of its settings, with a number if it is taken."""
        taken = {os.fspath(directory.path) for directory in self._by_digits.get(settings.identity, ())}
        return next(name for name in _numbered(settings.slug) if os.path.join(folder, name) not in taken)  # noqa: PTH118

    def _named(self, settings: Settings) -> list[Entry]:
        """Directories whose names have these settings."""
        digits = (settings.identity, settings.identity[:_EARLIER_DIGITS])
        named = [entry_of(directory) for each in digits for directory in self._by_digits.get(each, ())]
        if self._renamed:
            renamed = self._by_settings.get(trained_anywhere(settings.resolved()), ())
            named += [entry_of(directory) for directory in renamed]
        return named

    @cached_property
    def _by_settings(self) -> dict[str, list[RunDirectory]]:
        """Renamed directories by the training settings in their records."""
        found: dict[str, list[RunDirectory]] = defaultdict(list)
        for directory in self._renamed:
            entry = entry_of(directory)
            if entry.record and entry.settings:
                found[trained_anywhere(entry.settings)].append(directory)
        return found

    def _like(self, settings: Settings) -> list[Entry]:
        """Directories with the same training settings, at any data path, among those whose names begin alike."""
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
    """A run directory with its record, or with the problem of the record."""
    # Not kept: ten thousand records in memory cost the garbage collector more time than reading a few again.
    try:
        return Entry(directory, directory.head())
    except BadRecord as error:
        return Entry(directory, None, str(error), isinstance(error, NewerRecord))


def _first(entries: list[Entry], folder: str) -> Entry:
    """The copy of a run with the most progress."""
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
    """Make the directory of a run, `root/<sweep>/<slug>`, unless another sweep below this root has made one meanwhile.

    Args:
        run: the directory to make; if another run has this name, a number is added.
        settings: settings of the run.
        content: content of its data; None if unknown.

    Returns:
        The only directory for these settings and this content.

    Raises:
        UserError: the root cannot be written.
        OSError: the disk is full.
    """
    root = run.path.parent.parent
    try:
        if not ((run.path / "config.yaml").exists() and _is_of(run, settings, content)):
            run = _first_made(_made(run.path, settings, content), root, settings, content)
        run.create(settings, None if content is None else content.to_json())
    except OSError as error:
        raise refusal(root, error, OUT_REMEDY) from None
    return run


def _made(wanted: Path, settings: Settings, content: Content | None) -> RunDirectory:
    """A directory for a run: `name`, `name.2`, `name.3`, …, the first one that does not belong to another run."""
    for name in _numbered(wanted.name):
        run = RunDirectory(wanted.with_name(name))
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            if not _is_of(run, settings, content):
                continue
        return run
    raise AssertionError("numbers do not end")


def _first_made(run: RunDirectory, root: Path, settings: Settings, content: Content | None) -> RunDirectory:
    """The directory that the first of several sweeps, on any hosts, has made for a run; deletes the given one if empty.

    Each sweep notes its directory in `root/.runs/`, in a file that only one of them can make. The last file counts. It
    only decides who was first: if its directory is gone, or belongs to another run, the next file takes its place.
    """
    key = f"{settings.identity}-{content.digest[:16] if content else 'unknown'}"
    notes = Folder(root / ".runs")
    for number in count(1):
        note = f"{key}.{number}"
        try:
            notes.create(note, os.fsencode(run.path.relative_to(root)))
        except FileExistsError:
            first = _noted(notes, note, root)
            if first and first.path == run.path:
                break
            if first and _is_there(first.path) and _is_of(first, settings, content):
                with contextlib.suppress(OSError):  # not empty: of an earlier version, or by hand
                    run.path.rmdir()
                return first
        else:
            break
    return run


def _noted(notes: Folder, note: str, root: Path) -> RunDirectory | None:
    """The directory in a note, `<sweep>/<name>`; None if it is damaged, for example by a loss of power."""
    for _ in range(_PATIENCE):  # without hard links, another process may be between making and writing it
        parts = Path(os.fsdecode(notes.read(note))).parts
        if len(parts) == 2 and ".." not in parts:
            return RunDirectory(root.joinpath(*parts))
        time.sleep(0.1)
    return None


def _is_there(folder: Path) -> bool:
    """Whether a folder exists. A host may remember for a minute that it did not, but making one asks the server."""
    try:
        folder.mkdir()
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    folder.rmdir()
    return False


def _numbered(name: str) -> Iterator[str]:
    """`name`, `name.2`, `name.3`, …"""
    yield name
    yield from (f"{name}.{number}" for number in count(2))


def _is_of(directory: RunDirectory, settings: Settings, content: Content | None) -> bool:
    """Whether a directory belongs to this run, or to no identifiable run."""
    entry = entry_of(directory)
    if entry.settings is None:
        return not entry.newer
    if trained_anywhere(entry.settings) != trained_anywhere(settings.resolved()):
        return False
    return entry.same_content(settings, content) is not False
