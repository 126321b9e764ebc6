"""What a run achieved and cost, from its attempts and its epochs."""

from statistics import fmean
from typing import Any

from greenseg.config import ACCOUNTING, Settings, group_of
from greenseg.energy import Energy
from greenseg.energy.derived import JOULES_PER_KWH, carbon_intensities, joules_to_reach
from greenseg.energy.reading import APPORTIONED, ESTIMATE
from greenseg.run_directory import RunDirectory


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


def account_anew(run: RunDirectory, settings: Settings) -> None:
    """Apply the accounting settings of today to a run that has finished: target, carbon, cost, warm-up."""
    record = run.record()
    if accounted_otherwise(record, settings):
        record["settings"] |= {name: getattr(settings, name) for name in _ACCOUNTED}
        run.write_record(record | summary(record, run.epochs()))


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
    settings = record.get("settings", {})
    final = list({line["epoch"]: line for line in sorted(epochs, key=lambda line: line["epoch"])}.values())
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
        surface = record.get("surface", {})  # told once, at the end of the run
        if surface.get("epoch") == best["epoch"] and surface["hd95"] is not None:
            metrics |= {"hd95": surface["hd95"], "volume_hd95": surface["volume_hd95"]}
    # After the warm-up; where a run is shorter than that, of all it has.
    warm_up = settings.get("measure_after", 0) if len(final) > settings.get("measure_after", 0) else 0
    if per_epoch:
        metrics["measured_epochs"] = len(final) - warm_up
        metrics["joules_per_epoch"] = fmean(epoch.joules for epoch in per_epoch[warm_up:])
        slices = record.get("data", {}).get("slices", {})
        for phase, name in (("train", "joules_per_slice"), ("validation", "joules_per_inference")):
            if slices.get(phase):
                metrics[name] = fmean(Energy.from_json(line[phase]).joules for line in final[warm_up:]) / slices[phase]
    return {
        "energy": {"total": total.to_json(), "phases": {phase: e.to_json() for phase, e in phases.items()}},
        "metrics": metrics | _derived(record, total, phases, final, [epoch.joules for epoch in per_epoch]),
    }


def _derived(
    record: dict[str, Any], total: Energy, phases: dict[str, Energy], final: list[dict[str, Any]], joules: list[float]
) -> dict[str, Any]:
    """Average watts, energy-delay product, joules to the target Dice; carbon and cost where they were asked for."""
    settings = record.get("settings", {})
    derived: dict[str, Any] = {"energy_delay_product": total.joules * total.seconds}
    if total.seconds:
        derived["watts"] = total.joules / total.seconds
    before = sum(phases[phase].joules for phase in ("startup", "preparation", "probe") if phase in phases)
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
    reached = joules_to_reach(target, [line["dice"] for line in final], joules, before)
    derived["energy_to_dice"] = {"dice": target, "joules": reached}
    kwh = total.joules / JOULES_PER_KWH
    pue = settings.get("pue", 1.0)
    intensity = settings.get("carbon_intensity") or carbon_intensities().get(settings.get("country", ""))
    if intensity:
        derived["co2e"] = {"grams": kwh * pue * intensity, "grams_per_kwh": intensity, "pue": pue}
    if price := settings.get("price_per_kwh"):
        derived["cost"] = {"price": kwh * pue * price, "price_per_kwh": price, "pue": pue}
    return derived
