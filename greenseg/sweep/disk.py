"""The disk space that a sweep needs, estimated from the files of runs with the same networks. Imports no torch."""

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from greenseg.optimizers import OPTIMIZERS
from greenseg.runs.directory import RunDirectory
from greenseg.runs.disk import free, networks_of, size_of
from greenseg.runs.index import entry_of
from greenseg.runs.record import BadRecord
from greenseg.runs.standing import PlannedRun
from greenseg.settings import NEUTRAL, Settings, parent_of
from greenseg.sweep.plan import Plan

_BYTES = 4
"""Of a weight: all precisions of training keep the weights as float32."""

_SHAPES = ("encoder", "decoder", "width", "decoder_width", "prune", "quantize", "runtime")
"""The settings that determine the size of a network on disk."""


@dataclass(frozen=True)
class Disk:
    """The disk space of a sweep, in bytes.

    Attributes:
        folder: folder of all runs.
        done: of all runs when the sweep is done; at most, since the front is unknown before.
        more: of all files that are still to be written, at the moment with the most of them.
        free: free space on the disk of the runs.
        unknown: the networks without a run that tells their size; they are not part of `done` and `more`.
        keep: `keep` of the sweep.
    """

    folder: str
    done: int
    more: int
    free: int
    unknown: tuple[str, ...] = ()
    keep: str = "best"

    @property
    def fits(self) -> bool:
        """Whether the free space is enough for the files of known size."""
        return self.more <= self.free

    @property
    def remedy(self) -> str:
        """How to make room."""
        less = "set `keep: best` in the sweep file, " if self.keep == "all" else ""
        return f"{less}make room, for instance with `greenseg runs prune`, or name a folder on another disk with --out"


def disk_of(plan: Plan, out: Path, at_a_time: int) -> Disk:
    """Estimate the disk space of a sweep.

    The size of a network is that of a run with the same network: of its files, else of its parameters. A compressed
    network is at most as large as that of its parent. `last.ckpt` has the weights and the state of the optimizer. A
    run has two of them while it replaces the first one. In a search, every configuration may have a paused run, which
    keeps it.

    Args:
        plan: the plan of the sweep.
        out: folder of all runs.
        at_a_time: largest number of runs at a time.
    """
    sizes, keep = _Sizes(plan.runs, out), plan.sweep.keep
    folder = out / plan.sweep.name  # runs in the folders of other sweeps keep their files
    rule = "keep: none" if keep == "none" else ""
    done, more = 0, 0
    meanwhile: list[int] = []
    configurations: set[str] = set()
    unknown: dict[str, None] = {}
    to_do = {id(run) for run in plan.todo}
    for run in plan.runs:
        present = size_of(run.known) if run.known else 0
        if id(run) not in to_do:
            done += present
            if keep != "all" and run.directory.path.parent == folder:
                done -= free(run.directory, rule, dry_run=True).bytes
            continue
        network = sizes.network(run.settings)
        if network is None:
            unknown[run.settings.model] = None
            continue
        last = 0 if run.settings.converts else round(network * (1 + OPTIMIZERS[run.settings.optimizer].states))
        may_pause = False
        if plan.sweep.search:
            configuration = run.settings.configuration
            may_pause = configuration not in configurations
            configurations.add(configuration)
        stays = last if keep == "all" or may_pause else 0
        done += stays + (0 if keep == "none" else network)
        more += max(stays + network - present, 0)
        meanwhile.append(2 * last - stays)
    more += sum(sorted(meanwhile)[-at_a_time:])
    return Disk(str(out), done, more, free_bytes(out), tuple(unknown), keep)


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which may not exist yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


class _Sizes:
    """Sizes of networks on disk, from the runs of a sweep, else from other runs below the same folder.

    Args:
        runs: the runs of the sweep.
        out: folder of all runs.
    """

    def __init__(self, runs: Sequence[PlannedRun], out: Path) -> None:
        self._out = out
        self._known: dict[Any, int | None] = {}
        self._others: dict[str, list[tuple[Any, RunDirectory]]] = {}
        self._own: dict[Any, list[RunDirectory]] = defaultdict(list)
        for run in runs:
            if run.known:
                self._own[_key(vars(run.settings))].append(run.known)

    def network(self, settings: Settings) -> int | None:
        """The size of the network of a run, in bytes; None if no run tells it."""
        key = _key(vars(settings))
        if key not in self._known:
            candidates = chain(self._own[key], self._elsewhere(settings.model, key))
            self._known[key] = next((size for run in candidates if (size := _bytes_of(run))), None)
        found, parent = self._known[key], parent_of(settings)
        return self.network(parent) if found is None and parent else found

    def _elsewhere(self, model: str, key: Any) -> Iterator[RunDirectory]:
        """The runs of other sweeps with the same network."""
        if model not in self._others:
            found = (RunDirectory(path) for path in sorted(self._out.glob(f"*/{model}-*")))
            known = ((entry_of(run).settings, run) for run in found)
            self._others[model] = [(_key(NEUTRAL | settings), run) for settings, run in known if settings]
        return (run for other, run in self._others[model] if other == key)


def _key(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(settings[name] for name in _SHAPES)


def _bytes_of(run: RunDirectory) -> int | None:
    """The size of the network of a run, from its files, else from its parameters; None if it has neither."""
    if files := networks_of(run):
        return sum(path.stat().st_size for path in files)
    try:
        record = run.record()
    except BadRecord:
        return None
    parameters = record.network.parameters if record else None
    return None if parameters is None else round(parameters * _BYTES)
