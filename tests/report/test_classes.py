"""Qualities of single classes: chosen, compared, shown and exported; runs without a class have no value."""

import csv
import io
import json
from typing import Any

import pytest
from rich.console import Console

from greenseg.errors import UserError
from greenseg.report.answer import decision, warnings
from greenseg.report.columns import columns_with_classes
from greenseg.report.comparison import Comparison
from greenseg.report.export import as_csv, as_json, as_latex, as_markdown
from greenseg.report.page import page_data
from greenseg.report.panel import run_panel
from greenseg.report.select import Query
from greenseg.report.view import ReportView
from greenseg.runs.record import ClassScores
from tests.report.comparisons import compared, results, row
from tests.runs import Json, record

NAMES = ("csf", "grey_matter", "[b]{}$")


def of_classes(values: dict[str, Any], *dice: float | None, names: tuple[str, ...] = NAMES) -> Json:
    """A record of a run with this Dice of its classes."""
    known = [value for value in dice if value is not None]
    written = record(values, dice=sum(known) / len(known))
    written["metrics"]["classes"] = {
        name: {"dice": value, "iou": value and value / 2, "hd95": value and 10 * value}
        for name, value in zip(names, dice, strict=True)
    }
    return written


def runs() -> list[Json]:
    """Two networks with opposite strengths, one with two repeats, and one that knows other classes."""
    return [
        of_classes({"model": "resnet18-unet"}, 0.9, 0.5, 0.7),
        of_classes({"model": "resnet18-unet", "seed": 1}, 0.8, 0.4, 0.6),
        of_classes({"model": "enet"}, 0.6, 0.95, None),
        record({"model": "cgnet"}, dice=0.99),
    ]


def shown(comparison: Comparison, width: int = 120, **options: Any) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(ReportView(comparison, comparison.rows, **options), crop=False)
    return console.export_text()


def test_a_class_is_an_objective_as_any_other() -> None:
    comparison = compared(*runs(), quality="dice:csf")
    first = comparison.rows[0].result
    assert first.settings["encoder"] == "resnet18"
    mean = first.figure(comparison.quality)
    assert mean is not None
    assert mean.value == pytest.approx(0.85)
    assert mean.n == 2
    best = compared(*runs(), quality="dice:grey-matter").best  # - and _ are equal, as everywhere
    assert best is not None
    assert best.settings["decoder"] == "enet"
    best = compared(*runs(), quality="hd95:csf").best  # less is better
    assert best is not None
    assert best.settings["decoder"] == "enet"
    assert "csf Dice" in decision(comparison)[0]


def test_a_run_without_the_class_is_named_as_one_without_a_value() -> None:
    comparison = compared(*runs(), quality="dice:csf")
    without = row(comparison, decoder="cgnet")
    assert without.rank is None
    assert any(said.startswith("1 configuration without csf Dice") for said in warnings(comparison))
    assert row(compared(*runs(), quality="dice:[b]{}$"), decoder="enet").rank is None, "nobody has it there"


def test_an_unknown_class_is_refused_with_the_valid_and_the_nearest_names() -> None:
    with pytest.raises(UserError) as caught:
        compared(*runs(), quality="dice:gray_matter")
    (problem,) = caught.value.problems
    assert problem.startswith("--quality dice: no 'gray_matter'")
    assert "'grey_matter'" in problem
    assert problem.endswith("valid: csf, grey_matter, [b]{}$")
    with pytest.raises(UserError, match="--quality: no 'dise'"):
        compared(*runs(), quality="dise:csf")
    for query in ({"quality": "dice:csf"}, {"classes": True}):
        with pytest.raises(UserError, match="no run has several classes"):
            compared(record(), **query)


