"""The settings of a run: fields, constraints between them, identity, documentation."""

from greenseg.settings.constraints import CONSTRAINTS, Constraint, values_of, violations
from greenseg.settings.fields import (
    ACCOUNTING,
    MAPPINGS,
    PHANTOM,
    REPEATS,
    Layout,
    choices,
    group_of,
    neutral,
    without_effect,
)
from greenseg.settings.identity import repeated_anywhere, run_key, same_training, trained_anywhere
from greenseg.settings.lineage import BEST_OF, parent_of, parents_first
from greenseg.settings.problems import Problem, problems_of
from greenseg.settings.settings import NEUTRAL, Overlays, Settings, canonical, overlay, read_config

__all__ = [
    "ACCOUNTING",
    "BEST_OF",
    "CONSTRAINTS",
    "MAPPINGS",
    "NEUTRAL",
    "PHANTOM",
    "REPEATS",
    "Constraint",
    "Layout",
    "Overlays",
    "Problem",
    "Settings",
    "canonical",
    "choices",
    "group_of",
    "neutral",
    "overlay",
    "parent_of",
    "parents_first",
    "problems_of",
    "read_config",
    "repeated_anywhere",
    "run_key",
    "same_training",
    "trained_anywhere",
    "values_of",
    "violations",
    "without_effect",
]
