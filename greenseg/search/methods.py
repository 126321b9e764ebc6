"""The methods of a search by name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from greenseg.sweep.file import Sweep
from greenseg.sweep.plan import Plan, make_plan

if TYPE_CHECKING:
    from greenseg.search.rounds import Rounds


def begin(sweep: Sweep, out: Path, retry_failed: bool = False) -> "tuple[Plan, Rounds | None]":
    """The plan of a sweep, and its search; None if it has none. A plan has all runs so far, and those to do now.

    Args:
        sweep: the sweep.
        out: folder of all runs, including those of other sweeps.
        retry_failed: whether failed runs are to do.
    """
    if sweep.search is None:
        return make_plan(sweep, out, retry_failed), None
    return _METHODS[sweep.search.method](sweep, out, retry_failed)


def _halving(sweep: Sweep, out: Path, retry_failed: bool) -> "tuple[Plan, Rounds]":
    from greenseg.search.rounds import Search

    assert sweep.search
    plan = make_plan(sweep, out, retry_failed)
    return plan, Search(plan.runs, sweep.search, retry_failed)


def _optuna(sweep: Sweep, out: Path, retry_failed: bool) -> "tuple[Plan, Rounds]":
    from greenseg.search.drawn import Draws

    draws = Draws(sweep, out, retry_failed)
    return draws.plan(), draws


_METHODS: "dict[str, Callable[[Sweep, Path, bool], tuple[Plan, Rounds]]]" = {"halving": _halving, "optuna": _optuna}
