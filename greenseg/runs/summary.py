"""Quality and cost of a run, from its attempts and its epochs."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from greenseg.energy import Energy
from greenseg.energy.derived import JOULES_PER_KWH, carbon_intensities, joules_to_reach
from greenseg.energy.reading import APPORTIONED, ESTIMATE, SHARED, EnergyJson, Reading
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import (
    Ancestor,
    Attempt,
    BadRecord,
    Carbon,
    Classes,
    ClassScores,
    Cost,
    Data,
    Energies,
    Epoch,
    Head,
    Lineage,
    Metrics,
    Record,
    RunEnergy,
    ToDice,
    Watts,
)
from greenseg.settings import ACCOUNTING, Settings, group_of

TEST = "test"
"""The phase in which the network predicts the test part, after training."""

RESUMPTION = "resumption"
"""The phase before training in an attempt that goes on after a pause; the search that paused the run has caused it."""

APART = frozenset({TEST, RESUMPTION})
"""Phases outside the total."""

PARENT, TEACHER = "parent", "teacher"
"""Phases with the joules of the ancestors; see `Lineage`."""

_NOT_OWN = APART | {PARENT, TEACHER}


def account_for_attempts(attempts: Sequence[Attempt], epochs: Sequence[Epoch]) -> list[Attempt]:
    """Attempts with their energy; a killed attempt has the energy up to its last finished epoch."""
    accounted = []
    for number, attempt in enumerate(attempts):
        if attempt.energy is None:
            so_far = [line.attempt_so_far for line in epochs if line.attempt == number]
            attempt = attempt.model_copy(update={"status": "killed", "energy": so_far[-1] if so_far else {}})
        accounted.append(attempt)
    return accounted


# Joules do not change: the constants of an estimate apply when it is made.
_ACCOUNTED = {
    name: field.default
    for name, field in Settings.model_fields.items()
    if group_of(name) == ACCOUNTING and not name.endswith("_watts")
}


def accounted_otherwise(record: Head, settings: Settings) -> bool:
    """Whether a run has other accounting settings than these."""
    then = record.settings
    return any(then.get(name, default) != getattr(settings, name) for name, default in _ACCOUNTED.items())


def apply_accounting(run: RunDirectory, settings: Settings) -> str:
    """Apply the present accounting settings to a finished run: target Dice, carbon, cost, warm-up.

    Returns:
        Why this is impossible; empty if they are applied.

    Raises:
        BadRecord: run.json or epochs.jsonl is damaged.
    """
    unchanged = "so its accounting settings stay unchanged"
    record = run.record()
    if record is None or not accounted_otherwise(record, settings):
        return ""
    try:
        with run.claim() as mine:
            record = mine.record() if mine else None
            if mine is None or record is None:
                return f"{run.path}: another process is working on this run, {unchanged}"
            epochs = mine.epochs()
            if not has_all_epochs(record, epochs):
                return f"{mine.files / 'epochs.jsonl'}: lacks epochs of the run, {unchanged}"
            record.settings |= {name: getattr(settings, name) for name in _ACCOUNTED}
            record.energy, record.metrics = summary(record, epochs)
            mine.write_record(record)
    except OSError as error:
        return f"{error.filename or run.path}: {error.strerror}, {unchanged}"
    return ""


def add_late_joules(run: RunDirectory, record: Record) -> None:
    """Add to a record the joules that a host has used since another one took the run over from it; in memory only.

    Such a host was silent for the length of a lease, for example while it was paused, and trained on when it woke up.
    It writes to files of its own (`RunDirectory.earlier_owners`).
    """
    number_of = {attempt.identity: number for number, attempt in enumerate(record.attempts)}
    is_new = False
    for owner in run.earlier_owners():
        try:
            then = owner.record()
            attempts = account_for_attempts(then.attempts, owner.epochs()) if then else []
        except BadRecord:  # the present owner has copied what was whole
            continue
        for attempt in attempts:
            number = number_of.setdefault(attempt.identity, len(record.attempts))
            if number == len(record.attempts):
                record.attempts.append(attempt)
            elif _all_joules(attempt) > _all_joules(record.attempts[number]):
                record.attempts[number] = attempt
            else:
                continue
            is_new = True
    if is_new:
        record.energy, record.metrics = summary(record, run.epochs())


def _all_joules(attempt: Attempt) -> float:
    return sum(_joules(attempt.energy or {}).values())


def has_all_epochs(record: Record, epochs: Sequence[Epoch]) -> bool:
    """Whether epochs.jsonl has all epochs of a run that ended, so that its summary can be recomputed."""
    return record.metrics.epochs == len(last_of_each(epochs))


def estimate_watts(attempts: Sequence[Attempt]) -> frozenset[Watts]:
    """The constants of the estimates of all attempts; empty if those of one are unknown."""
    found = {attempt.estimate.watts if attempt.estimate else None for attempt in attempts}
    return frozenset() if None in found else frozenset(watts for watts in found if watts)


def restated(record: Record, epochs: Sequence[Epoch], watts: Sequence[Watts]) -> tuple[list[Attempt], list[Epoch]]:
    """Attempts and epochs of a run with its estimates converted to other constants.

    Args:
        record: record of the run; its `estimate_watts` must be known.
        epochs: its lines of epochs.jsonl.
        watts: new constants for each attempt.
    """
    attempts = account_for_attempts(record.attempts, epochs)
    made_with = [attempt.estimate.watts if attempt.estimate else None for attempt in attempts]

    def by(number: int, energies: Energies) -> Energies:
        return {name: _scaled(energy, made_with[number], watts[number]) for name, energy in energies.items()}

    lines = []
    for line in epochs:
        parts = by(line.attempt, {"train": line.train, "validation": line.validation})
        lines.append(line.model_copy(update={**parts, "attempt_so_far": by(line.attempt, line.attempt_so_far)}))
    return [
        attempt.model_copy(update={"energy": by(number, attempt.energy or {})})
        for number, attempt in enumerate(attempts)
    ], lines


def restated_lineage(lineage: Lineage, watts: Mapping[str, Watts]) -> Lineage:
    """A lineage with the estimates of its ancestors converted to other constants.

    Args:
        lineage: the lineage.
        watts: CPU → new constants; ancestors on other CPUs, or with unknown constants, stay as they are.
    """

    def converted(each: Ancestor) -> Ancestor:
        made, now = each.estimate.watts if each.estimate else None, watts.get(each.cpu or "")
        if not each.energy or made is None or now is None or made == now:
            return each
        return each.model_copy(update={"energy": _scaled(each.energy, made, now)})

    return lineage.model_copy(update={"ancestors": [converted(each) for each in lineage.ancestors]})


def _scaled(energy: EnergyJson, made: Watts | None, watts: Watts) -> EnergyJson:
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


class Summary(NamedTuple):
    """Cost and quality of a run."""

    energy: RunEnergy
    metrics: Metrics


def summary(record: Record, epochs: Sequence[Epoch]) -> Summary:
    """Final metrics and energy of a run, from its attempts and its epochs.

    Joules are those of all attempts, including epochs that were repeated; those of `APART` are not part of the
    total. The total includes the ancestors of a compressed network, each once. Metrics and joules per epoch are those
    of the last attempt at each epoch; an attempt replaces all epochs from its first one on.
    """
    phases = _of_ancestors(record)
    for attempt in account_for_attempts(record.attempts, epochs):
        for phase, energy in (attempt.energy or {}).items():
            phases[phase] = phases.get(phase, Energy()) + Energy.from_json(energy)
    total = sum((energy for phase, energy in phases.items() if phase not in APART), Energy())
    final = last_of_each(epochs)
    metrics = Metrics(
        seconds=total.seconds, joules=total.joules, joules_low=total.low, joules_high=total.high, epochs=len(final)
    )
    if record.lineage.ancestors:
        own = sum((energy for phase, energy in phases.items() if phase not in _NOT_OWN), Energy())
        metrics.own_joules, metrics.own_seconds = own.joules, own.seconds
    _add_quality(metrics, record, final)
    _add_means(metrics, record, final)
    _add_derived(metrics, record, total, epochs)
    return Summary(
        RunEnergy(total=total.to_json(), phases={phase: energy.to_json() for phase, energy in phases.items()}), metrics
    )


def _of_ancestors(record: Record) -> dict[str, Energy]:
    """Phase → energy of the ancestors that the total includes."""
    found: dict[str, Energy] = {}
    for ancestor in record.lineage.counted(bool(record.settings.get("teacher_shared", False))):
        if ancestor.energy:
            found[ancestor.role] = found.get(ancestor.role, Energy()) + Energy.from_json(ancestor.energy)
    return found


def own_energy(record: Record) -> Energy:
    """Energy of a run's own attempts, without the phases of `APART`."""
    phases = record.energy.phases if record.energy else {}
    return sum((Energy.from_json(energy) for phase, energy in phases.items() if phase not in _NOT_OWN), Energy())


