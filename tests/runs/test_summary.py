"""What a run cost, over interruptions, probes and slices that an epoch drops."""

from pathlib import Path
from typing import Any

import pytest

from greenseg.data.epoch import slices_per_epoch
from greenseg.data.loader import TrainingBatches
from greenseg.report.curves import curve
from greenseg.report.reader import read_runs
from greenseg.runs.summary import apply_accounting
from greenseg.settings import Settings
from tests.runs import energy, epoch, record, recorded, summary_of, typed, write


def attempt(**joules: float) -> dict[str, Any]:
    return {"energy": {phase: energy(1, cpu_rapl=value) for phase, value in joules.items()}}


def line(number: int, of: int, dice: float) -> dict[str, Any]:
    return epoch(number, of, dice=dice, train=energy(1, cpu_rapl=15), validation=energy(1, cpu_rapl=4))


@pytest.mark.parametrize("resumed", [0, 1, 2])
def test_joules_to_a_dice_do_not_grow_with_attempts_after_it_was_reached(resumed: int) -> None:
    attempts = [attempt(startup=100, train=30, validation=8, other=50)]
    lines = [line(0, 0, 0.0), line(1, 0, 0.85)]
    for number in range(1, resumed + 1):
        attempts.append(attempt(startup=100, train=15, validation=4))
        lines.append(line(number + 1, number, 0.9))
    found = summary_of(record({}) | {"attempts": attempts}, lines)["metrics"]["energy_to_dice"]
    assert found == {"dice": 0.85, "joules": 138}


def test_joules_to_a_dice_hold_all_that_was_spent_before() -> None:
    """A first attempt that was killed in its second epoch, which the second one repeats."""
    attempts = [attempt(startup=100, probe=20, train=25, validation=4), attempt(startup=100, train=30, validation=8)]
    lines = [line(0, 0, 0.1), line(1, 1, 0.85)]
    found = summary_of(record({}) | {"attempts": attempts}, lines)["metrics"]["energy_to_dice"]
    assert found["joules"] == 149 + 100 + 19


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_accounting_needs_every_epoch(kept: int, tmp_path: Path) -> None:
    """Of a copy without epochs.jsonl, Dice and joules per epoch were lost."""
    lines = [line(0, 0, 0.5), line(1, 0, 0.8)]
    written = record({}) | {"attempts": [attempt(train=30, validation=8)]}
    run = write(tmp_path, written | summary_of(written, lines), lines[:kept])
    before = recorded(run)
    problem = apply_accounting(run, Settings.of({"energy_to_dice": 0.7}))
    after = recorded(run)
    assert bool(problem) == (kept < 2)
    assert after["metrics"]["dice"] == before["metrics"]["dice"] == 0.8
    assert (after == before) == (kept < 2)
    if kept == 2:
        assert after["metrics"]["energy_to_dice"]["dice"] == 0.7


def test_a_learning_curve_holds_what_was_tried_before(tmp_path: Path) -> None:
    written = record({}, total=energy(1, cpu_rapl=543))
    phases = {"startup": 5, "probe": 498, "preparation": 2, "train": 30, "validation": 8}
    written["energy"]["phases"] = {phase: energy(1, cpu_rapl=value) for phase, value in phases.items()}
    (run,), _ = read_runs([write(tmp_path, written, [line(0, 0, 0.1), line(1, 0, 0.5)])])
    assert curve(run).joules == (524, 543)


@pytest.mark.parametrize(
    ("slices", "batch", "ranks"), [(33, 8, 1), (32, 8, 1), (34, 8, 1), (1, 8, 1), (33, 8, 2), (7, 3, 4)]
)
def test_joules_per_slice_count_the_slices_that_an_epoch_trains_on(slices: int, batch: int, ranks: int) -> None:
    dealt = sum(len(b) for rank in range(ranks) for b in TrainingBatches(slices, batch, 0, rank, ranks))
    assert slices_per_epoch(slices, batch, ranks) == dealt
    for data in ({}, {"slices_per_epoch": {"train": dealt, "validation": 2}}):
        written = record({}) | {"data": {"slices": {"train": slices, "validation": 2}} | data}
        written["ran"] |= {"batch_size": batch, "devices": ranks}  # by which records of earlier versions are read
        metrics = summary_of(written | {"attempts": [attempt(train=15)]}, [line(0, 0, 0.5)])["metrics"]
        assert metrics["joules_per_slice"] == pytest.approx(15 / dealt)
        assert metrics["joules_per_inference"] == 2


def of_classes(number: int, dice: float, **classes: float | None) -> dict[str, Any]:
    """A line with the Dice of classes."""
    return epoch(number, dice=dice) | {"classes": {name: {"dice": value} for name, value in classes.items()}}


