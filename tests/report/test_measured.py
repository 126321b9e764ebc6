"""The measured cost of prediction in a report: means, comparability, break-even against a calculation by hand."""

import csv
import io
import json
from typing import Any

import pytest

from greenseg.report.columns import BREAK_EVEN, column, default_columns, volumes
from greenseg.report.comparison import Comparison
from greenseg.report.export import as_csv, as_json
from greenseg.report.objectives import OBJECTIVES
from tests.report.comparisons import compared, row
from tests.runs import CORE_WATTS, GB_WATTS, Json, energy, record

FULL: Json = {"model": "mobilenet-unet"}
SMALL: Json = {"model": "mobilenet-unet", "quantize": "int8", "runtime": "openvino"}


def window(batch_size: int, slices: int, ms: float, **joules: float) -> Json:
    return {
        "batch_size": batch_size, "slices": slices, "seconds": 20.0, "energy": energy(20, **joules),
        "cpu_seconds": 40.0, "p50_ms": ms, "p95_ms": 2 * ms,
    }  # fmt: skip


def measurement(per_slice: float, source: str = "estimate", cpu: str = "some CPU", **values: Any) -> Json:
    """With 100 slices in each window, and 20 slices per volume."""
    return {
        "hardware": {"cpu": cpu, "cores": 2, "gpus": []}, "runtime": "torch", "precision": "32-true", "device": "cpu",
        "bytes": 8_000_000, "slices_per_volume": 20.0, "batch_1": window(1, 100, 12.0, **{f"cpu_{source}": 1000.0}),
        "best": window(4, 100, 40.0, **{f"cpu_{source}": 100 * per_slice}),
        "energy_method": {"core_watts": CORE_WATTS, "gb_watts": GB_WATTS}, **values,
    }  # fmt: skip


def measured(values: Json, per_slice: float, own: float = 1000, source: str = "estimate", **more: Any) -> Json:
    """A record of `own` joules, with a measurement."""
    written = record(values, total=energy(100, **{f"cpu_{source}": own}))
    return written | {"measured": measurement(per_slice, source, **more)}


def child(values: Json, per_slice: float, own: float, parent: Json, inherited: float = 1000, **more: Any) -> Json:
    """A record of a child: its total has the joules of its parent, in the phase `parent`."""
    written = measured(values, per_slice, own + inherited, **more)
    phases = written["energy"]["phases"]
    phases["parent"], phases["train"] = energy(100, cpu_estimate=inherited), energy(1, cpu_estimate=own)
    written["metrics"] |= {"own_joules": own, "own_seconds": 1.0}
    ancestor = {"identity": parent["identity"], "id": "x", "energy": energy(100, cpu_estimate=inherited)}
    return written | {"lineage": {"ancestors": [ancestor]}}


def mean(comparison: Comparison, objective: str, **settings: object) -> float | None:
    found = row(comparison, **settings).result.figure(OBJECTIVES[objective])
    return None if found is None else found.value