def _add_quality(metrics: Metrics, record: Record, final: Sequence[Epoch]) -> None:
    """Quality of the best epoch, also by class: in each volume's own geometry if known, else on the training grid.

    Nothing if no epoch has a Dice. A converted network has no epochs, and the figures of its own predictions.
    """
    scored = [(line.dice, line) for line in final if line.dice is not None]
    if not scored:
        if record.validation.dice is not None and not final:
            _add_validation(metrics, record)
        return
    metrics.epoch_dice, best = max(scored, key=lambda each: each[0])
    metrics.best_epoch = best.epoch
    metrics.joules_after_best = sum(_both(line).joules for line in final if line.epoch > best.epoch)
    metrics.last_dice, _ = scored[-1]
    found = record.validation  # computed once, at the end of the run
    if found.epoch == best.epoch and found.dice is not None:
        _add_validation(metrics, record)
        return
    metrics.dice, metrics.iou, metrics.volume_dice = best.dice, best.iou, best.volume_dice
    surface = record.surface  # of an earlier version
    measured = surface.epoch == best.epoch and surface.hd95 is not None
    if measured:
        metrics.hd95, metrics.volume_hd95 = surface.hd95, surface.volume_hd95
    if best.classes:
        surfaces = surface.classes if measured else {}
        metrics.classes = {
            name: ClassScores(**scores.given() | surfaces.get(name, ClassScores()).given())
            for name, scores in _with_present_names(best.classes, record).items()
        }


