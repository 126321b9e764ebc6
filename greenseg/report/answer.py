"""The answer in words: the best configurations, their savings and uncertainty, and caveats."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from greenseg.classes import without_names
from greenseg.energy import Energy
from greenseg.energy.reading import APPORTIONED, APPROXIMATE, ESTIMATE, SHARED
from greenseg.report import measured
from greenseg.report.columns import FRONT, ON_GRID, interval, volumes
from greenseg.report.comparison import Comparison, Effect
from greenseg.report.labels import label, setting_text, value_text
from greenseg.report.objectives import ENERGIES, TEST, Objective
from greenseg.report.results import CONTENT, HARDWARE, Result
from greenseg.report.run import OF_NODE
from greenseg.report.statistics import Change
from greenseg.report.units import count, joules, number, percent

NEAR = 0.01
"""The share of the best quality that may be given up to save energy."""

_MOST_NAMED = 3

_MARKS = {
    APPROXIMATE: "some windows were shorter than the counter's period; the value is power at their end × their length.",
    SHARED: "other processes used the same GPU, or other jobs the same node, and may have spent some of the joules.",
    APPORTIONED: "other runs or jobs used the same CPU; the value is a share of its counter, by CPU time.",
}

_MEASURED_MARKS = {
    SHARED: "other processes used the machine meanwhile; measure again when it is idle.",
    "short": "a window was shorter than 20 s.",
}


def decision(comparison: Comparison) -> list[str]:
    """The best configuration, the cheapest one near it, the knee and the hypervolume, one sentence each."""
    best, quality = comparison.best, comparison.quality.heading
    if best is None:
        if any(map(comparison.mixed, comparison.results)):
            return [f"No configuration has {quality} and {energy_name(comparison)} from one kind of source."]
        return [f"No configuration has finished with {quality} and {energy_name(comparison)} yet."]
    said = [f"Best {quality}: {_with_figures(comparison, best)}{_not_told_apart(comparison, best)}."]
    cheapest = comparison.cheapest_within(NEAR)
    if cheapest is best or cheapest is None:
        said.append(f"No cheaper configuration is within {NEAR:.0%} of it.".replace("%", " %"))
    else:
        change = comparison.change(best, cheapest)
        less = f", {_less(change)} than the best" if change else ""
        said.append(f"Cheapest within {NEAR * 100:g} % of it: {_with_figures(comparison, cheapest)}{less}.")
    knee = comparison.knee()
    if knee is not None:
        above = knee is best or knee is cheapest
        name = comparison.label(knee)
        described = f"{name}, as above" if above else _with_figures(comparison, knee)
        more = "extra" if comparison.quality.more_is_better else "lower"
        said.append(f"Knee: {described}. Beyond this, {more} {quality} gets expensive.")
    if len(comparison.results) > 1:
        said += _volumes(comparison)
    return said


def _not_told_apart(comparison: Comparison, best: Result) -> str:
    """The number of others that cannot be distinguished from the best (Hsu's MCB); empty if there are none."""
    others = sum(result is not best for result in comparison.near_best)
    if not others:
        return ""
    which = count(others, "other configuration")
    return f"; {which} cannot be distinguished from the best in {comparison.quality.heading}"


def _volumes(comparison: Comparison) -> list[str]:
    said = []
    volumes = [volume for volume in comparison.volumes() if volume.share]  # 0: all at the edge of the box
    for volume in volumes:
        corners = [
            ", ".join(
                _figure(comparison, objective, value)
                for objective, value in zip(comparison.objectives, corner, strict=True)
            )
            for corner in (volume.reference, volume.ideal)
        ]
        among = f" of {count(volume.configurations, 'configuration')}" if len(volumes) > 1 else ""
        said.append(f"Hypervolume{among}: {volume.share:.3f} of the box from ({corners[0]}) to ({corners[1]}).")
    return said


def energy_name(comparison: Comparison) -> str:
    """Name of the energy objective without a unit."""
    return "joules" if comparison.energy.name == "total" else comparison.energy.titled("joules")


def effect_rows(comparison: Comparison, most: int | None = None) -> list[list[str]]:
    """One row per value of each axis: setting, value, reference, quality, energy, pairs.

    Args:
        comparison: the comparison with the effects.
        most: largest number of rows, to keep the strongest effects on energy; None for all.
    """
    effects = comparison.effects
    if most is not None and len(effects) > most:
        strongest = sorted(effects, key=lambda effect: -abs(effect.energy.share if effect.energy else 0))[:most]
        effects = [effect for effect in effects if effect in strongest]
    return [_effect(effect, comparison.quality.digits or 4) for effect in effects]


def _effect(effect: Effect, digits: int) -> list[str]:
    quality = interval(effect.quality, digits, "+")
    energy = "–" if effect.energy is None else _signed(effect.energy.share)
    if effect.energy is not None and effect.energy.low is not None and effect.energy.high is not None:
        energy += f" ({_signed(effect.energy.low)} to {_signed(effect.energy.high)})".replace(" %", "")
    return [effect.axis, value_text(effect.value), value_text(effect.reference), quality, energy, str(effect.quality.n)]


def uneven(comparison: Comparison) -> list[str]:
    """The effects that differ between configurations beyond noise, with their range, one sentence each."""
    said = []
    digits = comparison.quality.digits or 4
    for effect in comparison.effects:
        ranges = []
        if effect.quality_between:
            low, high = (f"{value:+.{digits}f}".replace("-", "−") for value in effect.quality_between)
            ranges.append(f"{comparison.quality.heading} {low} to {high}")
        if effect.energy_between:
            low, high = map(_signed, effect.energy_between)
            ranges.append(f"{energy_name(comparison)} {low.removesuffix(' %')} to {high}")
        if ranges:
            name = f"{effect.axis} {value_text(effect.value)}"
            said.append(f"{name}: the effect depends on the other settings: {', '.join(ranges)}.")
    return said


def unpaired(comparison: Comparison) -> list[str]:
    """The axes without a pair of runs that differ in nothing else."""
    found = {effect.axis for effect in comparison.effects}
    return [name for name in comparison.swept if name not in found]


def warnings(comparison: Comparison) -> list[str]:
    """Caveats: reasons why the answer is less certain than it looks."""
    results = comparison.results
    finished = [result for result in results if result.finished]
    said = [*comparison.notes, *_of_content(results)]
    said += _of_masks(finished)
    said += _of_test(finished)
    of_training = not comparison.energy.apart
    said += _of_mixed(comparison, finished) if of_training else []
    pure = [result for result in finished if not result.mixed | result.partly]
    ways = {frozenset(result.ways.items()) for result in pure if not _of_node(result)}
    requested = "ranked against each other, as requested"
    if of_training and len(ways) > 1:
        ranked = requested if comparison.allow_mixed_sources else "not ranked against each other"
        said.append(f"Sources differ between rows: measured and estimated joules are {ranked}.")
    if of_training and (shared := sum(map(_of_node, pure))) and len(finished) > 1:
        ranked = requested if comparison.allow_mixed_sources else "ranked against no other"
        said.append(f"{count(shared, 'configuration')} with the joules of all jobs on a node: {ranked}.")
    if any(result.estimated for result in finished):
        said.append(
            "estimate: joules are modelled from the run's own CPU seconds and memory, not measured. They are good for "
            "comparing runs on one machine; in absolute terms, they may be off by several times."
        )
    said += _of_repeats(comparison)
    hardware = Counter(run.hardware for result in finished for run in result.finished)
    if len(hardware) > 1:
        said.append(f"Hardware differs between runs: {_counted(hardware)}. {_of_hardware(comparison)}")
    if missing := _without_reference(comparison):
        said.append(missing)
    versions = Counter(str(run.record.versions.get("torch")) for result in finished for run in result.finished)
    if len(versions) > 1:
        said.append(f"torch versions differ between runs: {_counted(versions)}.")
    for mark, meaning in _MARKS.items():
        if any(mark in result.marks for result in finished):
            said.append(f"{mark}: {meaning}")
    for asked, ran in sorted(
        {(result.settings["precision"], other) for result in results for other in _other_precisions(result)}
    ):
        said.append(f"Runs used precision {ran}, not {asked}: Lightning has no {asked} on this device.")
    said += _of_measurements(comparison, finished)
    if any(result.unmeasured for result in finished):
        said.append("unknown: this component has no sensor and no estimate; the sums lack its joules.")
    said += _of_objectives(comparison)
    return said


def _of_hardware(comparison: Comparison) -> str:
    if any(HARDWARE in result.where for result in comparison.results):
        return (
            "Joules are compared within the same hardware only, and each has its own rows; --relative-to compares "
            "ratios, and --allow-mixed-hardware all."
        )
    return "Their joules and seconds are not comparable."


def _without_reference(comparison: Comparison) -> str:
    """The hardware on which nothing is relative to the chosen configuration; empty if there is none."""
    having = {str(result.where.get(HARDWARE)) for result in comparison.relative_to}
    classes = {str(result.where.get(HARDWARE)) for result in comparison.results if result.finished}
    lacking = sorted(classes - having) if comparison.relative_to else []
    return (
        f"--relative-to: {', '.join(lacking)} lacks this configuration, so its rows have no ratio." if lacking else ""
    )


def _of_node(result: Result) -> bool:
    """Whether joules of a result are those of all jobs on a node."""
    return any(OF_NODE in way for ways in result.ways.values() for way in ways)


def _of_mixed(comparison: Comparison, finished: Sequence[Result]) -> list[str]:
    mixed = [result for result in finished if result.mixed | result.partly]
    if not mixed:
        return []
    components = ", ".join(sorted({component for result in mixed for component in result.mixed | result.partly}))
    held = "ranked, as requested" if comparison.allow_mixed_sources else "not compared with others"
    return [
        f"Sources differ within {count(len(mixed), 'configuration')} ({components}): some of the joules are measured, "
        f"others estimated, shared or unknown. Their sums and means are {held}."
    ]


def _of_masks(finished: Sequence[Result]) -> list[str]:
    """Caveats if the rows are judged by different masks of the same data."""
    said = []
    texts = [str(result.settings["labels"]) for result in finished]
    labels = {without_names(text): text for text in texts if text}  # the data set's own may be the same
    if len(labels) > 1:
        named = "; ".join([*labels.values()][:_MOST_NAMED]) + ("; …" if len(labels) > _MOST_NAMED else "")
        said.append(f"Classes differ between rows: {named}. Their quality is that of different structures.")
    on_grid = [result for result in finished if result.on_grid]
    if on_grid and len(on_grid) < len(finished):
        said.append(
            f"{count(len(on_grid), 'configuration')} of an earlier version (marked {ON_GRID}): their quality is that "
            f"on the training grid, and that of the others in each volume's own geometry."
        )
    grids = Counter(f"{r.settings['image_size']}² of {r.settings['spacing']:g} mm" for r in on_grid)
    if len(grids) > 1:
        said.append(f"Pixels differ between rows: {_counted(grids)}. The quality of each is that on its own pixels.")
    return said


def _of_test(finished: Sequence[Result]) -> list[str]:
    """Caveats if the best is not confirmed by subjects that did not choose it, or by different ones."""
    without = [result for result in finished if not result.tested]
    failed = [run for result in finished for run in result.finished if run.record.test.problem]
    if failed:
        return [f"{count(len(failed), 'run')} could not predict the test part: {failed[0].record.test.problem}"]
    if finished and len(without) == len(finished):
        return [
            "No test part: the best was chosen and judged on the same validation subjects. Subjects in test_data/, or "
            "--test-share, choose nothing and are judged once."
        ]
    said = [f"{count(len(without), 'configuration')} without a test part in every repeat."] if without else []
    if len({run.record.test.content for result in finished if result.tested for run in result.finished}) > 1:
        said.append("Test parts differ between runs: their test figures are those of different subjects.")
    return said


def _of_content(results: Sequence[Result]) -> list[str]:
    said = []
    contents = {str(result.where[CONTENT]) for result in results if CONTENT in result.where}
    if len(contents) > 1:
        said.append(
            f"Runs with the same path have {count(len(contents), 'different content')}; see the column content. "
            "They do not count as repeats of each other, and their Dice is for different data."
        )
    unknown = sum(not run.content.digest for result in results for run in result.runs if run.content.slices)
    if unknown:
        said.append(
            f"{count(unknown, 'run')} of an earlier version with unknown data content, identified by path instead."
        )
    if len({result.watts for result in results if result.estimated and result.watts}) > 1:
        said.append("Estimates on different machines use different constants; they are not ranked against each other.")
    return said


def _of_repeats(comparison: Comparison) -> list[str]:
    said, results = [], comparison.results
    again = sum(len(result.finished) - len(result.repeats) for result in results)
    if again:
        said.append(
            f"{count(again, 'run')} duplicate others, seed and fold included, and add no repeats. Intervals count the "
            "mean of each seed and fold once."
        )
    single = [result for result in results if len(result.repeats) == 1]
    if single and len(results) > 1:
        all_or_some = (
            "All configurations"
            if len(single) == len([r for r in results if r.finished])
            else count(len(single), "configuration")
        )
        borrowed = any(
            mean.borrowed for mean in map(partial(comparison.figure, objective=comparison.quality), single) if mean
        )
        so = (
            "the interval rests on the spread of the others"
            if borrowed
            else "there is no interval, and differences may be chance"
        )
        said.append(f"{all_or_some} ran once: {so}. Repeat with seeds: [0, 1, 2].")
    missing = [result for result in results if 0 < len(result.finished) < len(result.runs)]
    if missing:
        why = Counter(
            run.failure or run.status for result in missing for run in result.runs if run.status != "finished"
        )
        said.append(
            f"{count(len(missing), 'configuration')} with missing repeats ({_counted(why)}). "
            "Values are means over the finished repeats."
        )
    return said


def _of_measurements(comparison: Comparison, finished: Sequence[Result]) -> list[str]:
    """Caveats about the measured cost of prediction."""
    found = [run.record.measured for result in finished for run in result.finished]
    known = [each for each in found if each]
    if not known:
        return []
    said = []
    if len(known) < len(found):
        missing = count(len(found) - len(known), "run")
        said.append(f"{missing} without a measurement of prediction; `greenseg measure` with their folder adds it.")
    machines = sorted(
        {str(measured.machine(run)) for result in finished for run in result.finished if run.record.measured}
    )
    if len(machines) > 1:
        said.append(
            f"Prediction was measured in different ways: {'; '.join(machines)}. Their "
            f"joules and latencies are only compared within one."
        )
    if any(ESTIMATE in source for each in known for source in measured.energy(each).sources.values()):
        said.append(
            "Joules of prediction are estimates from CPU seconds and memory: they say no more than the CPU seconds do."
        )
    for mark, meaning in _MEASURED_MARKS.items():
        if number_of := sum(mark in each.marks for each in known):
            said.append(f"{count(number_of, 'measurement')} of prediction with the mark {mark}: {meaning}")
    return said


def _of_objectives(comparison: Comparison) -> list[str]:
    """Warnings about metrics that some configurations lack, and about settings that they depend on."""
    said = []
    finished = [result for result in comparison.results if result.finished]
    for objective in comparison.objectives:
        without = sum(result.figure(objective) is None for result in finished)
        if without:
            what = objective.titled("joules")
            said.append(f"{count(without, 'configuration')} without {what} in every repeat: not ranked.")
    settings: dict[str, list[Objective]] = {}
    for objective in ENERGIES.values():
        if objective.reckoned and (objective.name != "e2mip" or objective is comparison.energy):
            settings.setdefault(objective.reckoned, []).append(objective)
    for key, objectives in settings.items():
        differ = [result for result in finished if len(result.terms(objectives[0])) > 1]
        figures = [
            o
            for o in (objectives if differ else [])
            if any(o.of(run) is not None for result in finished for run in result.finished)
        ]
        if figures:
            lacking = ", ".join(o.titled("joules") for o in figures)
            said.append(
                f"{key} differs between repeats of {count(len(differ), 'configuration')} "
                f"({_values(differ, objectives[0])}): no {lacking}."
            )
        elif (
            comparison.energy in objectives
            and not comparison.energy.apart
            and len(values := _values(finished, comparison.energy).split(", ")) > 1
        ):
            said.append(f"{key} differs between runs: {', '.join(values)}.")
    return said


def _values(results: Sequence[Result], objective: Objective) -> str:
    """The settings that a metric was computed with."""
    return ", ".join(sorted({str(term) for result in results for term in result.terms(objective)}))


def legend(comparison: Comparison) -> list[str]:
    """The signs of the table, and the cost of all runs."""
    quality = comparison.quality.heading
    third = f" and {comparison.third.describe}" if comparison.third else ""
    as_good = "at least" if comparison.quality.more_is_better else "at most"
    said = [f"{FRONT} on the front: no other configuration here has {as_good} its {quality} for less energy{third}."]
    means = [
        mean for r in comparison.results if (mean := comparison.figure(r, comparison.quality)) and mean.half is not None
    ]
    pooled = len(means) > 1
    if means:
        of = "the spread of repeats, pooled over configurations" if pooled else "the spread of its repeats"
        single = " (±): of a single repeat, from the spread of the others." if any(m.borrowed for m in means) else ""
        said.append(f"±: 95 % interval of the mean over repeats (Student t), from {of}.{single}")
        said += _of_folds(comparison)
    if comparison.relative_to:
        to = label(comparison.relative_to[0], [name for name in comparison.axes if name != HARDWARE])
        said.append(f"relative: energy ÷ energy of {to} on the same hardware, with a 95 % interval.")
    if any(row.probability is not None for row in comparison.rows):
        said.append("chance: probability that it is on the front of the true means, given this spread.")
    if any(volumes(comparison, result) is not None for result in comparison.results):
        said.append(
            "break-even: number of volumes after which the joules of compressing are saved, compared with the parent."
        )
    if any(result.on_grid for result in comparison.results):
        said.append(f"{ON_GRID}: on the training grid, as an earlier version measured it.")
    if tested := [mean.n for result in comparison.results if (mean := comparison.figure(result, TEST))]:
        subjects = "–".join(str(n) for n in sorted({min(tested), max(tested)}))
        said.append(
            f"{TEST.heading}: of {subjects} subjects that chose nothing; ± is over subjects, each with its mean over "
            f"repeats."
        )
    said += _of_ancestors(comparison)
    runs = comparison.runs
    wasted = sum(run.own_joules for run in runs if run.status != "finished")
    spent = f"All runs together: {joules(sum(run.own_joules for run in runs))}"
    spent += f", including {joules(wasted)} for runs that did not finish" if wasted else ""
    tests = sum(run.tested.joules for run in runs if run.tested)
    said.append(f"{spent}, and {joules(tests)} for tests." if tests else f"{spent}.")
    return said


def _of_ancestors(comparison: Comparison) -> list[str]:
    """Sentences on the joules of parents and teachers."""
    from_others = [run for run in comparison.runs if run.record.lineage.ancestors]
    if not from_others:
        return []
    said = [
        "total: with the joules of the parent that a run compresses and of the teacher that it learns from; own: "
        "without them. Children of one parent share its joules and its luck: they are no repeats of each other."
    ]
    shared = {
        ancestor.identity: Energy.from_json(ancestor.energy).joules
        for run in from_others
        if run.settings["teacher_shared"]
        for ancestor in run.record.lineage.ancestors
        if ancestor.role == "teacher" and ancestor.energy
    }
    if shared:
        said.append(
            f"The joules of {count(len(shared), 'teacher')} ({joules(sum(shared.values()))}) are part of no total, "
            f"because teacher_shared says that several students share them."
        )
    return said


def _of_folds(comparison: Comparison) -> list[str]:
    folded = [result for result in comparison.results if result.by_fold]
    if not folded:
        return []
    both = any(len({runs[0].settings["seed"] for runs in result.repeats}) > 1 for result in folded)
    first = " Seeds are averaged within each fold first." if both else ""
    return [
        "Folds share training data, so ± of their mean is wider than that of independent repeats: variance × "
        f"(1/folds + n_test/n_train), Nadeau & Bengio 2003.{first}"
    ]


def failures(comparison: Comparison) -> str:
    """The number of configurations without a finished run, with reasons; empty if all have one."""
    failed = [result for result in comparison.results if not result.finished]
    why = Counter(result.status for result in failed)
    return f"{count(len(failed), 'configuration')} without a finished run: {_counted(why)}." if failed else ""


# ── parts of sentences


def _with_figures(comparison: Comparison, result: Result) -> str:
    figures = ", ".join(_mean(comparison, objective, result) for objective in comparison.objectives)
    return f"{comparison.label(result)}, {figures} ({count(len(result.finished), 'run')})"


def _mean(comparison: Comparison, objective: Objective, result: Result) -> str:
    mean = comparison.figure(result, objective)
    assert mean is not None
    if objective.digits:
        return f"{objective.heading} {interval(mean, objective.digits)}"
    return _figure(comparison, objective, mean.value)


def _figure(comparison: Comparison, objective: Objective, value: float) -> str:
    """A value with its unit, such as `12.3 kJ/epoch`."""
    if objective is comparison.quality:
        return f"{objective.heading} {round(value, objective.digits):g}"
    unit, size = comparison.unit(objective)
    heading = objective.titled(unit).removeprefix("total ")
    return f"{number(value / size)} {heading}"


def _less(change: Change) -> str:
    more = change.share > 0
    shares = [abs(share) for share in (change.share, change.low, change.high) if share is not None]
    said = percent(shares[0])
    if change.low is not None and change.high is not None:
        low, high = (change.low, change.high) if more else (-change.high, -change.low)
        said += f" ({percent(low)} to {percent(high)})".replace(" %", "", 1)
    return f"{said} {'more' if more else 'less'}"


def _signed(share: float) -> str:
    return ("+" if share >= 0 else "") + percent(share)


def _counted(counts: Counter[str]) -> str:
    named = [f"{number} × {name}" for name, number in counts.most_common(_MOST_NAMED)]
    rest = len(counts) - len(named)
    return ", ".join(named) + (f" and {rest} others" if rest else "")


def _other_precisions(result: Result) -> Iterable[str]:
    _, arrow, ran = setting_text(result, "precision").partition(" → ")
    return [ran] if arrow else []
