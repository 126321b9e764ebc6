"""The settings of a run: fields, constraints between them, identity, documentation."""

from greenseg.settings.constraints import CONSTRAINTS, Constraint, values_of, violations
from greenseg.settings.fields import ACCOUNTING, MAPPINGS, PHANTOM, REPEATS, Layout, choices, group_of, neutral
from greenseg.settings.identity import repeated_anywhere, same_training, trained_anywhere
from greenseg.settings.problems import Problem, problems_of
from greenseg.settings.settings import NEUTRAL, Overlays, Settings, canonical, overlay, read_config

__all__ = [
    "ACCOUNTING",
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
    "problems_of",
    "read_config",
    "repeated_anywhere",
    "same_training",
    "trained_anywhere",
    "values_of",
    "violations",
]