def _add_validation(metrics: Metrics, record: Record) -> None:
    found = record.validation
    metrics.on_grid = False
    metrics.dice, metrics.iou, metrics.volume_dice = found.dice, found.iou, found.volume_dice
    if found.hd95 is not None:
        metrics.hd95, metrics.volume_hd95 = found.hd95, found.volume_hd95
    if found.classes:
        metrics.classes = _with_present_names(found.classes, record)


def _with_present_names(classes: Classes, record: Record) -> Classes:
    """The scores of classes with the names of the last attempt: an earlier one may have called them otherwise."""
    names = record.data.classes if record.data else {}
    return dict(zip(names, classes.values(), strict=True)) if len(names) == len(classes) else classes


def _add_means(metrics: Metrics, record: Record, final: Sequence[Epoch]) -> None:
    """Joules per epoch and per slice after the warm-up; over all epochs if the run is shorter than that."""
    if not final:
        return
    measured = final[record.settings.get("measure_after", 0) :] or final
    metrics.measured_epochs = len(measured)
    metrics.joules_per_epoch = fmean(_both(line).joules for line in measured)
    data = record.data or Data()
    slices = data.slices if data.slices_per_epoch is None else data.slices_per_epoch
    if count := slices.get("train"):
        metrics.joules_per_slice = fmean(Energy.from_json(line.train).joules for line in measured) / count
    if count := slices.get("validation"):
        metrics.joules_per_inference = fmean(Energy.from_json(line.validation).joules for line in measured) / count


def _both(line: Epoch) -> Energy:
    return Energy.from_json(line.train) + Energy.from_json(line.validation)


