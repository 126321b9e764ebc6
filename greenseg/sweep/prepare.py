"""What must be true, and ready, before the first run starts."""

from collections.abc import Callable, Iterable
from typing import Any

from greenseg.config import Settings
from greenseg.energy import EnergyMeter
from greenseg.energy.sensors import visible_gpus
from greenseg.errors import UserError
from greenseg.models import weights

Progress = Callable[[int, int], None]
_NEGLIGIBLE = 0.005  # share of a subject's brain


def prepare(runs: Iterable[Settings], say: Callable[[str], None], progress: Progress) -> None:
    """Check what the runs need, and make the slices that they train on, once for all of them.

    What making them cost is measured, and kept with them: every run's record names it.

    Args:
        runs: settings of every run that will start.
        say: told, once, what a user should know.
        progress: called with the number of files read and their total, while slices are made.

    Raises:
        UserError: everything that is wrong with the data, or pretrained weights that cannot be had.
    """
    from greenseg.data import cache

    runs = list(runs)
    if any(run.optimizer == "adamw-8bit" and (run.accelerator == "cpu" or not visible_gpus()) for run in runs):
        raise UserError("optimizer: adamw-8bit needs a CUDA GPU, and there is none to train on")
    weights.check(runs)
    distinct = {(run.data, run.image_size, run.spacing, run.validation_share): run for run in runs}
    roots = {data: cache.data_root(run, say) for data, run in {run.data: run for run in runs}.items()}
    problems: dict[str, None] = {}
    for run in distinct.values():
        meter = EnergyMeter()

        def cost(meter: EnergyMeter = meter) -> dict[str, Any]:
            return meter.lap().to_json()

        try:
            slices = cache.prepare(run, root=roots[run.data], progress=progress, cost=cost)
        except UserError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        cut = [f"{s['name']} ({s['cut_off']:.0%})" for s in slices.index["subjects"] if s["cut_off"] > _NEGLIGIBLE]
        if cut:
            say(
                f"image_size {run.image_size} × spacing {run.spacing:g} mm cuts brain off: {', '.join(cut)}; "
                f"Dice will not count it. Raise either to keep it."
            )
    if problems:
        raise UserError(problems)
