"""How much too good the best looks because it was chosen: the best of n configurations, the best of all epochs.

**Of n configurations.** The one with the best mean is partly the one with the luckiest seeds: the "winner's curse"
(Efron 2011, doi:10.1198/jasa.2011.tm11181). A parametric bootstrap draws new means around centres and takes their best;
what that exceeds its centre by, on average, is the optimism. The centres are not the observed means, which scatter more
than the true ones, but these drawn to their mean, by their share of true variance (Efron & Morris 1973,
doi:10.1080/01621459.1973.10481350). Only contenders count, those within 6 standard errors of the best: far worse ones
would spoil the share. The estimate is right on average within a third in most sweeps (`python -m benchmarks subjects`).

**Of epochs.** The reported Dice is the largest of a noisy curve. It is compared with a choice that does not see the
subject it is judged on: the best epoch is chosen by all other subjects, for each subject in turn (leave-one-out, as the
nested cross-validation of Varma & Simon 2006, doi:10.1186/1471-2105-7-91; Tibshirani & Tibshirani 2009,
doi:10.1214/08-AOAS224, estimate the same bias from the folds of a cross-validation). An epoch that is better for all
subjects is no chance.
"""

from collections.abc import Sequence

import numpy as np

from greenseg.report.chance import DRAWS
from greenseg.report.moderation import Values

_REACH = 6.0  # standard errors beyond which a configuration is no contender


def of_choice(means: Values, errors: Values, seed: int = 0) -> float:
    """Expected excess of the best of several means over its true value; 0 without errors or with a single mean.

    Args:
        means: means on a scale with even spread, more is better; shape (n,).
        errors: their standard errors, shape (n,).
        seed: seed of the random numbers.
    """
    if not len(means):
        return 0.0
    best = int(means.argmax())
    able = means >= means[best] - _REACH * np.sqrt((errors**2 + errors[best] ** 2) / 2)
    means, errors = means[able], errors[able]
    if len(means) < 2 or not errors.any():
        return 0.0
    true = max(float(means.var(ddof=1) - (errors**2).mean()), 0.0)
    centres = means.mean() + true / np.maximum(true + errors**2, 1e-300) * (means - means.mean())
    drawn = errors * np.random.default_rng(seed).standard_normal((DRAWS, len(errors)))
    return float(drawn[np.arange(DRAWS), (centres + drawn).argmax(axis=1)].mean())


def of_epochs(curves: Sequence[Values]) -> float | None:
    """Mean over repeats of: the best epoch's Dice − the Dice of epochs that were chosen by all other subjects.

    Args:
        curves: Dice of each epoch and subject for each repeat, shape (epochs, subjects); subjects may differ.

    Returns:
        The optimism; None if no repeat has two epochs and two subjects.
    """
    found = []
    for scores in curves:
        epochs, subjects = scores.shape
        if epochs > 1 and subjects > 1:
            chosen = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)
            found.append(float(scores.mean(axis=1).max() - scores[chosen, np.arange(subjects)].mean()))
    return float(np.mean(found)) if found else None
