"""Configurations drawn from a space by a sampler of Optuna.

The study is in memory, and made from the results so far for every round. Optuna is imported on the first draw.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from greenseg.sweep.grid import Axis, Between, Space, Values

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

START = 8
"""Number of results before which a sampler draws at random; also the size of a generation of NSGA-II."""

_DIGITS = 6
"""Significant digits of drawn numbers, so that names and identities do not hang on the last bits."""

NAMES = {"tpe": "drawn by TPE", "random": "drawn at random", "nsga2": "drawn by NSGA-II"}
"""Sampler → the reason of its runs."""

Params = Mapping[str, float]
"""Settings of an axis, with commas → the number of its row, or its number between two ends (in units, if whole)."""

Result = tuple[float, float]
"""Dice and joules of a configuration."""


@dataclass(frozen=True)
class Trial:
    """A configuration that was drawn, and its result.

    Attributes:
        params: what was drawn.
        attributes: what the sampler has noted about it.
        result: Dice and joules; None if it failed.
    """

    params: Params
    attributes: Mapping[str, Any]
    result: Result | None


@dataclass(frozen=True)
class Sample:
    """A configuration that a sampler proposes.

    Attributes:
        params: what was drawn, rounded.
        attributes: what the sampler has noted about it.
        values: the value of every setting of every axis.
        drop: tells the sampler that the configuration is of no use.
    """

    params: Params
    attributes: Mapping[str, Any]
    values: Values
    drop: Callable[[], object]


def samples(space: Space, trials: Sequence[Trial], sampler: str, seed: int, number: int) -> Iterator[Sample]:
    """Endless proposals of a round: a function of the arguments alone.

    Args:
        space: what to draw from.
        trials: all configurations of earlier rounds, in the order of draw.
        sampler: one of `greenseg.sweep.file.SAMPLERS`.
        seed: seed of the search.
        number: number of the round.
    """
    from optuna.trial import TrialState, create_trial

    named = {", ".join(axis.settings): axis for axis in space.axes}
    distributions = {name: _distribution(axis) for name, axis in named.items()}
    study = _study(sampler, int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
    for trial in trials:
        state = TrialState.FAIL if trial.result is None else TrialState.COMPLETE
        study.add_trial(
            create_trial(
                state=state, params=dict(trial.params), distributions=distributions,
                values=trial.result and list(trial.result), system_attrs=dict(trial.attributes),
            )
        )  # fmt: skip
    while True:
        asked = study.ask(distributions)
        attributes = study.get_trials(deepcopy=False)[asked.number].system_attrs
        params = {name: _rounded(named[name].between, asked.params[name]) for name in named}
        values: Values = {}
        for name, axis in named.items():
            values |= _values(axis, params[name])
        yield Sample(params, attributes, values, functools.partial(study.tell, asked, state=TrialState.FAIL))


def reason(sampler: str, trials: Sequence[Trial]) -> str:
    """The reason of the runs that a sampler draws after some trials."""
    if sampler != "random" and sum(trial.result is not None for trial in trials) < START:
        return "start: random"
    return NAMES[sampler]


def _study(sampler: str, seed: int) -> "Study":
    import optuna

    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(
            n_startup_trials=START, multivariate=False, constant_liar=True, seed=seed
        ),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=START, seed=seed),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=made[sampler]())


def _distribution(axis: Axis) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    between = axis.between
    if between is None:
        return CategoricalDistribution(range(len(axis.rows({}))))
    if between.unit is None:
        return FloatDistribution(between.low, between.high, log=between.log)
    return IntDistribution(int(between.low) // between.unit, int(between.high) // between.unit, log=between.log)


def _rounded(between: Between | None, number: float) -> float:
    if between is None or between.unit is not None:
        return int(number)
    return min(max(float(f"{number:.{_DIGITS}g}"), between.low), between.high)


def _values(axis: Axis, number: float) -> Values:
    if axis.between is None:
        return axis.rows({})[int(number)]
    unit = axis.between.unit
    return {axis.settings[0]: float(number) if unit is None else int(number) * unit}