def test_classes_have_the_values_of_the_best_epoch_and_their_surfaces() -> None:
    lines = [of_classes(0, 0.2, csf=0.1, brain=0.3), of_classes(1, 0.6, csf=0.5, brain=None), of_classes(2, 0.3, csf=0)]
    surface = {"epoch": 1, "hd95": 2.0, "classes": {"csf": {"hd95": 2.0, "volume_hd95": {"a": 2.0}}}}
    metrics = summary_of(record({}) | {"surface": surface}, lines)["metrics"]
    assert metrics["classes"] == {
        "csf": {"dice": 0.5, "hd95": 2.0, "volume_hd95": {"a": 2.0}}, "brain": {"dice": None}
    }  # fmt: skip
    of_another = summary_of(record({}) | {"surface": surface | {"epoch": 0}}, lines)["metrics"]
    assert of_another["classes"] == {"csf": {"dice": 0.5}, "brain": {"dice": None}}
    assert "classes" not in summary_of(record({}), [epoch(0)])["metrics"]


def test_classes_have_the_names_of_the_last_attempt() -> None:
    """Names do not distinguish runs, so that a run may go on with others."""
    written = record({}) | {
        "data": {"classes": {"liquor": "1", "brain": "2"}},
        "surface": {"epoch": 0, "hd95": 3.0, "classes": {"liquor": {"hd95": 2.0}, "brain": {"hd95": 4.0}}},
    }
    metrics = summary_of(written, [of_classes(0, 0.2, csf=0.1, brain=0.3)])["metrics"]
    assert metrics["classes"] == {"liquor": {"dice": 0.1, "hd95": 2.0}, "brain": {"dice": 0.3, "hd95": 4.0}}


# ── quality: in each volume's own geometry, or on the training grid

OWN = {
    "epoch": 1, "dice": 0.55, "iou": 0.4, "hd95": 3.0, "volume_dice": {"a": 0.5, "b": 0.6},
    "volume_hd95": {"a": 2.0, "b": 4.0},
}  # fmt: skip


def test_a_finished_run_has_the_figures_of_its_volumes_own_geometry() -> None:
    lines = [epoch(0, dice=0.2), epoch(1, dice=0.6), epoch(2, dice=0.5)]
    metrics = summary_of(record({}) | {"validation": OWN}, lines)["metrics"]
    assert metrics["on_grid"] is False
    for name, value in OWN.items():
        assert name == "epoch" or metrics[name] == value
    assert (metrics["best_epoch"], metrics["epoch_dice"], metrics["last_dice"]) == (1, 0.6, 0.5)


@pytest.mark.parametrize("validation", [{}, OWN | {"epoch": 0}, OWN | {"dice": None}])
def test_without_them_it_has_those_of_its_best_epoch(validation: dict[str, Any]) -> None:
    """It was interrupted, or an earlier version made it."""
    lines = [epoch(0, dice=0.2), epoch(1, dice=0.6)]
    written = record({}) | {"validation": validation, "surface": {"epoch": 1, "hd95": 2.0, "volume_hd95": {"a": 2.0}}}
    found = typed(written | summary_of(written, lines)).metrics
    assert (found.dice, found.epoch_dice, found.hd95, found.on_grid) == (0.6, 0.6, 2.0, True)


def test_classes_in_their_own_geometry_have_the_names_of_the_last_attempt() -> None:
    classes = {"csf": {"dice": 0.2, "hd95": 2.0}, "brain": {"dice": 0.9, "hd95": None}}
    written = record({}) | {
        "data": {"classes": {"liquor": "1", "brain": "2"}}, "validation": OWN | {"epoch": 0, "classes": classes}
    }  # fmt: skip
    metrics = summary_of(written, [of_classes(0, 0.2, csf=0.1, brain=0.3)])["metrics"]
    assert metrics["classes"] == {"liquor": classes["csf"], "brain": classes["brain"]}


# ── joules of the test part


def test_joules_of_the_test_are_a_phase_but_no_part_of_the_training() -> None:
    tested, untested = attempt(startup=100, train=30, validation=8, test=7), attempt(startup=50, train=15, validation=4)
    lines = [line(0, 0, 0.1), line(1, 0, 0.2), line(2, 1, 0.85)]
    found = summary_of(record({}) | {"attempts": [tested, untested]}, lines)
    assert found["energy"]["phases"]["test"]["joules"] == {"cpu": {"rapl": 7}}
    assert found["energy"]["total"] == energy(6, cpu_rapl=207)
    metrics = found["metrics"]
    assert (metrics["joules"], metrics["seconds"]) == (207, 6)
    assert metrics["energy_delay_product"] == 207 * 6
    assert metrics["energy_to_dice"]["joules"] == 207