def test_classes_in_conditions_columns_and_sorting() -> None:
    assert len(compared(*runs(), where=("dice:csf>=0.8",)).results) == 1
    assert len(compared(*runs(), where=("dice:[b]{}$ > 0.1",)).results) == 1
    query = Query(sort="-dice:csf", columns="decoder,iou:grey_matter")
    comparison = query.compare(results(*runs()))
    rows = query.rows(comparison)
    assert [row.result.settings["decoder"] for row in rows] == ["enet", "unet", "cgnet"]
    assert list(csv.reader(io.StringIO(as_csv(comparison, rows, query.names(comparison)))))[1] == [
        "enet", "0.475", "", ""
    ]  # fmt: skip


def test_the_table_of_classes_has_a_row_per_configuration_and_the_mean_first() -> None:
    comparison = compared(*runs(), quality="dice:csf")
    assert "of each class" not in shown(comparison)
    text = shown(comparison, classes=True)
    table = [line for line in text[text.index("Dice of each class") :].splitlines() if line.strip()]
    assert table[1].split() == ["configuration", "mean", *NAMES]
    lines = {line.split()[0]: line for line in table[3:6]}
    assert "0.8500 ±" in lines["resnet18-unet"]
    assert lines["enet"].split() == ["enet", "0.7750", "0.6000", "0.9500", "–"]
    assert lines["cgnet"].split() == ["cgnet", "0.9900", "–", "–", "–"]


def test_a_single_configuration_shows_every_quality_of_its_classes() -> None:
    text = shown(compared(*runs()[2:3]))
    table = [line.split() for line in text[text.index("Quality of each class") :].splitlines() if line.strip()]
    assert table[1] == ["class", "Dice", "IoU", "HD95", "mm"]
    assert table[3][:2] == ["mean", "0.7750"]
    assert table[4] == ["csf", "0.6000", "0.3000", "6.00"]
    assert table[6] == ["[b]{}$", "–", "–", "–"]


def test_exports_have_every_class() -> None:
    comparison = compared(*runs())
    lines = list(csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, None))))
    assert {f"{quality}:{name}" for quality in ("dice", "iou", "hd95") for name in NAMES} < lines[0].keys()
    assert {line["decoder"]: line["dice:grey_matter"] for line in lines} == {
        "unet": "0.45", "enet": "0.95", "cgnet": ""
    }  # fmt: skip
    found = json.loads(as_json(comparison, comparison.rows, None))
    figures = {each["settings"]["decoder"]: each["figures"] for each in found["configurations"]}
    assert figures["unet"]["dice:csf"]["mean"] == pytest.approx(0.85)
    assert "dice:csf" not in figures["cgnet"]
    page = page_data(comparison, comparison.rows, columns_with_classes(comparison))
    assert {"dice:csf", "hd95:[b]{}$"} < {figure["name"] for figure in page["figures"]}
    assert page["shownFigures"][:3] == ["dice", "dice:csf", "dice:grey_matter"]
    for write in (as_markdown, as_latex):
        assert "grey" in write(comparison, comparison.rows, columns_with_classes(comparison))
        assert "grey" not in write(comparison, comparison.rows, None)


def test_a_front_of_a_class_can_be_drawn() -> None:
    picture = pytest.importorskip("greenseg.report.picture")
    for name in NAMES[1:]:
        assert picture.front_picture(compared(*runs(), quality=f"dice:{name}"), "svg")


def test_the_panel_of_a_run_has_its_classes() -> None:
    (result,) = results(of_classes({"model": "enet"}, 0.6, 0.95, None))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(run_panel(result.runs[0]))
    lines = [line.strip(" │").split(maxsplit=1) for line in console.export_text().splitlines()]
    assert ["csf", "Dice 0.6000, IoU 0.3000, HD95 6.00 mm"] in lines
    assert any(line[:1] == ["[b]{}$"] and "no validation subject" in line[1] for line in lines)


def test_scores_of_a_record_may_be_incomplete() -> None:
    written = of_classes({"model": "enet"}, 0.6, 0.95, None)
    written["metrics"]["classes"]["csf"] = {"dice": 0.6}
    (result,) = results(written)
    assert result.runs[0].metrics.classes["csf"] == ClassScores(dice=0.6)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(run_panel(result.runs[0]))
    assert "csf" in console.export_text()
