"""CSV, JSON, Markdown and LaTeX, read back."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from greenseg.report.comparison import Comparison
from greenseg.report.emissions import emissions_csv
from greenseg.report.export import as_csv, as_json, as_latex, as_markdown
from greenseg.report.formats import FORMATS
from greenseg.report.run import Run
from tests.report.comparisons import compared
from tests.report.test_comparison import grid
from tests.runs import Json, record, typed


@pytest.fixture
def comparison() -> Comparison:
    failed = record(
        {"batch_size": 64, "data": "a_b & c|d"}, "failed", error="OutOfMemoryError", kind="out_of_gpu_memory"
    )
    return compared(*grid(), failed)


def test_csv_has_figures_with_their_intervals(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, None))))
    assert len(rows) == 5
    best, *_, failed = rows
    assert (best["precision"], best["batch_size"], best["runs"], best["front"]) == ("32-true", "8", "3", "true")
    assert float(best["dice"]) == pytest.approx(0.802)
    assert float(best["dice_low"]) < 0.802 < float(best["dice_high"])
    assert float(best["total"]) == pytest.approx(1100)
    assert (best["compile"], best["source"], best["saved"]) == ("false", "rapl", "0.0")
    assert (failed["dice"], failed["dice_low"], failed["front"], failed["chance"]) == ("", "", "false", "")
    assert failed["status"] == "failed: out of GPU memory"
    assert failed["data"] == "a_b & c|d"


def test_no_cell_of_a_csv_is_a_formula() -> None:
    """Settings of somebody else's runs are text to a spreadsheet; numbers stay numbers."""
    values = ['=HYPERLINK("x","y")', "+1", "-1+1", "@SUM(A1)", "\tx"]
    comparison = compared(*(record({"data": value}) for value in values), record({"data": "d=1"}))
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, ["data", "saved"]))))
    assert {row["data"] for row in rows} == {*(f"'{value}" for value in values), "d=1"}
    (row,) = csv.DictReader(io.StringIO(emissions_csv([replace_hardware(comparison.results[0].runs[0], "=1+1")])))
    assert row["cpu_model"] == "'=1+1"
    assert float(row["duration"]) > 0


def replace_hardware(run: Run, cpu: str) -> Run:
    return replace(run, record=typed(run.record.to_json() | {"hardware": {"cpu": cpu}}))


def test_csv_with_chosen_columns(comparison: Comparison) -> None:
    text = as_csv(comparison, comparison.rows[:1], ["precision", "per-epoch", "source"])
    assert text.splitlines()[0] == "precision,per_epoch,per_epoch_low,per_epoch_high,source"
    assert len(text.splitlines()) == 2


def test_no_export_hides_what_ran() -> None:
    def auto(seed: int, lr: float) -> Json:
        written = record({"precision": "16-mixed", "batch_size": "auto", "lr": "auto", "seed": seed}, ran="bf16-mixed")
        written["ran"] |= {"batch_size": 8, "lr": lr}
        return written

    failed = record({"precision": "16-mixed"}, "failed")
    del failed["ran"]
    comparison = compared(auto(0, 0.1), auto(1, 0.2), record({"precision": "bf16-mixed"}), failed)
    for names in (None, ["precision", "batch_size", "lr", "optimizer"]):
        rows = list(csv.DictReader(io.StringIO(as_csv(comparison, comparison.rows, names))))
        found = {(row["precision"], row["precision_ran"], row["batch_size"], row["batch_size_ran"]) for row in rows}
        assert found == {
            ("16-mixed", "bf16-mixed", "auto", "8"),
            ("bf16-mixed", "bf16-mixed", "8", ""),
            ("16-mixed", "", "8", ""),
        }
        assert {row["lr_ran"] for row in rows} == {"0.1, 0.2", ""}
        assert "optimizer_ran" not in rows[0]
    assert "precision_ran" not in as_csv(comparison, comparison.rows[2:3], ["precision"])
    assert "| 16-mixed → bf16-mixed |" in as_markdown(comparison, comparison.rows, None)
    latex = as_latex(comparison, comparison.rows, None)
    assert r"16-mixed $\rightarrow$ bf16-mixed" in latex
    assert "% Runs used precision bf16-mixed, not 16-mixed" in latex


def test_json_has_everything(comparison: Comparison) -> None:
    data = json.loads(as_json(comparison, comparison.rows, None))
    assert [objective["name"] for objective in data["objectives"]] == ["dice", "total"]
    assert len(data["configurations"]) == 5
    best = data["configurations"][0]
    assert data["answer"]["best"] == data["answer"]["baseline"] == best["configuration"]
    assert best["settings"]["precision"] == "32-true"
    assert best["figures"]["dice"]["n"] == best["finished"] == len(best["runs"]) == 3
    assert best["figures"]["dice"]["low"] < best["figures"]["dice"]["mean"] < best["figures"]["dice"]["high"]
    assert best["sources"] == {"cpu": "rapl"}
    assert data["configurations"][-1]["runs"][0]["failure"] == "out of GPU memory"
    assert {effect["axis"] for effect in data["effects"]} == {"batch_size", "precision"}
    assert data["hypervolume"][0]["reference"] == [0.0, 1650.0]
    assert data["said"]


def test_markdown_is_a_table(comparison: Comparison) -> None:
    lines = as_markdown(comparison, comparison.rows, ["data", "dice", "total"]).splitlines()
    assert lines[2:4] == ["|  | data | Dice | total J |", "| --- | --- | ---: | ---: |"]
    assert lines[4].startswith("| ● | phantom | 0.8020 ±")
    assert r"a\_b & c\|d" in lines[8]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in lines[2:9])
    assert any(line.startswith("- Best Dice: ") for line in lines)


def test_latex_is_a_tabular(comparison: Comparison, tmp_path: Path) -> None:
    text = as_latex(comparison, comparison.rows, ["data", "precision", "dice", "total", "saved"])
    assert r"a\_b \& c$|$d" in text
    assert text.count(r"\\") == 6
    assert r"\textbf{0.8020 $\pm$" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert all(line.count(" & ") == 5 for line in body.splitlines()[1:])
    if shutil.which("pdflatex"):
        document = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + text + r"\end{document}"
        (tmp_path / "t.tex").write_text(document)
        subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_ends_with_one_newline_and_has_no_escapes(name: str, comparison: Comparison) -> None:
    text = FORMATS[name].write(comparison, comparison.rows, None)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "\x1b" not in text


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_finished_is_exported_as_well(name: str) -> None:
    comparison = compared(record({}, "failed"))
    assert FORMATS[name].write(comparison, comparison.rows, None)
