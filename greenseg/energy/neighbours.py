"""Who else measures on this machine: runs side by side share its CPU counters, and must not each take all of them.

Every meter leaves a small file, named by its process, with the CPU seconds of its process tree; the others read it.
"""

import json
import os
import tempfile
from pathlib import Path

import psutil

from greenseg.energy.estimate import Usage


class Neighbours:
    """The other meters of this machine, of the same user.

    Args:
        folder: where meters leave their files; by default one for the user in the folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        self._folder = folder or Path(tempfile.gettempdir(), f"greenseg-meters-{user}")
        self._mine = self._folder / f"{os.getpid()}.json"
        self._started = psutil.Process().create_time()
        self._first: float | None = None
        self._seen: dict[str, float] = {}
        self._met = False  # whether the neighbours that were here before are known

    def exchange(self, used: Usage) -> float:
        """Publish what this run has used; returns the CPU seconds that all others used since the last call.

        A neighbour that came since counts from its own start; what one used after it last published and before it ended
        is not known. Processes of this run's own tree are no neighbours.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            unfinished = self._mine.with_suffix(".tmp")
            self._first = used.cpu_seconds if self._first is None else self._first
            published = {"cpu_seconds": used.cpu_seconds, "first": self._first, "started": self._started}
            unfinished.write_text(json.dumps(published))
            unfinished.replace(self._mine)
        except OSError:
            return 0.0  # no room for temporary files: a training must not die of that
        others = 0.0
        seen: dict[str, float] = {}
        for file in self._folder.glob("*.json"):
            if file.stem.isdecimal() and int(file.stem) not in used.processes:
                published = _published(file)
                if published:
                    seen[file.name] = published["cpu_seconds"]
                    before = self._seen.get(file.name, published["first"] if self._met else seen[file.name])
                    others += max(seen[file.name] - before, 0.0)
        self._seen, self._met = seen, True
        return others

    def leave(self) -> None:
        """Take this meter's file away."""
        self._mine.unlink(missing_ok=True)


def _published(file: Path) -> dict[str, float]:
    """What a neighbour published; empty where it is gone, and its file then goes, too."""
    try:
        published = json.loads(file.read_text())
        alive = abs(psutil.Process(int(file.stem)).create_time() - published["started"]) < 1
    except (psutil.Error, OSError):
        alive, published = False, {}
    except (ValueError, KeyError, TypeError):  # not ours, or being written by an older greenseg
        return {}
    if not alive or "first" not in published:
        file.unlink(missing_ok=True)
        return {}
    return {name: float(value) for name, value in published.items()}
