"""The test part in a report: it has its own interval, and chooses nothing. E2MIP. Marks of earlier figures."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from greenseg.errors import UserError
from greenseg.report import answer
from greenseg.report.comparison import Comparison
from greenseg.report.export import as_csv, as_json, as_latex, as_markdown
from greenseg.report.objectives import SHOWN, TEST
from greenseg.report.page import page_data
from greenseg.report.panel import run_panel
from greenseg.report.reader import read_runs
from greenseg.report.results import by_configuration
from greenseg.report.select import Query, where
from greenseg.report.statistics import mean_of
from greenseg.report.view import ReportView
from tests.report.comparisons import compared, results, row
from tests.runs import Json, energy, record, write


def with_test(written: Json, joules: float = 7, content: str = "abc", **scores: float | None) -> Json:
    """A record with a test part of these subjects."""
    known = [score for score in scores.values() if score is not None]
    part = {"dice": sum(known) / len(known), "volume_dice": scores, "content": content, "slices": 4}
    written["energy"]["phases"] |= {"test": energy(2, cpu_rapl=joules)}
    return written | {"test": part}


def two_repeats(**values: Any) -> list[Json]:
    return [
        with_test(record({"seed": 0, **values}, dice=0.80), a=0.5, b=0.7, c=0.9),
        with_test(record({"seed": 1, **values}, dice=0.82), a=0.6, b=0.7, c=1.0),
    ]


def text_of(comparison: Comparison, width: int = 300) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(ReportView(comparison, comparison.rows))
    return console.export_text()


def rows_of(comparison: Comparison, names: list[str] | None = None) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, names))))


def test_its_interval_is_over_subjects_each_with_its_mean_over_repeats() -> None:
    (result,) = results(*two_repeats())
    found, over_subjects = result.over_subjects(TEST), mean_of([0.55, 0.7, 0.95])
    assert found
    assert found.value == pytest.approx((0.7 + 2.3 / 3) / 2)
    assert found.n == 3
    assert found.half == pytest.approx(over_subjects.half)


def test_one_subject_has_no_interval_and_one_without_a_score_does_not_count() -> None:
    (result,) = results(with_test(record(), a=0.5, b=None))
    found = result.over_subjects(TEST)
    assert found
    assert (found.value, found.half, found.n) == (0.5, None, 1)


@pytest.mark.parametrize("other", [record({"seed": 1}), with_test(record({"seed": 1}), content="other", a=0.9)])
def test_no_mean_over_repeats_of_which_one_has_none_or_another_one(other: Json) -> None:
    (result,) = results(with_test(record({"seed": 0}), a=0.5), other)
    assert result.figure(TEST) is None


def test_it_is_shown_beside_the_validation_and_in_every_export() -> None:
    comparison = compared(*two_repeats(epochs=1), record({"epochs": 2}, dice=0.9))
    half = mean_of([0.55, 0.7, 0.95]).half
    assert half
    text = text_of(comparison)
    shown = f"0.7333 ±{half:.4f}"
    for said in (shown, "test Dice", "test J", "of 3 subjects", "and 14.0 J for tests"):
        assert said in text
    best, other = rows_of(comparison)
    assert float(other["test"]) == pytest.approx(2.2 / 3)
    assert float(other["test_high"]) == pytest.approx(2.2 / 3 + half)
    assert (other["test_subjects"], other["test_joules"]) == ("3", "7.0")
    assert (best["test"], best["test_low"], best["test_subjects"], best["test_joules"]) == ("", "", "", "")
    figures = json.loads(as_json(comparison, comparison.rows, None))["configurations"][1]["figures"]
    assert figures["test"] == {
        "mean": pytest.approx(2.2 / 3), "low": pytest.approx(2.2 / 3 - half), "high": pytest.approx(2.2 / 3 + half),
        "n": 3,
    }  # fmt: skip
    assert figures["test-joules"]["mean"] == 7
    assert shown in as_markdown(comparison, comparison.rows, None)
    assert shown.replace("±", r"$\pm$") in as_latex(comparison, comparison.rows, None)
    page = page_data(comparison, comparison.rows, None)
    assert page["rows"][1]["figures"]["test"][1] == pytest.approx(half)
    assert {figure["name"] for figure in page["figures"] if not figure["compares"]} >= {"test", "test-joules"}
    assert "test" not in text_of(compared(record())).partition("Best Dice")[0]


def test_rows_are_selected_and_sorted_by_it() -> None:
    records = [with_test(record({"epochs": n}), a=score) for n, score in ((1, 0.7), (2, 0.9), (3, 0.8))]
    assert [r.settings["epochs"] for r in where(results(*records), ["test>=0.8"])] == [2, 3]
    query = Query(sort="test", columns="epochs,test,test-joules")
    comparison = query.compare(results(*records))
    assert [r.result.settings["epochs"] for r in query.rows(comparison)] == [2, 3, 1]
    assert query.names(comparison) == ["epochs", "test", "test-joules"]


@pytest.mark.parametrize("name", ["test", "test:csf"])
def test_nothing_is_chosen_by_it(name: str) -> None:
    records = [with_test(record({"epochs": n}, dice=dice), a=1 - dice) for n, dice in ((1, 0.7), (2, 0.9))]
    comparison = compared(*records)
    assert comparison.best
    assert comparison.best.settings["epochs"] == 2
    plain = compared(record({"epochs": 1}, dice=0.7), record({"epochs": 2}, dice=0.9))
    assert [(r.on_front, r.rank, r.saved) for r in comparison.rows] == [
        (r.on_front, r.rank, r.saved) for r in plain.rows
    ]
    with pytest.raises(UserError, match="the test part chooses nothing"):
        compared(*records, quality=name)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([record({"epochs": 1}), record({"epochs": 2})], "No test part: the best was chosen and judged on the same"),
        ([with_test(record({"epochs": 1}), a=0.5), record({"epochs": 2})], "1 configuration without a test part"),
        (
            [with_test(record({"epochs": 1}), a=0.5), with_test(record({"epochs": 2}), content="other", a=0.5)],
            "Test parts differ between runs",
        ),
    ],
)
def test_what_is_said_of_it(records: list[Json], expected: str) -> None:
    said = answer.warnings(compared(*records))
    assert any(expected in warning for warning in said), said
    sound = answer.warnings(compared(*[with_test(record({"epochs": n}), a=0.5) for n in (1, 2)]))
    assert not any("test" in warning.lower() for warning in sound)


# ── E2MIP


def per_inference(written: Json, joules: float = 2.0) -> Json:
    written["metrics"]["joules_per_inference"] = joules
    return written | {"data": {"slices": {"train": 30, "validation": 20}}}


def read(tmp_path: Path, *records: Json, **query: Any) -> Comparison:
    runs, damaged = read_runs([write(tmp_path, written) for written in records])
    assert not damaged
    return Query(**query).compare(by_configuration(runs))


def test_e2mip_counts_inference_on_the_test_part_or_once_on_the_validation(tmp_path: Path) -> None:
    total = energy(100, cpu_rapl=1000)
    without = per_inference(record({"epochs": 1}, dice=0.8, total=total))
    on_part = with_test(per_inference(record({"epochs": 2}, dice=0.7, total=total)), joules=500, a=0.6)
    comparison = read(tmp_path, without, on_part, energy="e2mip")
    validated, on_test = row(comparison, epochs=1), row(comparison, epochs=2)
    for found, joules, dice in ((validated, 1040, 0.8), (on_test, 1500, 0.7)):
        score = found.result.figure(SHOWN["e2mip-score"])
        assert Comparison.value(found.result, comparison.energy) == joules
        assert score
        assert score.value == pytest.approx(100 * dice - joules / 1000)
    assert "E2MIP score" in text_of(comparison)
    assert any(said.startswith("inference differs between runs") for said in answer.warnings(comparison))
    assert {one["e2mip_score"] for one in rows_of(comparison, ["e2mip-score"])} == {"78.96", "68.5"}


def test_without_it_nothing_is_said_of_e2mip(tmp_path: Path) -> None:
    comparison = read(tmp_path, *[per_inference(record({"seed": n, "measure_after": n})) for n in (0, 1)])
    assert "E2MIP" not in text_of(comparison)
    assert not any("inference differs" in said for said in answer.warnings(comparison))


# ── figures of earlier versions


def test_figures_on_the_training_grid_are_marked() -> None:
    old, new = record({"epochs": 1, "spacing": 2.0}, dice=0.7, on_grid=True), record({"epochs": 2}, dice=0.8)
    comparison = compared(old, new)
    text = text_of(comparison)
    assert "0.7000*" in text
    assert "0.8000*" not in text
    assert "*: on the training grid" in text
    assert any("their quality is that on the training grid" in said for said in answer.warnings(comparison))
    assert [one["on_grid"] for one in rows_of(comparison)] == ["false", "true"]
    exported = json.loads(as_json(comparison, comparison.rows, None))["configurations"]
    assert [one["on_grid"] for one in exported] == [False, True]
    assert [one["mark"] for one in page_data(comparison, comparison.rows, None)["rows"]] == ["", "*"]


@pytest.mark.parametrize("on_grid", [False, True])
def test_grids_only_matter_to_figures_that_were_measured_on_them(on_grid: bool) -> None:
    records = [record({"image_size": size}, on_grid=on_grid) for size in (64, 128)]
    said = answer.warnings(compared(*records))
    assert any("Pixels differ" in warning for warning in said) == on_grid
    assert not any("in each volume's own geometry" in warning for warning in said)


# ── the panel


def test_the_panel_has_the_test_and_its_joules_apart_from_the_total(tmp_path: Path) -> None:
    written = with_test(record(dice=0.8, total=energy(1, cpu_rapl=100)), a=0.5, b=0.6)
    written["metrics"]["epoch_dice"] = 0.83
    (run,), _ = read_runs([write(tmp_path, written)])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(run_panel(run))
    lines = {line[1:].strip().partition("  ")[0]: line for line in console.export_text().splitlines()}
    assert "0.5500" in lines["test Dice"]
    assert "2 test volumes" in lines["test Dice"]
    assert "7.00 J" in lines["test energy"]
    assert "test" not in lines["total energy"]
    assert "0.8300" in lines["on the grid"]
