"""Resolves names from the command line: objectives, conditions, a baseline, columns."""

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from greenseg.errors import UserError, did_you_mean
from greenseg.model_names import ALIASES
from greenseg.report.columns import column, column_names, sort
from greenseg.report.comparison import Comparison, Row
from greenseg.report.hardware import by_hardware
from greenseg.report.labels import MODEL, setting, value_text
from greenseg.report.objectives import COSTS, ENERGIES, QUALITIES, TEST, Objective, of_class
from greenseg.report.results import Result, best_first, classes_of, objectives_of

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([\w-]+(?::[^=<>!]+?)?)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_WORDS = {"true": value_text(True), "false": value_text(False), **dict.fromkeys(("", "none", "null"), value_text(None))}
_MOST_LISTED = 12
_STATUS = "status"

T = TypeVar("T")


class Problems:
    """Collects mistakes and raises all of them as one UserError at the end of the context."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._found and error is None:
            raise UserError(self._found)

    def of(self, ask: Callable[[], T]) -> T | None:
        """The result of a call; None if it raises a UserError, which is recorded."""
        try:
            return ask()
        except UserError as error:
            self._found += error.problems
            return None


def find_name(option: str, name: str, valid: Sequence[str]) -> str:
    """The valid name for a user's text, with - and _ treated as equal.

    Raises:
        UserError: there is none; the message lists the valid names and the nearest one.
    """
    if name in valid:
        return name
    for candidate in valid:
        if candidate.replace("-", "_") == name.strip().replace("-", "_"):
            return candidate
    raise UserError(f"{option}: no '{name}'{did_you_mean(name, valid)}; valid: {', '.join(valid)}")


def objective(option: str, name: str, valid: Mapping[str, Objective], results: Sequence[Result]) -> Objective:
    """The objective with a name.

    Raises:
        UserError: the name is unknown, or no finished run has the objective; the message lists the available ones.
    """
    chosen = valid[find_name(option, name, list(valid))]
    if any(chosen.of(run) is not None for result in results for run in result.finished):
        return chosen
    if not any(result.finished for result in results):
        return chosen  # nothing has finished: the table has only failed and running configurations
    have = [
        other.name
        for other in valid.values()
        if any(other.of(run) is not None for result in results for run in result.finished)
    ]
    remedy = f"; {chosen.remedy}" if chosen.remedy else ""
    raise UserError(f"{option} {name}: no run has it{remedy}; available: {', '.join(have) or 'none'}")


def quality(option: str, name: str, results: Sequence[Result]) -> Objective:
    """The quality with a name, which may be that of a class, such as `dice:csf`.

    Raises:
        UserError: there is no such quality or class, or no finished run has it; the message lists the available ones.
    """
    of, colon, wanted = name.partition(":")
    if of.strip() == TEST.name:
        raise UserError(f"{option} {name}: the test part chooses nothing; --columns, --sort and --where take 'test'")
    if not colon:
        return objective(option, name, QUALITIES, results)
    of = find_name(option, of, list(QUALITIES))
    classes = _classes(f"{option} {name}", results)
    valid = {each.name: each for each in (of_class(of, name) for name in classes)}
    return objective(option, f"{of}:{find_name(f'{option} {of}', wanted, classes)}", valid, results)


def _classes(option: str, results: Sequence[Result]) -> list[str]:
    if classes := classes_of(results):
        return classes
    raise UserError(f"{option}: no run has several classes")


def where(results: Sequence[Result], conditions: Sequence[str]) -> list[Result]:
    """The results that meet all conditions such as `precision=16-mixed`, `encoder=resnet18,resnet34`, `dice>=0.8`.

    Raises:
        UserError: a condition is not valid, names unknown values, or leaves no result; lists all problems.
    """
    with Problems() as problems:
        tests = [problems.of(partial(_condition, "--where", condition, results)) for condition in conditions]
    chosen = [result for result in results if all(test(result) for test in tests if test)]
    if not chosen:
        raise UserError(f"--where {' --where '.join(conditions)}: no configuration matches")
    return chosen


def baseline(results: Sequence[Result], text: str, quality: Objective | None, option: str = "--baseline") -> Result:
    """The finished result with the best quality among those with all of `key=value,key=value`.

    Raises:
        UserError: a part is not a setting with a value, or no result has them all; lists all problems.
    """
    return best_first(_assigned(results, text, option), *([quality] if quality else []))[0]


def references(results: Sequence[Result], text: str, quality: Objective | None) -> list[Result]:
    """A configuration with all of `key=value,key=value`, once for each class of hardware that has finished it.

    Of several, the one that most classes have, then the one with the best quality.

    Raises:
        UserError: as `baseline`.
    """
    found: dict[str, list[Result]] = {}
    for result in best_first(_assigned(results, text, "--relative-to"), *([quality] if quality else [])):
        found.setdefault(result.trained, []).append(result)
    return max(found.values(), key=len)


def _assigned(results: Sequence[Result], text: str, option: str) -> list[Result]:
    with Problems() as problems:
        parts = _parts(text, lambda part: _is_no_mistake(partial(_assignment, option, part, results)))
        tests = [problems.of(partial(_assignment, option, part, results)) for part in parts]
    found = [result for result in results if all(test(result) for test in tests if test)]
    finished = [result for result in found if result.finished]
    if not finished:
        what = "none of its runs has finished" if found else "no configuration matches all of it"
        raise UserError(f"{option} {text}: {what}")
    return finished


def _assignment(option: str, text: str, results: Sequence[Result]) -> Callable[[Result], bool]:
    match = _CONDITION.fullmatch(text)
    if match is None or match[2] != "=":
        raise UserError(f"{option}: '{text}' is not key=value, such as precision=32-true")
    return _condition(option, text, results)


def _condition(option: str, text: str, results: Sequence[Result]) -> Callable[[Result], bool]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UserError(f"{option}: '{text}' is not a condition such as precision=16-mixed or dice>=0.8")
    settings = list(results[0].settings)
    objectives = objectives_of(results)
    key = find_name(option, match[1], [*settings, MODEL, _STATUS, *objectives])
    sign, wanted = match[2], match[3]
    if key in objectives:
        return _by_figure(option, text, objectives[key], sign, wanted)
    if sign in ("=", "!="):
        return _by_value(option, key, sign, wanted, results)
    return _by_number(option, text, key, sign, wanted, results)


def _by_figure(option: str, text: str, chosen: Objective, sign: str, wanted: str) -> Callable[[Result], bool]:
    limit = _number(option, text, wanted)

    def test(result: Result) -> bool:
        mean = result.figure(chosen)
        return mean is not None and _OPERATORS[sign](mean.value, limit)

    return test


def _by_number(
    option: str, text: str, key: str, sign: str, wanted: str, results: Sequence[Result]
) -> Callable[[Result], bool]:
    if key == _STATUS or not all(isinstance(setting(result, key), int | float | None) for result in results):
        raise UserError(f"{option}: '{text}': {key} is not a number; use = or !=")
    limit = _number(option, text, wanted)

    def test(result: Result) -> bool:
        value = setting(result, key)  # None has no effect there
        return value is not None and _OPERATORS[sign](value, limit)

    return test


def _by_value(option: str, key: str, sign: str, wanted: str, results: Sequence[Result]) -> Callable[[Result], bool]:
    present = {text for result in results for text in _texts(result, key)}
    chosen = set()
    for value in _parts(wanted, lambda part: _among(present, part) is not None):
        known = _among(present, value)
        if known is None:
            listed = [repr(text) if "," in text or not text else text for text in sorted(present)[:_MOST_LISTED]]
            more = f" and {len(present) - len(listed)} more" if len(present) > len(listed) else ""
            raise UserError(
                f"{option}: no run has {key} '{value}'{did_you_mean(value, sorted(present))}; available: "
                f"{', '.join(listed)}{more}"
            )
        chosen.add(known)
    return lambda result: bool(chosen & _texts(result, key)) == (sign == "=")


def _parts(text: str, is_one: Callable[[str], bool]) -> Iterator[str]:
    """Parts of a text between commas, as long as possible, since a value such as labels `1,2` has commas itself."""
    pieces = text.split(",")
    while pieces:
        length = next((n for n in range(len(pieces), 1, -1) if is_one(",".join(pieces[:n]))), 1)
        yield ",".join(pieces[:length])
        pieces = pieces[length:]


def _is_no_mistake(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except UserError:
        return False
    return True


def _among(present: Collection[str], value: str) -> str | None:
    """The present value for a user's text, with numbers equal in any notation; or None."""
    for spelling in _spellings(value.strip()):
        if spelling in present:
            return spelling
    number = _as_number(value)
    return None if number is None else next((text for text in present if _as_number(text) == number), None)


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _texts(result: Result, key: str) -> set[str]:
    if key == _STATUS:
        return {run.status for run in result.runs}
    return {value_text(setting(result, key))}


