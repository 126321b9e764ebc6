"""What a run achieved and cost, from its attempts and its epochs."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from greenseg.data.epoch import slices_per_epoch
from greenseg.energy import Energy
from greenseg.energy.derived import JOULES_PER_KWH, carbon_intensities, joules_to_reach
from greenseg.energy.reading import APPORTIONED, ESTIMATE, Reading
from greenseg.runs.directory import RunDirectory
from greenseg.settings import ACCOUNTING, Settings, group_of


def account_for_attempts(attempts: list[dict[str, Any]], epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Attempts, each with its energy: one that was killed has what its last finished epoch had counted."""
    accounted = []
    for number, attempt in enumerate(attempts):
        if "energy" not in attempt:
            lines = [line for line in epochs if line["attempt"] == number]
            attempt = attempt | {"status": "killed", "energy": lines[-1]["attempt_so_far"] if lines else {}}
        accounted.append(attempt)
    return accounted


# Joules stay what they were: an estimate's watts count when it is made.
_ACCOUNTED = {
    name: field.default
    for name, field in Settings.model_fields.items()
    if group_of(name) == ACCOUNTING and not name.endswith("_watts")
}


def accounted_otherwise(record: dict[str, Any], settings: Settings) -> bool:
    """Whether a run was accounted for with other settings than these."""
    then = record["settings"]
    return any(then.get(name, default) != getattr(settings, name) for name, default in _ACCOUNTED.items())


def apply_accounting(run: RunDirectory, settings: Settings) -> str:
    """Apply the accounting settings of today to a run that has finished: target, carbon, cost, warm-up.

    Returns:
        Why that cannot be; empty where it was done, or nothing was to do.

    Raises:
        BadRecord: run.json or epochs.jsonl is damaged.
    """
    record = run.record()
    if not accounted_otherwise(record, settings):
        return ""
    epochs = run.epochs()
    if not has_all_epochs(record, epochs):
        return f"{run.path / 'epochs.jsonl'}: lacks epochs of the run, which stays accounted for as it was"
    record["settings"] |= {name: getattr(settings, name) for name in _ACCOUNTED}
    run.write_record(record | summary(record, epochs))
    return ""


def has_all_epochs(record: Mapping[str, Any], epochs: list[dict[str, Any]]) -> bool:
    """Whether epochs.jsonl has every epoch of a run that ended, so that its summary can be made again."""
    return bool(record.get("metrics", {}).get("epochs") == len(last_of_each(epochs)))


Watts = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Constants of an estimate: watts of a busy core, and of a GB of memory; each with its low and high end."""


def _watts(method: Any) -> Watts | None:
    try:
        core, gb = (tuple(map(float, method[name])) for name in ("core_watts", "gb_watts"))
        return (core[0], core[1], core[2]), (gb[0], gb[1], gb[2])
    except (KeyError, TypeError, ValueError, IndexError):
        return None  # a run of an earlier version that did not come to its end


def last_watts(record: Mapping[str, Any]) -> Watts | None:
    """The constants that the last attempt of a run estimated with; None where they are not known."""
    return _watts(record.get("energy_method"))


def estimate_watts(record: Mapping[str, Any]) -> frozenset[Watts]:
    """The constants that all attempts of a run estimated with; empty where those of one are not known."""
    last = last_watts(record)
    found = [_watts(attempt["estimate"]) if "estimate" in attempt else last for attempt in record.get("attempts", ())]
    return frozenset({watts for watts in found if watts}) if found and None not in found else frozenset()


def restated(
    record: Mapping[str, Any], epochs: list[dict[str, Any]], watts: Watts
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Attempts and epochs of a run as they would be, had its estimates been made with other constants.

    Args:
        record: of the run, whose `estimate_watts` are known.
        epochs: its lines of epochs.jsonl.
        watts: the constants.
    """
    last = last_watts(record)
    attempts = account_for_attempts(record["attempts"], epochs)
    made_with = [_watts(attempt["estimate"]) if "estimate" in attempt else last for attempt in attempts]

    def by(made: Watts | None, energies: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _scaled(energy, made, watts) for name, energy in energies.items()}

    lines = []
    for line in epochs:
        made, parts = made_with[line["attempt"]], {name: line[name] for name in ("train", "validation")}
        lines.append(line | by(made, parts) | {"attempt_so_far": by(made, line["attempt_so_far"])})
    scaled = zip(attempts, made_with, strict=True)
    return [attempt | {"energy": by(made, attempt["energy"])} for attempt, made in scaled], lines


