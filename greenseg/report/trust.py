"""What limits the trust in the best configuration: few subjects, and that it was chosen. In numbers and in words.

Only the best is looked at by epoch, and at most `subjects.MOST` configurations by subject.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from greenseg.report.columns import interval
from greenseg.report.comparison import Comparison
from greenseg.report.moderation import Values
from greenseg.report.objectives import QUALITIES, TEST, Objective
from greenseg.report.optimism import of_choice, of_epochs
from greenseg.report.results import Result
from greenseg.report.run import WRONG
from greenseg.report.statistics import Mean
from greenseg.report.subjects import MOST, carried, detectable, gap, matrix, peculiar
from greenseg.report.units import count
from greenseg.runs.record import BadRecord
from greenseg.runs.summary import last_of_each

_MOST_REPEATS = 10  # of the best, whose epochs are read


@dataclass(frozen=True)
class Trust:
    """What limits the trust in the quality of the best configuration.

    Attributes:
        over_subjects: its quality with the interval over subjects and repeats; None if the quality has no subjects.
        detectable: see `subjects.detectable`; None if it is unknown.
        number: number of configurations that it is the best of.
        of_choice: how much better it looks than it is, because it is the best of these; None if the spread is unknown.
        epochs: largest number of epochs of its repeats; 0 if they are unknown.
        of_epochs: the same, because its best epoch was chosen; None if it is unknown.
        gap: its validation Dice − its test Dice, each over its subjects; None without a test part.
    """

    over_subjects: Mean | None = None
    detectable: float | None = None
    number: int = 0
    of_choice: float | None = None
    epochs: int = 0
    of_epochs: float | None = None
    gap: Mean | None = None


def trust(comparison: Comparison) -> Trust:
    """What limits the trust in the best configuration of a comparison; nothing if there is no best."""
    best, quality = comparison.best, comparison.quality
    spread = comparison.spreads.of(best, quality) if best else None
    if best is None or spread is None:
        return Trust()
    ranked = _distinct(result for result in comparison.results if comparison.known(result))
    others = [result for result in ranked[:MOST] if result is not best]
    scores = matrix([scores for result in (best, *others) if (scores := result.of_each_subject(quality))])
    curves = _curves(best) if quality is QUALITIES["dice"] else []
    test = best.of_each_subject(TEST) if best.figure(TEST) else {}
    own = best.of_each_subject(QUALITIES["dice"])
    return Trust(
        carried(best, quality, spread),
        detectable(scores),
        len(ranked),
        _of_choice(comparison, ranked, quality, peculiar(scores)),
        max(map(len, curves), default=0),
        of_epochs(curves),
        gap([*own.values()], [*test.values()]) if test and own else None,
    )


def _distinct(results: Iterable[Result]) -> list[Result]:
    """Each configuration once, as its first row, though it may have one for each class of hardware."""
    found: dict[str, Result] = {}
    for result in results:
        found.setdefault(result.trained, result)
    return [*found.values()]


def _of_choice(comparison: Comparison, ranked: Sequence[Result], quality: Objective, peculiar: float) -> float | None:
    """The optimism of the best of these results, on the scale of the quality; `peculiar` is a variance of means."""
    spreads = [spread for result in ranked if (spread := comparison.spreads.of(result, quality))]
    if len(spreads) < 2 or not all(spread.freedom for spread in spreads):
        return None
    sign = 1.0 if quality.more_is_better else -1.0
    means = sign * np.array([spread.even for spread in spreads])
    errors = np.array([math.hypot(spread.error, math.sqrt(peculiar) / spread.slope) for spread in spreads])
    return of_choice(means, errors) * spreads[int(means.argmax())].slope


def _curves(result: Result) -> list[Values]:
    """Dice of each epoch and subject for each repeat, shape (epochs, subjects); unreadable ones are left out."""
    found = []
    for runs in result.repeats[:_MOST_REPEATS]:
        try:
            lines = last_of_each(runs[0].directory.epochs())
        except (BadRecord, OSError, *WRONG):
            continue
        shared = list(lines[0].volume_dice) if lines else []
        scores = [[line.volume_dice.get(name) for name in shared] for line in lines]
        table = np.array([[math.nan if score is None else score for score in row] for row in scores], dtype=float)
        if table.size:
            found.append(table[:, ~np.isnan(table).any(axis=0)])
    return found


def said(known: Trust, comparison: Comparison) -> list[str]:
    """The same in words, one sentence each."""
    heading, digits = comparison.quality.heading, comparison.quality.digits or 4
    found = []
    if (mean := known.over_subjects) is not None:
        said = f"Its {heading} rests on {count(mean.n, 'validation subject')}"
        if mean.half is None:
            found.append(f"{said}: it says nothing about others, and no difference here is shown for them.")
        else:
            said += f": {interval(mean, digits)} over subjects and repeats."
            if known.detectable:
                said += (
                    f" So many show a difference of {known.detectable:.{digits}f} between two configurations for other "
                    "subjects, too (80 % power)."
                )
            found.append(said)
    high = "high" if comparison.quality.more_is_better else "low"
    if known.of_choice:
        found.append(
            f"Chosen as the best of {known.number}: its {heading} is {_about(known.of_choice, digits)} too {high} by "
            "that choice alone."
        )
    if known.of_epochs is not None and known.epochs > 1 and (known.over_subjects is None or known.over_subjects.n > 1):
        found.append(
            f"Its best of {known.epochs} epochs was chosen on the same subjects: {_about(known.of_epochs, digits)} too "
            f"{high} by that, as judged by subjects that did not choose it."
        )
    if known.gap is not None:
        spread = f" ±{known.gap.half:.4f}" if known.gap.half is not None else ""
        found.append(f"Validation − test Dice: {known.gap.value:+.4f}{spread} over subjects.".replace("-", "−"))
    return found


def _about(value: float, digits: int) -> str:
    least = 10.0**-digits
    return f"less than {least:.{digits}f}" if value < least else f"about {value:.{digits}f}"
