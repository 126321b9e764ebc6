"""Launchers: each starts the same command, a worker of a sweep, N times somewhere, and tells its workers' states.

Workers pull runs from the folder of the runs, so a launcher knows nothing about runs.
"""

from collections.abc import Mapping

from greenseg.launchers.launcher import Launcher
from greenseg.launchers.local import Local
from greenseg.launchers.slurm import Slurm

LAUNCHERS: Mapping[str, type[Launcher]] = {
    "local": Local,
    "slurm": Slurm,
}
"""Name → launcher. A launcher with options has a key of its name in sweep files."""
