"""Refusals of compression that only building the network can tell. They are found while planning, not in the run."""

from collections.abc import Iterable

from greenseg.settings import Settings


def refusals(runs: Iterable[Settings]) -> list[tuple[Settings, str]]:
    """The first run with each network that cannot be pruned, and why.

    Networks that the tests prune are known to work. Others are pruned on trial, which imports torch, once for each
    shape; the cache keeps the answers.
    """
    wanted = {(run.model, run.image_size, run.width, run.decoder_width, run.prune): run for run in runs if run.prune}
    if not wanted:
        return []
    from greenseg.compress.prune import TESTED, dry_run

    found = []
    for run in wanted.values():
        reason = None if run.model in TESTED else dry_run(run, channels=1, outputs=1)
        if reason:
            found.append((run, f"prune: {reason}"))
    return found
