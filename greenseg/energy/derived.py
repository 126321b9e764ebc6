"""Metrics derived from joules: carbon and joules to a target."""

import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

JOULES_PER_KWH = 3.6e6


def joules_to_reach(
    target: float, quality: Sequence[float | None], joules: Sequence[float], start: float
) -> float | None:
    """Joules until a quality was first reached, interpolated linearly between epochs; None if it never was.

    Args:
        target: target quality.
        quality: quality after each epoch; None if unknown.
        joules: joules of each epoch.
        start: joules before the first epoch, when quality counts as 0.
    """
    before, spent = 0.0, start
    for reached, cost in zip(quality, joules, strict=True):
        if reached is not None:
            if reached >= target:
                share = (target - before) / (reached - before) if reached > before else 1.0
                return spent + cost * min(max(share, 0.0), 1.0)
            before = reached
        spent += cost
    return None


@cache
def carbon_intensities() -> dict[str, float]:
    """Carbon intensity of electricity in g CO2e / kWh, by ISO 3166 alpha-3 code of the country.

    It is codecarbon's table (Our World in Data, after Ember), from the extra `carbon`, read offline. Empty without the
    extra.
    """
    spec = importlib.util.find_spec("codecarbon")
    if spec is None or not spec.submodule_search_locations:
        return {}
    table = Path(spec.submodule_search_locations[0], "data", "private_infra", "global_energy_mix.json")
    mixes = json.loads(table.read_text(encoding="utf-8"))
    return {code: float(mix["carbon_intensity"]) for code, mix in mixes.items() if mix.get("carbon_intensity")}
