"""Checks and preparations before the first run starts."""

from collections.abc import Callable, Iterable
from typing import Any

from greenseg.energy import EnergyMeter
from greenseg.energy.reading import EnergyJson
from greenseg.errors import UserError
from greenseg.models import weights
from greenseg.settings import Settings

Progress = Callable[[int, int], None]
_NEGLIGIBLE = 0.005  # share of a subject's foreground


def prepare(runs: Iterable[Settings], say: Callable[[str], None], progress: Progress) -> None:
    """Check the requirements of the runs, and make their slices, once for all of them.

    The cost of making the slices is measured and stored with them, and every run's record has it.

    Args:
        runs: settings of every run that will start.
        say: called once with each sentence for the user.
        progress: called with the number of files read and their total, while slices are made.

    Raises:
        UserError: all problems of the data, or unavailable pretrained weights.
    """
    from greenseg.data import cache

    runs = list(runs)
    weights.check(runs)
    made_of = ("data", "layout", "labels", "channels", "image_size", "spacing", "test_share", "split_from")
    split_by = ("validation_share", "split_seed", "folds", "fold")
    distinct = {tuple(getattr(run, name) for name in made_of + split_by): run for run in runs}
    roots = {data: cache.data_root(run, say) for data, run in {run.data: run for run in runs}.items()}
    problems: dict[str, None] = {}
    said: set[Any] = set()  # slices that are verified and reported, and sentences about them
    for kind, run in distinct.items():
        meter, first_time = EnergyMeter(), kind[: len(made_of)] not in said

        def cost(meter: EnergyMeter = meter) -> EnergyJson:
            return meter.lap().to_json()

        try:
            slices = cache.prepare(run, root=roots[run.data], verify=first_time, progress=progress, cost=cost)
        except UserError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        finally:
            meter.close()  # otherwise, it would be a neighbour of every meter on this machine
        said.add(kind[: len(made_of)])
        if slices.built:
            count, side, _ = slices.index["shape"]
            say(f"Prepared {count} slices of {side}×{side}: {slices.bytes / 1e6:,.1f} MB in {slices.folder}")
        if first_time and (sentence := cache.without_class(slices)):
            say(sentence)
        of_fold = f"Fold {run.fold}: " if run.folds else ""
        for sentence in (f"{of_fold}{text}" for text in cache.absent(slices)):
            if sentence not in said:
                say(sentence)
            said.add(sentence)
        cut = [f"{s['name']} ({s['cut_off']:.0%})" for s in slices.index["subjects"] if s["cut_off"] > _NEGLIGIBLE]
        if cut and first_time:
            say(
                f"image_size {run.image_size} × spacing {run.spacing:g} mm cuts foreground off: {', '.join(cut)}; "
                f"Dice will not count it. Increase either to keep it."
            )
    if problems:
        raise UserError(problems)