def _scaled(energy: dict[str, Any], made: Watts | None, watts: Watts) -> dict[str, Any]:
    assert made is not None
    factors = {"cpu": (made[0], watts[0]), "dram": (made[1], watts[1])}
    readings = []
    for r in Energy.from_json(energy).readings:
        if r.source == ESTIMATE and r.component in factors:
            joules, low, high = (
                value * new / old if old else 0.0
                for value, old, new in zip((r.joules, r.low, r.high), *factors[r.component], strict=True)
            )
            r = Reading(r.component, joules, r.source, low, high, r.marks)
        readings.append(r)
    return Energy(energy["seconds"], tuple(readings)).to_json()


def summary(record: dict[str, Any], epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Final metrics and energy of a run, from its attempts and its epochs.

    Joules are those of all attempts: what was spent on epochs that had to be repeated was spent. Metrics and joules per
    epoch are those of each epoch's last attempt; an attempt supersedes all epochs from its first one on.
    """
    phases: dict[str, Energy] = {}
    for attempt in account_for_attempts(record["attempts"], epochs):
        for phase, energy in attempt["energy"].items():
            phases[phase] = phases.get(phase, Energy()) + Energy.from_json(energy)
    total = sum(phases.values(), Energy())
    settings = record.get("settings", {})
    final = last_of_each(epochs)
    per_epoch = [Energy.from_json(line["train"]) + Energy.from_json(line["validation"]) for line in final]
    metrics: dict[str, Any] = {
        "seconds": total.seconds,
        "joules": total.joules,
        "joules_low": total.low,
        "joules_high": total.high,
        "epochs": len(final),
    }
    scored = [line for line in final if line["dice"] is not None]
    if scored:
        best = max(scored, key=lambda line: float(line["dice"]))
        metrics |= {
            "dice": best["dice"],
            "iou": best["iou"],
            "volume_dice": best["volume_dice"],
            "best_epoch": best["epoch"],
            "joules_after_best": sum(
                joules.joules for line, joules in zip(final, per_epoch, strict=True) if line["epoch"] > best["epoch"]
            ),
            "last_dice": scored[-1]["dice"],
        }
        surface = record.get("surface", {})  # computed once, at the end of the run
        if surface.get("epoch") == best["epoch"] and surface["hd95"] is not None:
            metrics |= {"hd95": surface["hd95"], "volume_hd95": surface["volume_hd95"]}
    # After the warm-up; where a run is shorter than that, of all it has.
    warm_up = settings.get("measure_after", 0) if len(final) > settings.get("measure_after", 0) else 0
    if per_epoch:
        metrics["measured_epochs"] = len(final) - warm_up
        metrics["joules_per_epoch"] = fmean(epoch.joules for epoch in per_epoch[warm_up:])
        slices = _slices_per_epoch(record)
        for phase, name in (("train", "joules_per_slice"), ("validation", "joules_per_inference")):
            if slices.get(phase):
                metrics[name] = fmean(Energy.from_json(line[phase]).joules for line in final[warm_up:]) / slices[phase]
    return {
        "energy": {"total": total.to_json(), "phases": {phase: e.to_json() for phase, e in phases.items()}},
        "metrics": metrics | _derived(record, total, epochs),
    }


def _slices_per_epoch(record: Mapping[str, Any]) -> dict[str, int]:
    """Slices that an epoch trained on and validated, by phase; empty where the record does not tell."""
    data, ran = record.get("data", {}), record.get("ran", {})
    if "slices_per_epoch" in data or "batch_size" not in ran or "train" not in data.get("slices", {}):
        return dict(data.get("slices_per_epoch", data.get("slices", {})))
    # A record of an earlier version: it has all slices, also those that an epoch drops.
    ranks = int(ran.get("devices", 1)) * int(ran.get("nodes", 1))
    return {**data["slices"], "train": slices_per_epoch(data["slices"]["train"], int(ran["batch_size"]), ranks)}


def last_of_each(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the epochs that led to the network as it is, in order: those of attempts that were repeated are out.

    Args:
        epochs: lines of epochs.jsonl, in the order of writing.
    """
    final: list[dict[str, Any]] = []
    for line in epochs:
        while final and final[-1]["epoch"] >= line["epoch"]:
            final.pop()
        final.append(line)
    return final


BEFORE = ("startup", "preparation", "probe")
"""Phases before the first epoch of an attempt."""


def spent_by(attempts: list[dict[str, Any]], epochs: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Joules that the run had spent when each epoch began, and when it ended; in the order of the lines.

    All of the attempts before count, epochs that had to be repeated included; of the attempt itself, what came before
    its first epoch, and its epochs.
    """
    by_phase = [_joules(attempt["energy"]) for attempt in account_for_attempts(attempts, epochs)]
    spent, found, current = 0.0, list[tuple[float, float]](), -1
    for line in epochs:
        if line["attempt"] != current:
            current = line["attempt"]
            # Of attempts that a record has lost, the epochs are all that is known.
            spent = max(spent, sum(sum(joules.values()) for joules in by_phase[:current]))
            spent += sum(joules.get(phase, 0.0) for joules in by_phase[current : current + 1] for phase in BEFORE)
        began = spent
        spent += sum(_joules({phase: line[phase] for phase in ("train", "validation")}).values())
        found.append((began, spent))
    return found


def _joules(energies: Mapping[str, Any]) -> dict[str, float]:
    return {phase: Energy.from_json(energy).joules for phase, energy in energies.items()}


def _derived(record: dict[str, Any], total: Energy, epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Average watts, energy-delay product, joules to the target Dice; carbon and cost where they were asked for."""
    settings = record.get("settings", {})
    derived: dict[str, Any] = {"energy_delay_product": total.joules * total.seconds}
    if total.seconds:
        derived["watts"] = total.joules / total.seconds
    idle = record.get("context", {}).get("idle_watts")
    if idle:
        ran = record.get("ran", {})
        nodes = ran.get("nodes", 1)
        counted = {"gpu": nodes * ran.get("devices", 1)}
        derived["joules_above_idle"] = {
            r.component: r.joules - idle[r.component] * counted.get(r.component, nodes) * total.seconds
            for r in total.readings
            if r.component in idle
            and r.source != ESTIMATE
            and APPORTIONED not in r.marks  # idle watts are the machine's
        }
    target = settings.get("energy_to_dice", 0.85)
    # In order of time: it counts when it was first reached, also where that epoch was repeated after an interruption.
    quality, joules, before = list[float | None](), list[float](), 0.0
    for line, (began, ended) in zip(epochs, spent_by(record["attempts"], epochs), strict=True):
        quality += [None, line["dice"]]
        joules += [began - before, ended - began]
        before = ended
    reached = joules_to_reach(target, quality, joules, 0.0)
    derived["energy_to_dice"] = {"dice": target, "joules": reached}
    kwh = total.joules / JOULES_PER_KWH
    pue = settings.get("pue", 1.0)
    intensity = settings.get("carbon_intensity") or carbon_intensities().get(settings.get("country", ""))
    if intensity:
        derived["co2e"] = {"grams": kwh * pue * intensity, "grams_per_kwh": intensity, "pue": pue}
    if price := settings.get("price_per_kwh"):
        derived["cost"] = {"price": kwh * pue * price, "price_per_kwh": price, "pue": pue}
    return derived
