"""What a run achieved and cost, from its attempts and its epochs."""

import math
from typing import Any

from greenseg.energy import Energy


def account_for_attempts(attempts: list[dict[str, Any]], epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Attempts, each with its energy: one that was killed has what its last finished epoch had counted."""
    accounted = []
    for number, attempt in enumerate(attempts):
        if "energy" not in attempt:
            lines = [line for line in epochs if line["attempt"] == number]
            attempt = attempt | {"status": "killed", "energy": lines[-1]["attempt_so_far"] if lines else {}}
        accounted.append(attempt)
    return accounted


def summary(record: dict[str, Any], epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Final metrics and energy of a run, from its attempts and its epochs.

    Joules are those of all attempts: what was spent on epochs that had to be repeated was spent. Metrics and joules per
    epoch are those of each epoch's last attempt.
    """
    phases: dict[str, Energy] = {}
    for attempt in account_for_attempts(record["attempts"], epochs):
        for phase, energy in attempt["energy"].items():
            phases[phase] = phases.get(phase, Energy()) + Energy.from_json(energy)
    total = sum(phases.values(), Energy())
    final = list({line["epoch"]: line for line in epochs}.values())
    per_epoch = [Energy.from_json(line["train"]) + Energy.from_json(line["validation"]) for line in final]
    result: dict[str, Any] = {
        "energy": {"total": total.to_json(), "phases": {phase: e.to_json() for phase, e in phases.items()}},
        "metrics": {"seconds": total.seconds, "joules": total.joules, "epochs": len(final)},
    }
    scored = [line for line in final if line["dice"] is not None]
    if scored:
        best = max(scored, key=lambda line: float(line["dice"]))
        result["metrics"] |= {
            "dice": best["dice"],
            "iou": best["iou"],
            "volume_dice": best["volume_dice"],
            "best_epoch": best["epoch"],
            "last_dice": scored[-1]["dice"],
        }
    if per_epoch:
        result["metrics"]["joules_per_epoch"] = math.fsum(e.joules for e in per_epoch) / len(per_epoch)
    return result