def _spellings(value: str) -> list[str]:
    """The value and its alternative spellings: an alias of an encoder, YAML's words."""
    spellings = [value, _WORDS.get(value.lower(), value), ALIASES.get(value.lower(), value)]
    encoder, dash, decoder = value.rpartition("-")
    if dash:
        spellings.append(f"{ALIASES.get(encoder.lower(), encoder)}-{decoder}")
    return spellings


def _number(option: str, text: str, value: str) -> float:
    number = _as_number(value)
    if number is None:
        raise UserError(f"{option}: '{text}': '{value}' is not a number")
    return number


@dataclass(frozen=True)
class Query:
    """The runs to compare and the parts to show; the fields are options of `greenseg report`.

    Attributes:
        quality, energy, third: names of objectives; `third` may be empty.
        baseline: settings of the baseline, as `key=value,key=value`; empty for the best configuration.
        where: conditions.
        sort: name of a column, with a leading - for worst first; empty for the quality.
        top: number of rows; None for the default.
        columns: names, separated by commas; empty for the default columns.
        front_only: only rows on the front.
        allow_mixed_sources: rank measured and estimated joules against each other.
        classes: also show the quality of each class.
        allow_mixed_hardware: pool and rank joules of different hardware.
        relative_to: settings of a configuration that energies are relative to, as `baseline`; empty for none.
    """

    quality: str = "dice"
    energy: str = "total"
    third: str = ""
    baseline: str = ""
    where: tuple[str, ...] = ()
    sort: str = ""
    top: int | None = None
    columns: str = ""
    front_only: bool = False
    allow_mixed_sources: bool = False
    classes: bool = False
    allow_mixed_hardware: bool = False
    relative_to: str = ""

    def compare(self, results: Sequence[Result], notes: Sequence[str] = ()) -> Comparison:
        """The requested comparison.

        Args:
            results: at least one result.
            notes: sentences from reading the runs.

        Raises:
            UserError: a name is unknown; lists all problems.
        """
        if not self.allow_mixed_hardware:
            results = by_hardware(results)
        with Problems() as problems:
            chosen = problems.of(lambda: where(results, self.where))
            best = problems.of(lambda: quality("--quality", self.quality, results))
            energy = problems.of(lambda: objective("--energy", self.energy, ENERGIES, results))
            third = problems.of(lambda: objective("--and", self.third, COSTS, results)) if self.third else None
            base = problems.of(lambda: baseline(results, self.baseline, best)) if self.baseline else None
            to = problems.of(lambda: references(results, self.relative_to, best)) if self.relative_to else None
            if self.classes:
                problems.of(lambda: _classes("--classes", results))
        assert chosen
        assert best
        assert energy
        return Comparison(
            chosen, best, energy, third, base, self.allow_mixed_sources, notes, to or (), self.allow_mixed_hardware
        )

    def rows(self, comparison: Comparison) -> list[Row]:
        """The rows to show, in their order.

        Raises:
            UserError: there is no such column to sort by.
        """
        rows = list(comparison.rows)
        if self.sort:
            name = find_name("--sort", self.sort.removeprefix("-"), column_names(comparison))
            rows = sort(rows, column(comparison, name), self.sort.startswith("-"))
        if self.front_only:
            rows = [row for row in rows if row.on_front]
        return rows if self.top is None else rows[: self.top]

    def names(self, comparison: Comparison) -> list[str] | None:
        """The columns to show; None for the default columns.

        Raises:
            UserError: a column is unknown; lists all of them.
        """
        if not self.columns:
            return None
        available = column_names(comparison)
        with Problems() as problems:
            found = [problems.of(partial(find_name, "--columns", name, available)) for name in self.columns.split(",")]
        return [name for name in found if name]
