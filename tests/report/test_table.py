"""What the table, the panel and their numbers look like."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from greenseg.report.columns import FRONT, OPTIONAL, column, default_columns
from greenseg.report.labels import source
from greenseg.report.panel import run_panel
from greenseg.report.reader import read_runs
from greenseg.report.select import Query
from greenseg.report.units import duration, joule_unit, joules, number, parameter_unit, percent
from greenseg.report.view import ReportView
from greenseg.settings import Settings, choices
from tests.report.comparisons import compared, results
from tests.runs import Json, energy, record, write


def printed(what: RenderableType, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(what, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(what: RenderableType, width: int = 100) -> str:
    text = printed(what, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def table(*records: Json, width: int = 100, **options: Any) -> str:
    query = Query(**options)
    comparison = query.compare(results(*records))
    view = ReportView(comparison, query.rows(comparison), query.names(comparison), query.top is not None)
    return shown(view, width)


def head(text: str) -> str:
    """The line of the headings."""
    return text.splitlines()[2]


def body(text: str) -> str:
    """The table without what stands under it."""
    return text.partition(f"\n{FRONT} on")[0]


def flat(text: str) -> str:
    """Without the ends of lines."""
    return re.sub(r"\s+", " ", text)


def row(text: str, *words: str) -> str:
    """The one line that has all these words."""
    (line,) = [line for line in body(text).splitlines() if all(word in line for word in words)]
    return line


# ── columns


def test_only_settings_that_differ_are_columns() -> None:
    records = record({"epochs": 1, "lr": 0.1}), record({"epochs": 2, "lr": 0.1})
    assert compared(*records).axes == ["epochs"]
    headings = head(table(*records)).split()
    assert "epochs" in headings
    assert "lr" not in headings
    assert "precision" not in headings


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["resnet18-unet", "resnet34-unet"], ["encoder"]),
        (["resnet18-unet", "resnet18-fpn"], ["decoder"]),
        (["resnet18-unet", "resnet34-fpn"], ["model"]),
        (["resnet18-unet"], ["model", "precision"]),
    ],
)
def test_how_the_network_is_shown(models: list[str], expected: list[str]) -> None:
    records = [record({"model": model}) for model in models]
    assert compared(*records).axes == expected
    text = body(table(*records))
    for model in models:
        encoder, decoder = model.split("-")
        assert {"encoder": encoder, "decoder": decoder, "model": model}[expected[0]] in text


def test_seeds_are_repeats_not_an_axis() -> None:
    text = table(record({"seed": 0}), record({"seed": 1}))
    assert "seed" not in body(text)
    assert "Dice against energy: 1 configuration, 2 runs" in text
    assert "runs" in head(text).split()


def test_a_table_without_repeats_has_no_column_for_them() -> None:
    text = table(record({"epochs": 1}), record({"epochs": 2}))
    assert "2 configurations, 2 runs" in text
    assert "runs" not in head(text).split()


def test_what_an_axis_holds_is_shown_for_what_it_is() -> None:
    text = table(record({"compile": True, "lr": 0.001}), record({"compile": False, "lr": 1e-5}))
    assert row(text, "yes", "0.001")
    assert row(text, "no", "1e-05")


# ── rows


def test_figures_of_a_row() -> None:
    total = energy(123.4, gpu_nvml=9000, cpu_rapl=876)
    line = row(table(record(dice=0.81234, total=total, joules_per_epoch=98.7), width=110), "0.8123")
    assert line.split() == [
        FRONT,
        "mobilenet_v2-unet",
        "32-true",
        "0.8123",
        "98.7",
        "9,876",
        "baseline",
        "123",
        "1.23",
        "rapl",
        "+",
        "nvml",
    ]


def test_repeats_are_one_row_of_means() -> None:
    text = table(record({"seed": 0}, dice=0.6), record({"seed": 1}, dice=0.8))
    assert row(text, "0.7000", "±1.2706").split()[3] == "2", "t(1, 97.5 %) · 0.1"
    assert "95 % interval" in text


def test_a_failed_run_is_a_row_with_its_reason() -> None:
    text = table(record({"epochs": 1}), record({"epochs": 2}, "failed", error="OutOfMemoryError"))
    assert row(text, "failed: OutOfMemoryError").split() == ["2", *["–"] * 6, "failed:", "OutOfMemoryError"]
    assert "1 configuration without a finished run: 1 × failed: OutOfMemoryError." in text
    assert FRONT in row(text, "0.8000")


def test_an_interrupted_run_is_a_row() -> None:
    assert row(table(record({"epochs": 1}, "interrupted")), "interrupted", "–")
    assert row(table(record({"epochs": 1}, "failed", error="X", kind="out_of_gpu_memory")), "failed: out of GPU")


def test_means_over_some_repeats_say_so() -> None:
    text = table(record({"seed": 0}), record({"seed": 1}, "failed"), record({"seed": 2}, "interrupted"))
    assert "1 of 3" in row(text, "0.8000")
    assert "1 configuration with missing repeats (1 × failed, 1 × interrupted)." in flat(text)
    assert "Values are means over the finished repeats." in flat(text)
    assert "means over" not in table(record({"seed": 0}), record({"seed": 1}))


def test_what_ran_instead_is_shown_with_what_was_asked_for() -> None:
    text = table(record({"precision": "16-mixed"}, ran="bf16-mixed"), record({"precision": "bf16-mixed"}))
    assert row(text, "16-mixed → bf16-mixed", "0.8000")
    assert "Runs used precision bf16-mixed, not 16-mixed" in text
    assert "→" not in table(record({"precision": "16-mixed"}), record({"precision": "bf16-mixed"}))
    locked = record({"gpu_clock": 1000})
    locked["ran"]["gpu_clock"] = 1005
    assert row(table(locked, record({"gpu_clock": 1410})), "1000 → 1005", "0.8000")
    tried = record({"lr": "auto"})
    tried["ran"]["lr"] = 0.00316
    assert row(table(tried, record({"lr": 0.01})), "auto → 0.00316", "0.8000")


def test_what_ran_instead_is_shown_where_the_network_differs() -> None:
    """Where precision is no axis, what ran must still not be hidden."""
    asked = {"precision": "16-mixed"}
    text = table(record(asked | {"epochs": 1}, ran="bf16-mixed"), record(asked | {"epochs": 2}, ran="bf16-mixed"))
    assert "Runs used precision bf16-mixed, not 16-mixed" in text


def test_the_front_is_marked() -> None:
    text = table(
        record({"epochs": 1}, dice=0.7, total=energy(1, cpu_rapl=10)),
        record({"epochs": 2}, dice=0.6, total=energy(1, cpu_rapl=20)),
        record({"epochs": 3}, dice=0.8, total=energy(1, cpu_rapl=30)),
    )
    marked = {dice: FRONT in row(text, dice) for dice in ("0.7000", "0.6000", "0.8000")}
    assert marked == {"0.7000": True, "0.6000": False, "0.8000": True}


# ── joules and where they come from


@pytest.mark.parametrize(
    ("total", "unmeasured", "expected"),
    [
        (energy(1, gpu_nvml=1, cpu_rapl=1, dram_rapl=1), [], "rapl + nvml"),
        (energy(1, cpu_estimate=1, dram_estimate=1), [], "estimate"),
        (energy(1, gpu_nvml=1, cpu_estimate=1, dram_estimate=1), [], "estimate (cpu dram), nvml (gpu)"),
        (energy(1, cpu_rapl=1), ["gpu"], "rapl, gpu unknown"),
        (energy(1), ["gpu"], "none, gpu unknown"),
    ],
)
def test_source(total: Json, unmeasured: list[str], expected: str) -> None:
    written = record(total=total, unmeasured=unmeasured)
    (found,) = results(written)
    assert source(found) == expected
    assert ("unknown: this component has no sensor" in table(written)) == bool(unmeasured)


def test_estimates_are_explained_and_measurements_are_not() -> None:
    measured, estimated = energy(1, cpu_rapl=1), energy(1, cpu_estimate=1)
    assert "estimate" not in table(record(total=measured))
    both = table(record({"epochs": 1}, total=measured), record({"epochs": 2}, total=estimated))
    assert "estimate: joules are modelled" in both
    assert "Sources differ between rows" in both
    assert "Sources differ" not in table(record({"epochs": 1}, total=estimated), record({"epochs": 2}, total=estimated))


def test_a_column_has_one_unit() -> None:
    text = table(
        record({"epochs": 1}, total=energy(1, cpu_rapl=2_500_000), joules_per_epoch=99_000),
        record({"epochs": 2}, total=energy(1, cpu_rapl=7_500), joules_per_epoch=900),
    )
    assert "J/epoch" in text
    assert "total kJ" in text
    assert row(text, "2,500", "99,000")
    assert row(text, "7.50", "900")


# ── width

_LONG = "tu-mobilenetv3_small_050-deeplabv3plus"


def test_words_stay_whole_in_a_table_of_networks_and_precisions() -> None:
    records = [
        record(
            {"model": model, "precision": precision, "seed": seed},
            dice=0.7 + seed / 10,
            ran="bf16-mixed" if precision == "16-mixed" else None,
            unmeasured=["gpu"],
        )
        for model in ("mobilenet-unet", _LONG)
        for precision in ("32-true", "16-mixed")
        for seed in (0, 1)
    ]
    rows = body(table(*records, record({"epochs": 3}, "failed", error="OutOfMemoryError")))
    assert rows.count("estimate") == 4
    assert rows.count("unknown") == 4
    assert rows.count("→") == 2
    assert "failed" in rows
    assert "0 of 1" in rows


def other(name: str) -> Any:
    """A value of a setting that is not its default."""
    default = Settings.model_fields[name].default
    if choices(name):
        return next(value for value in choices(name) if value != default)
    words = {
        "data": "/a/long/path/to/images",
        "encoder": "tu-mobilenetv3_small_050",
        "decoder": "fpn",
        "country": "FRA",
        "channels": "T2w,T1w",
        "split_from": "/a/long/path/to/split.csv",
        "teacher": "/a/long/path/to/a-run-0123456789abcdef",
    }
    if name in ("pue", "distill_temperature"):
        return 1.5
    return words.get(name, not default if isinstance(default, bool) else 0.5 if isinstance(default, float) else 64)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, len(Settings.model_fields) - 3])
def test_dice_and_joules_are_shown_however_many_settings_differ(count: int) -> None:
    names = [name for name in Settings.model_fields if name not in ("model", "seed", "fold")][:count]
    text = table(record({name: other(name) for name in names}, dice=0.8), record(dice=0.7))
    for figure in ("0.8000", "0.7000", "1,050", "J/epoch", "total J", "estimate"):
        assert figure in text


@st.composite
def sweeps(draw: st.DrawFn) -> list[Json]:
    """A few configurations, with some of what makes a table wide."""
    varied: dict[str, list[Any]] = {
        "encoder": ["resnet18", "tu-mobilenetv3_small_050"],
        "decoder": ["unet", "deeplabv3plus"],
        "precision": ["32-true", "16-mixed"],
        "lr": [0.1, 0.00012345],
        "data": ["phantom", "/a/long/path/to/images"],
    }
    names = draw(st.sets(st.sampled_from(sorted(varied)), min_size=1))
    joules = draw(st.sampled_from([1.0, 99_999.0, 5e9]))
    sources = draw(st.sampled_from([{"cpu_estimate": joules, "gpu_nvml": 1.0}, {"cpu_rapl": joules}]))
    repeats = draw(st.integers(1, 2))
    return [
        record(
            {name: varied[name][which] for name in names} | {"seed": seed},
            dice=0.7 + seed / 100,
            total=energy(100, **sources),
            unmeasured=["dram"],
            ran="bf16-mixed" if "precision" in names and which else None,
        )
        for which in (0, 1)
        for seed in range(repeats)
    ]


@given(sweeps(), st.integers(40, 200), st.sampled_from(["", "encoder,decoder,dice,iou,hd95,total,saved,rank,source"]))
def test_nothing_is_cut_whatever_the_width(records: list[Json], width: int, columns: str) -> None:
    query = Query(columns=columns)
    comparison = query.compare(results(*records))
    names = query.names(comparison)
    text = printed(ReportView(comparison, query.rows(comparison), names), width)
    assert "…" not in text
    lines = body(text).partition("No space for")[0].splitlines()
    (place,) = [i for i, line in enumerate(lines) if set(line) == {" ", "─"}]
    headings, rows = "\n".join(lines[:place]), lines[place + 1 :]
    left_out = flat(text).partition("No space for: ")[2].partition(". A wider")[0].split(", ")
    for name in names or default_columns(comparison):
        shown_ = column(comparison, name)
        if shown_.heading in left_out:
            assert name in OPTIONAL
        elif shown_.figure or name == "precision":
            if shown_.heading in headings:
                for entry in comparison.rows:
                    assert any(shown_.text(entry) in line for line in rows)
            else:
                assert name == "precision"
                assert "configuration" in headings
        elif name == "source":
            assert "source" in headings
            words = {word for entry in comparison.rows for word in shown_.text(entry).split()}
            assert all(any(word in line for line in rows) for word in words)
    if not columns and width >= 80:
        assert max(map(len, lines)) <= width
        assert "configuration" in headings or len(comparison.axes) <= 3


def test_asked_for_columns_are_all_there_is() -> None:
    records = [record({"encoder": name, "batch_size": size}) for name in ("resnet18", _LONG[:24]) for size in (4, 8)]
    names = ["encoder", "dice", "iou", "hd95", "total", "saved", "rank", "runs", "status", "source", "precision"]
    comparison = Query().compare(results(*records))
    headings = head(printed(ReportView(comparison, comparison.rows, names), 80)).split("  ")
    expected = [column(comparison, name).heading for name in names]
    assert [heading.strip() for heading in headings if heading.strip()] == expected


def test_a_wide_table_has_all_columns_and_folds_none() -> None:
    records = [
        record({"model": model, "lr": lr, "epochs": n})
        for model in (_LONG, "resnet18-unet")
        for lr in (1, 2)
        for n in (1, 2)
    ]
    comparison = Query().compare(results(*records))
    text = printed(ReportView(comparison, comparison.rows, wide=True), 60)
    lines = body(text).splitlines()
    assert "No space" not in text
    assert sum(f" {_LONG} " in line for line in lines) == 4
    assert len(lines) == 4 + 8 + 1


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_wider_table_leaves_out_less(width: int) -> None:
    records = [
        record({"encoder": encoder, "precision": precision, "seed": seed}, total=energy(1, gpu_nvml=9, cpu_rapl=1))
        for encoder in ("resnet18", "tu-mobilenetv3_small_050")
        for precision in ("32-true", "bf16-mixed")
        for seed in (0, 1)
    ]
    text = table(*records, width=width)
    shown_ = [name for name in ("saved", "chance", "seconds", "J/epoch", "M params") if name in head(text)]
    assert shown_ == ["saved", "chance", "seconds", "J/epoch", "M params"][: {80: 0, 100: 2, 120: 3, 200: 5}[width]]
    assert ("No space for" in text) == (width < 200)


def test_a_long_table_stops_and_keeps_the_front() -> None:
    records = [record({"epochs": n}, dice=0.9 - n / 1000, total=energy(1, cpu_rapl=100 + n)) for n in range(1, 61)]
    records[-1] = record({"epochs": 60}, dice=0.1, total=energy(1, cpu_rapl=1))
    text = table(*records)
    assert body(text).count("rapl") == 41
    assert row(text, FRONT, "0.1000")
    assert "19 more configurations: --top 60 shows all." in text
    assert body(table(*records, top=60)).count("rapl") == 60
    assert body(table(*records, top=3)).count("rapl") == 3


# ── the panel


def panel(written: Json, folder: Path) -> str:
    ((run,), _) = read_runs([write(folder, written)])
    text = shown(run_panel(run))
    assert str(run.directory.path) in re.sub(r"[\s│]+", "", text)
    return text


def test_the_panel_says_how_many_slices_a_step_takes(tmp_path: Path) -> None:
    for place, (slices, expected) in enumerate(
        [(24, "24 slices (8 × 3 accumulated)"), (20, "20 slices (8 × 3 accumulated, limited by the epoch)")]
    ):
        ran = {"ran": {"devices": 1, "batch_size": 8, "effective_batch_size": slices}}
        assert expected in panel(record({"accumulate": 3}) | ran, tmp_path / str(place))


def test_the_panel_says_that_nothing_was_left_after_the_warm_up_and_that_the_encoder_never_learned(
    tmp_path: Path,
) -> None:
    values = {"epochs": 40, "measure_after": 30, "freeze_encoder": 30}
    for folder, epochs in (("short", 30), ("long", 31)):
        written = record(values)
        written["metrics"]["epochs"] = epochs
        text = panel(written, tmp_path / folder)
        assert ("over all epochs: the run ended within measure_after 30" in text) == (epochs == 30)
        assert ("frozen in every epoch: it never learned" in text) == (epochs == 30)


def test_the_panel_of_a_run(tmp_path: Path) -> None:
    total = energy(245, gpu_nvml=123_456, cpu_estimate=9000)
    text = panel(
        record({"precision": "16-mixed", "seed": 3}, ran="bf16-mixed", total=total, unmeasured=["dram"])
        | {"ran": {"precision": "bf16-mixed", "power_limit": 200, "gpu_clock": 1005}},
        tmp_path,
    )
    lines = {re.sub(r"\s+", " ", line).strip("│ ") for line in text.splitlines()}
    assert "mobilenet_v2-unet, seed 3" in text
    assert lines >= {
        "Dice 0.8000 mean over 2 volumes, at epoch 1 of 30, the best",
        "IoU 0.6667",
        "HD95 10.00 mm",
        "gpu energy 123 kJ source: nvml",
        "cpu energy 9,000 J source: estimate",
        "dram energy unknown: no sensor (see sensors_missing in run.json)",
        "total energy 132 kJ (train 132 kJ)",
        "per epoch 40.0 J",
        "time 4:05 min, – W on average",
        "parameters 1,234,567",
        "precision bf16-mixed, not 16-mixed as requested",
        "limits power_limit 200 W, gpu_clock 1005 MHz",
    }


def test_the_panel_of_a_run_that_stopped_early(tmp_path: Path) -> None:
    written = record({"epochs": 6, "early_stopping": 1})
    written["metrics"] |= {"epochs": 2, "volume_dice": {"a": 0.8}}
    text = flat(panel(written, tmp_path))
    assert "mean over 1 volume, at epoch 1 of 2, the best" in text
    assert "stopped early after 2 of 6 epochs" in text
    assert "stopped early" not in panel(record(), tmp_path / "whole")


def test_the_panel_of_a_run_without_dice(tmp_path: Path) -> None:
    written = record()
    for name in ("dice", "iou", "volume_dice", "best_epoch", "last_dice"):
        del written["metrics"][name]
    text = panel(written, tmp_path)
    assert re.search(r"Dice +–", text)
    assert re.search(r"IoU +–", text)


# ── numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (1, "1.00"), (9.876, "9.88"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1,234"),
        (1234567.8, "1,234,568"), (0.5, "0.500"), (-12.34, "-12.3"), (0.01234, "0.0123"), (0.0001234, "0.000123"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-9, 1e12))
def test_a_number_keeps_three_significant_digits(value: float) -> None:
    text = number(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0 J"), (12.34, "12.3 J"), (99_000, "99,000 J"), (123_456, "123 kJ"), (99e6, "99,000 kJ"),
        (123.456e6, "123 MJ"), (1e12, "1,000,000 MJ"),
    ],
)  # fmt: skip
def test_joules(value: float | None, text: str) -> None:
    assert joules(value) == text


def test_shares() -> None:
    shares = [None, 0.0, 0.31, -0.31, 0.0512, 1.0, -0.004]
    assert [percent(share) for share in shares] == ["–", "0 %", "31 %", "−31 %", "5.1 %", "100 %", "−0.4 %"]


def test_parameters_are_counted_in_millions_unless_all_are_tiny() -> None:
    assert parameter_unit([None, 100, 2e6]) == ("M", 1e6)
    assert parameter_unit([None, 100]) == ("", 1)
    assert parameter_unit([]) == ("", 1)


def test_a_unit_is_that_of_the_largest_value() -> None:
    assert joule_unit([]) == ("J", 1)
    assert joule_unit([None, 5]) == ("J", 1)
    assert joule_unit([1, None, 200_000]) == ("kJ", 1e3)
    assert joule_unit([1, 200_000, 3e8]) == ("MJ", 1e6)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0.0 s"), (7.25, "7.2 s"), (99.9, "99.9 s"), (100, "1:40 min"), (245, "4:05 min"),
        (3599.4, "59:59 min"), (3599.6, "1:00:00 h"), (7400, "2:03:20 h"), (360_000, "100:00:00 h"),
    ],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_source_is_never_cut_off_on_a_narrow_terminal() -> None:
    records = [
        record({"encoder": encoder, "precision": precision})
        for encoder in ("resnet18", "tu-mobilenetv3_small_050")
        for precision in ("32-true", "bf16-mixed")
    ]
    for repeats in ([], [record({"encoder": "resnet18", "precision": "32-true", "seed": 1})]):
        text = body(table(*records, *repeats, width=80))
        assert text.count("estimate") == 4
        assert len(re.findall(r"0\.8000", text)) == 4
        assert "No space for" in text


def test_of_effects_names_are_folded_before_figures() -> None:
    models = ("tu-mobilenetv3_small_050-unet", "resnet18-unet")
    records = [
        record(
            {"model": model, "precision": precision},
            dice=0.5 + 0.2 * i + 0.01 * j + 0.02 * i * j,
            total=energy(100, cpu_estimate=100 + 30 * i + 7 * j),
        )
        for i, model in enumerate(models)
        for j, precision in enumerate(("32-true", "bf16-mixed"))
    ]
    comparison = compared(*records)
    for width, wide in ((86, False), (60, True)):
        text = printed(ReportView(comparison, comparison.rows, wide=wide), width)
        effects = text[text.index("Effect of each setting") :]
        assert len(re.findall(r"[+−]0\.\d{4} ±\d\.\d{4} +[+−][\d.]+ % \([−+][\d.]+ to [−+][\d.]+\) ", effects)) == 2, (
            effects
        )
        assert ("tu-mobilenetv3_small_050" in effects) == wide