def test_the_figures_of_a_measurement() -> None:
    comparison = compared(measured(FULL, 0.5), energy="inference", third="latency")
    figures = {name: mean(comparison, name) for name in OBJECTIVES if name != "dice"}
    expected = {
        "inference": 0.5, "inference-volume": 10.0, "latency": 12.0, "latency-p95": 24.0, "size": 8e6,
        "cpu-seconds": 0.4, "slices-per-second": 5.0,
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    texts = {name: column(comparison, name).text(comparison.rows[0]) for name in default_columns(comparison)}
    assert (texts["inference-volume"], texts["latency"], texts["size"]) == ("10.0", "12.0", "8.00")
    assert BREAK_EVEN not in texts


@pytest.mark.parametrize("before", [{}, {"lineage": {}}, {"measured": None}])
def test_a_run_without_a_measurement_has_none_of_its_columns(before: Json) -> None:
    comparison = compared(record(FULL) | before)
    assert mean(comparison, "inference") is None
    assert not {"inference-volume", "latency", "size", "cpu-seconds", BREAK_EVEN} & {*default_columns(comparison)}


def test_measured_and_validation_joules_are_never_ranked_together() -> None:
    unmeasured = record(SMALL)
    unmeasured["metrics"]["joules_per_inference"] = 0.1
    comparison = compared(measured(FULL, 0.5), unmeasured, energy="inference")
    assert row(comparison, quantize="int8").rank is None
    assert row(comparison, quantize="none").rank == 1
    assert mean(comparison, "validation-slice", quantize="int8") == 0.1


def test_means_need_one_machine_and_one_source() -> None:
    here, there = measured(FULL | {"seed": 0}, 0.5), measured(FULL | {"seed": 1}, 0.7)
    comparison = compared(here, there, energy="inference")
    assert mean(comparison, "inference") == pytest.approx(0.6)
    for other in (
        measured(FULL | {"seed": 1}, 0.7, cpu="another CPU"),
        measured(FULL | {"seed": 1}, 0.7, source="rapl"),
        measured(FULL | {"seed": 1}, 0.7, runtime="onnxruntime"),
        measured(FULL | {"seed": 1}, 0.7, energy_method={"core_watts": [7.0, 7.0, 7.0], "gb_watts": GB_WATTS}),
    ):
        comparison = compared(here, other)
        assert mean(comparison, "inference") is None
        assert mean(comparison, "size") == 8e6, "no machine changes it"


@pytest.mark.parametrize(
    ("other", "allow"),
    [({"cpu": "another CPU"}, "allow_mixed_hardware"), ({"source": "rapl"}, "allow_mixed_sources")],
)
def test_configurations_compete_within_one_machine_and_one_source(other: Json, allow: str) -> None:
    full, small = measured(FULL, 0.5), measured(SMALL, 0.2, runtime="openvino", **other)
    for objectives in ({"energy": "inference"}, {"third": "latency"}):
        apart = compared(full, small, **objectives)
        assert len(apart.groups) == 2
        assert not apart.comparable(*apart.results)
    assert len(compared(full, measured(SMALL, 0.2, runtime="openvino"), energy="inference").groups) == 1
    assert len(compared(full, small, energy="inference", **{allow: True}).groups) == 1


def test_prediction_compares_over_machines_of_the_training() -> None:
    trained_elsewhere = measured(SMALL, 0.2)
    trained_elsewhere["hardware"] |= {"cpu": "a server"}
    comparison = compared(measured(FULL, 0.5), trained_elsewhere, energy="inference")
    assert len(comparison.groups) == 1
    assert row(comparison, quantize="int8").saved is not None


def test_the_effect_of_an_engine_on_the_joules_of_prediction() -> None:
    parents = [measured(FULL | {"seed": seed}, 0.5) for seed in (0, 1)]
    children = [measured(FULL | {"seed": seed, "runtime": "openvino"}, 0.2, runtime="openvino") for seed in (0, 1)]
    (effect,) = compared(*parents, *children, energy="inference", baseline="runtime=torch").effects
    assert (effect.axis, effect.value) == ("runtime", "openvino")
    assert effect.energy
    assert effect.energy.share == pytest.approx(-0.6)


def test_break_even_by_hand() -> None:
    full, other = measured(FULL, 0.5), measured(FULL | {"seed": 1}, 0.7)
    small = child(SMALL, 0.35, 301.0, full)
    comparison = compared(full, other, small)
    # The parent's configuration: (0.5 + 0.7) ÷ 2 × 20 slices = 12 J per volume; the child: 7 J. 301 J ÷ 5 J = 60.2.
    found = row(comparison, quantize="int8")
    assert volumes(comparison, found.result) == 61
    assert volumes(comparison, row(comparison, quantize="none").result) is None
    assert column(comparison, BREAK_EVEN).text(found) == "61"
    assert default_columns(comparison).index("size") < default_columns(comparison).index(BREAK_EVEN)
    told = {line["quantize"]: line for line in csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, None)))}
    assert (told["int8"]["break_even"], told["none"]["break_even"]) == ("61", "")
    written = json.loads(as_json(comparison, comparison.rows, None))["configurations"]
    assert {one["settings"]["quantize"]: one["break_even"] for one in written} == {"int8": 61, "none": None}


def test_break_even_is_the_mean_over_repeats() -> None:
    parents = [measured(FULL | {"seed": seed}, 0.6) for seed in (0, 1)]
    children = [
        child(SMALL | {"seed": seed}, each, own, parents[seed])
        for seed, each, own in ((0, 0.3, 200.0), (1, 0.4, 400.0))
    ]
    comparison = compared(*parents, *children)
    # 300 J ÷ (12 − 7) J
    assert volumes(comparison, row(comparison, quantize="int8").result) == 60


def test_what_saves_nothing_never_pays() -> None:
    full = measured(FULL, 0.5)
    comparison = compared(full, child(SMALL, 0.5, 300.0, full))
    found = row(comparison, quantize="int8")
    assert column(comparison, BREAK_EVEN).text(found) == "never"
    assert json.loads(as_json(comparison, [found], None))["configurations"][0]["break_even"] == "never"
    assert ",never," in as_csv(comparison, [found], None)


def test_there_is_no_break_even_without_comparable_parts() -> None:
    full, small = measured(FULL, 0.5), child(SMALL, 0.2, 300.0, measured(FULL, 0.5))
    for records in (
        [small],  # its parent is not in the report
        [record(FULL), small],  # not measured
        [measured(FULL, 0.5, cpu="another CPU"), small],
        [full, small | {"measured": None}],
        [full, {**small, "lineage": {"ancestors": [small["lineage"]["ancestors"][0] | {"role": "teacher"}]}}],
        [full, child(SMALL, 0.2, 300.0, full) | {"measured": measurement(0.2, "rapl")}],
        # The joules of compressing are estimated, those of prediction measured.
        [measured(FULL, 0.5, source="rapl"), child(SMALL, 0.2, 300.0, full) | {"measured": measurement(0.2, "rapl")}],
    ):
        comparison = compared(*records)
        assert volumes(comparison, row(comparison, quantize="int8").result) is None, records