def last_of_each(epochs: Sequence[Epoch]) -> list[Epoch]:
    """The lines of the epochs that led to the present network, in order, without those that were repeated.

    Args:
        epochs: lines of epochs.jsonl, in the order of writing.
    """
    final: list[Epoch] = []
    for line in epochs:
        while final and final[-1].epoch >= line.epoch:
            final.pop()
        final.append(line)
    return final


BEFORE = ("startup", "preparation", "probe", "compression")
"""Phases before the first epoch of an attempt."""


def training_joules(phases: Energies) -> float:
    """The joules of all phases in the total."""
    return sum(joules for phase, joules in _joules(phases).items() if phase not in APART)


def spent_by(attempts: Sequence[Attempt], epochs: Sequence[Epoch]) -> list[tuple[float, float]]:
    """Joules of the run up to the start and the end of each epoch, in the order of the lines.

    They include all earlier attempts, with epochs that were repeated, and of the attempt itself, the phases before its
    first epoch and its epochs.
    """
    phases = [attempt.energy or {} for attempt in account_for_attempts(attempts, epochs)]
    by_phase = [*map(_joules, phases)]
    spent, found, current = 0.0, list[tuple[float, float]](), -1
    for line in epochs:
        if line.attempt != current:
            current = line.attempt
            # For attempts that a record has lost, only the epochs are known.
            spent = max(spent, sum(map(training_joules, phases[:current])))
            spent += sum(joules.get(phase, 0.0) for joules in by_phase[current : current + 1] for phase in BEFORE)
        began = spent
        spent += sum(_joules({"train": line.train, "validation": line.validation}).values())
        found.append((began, spent))
    return found


def _joules(energies: Energies) -> dict[str, float]:
    return {phase: Energy.from_json(energy).joules for phase, energy in energies.items()}


def _add_derived(metrics: Metrics, record: Record, total: Energy, epochs: Sequence[Epoch]) -> None:
    """Average watts, energy-delay product, joules to the target Dice; carbon and cost if requested."""
    settings = record.settings
    metrics.energy_delay_product = total.joules * total.seconds
    if total.seconds:
        metrics.watts = total.joules / total.seconds
    if idle := record.context.idle_watts:
        counted = {"gpu": record.ran.nodes * record.ran.devices}
        metrics.joules_above_idle = {
            r.component: r.joules - idle[r.component] * counted.get(r.component, record.ran.nodes) * total.seconds
            for r in total.readings
            if r.component in idle
            and r.source != ESTIMATE
            and r.marks.isdisjoint((APPORTIONED, SHARED))  # idle watts are those of the whole machine
        }
    target = settings.get("energy_to_dice", 0.85)
    metrics.energy_to_dice = ToDice(dice=target, joules=_to_dice(target, record, epochs))
    kwh = total.joules / JOULES_PER_KWH
    pue = settings.get("pue", 1.0)
    intensity = settings.get("carbon_intensity") or carbon_intensities().get(settings.get("country", ""))
    if intensity:
        metrics.co2e = Carbon(grams=kwh * pue * intensity, grams_per_kwh=intensity, pue=pue)
    if price := settings.get("price_per_kwh"):
        metrics.cost = Cost(price=kwh * pue * price, price_per_kwh=price, pue=pue)


def _to_dice(target: float, record: Record, epochs: Sequence[Epoch]) -> float | None:
    ancestors = sum(energy.joules for energy in _of_ancestors(record).values())
    if not epochs and record.validation.dice is not None:  # of a converted network
        own = sum(training_joules(attempt.energy or {}) for attempt in record.attempts)
        return ancestors + own if record.validation.dice >= target else None
    # In order of time: the first time counts, even if that epoch was repeated after an interruption.
    quality, joules, before = list[float | None](), list[float](), 0.0
    for line, (began, ended) in zip(epochs, spent_by(record.attempts, epochs), strict=True):
        quality += [None, line.dice]
        joules += [began - before, ended - began]
        before = ended
    return joules_to_reach(target, quality, joules, ancestors)
