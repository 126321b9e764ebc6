"""The pairs of runs that differ in one setting and nothing else, seed and fold included.

Runs are in columns, since a report may have ten thousand of them.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from greenseg.report.effects import Pairs
from greenseg.report.moderation import Values
from greenseg.report.results import REPEATS, Result

Numbers = NDArray[np.int64]

_MOST = 2**62  # combinations that a number can tell apart


class Match(NamedTuple):
    """Pairs of trials for a value of a setting.

    Attributes:
        value: the value.
        before, after: places of the trials with the reference and with the value, shape (pairs,).
        configurations: numbers that are equal for equal values of all other settings, shape (pairs,).
        repeats: numbers that are equal for equal seeds and folds, shape (pairs,).
    """

    value: Any
    before: Numbers
    after: Numbers
    configurations: Numbers
    repeats: Numbers


class Trials:
    """The finished repeats of results, n in all.

    Args:
        results: the results.
        names: the settings in which they differ.

    Attributes:
        runs: the runs of each trial, length n: several if they are duplicates.
        of: place of the result of each trial, shape (n,).
    """

    def __init__(self, results: Sequence[Result], names: Sequence[str]) -> None:
        self.runs = [runs for result in results for runs in result.repeats]
        self.of = np.repeat(np.arange(len(results)), [len(result.repeats) for result in results])
        self._values = {name: [_hashable(result.settings[name]) for result in results] for name in names}
        self._numbers = {name: numbered(values)[self.of] for name, values in self._values.items()}
        self._repeats = numbered(tuple(_hashable(runs[0].settings[name]) for name in REPEATS) for runs in self.runs)

    def matches(self, name: str, reference: Any) -> Iterator[Match]:
        """The pairs of the reference with each other value of a setting, in the order of the values."""
        known = {self._values[name][place]: number for place, number in zip(self.of, self._numbers[name], strict=True)}
        number = known.pop(_hashable(reference), None)
        if number is None:
            return
        configurations = _joint([numbers for other, numbers in self._numbers.items() if other != name], len(self.of))
        rest = _joint([configurations, self._repeats], len(self.of))
        trials = {each: np.flatnonzero(self._numbers[name] == each) for each in (number, *known.values())}
        for value in sorted(known, key=_order):
            before, after = trials[number], trials[known[value]]
            _, one, other = np.intersect1d(rest[before], rest[after], return_indices=True)
            before, after = before[one], after[other]
            yield Match(value, before, after, configurations[before], self._repeats[before])


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of all trials, shape (n,) each.

    Attributes:
        values: the values; NaN if unknown.
        noise: variance of independent repeats; NaN if unknown.
        freedom: its degrees of freedom; 0 if unknown.
        terms: numbers that are equal for comparable values; None if all are.
    """

    values: Values
    noise: Values
    freedom: Values
    terms: Numbers | None = None

    def pairs(self, match: Match) -> Pairs | None:
        """The differences between matched trials with comparable values; None without any."""
        differences = self.values[match.after] - self.values[match.before]
        able = ~np.isnan(differences)
        if self.terms is not None:
            able &= self.terms[match.after] == self.terms[match.before]
        if not able.any():
            return None
        before, after = match.before[able], match.after[able]
        return Pairs(
            differences[able],
            match.configurations[able],
            match.repeats[able],
            self.noise[before] + self.noise[after],
            float(min(self.freedom[before].min(), self.freedom[after].min())),
        )


def numbered(values: Iterable[Hashable]) -> Numbers:
    """Numbers from 0 in the order of first appearance, equal for equal values."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _joint(columns: Sequence[Numbers], length: int) -> Numbers:
    """Numbers that are equal where all columns of this length are."""
    found, size = np.zeros(length, dtype=np.int64), 1
    for column in columns:
        width = int(column.max(initial=0)) + 1
        if size * width >= _MOST:
            found = np.unique(found, return_inverse=True)[1]
            size = length
        found, size = found * width + column, size * width
    return found


def _hashable(value: Any) -> Hashable:
    found: Hashable = repr(value) if isinstance(value, list | dict) else value
    return found


def _order(value: Any) -> tuple[bool, float, str]:
    """A key that sorts numbers by size and all else by name."""
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))
