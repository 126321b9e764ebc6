"""The parent of a compressed run: the same settings with compression neutral."""

import re
from collections.abc import Sequence

from greenseg.compression import NEUTRAL_RUNTIME
from greenseg.settings.fields import neutral
from greenseg.settings.settings import Settings

BEST_OF = re.compile(r"best of (.+)")
"""A `teacher` that names a sweep; a plan replaces it by the directory of a run."""


def parent_of(settings: Settings) -> Settings | None:
    """The settings of the run whose network this run compresses; None if it trains its own.

    A converted network comes from the run that trained it, a pruned one from the run without pruning. All children with
    the same seed and fold share their parent.
    """
    if settings.converts:
        return settings.changed(quantize="none", runtime=NEUTRAL_RUNTIME)
    if settings.prune:
        return settings.changed(prune=0.0, finetune_epochs=neutral("finetune_epochs"))
    return None


def parents_first(runs: Sequence[Settings]) -> Sequence[Settings]:
    """The runs and the parents that they lack, each after its parent, otherwise in their order."""
    if not any(run.prune or run.converts for run in runs):
        return runs
    named = {run.identity: run for run in runs}
    ordered: dict[str, Settings] = {}

    def add(run: Settings) -> None:
        if run.identity not in ordered:
            if parent := parent_of(run):
                add(named.get(parent.identity, parent))
            ordered[run.identity] = run

    for run in runs:
        add(run)
    return [*ordered.values()]
