"""Runs read back from their directories, and repeats joined."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from greenseg.report.answer import warnings
from greenseg.report.emissions import emissions_csv
from greenseg.report.formats import FORMATS
from greenseg.report.objectives import OBJECTIVES
from greenseg.report.reader import Reader, read_runs
from greenseg.report.results import CONTENT, Result, by_configuration
from greenseg.report.run import Run, TrainedOn
from greenseg.report.select import Query
from greenseg.report.view import ReportView
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.runs.record import Lineage
from tests.report.comparisons import compared
from tests.runs import (
    Json,
    append,
    energy,
    epoch,
    estimate_with,
    record,
    recorded,
    summary_of,
    typed,
    write,
    write_record,
)


def results(folder: Path) -> list[Result]:
    runs, damaged = read_runs(find_runs([folder]))
    assert damaged == []
    return by_configuration(runs)


def mean(result: Result, name: str) -> float | None:
    found = result.figure(OBJECTIVES[name])
    return None if found is None else found.value


def test_repeats_are_averaged(tmp_path: Path) -> None:
    for seed, (dice, joules) in enumerate([(0.6, 100), (0.7, 200), (0.8, 600)]):
        total = energy(10 * seed, cpu_rapl=joules)
        write(tmp_path, record({"seed": seed}, dice=dice, total=total, joules_per_epoch=joules / 10))
    (result,) = results(tmp_path)
    assert len(result.runs) == len(result.finished) == 3
    assert mean(result, "dice") == pytest.approx(0.7)
    assert mean(result, "iou") == pytest.approx(sum(d / (2 - d) for d in (0.6, 0.7, 0.8)) / 3)
    assert mean(result, "total") == pytest.approx(300)
    assert mean(result, "per-epoch") == pytest.approx(30)
    assert mean(result, "seconds") == pytest.approx(10)
    assert result.sources == {"cpu": "rapl"}
    assert "seed" not in result.settings


def test_means_are_over_the_repeats_that_finished(tmp_path: Path) -> None:
    write(tmp_path, record({"seed": 0}, dice=0.8))
    write(tmp_path, record({"seed": 1}, "failed", dice=0.1, error="OutOfMemoryError"))
    write(tmp_path, record({"seed": 2}, "interrupted", dice=0.1))
    (result,) = results(tmp_path)
    assert len(result.runs) == 3
    assert len(result.finished) == 1
    assert mean(result, "dice") == pytest.approx(0.8)


def test_a_configuration_without_a_finished_run_is_a_result_without_figures(tmp_path: Path) -> None:
    write(tmp_path, record({}, "failed", error="OutOfMemoryError"))
    (result,) = results(tmp_path)
    assert [mean(result, name) for name in OBJECTIVES] == [None] * len(OBJECTIVES)
    assert result.sources == {}
    assert result.unmeasured == []


def test_the_best_dice_comes_first_and_what_has_none_last(tmp_path: Path) -> None:
    write(tmp_path, record({"epochs": 1}, "failed"))
    write(tmp_path, record({"epochs": 2}, dice=0.7))
    write(tmp_path, record({"epochs": 3}, dice=0.8, total=energy(1, cpu_rapl=9)))
    write(tmp_path, record({"epochs": 4}, dice=0.8, total=energy(1, cpu_rapl=8)))
    write(tmp_path, record({"epochs": 5}, dice=0.0))
    assert [result.settings["epochs"] for result in results(tmp_path)] == [4, 3, 2, 5, 1]


def test_components_and_sources_of_repeats_are_joined(tmp_path: Path) -> None:
    write(tmp_path, record({"seed": 0}, total=energy(1, cpu_rapl=1, gpu_nvml=5)))
    write(tmp_path, record({"seed": 1}, total=energy(1, cpu_estimate=1, gpu_nvml=5), unmeasured=["dram"]))
    (result,) = results(tmp_path)
    assert result.sources == {"cpu": "estimate+rapl", "gpu": "nvml"}
    assert result.estimated == {"cpu"}
    assert result.unmeasured == ["dram"]


def test_an_unfinished_run_is_summed_up_from_its_epochs(tmp_path: Path) -> None:
    so_far = {"train": energy(6, cpu_estimate=60), "validation": energy(2, cpu_estimate=20)}
    write(tmp_path, record({}, "running"), [epoch(0, dice=0.4), epoch(1, dice=0.6, so_far=so_far)])
    ((run,), _) = read_runs(find_runs([tmp_path]))
    assert run.status == "interrupted"
    assert run.metrics.dice == pytest.approx(0.6)
    assert run.metrics.joules == pytest.approx(80)
    assert run.energy.seconds == pytest.approx(8)


def test_a_run_that_died_before_its_first_epoch_is_a_row_as_well(tmp_path: Path) -> None:
    write(tmp_path, record({}, "running"))
    (result,) = results(tmp_path)
    assert mean(result, "dice") is None
    assert [run.status for run in result.runs] == ["interrupted"]


def test_a_running_run_is_running(tmp_path: Path) -> None:
    with write(tmp_path, record({}, "running"), [epoch(0)]).claim():
        ((run,), _) = read_runs(find_runs([tmp_path]))
    assert run.status == "running"


def test_a_run_that_has_not_begun_is_left_out(tmp_path: Path) -> None:
    run = write(tmp_path, record())
    (run.path / "run.json").unlink()
    assert read_runs([run]) == ([], [])


def test_settings_that_an_older_greenseg_did_not_know_have_the_defaults(tmp_path: Path) -> None:
    old, new = record({"epochs": 2}), record({"epochs": 3})
    run = write(tmp_path, old)
    del old["settings"]["compile"]
    write_record(run, old)
    write(tmp_path, new)
    assert [result.settings["compile"] for result in results(tmp_path)] == [False, False]


def cut(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    "damage",
    [cut, lambda _: "", lambda _: "null", lambda _: "[]", lambda _: "{}", lambda _: "\0" * 99, lambda t: t + t],
)
def test_a_damaged_record_is_named_and_left_out(damage: Callable[[str], str], tmp_path: Path) -> None:
    write(tmp_path, record({"seed": 1}))
    file = write(tmp_path, record({"seed": 2})).path / "run.json"
    file.write_text(damage(file.read_text()))
    runs, (message,) = read_runs(find_runs([tmp_path]))
    assert [run.settings["seed"] for run in runs] == [1]
    assert message.startswith(f"{file}: ")


def test_binary_junk_is_a_damaged_record(tmp_path: Path) -> None:
    file = write(tmp_path, record()).path / "run.json"
    file.write_bytes(b"\xff\xfe{}")
    assert str(file) in read_runs(find_runs([tmp_path]))[1][0]


@pytest.mark.parametrize("key", [*record(), "energy total"])
def test_a_record_that_is_not_what_greenseg_writes_never_breaks_a_report(key: str, tmp_path: Path) -> None:
    """Whatever one run.json holds, the other runs are reported: it is named, or shown for what it is."""
    write(tmp_path, record({"seed": 1}))
    wrong: Json = record({"seed": 2})
    run = write(tmp_path, wrong)
    *outer, last = key.split()
    inner = wrong[outer[0]] if outer else wrong
    without = {name: value for name, value in inner.items() if name != last}
    for changed in (without, *(without | {last: value} for value in (None, 3, "x", [], [1], {}, {"x": 1}))):
        write_record(run, {**wrong, outer[0]: changed} if outer else changed)
        runs, damaged = read_runs(find_runs([tmp_path]))
        assert len(runs) + len(damaged) == 2
        comparison = Query().compare(by_configuration(runs))
        Console(quiet=True).print(ReportView(comparison, comparison.rows))
        for export in [known.write for known in FORMATS.values()]:
            assert export(comparison, comparison.rows, None)


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("metrics", {"dice": "x"}, "damaged: metrics: dice is 'x', not a number"),
        ("metrics", "x", "damaged: 'metrics' is missing or damaged"),
        ("configuration", 3, "damaged: 'configuration' is missing"),
        ("energy", {}, "damaged: 'energy' is missing"),
        ("network", {"parameters": "x"}, "damaged: parameters of the network: 'x' is not a number"),
    ],
)
def test_what_is_damaged_is_said_in_words(part: str, value: object, expected: str, tmp_path: Path) -> None:
    run = write(tmp_path, record() | {part: value})
    runs, (message,) = read_runs([run])
    assert runs == []
    assert message.startswith(f"{run.path / 'run.json'}: {expected}")


def test_damaged_epochs_of_a_dead_run_are_named(tmp_path: Path) -> None:
    run = write(tmp_path, record({}, "running"), [epoch(0), epoch(1)])
    file = run.path / "epochs.jsonl"
    file.write_text("{\n" + file.read_text())
    runs, (message,) = read_runs([run])
    assert runs == []
    assert message.startswith(f"{file}:1: ")


def test_a_line_of_another_kind_is_a_damaged_record(tmp_path: Path) -> None:
    run = write(tmp_path, record({}, "running"))
    (run.path / "epochs.jsonl").write_text(json.dumps({"epoch": 0}) + "\n")
    runs, (message,) = read_runs([run])
    assert runs == []
    assert str(run.path) in message


def test_a_run_keeps_its_record_to_itself() -> None:
    run = Run(RunDirectory(Path("nowhere")), "finished", typed(record()))
    for mapping in (run.metrics, run.settings):
        with pytest.raises(TypeError):
            mapping["dice"] = 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("out_of_gpu_memory", "out of GPU memory"),
        ("out_of_memory", "out of memory"),
        ("timeout", "timed out"),
        ("error", "SomeError"),
        ("a kind of tomorrow", "SomeError"),
        (None, "SomeError"),
    ],
)
def test_failures_are_said_in_words(kind: str | None, words: str) -> None:
    run = Run(RunDirectory(Path("nowhere")), "failed", typed(record({}, "failed", error="SomeError", kind=kind)))
    assert run.failure == words


def test_a_figure_that_some_repeats_lack_is_none(tmp_path: Path) -> None:
    """Joules to a Dice over those repeats that reached it would be those of the lucky ones."""
    for seed, joules in enumerate((50.0, None, 70.0)):
        written = record({"seed": seed})
        written["metrics"]["energy_to_dice"] = {"dice": 0.85, "joules": joules}
        write(tmp_path, written)
    (result,) = results(tmp_path)
    assert mean(result, "to-dice") is None
    assert mean(result, "dice") is not None


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    run, going_on = write(tmp_path, record({"seed": 1})), write(tmp_path, record({"seed": 2}, "running"), [epoch(0)])
    reader = Reader()
    (first, before), _ = reader.read([run, going_on])
    append(going_on, epoch(1, dice=0.9))
    (again, after), _ = reader.read([run, going_on])
    assert again is first
    assert (before.metrics.dice, after.metrics.dice) == (0.5, 0.9)
    write_record(run, record({"seed": 1}, dice=0.1))
    assert reader.read([run])[0][0].metrics.dice == pytest.approx(0.1)
    (run.path / "run.json").unlink()
    assert reader.read([run]) == ([], [])


FEW, MANY = (4.0, 2.0, 5.0), (12.0, 3.5, 24.0)
GB = (0.3725, 0.18625, 0.745)


def on_two_machines(folder: Path, **more: Json) -> RunDirectory:
    """A run of 100 CPU seconds at 4 W on one machine and 50 at 12 W on another; `first` and `last` add to attempts."""
    written = record({"seed": 0})
    written["hardware"]["cpu"] = "laptop"
    written["attempts"] = [
        {"status": status, "started": f"2026-01-0{day}", "host": host, "pid": day} | part
        for day, status, host, watts, part in (
            (1, "interrupted", "epyc", FEW, more.get("first", {})),
            (2, "finished", "laptop", MANY, more.get("last", {})),
        )
    ]
    spent = (energy(100, cpu_estimate=400), FEW), (energy(50, cpu_estimate=600), MANY)
    for attempt, (total, watts) in zip(written["attempts"], spent, strict=True):
        attempt |= {"energy": {"train": total}, "estimate": {"core_watts": watts, "gb_watts": GB}}
    written["energy_method"] |= {"core_watts": MANY, "gb_watts": GB}
    written["ended"] = "2026-01-03"
    lines = [
        epoch(i, i, train=total, validation=energy(0), so_far={"train": total}) for i, (total, _) in enumerate(spent)
    ]
    return write(folder, written | summary_of(written, lines), lines)


def test_a_run_of_two_machines_keeps_the_constants_of_each(tmp_path: Path) -> None:
    one = on_two_machines(tmp_path)
    two = on_two_machines(tmp_path / "known", first={"cpu": "epyc"}, last={"cpu": "laptop"})
    for run in (one, two):
        ((read,), _) = read_runs([run])
        assert read.metrics.joules == pytest.approx(1000)
        assert not read.restated


def test_each_attempt_is_restated_by_the_constants_of_its_cpu(tmp_path: Path) -> None:
    run = on_two_machines(tmp_path, first={"cpu": "epyc"}, last={"cpu": "laptop"})
    later = record({"seed": 1}, total=energy(10, cpu_estimate=80))
    later["hardware"]["cpu"] = "epyc"
    estimate_with(later, (8.0, 8.0, 8.0), GB)
    later["ended"] = "2026-02-01"
    reader = Reader()
    runs, _ = reader.read([run, write(tmp_path, later)])
    assert [read.metrics.joules for read in runs] == pytest.approx([800 + 600, 80])
    attempts, epochs = runs[0].history()
    assert [attempt.energy["train"]["joules"]["cpu"]["estimate"] for attempt in attempts if attempt.energy] == [
        800,
        600,
    ]
    assert [line.train["joules"]["cpu"]["estimate"] for line in epochs] == [800, 600]
    assert len(reader.notes) == 1


def test_the_joules_of_a_parent_are_restated_in_the_total_of_its_child(tmp_path: Path) -> None:
    """Else a total would add up joules by two constants."""
    child = on_two_machines(tmp_path, first={"cpu": "epyc"}, last={"cpu": "laptop"})
    written = recorded(child)
    parent = {
        "role": "parent", "id": "p", "cpu": "epyc", "energy": energy(10, cpu_estimate=40),
        "estimate": {"core_watts": FEW, "gb_watts": GB},
    }  # fmt: skip
    written["lineage"] = {"ancestors": [parent]}
    write_record(child, written | summary_of(written, [line.to_json() for line in child.epochs()]))
    assert recorded(child)["metrics"]["joules"] == pytest.approx(1000 + 40)
    later = record({"seed": 1}, total=energy(10, cpu_estimate=80))
    later["hardware"]["cpu"] = "epyc"
    estimate_with(later, (8.0, 8.0, 8.0), GB)
    later["ended"] = "2026-02-01"
    (read, _), _ = read_runs([child, write(tmp_path, later)])
    assert read.metrics.joules == pytest.approx(800 + 600 + 80)
    assert read.own_joules == pytest.approx(800 + 600)
    assert joules_of_parent(read.record.lineage) == pytest.approx(80)


def joules_of_parent(lineage: Lineage) -> float:
    (parent,) = lineage.parents
    assert parent.energy
    return parent.energy["joules"]["cpu"]["estimate"]


def test_a_run_that_lacks_epochs_keeps_its_figures(tmp_path: Path) -> None:
    """Its summary cannot be made again: Dice and joules per epoch were lost."""
    run = on_two_machines(tmp_path, first={"cpu": "epyc"}, last={"cpu": "laptop"})
    later = record({"seed": 1}, total=energy(10, cpu_estimate=80))
    later["hardware"]["cpu"] = "epyc"
    estimate_with(later, (8.0, 8.0, 8.0), GB)
    later["ended"] = "2026-02-01"
    before = recorded(run)["metrics"]
    (run.path / "epochs.jsonl").unlink()
    (read, _), _ = read_runs([run, write(tmp_path, later)])
    assert not read.restated
    assert read.metrics.to_json() == before


def trained_on(content: str, files: str = "", **settings: object) -> Json:
    return record(settings) | {"content": content * 16, "files": (files or content) * 16, "preprocessing": 6}


def old(train: str, validation: str, **settings: object) -> Json:
    """A run of a version that kept names of slices and subjects."""
    data = {"cache": "5985f03210242cdc", "subjects": {"train": [*train], "validation": [*validation]}}
    return record({"data": "data.csv", **settings}) | {"data": data}


def of(*records: Json) -> list[Result]:
    return by_configuration(
        [
            Run(RunDirectory(Path(f"runs/{i}/x")), written["status"], typed(written), TrainedOn.of(typed(written)))
            for i, written in enumerate(records)
        ]
    )


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("split_seed", (0, 1)),
        ("layout", ("auto", "e2mip")),
        ("data", ("data", "./data")),
        ("data", ("data", "/abs/data")),
        ("validation_share", (0.2, 0.3)),
    ],
)
def test_no_axis_hides_other_files_of_one_path(axis: str, values: tuple[object, object]) -> None:
    results = of(
        *(
            trained_on("cd"[i], "12"[i], **{"data": "data", axis: value, "lr": lr})
            for i, value in enumerate(values)
            for lr in (0.1, 0.2)
        )
    )
    assert {result.settings[CONTENT] for result in results} == {"c" * 8, "d" * 8}
    comparison = Query().compare(results)
    assert CONTENT in comparison.axes
    assert {effect.axis for effect in comparison.effects} == {"lr"}
    assert any("2 different contents" in said for said in warnings(comparison))


def test_splits_of_the_same_files_are_an_axis() -> None:
    results = of(trained_on("c", "1", split_seed=0), trained_on("d", "1", split_seed=1))
    assert not any(CONTENT in result.settings for result in results)
    assert {effect.axis for effect in Query().compare(results).effects} == {"split_seed"}


def test_what_is_left_of_several_contents_is_no_warning() -> None:
    results = of(trained_on("a", data="data"), trained_on("b", data="data"))
    comparison = Query(where=("content=aaaaaaaa",)).compare(results)
    assert not any("different content" in said for said in warnings(comparison))


def test_unknown_contents_of_several_splits_are_told_apart() -> None:
    results = of(*(old(*split, lr=lr) for split in (("ab", "c"), ("ac", "b")) for lr in (0.1, 0.2)))
    assert len({(result.settings[CONTENT], result.settings["lr"]) for result in results}) == 4
    assert len({result.configuration for result in results}) == 4
    (effect,) = Query().compare(results).effects
    assert (effect.axis, effect.quality.n) == ("lr", 2)


def test_the_name_of_a_configuration_is_that_of_one_row() -> None:
    records = trained_on("a", data="A"), trained_on("b", data="B"), trained_on("a", data="moved", seed=1)
    one, two = sorted(of(*records), key=lambda result: len(result.runs))
    assert one.configuration != two.configuration
    assert {result.configuration for result in of(*records[:1])} == {two.configuration}, "wherever it lies"
    comparison = Query().compare([one, two])
    exported = json.loads(FORMATS["json"].write(comparison, comparison.rows, None))
    assert len({found["configuration"] for found in exported["configurations"]}) == 2
    rows = list(csv.DictReader(io.StringIO(emissions_csv([*one.runs, *two.runs]))))
    assert len({found["run_id"] for found in rows}) == 3
    assert [found["experiment_id"] for found in rows] == [one.configuration, two.configuration, two.configuration]


def test_a_run_that_was_trained_again_is_no_further_repeat() -> None:
    def runs(joules: float) -> list[Json]:
        return [record({"seed": seed}, dice=0.8 + 0.01 * seed, total=energy(1, cpu_rapl=joules)) for seed in (0, 1, 2)]

    (once,), (twice,) = of(*runs(100)), of(*runs(100), *runs(300))
    assert twice.figure(OBJECTIVES["dice"]) == once.figure(OBJECTIVES["dice"])
    assert (mean(twice, "total"), len(twice.finished)) == (200, 6)
    assert twice.values(OBJECTIVES["total"]) == [200, 200, 200]
    assert any("3 runs duplicate others" in said for said in warnings(Query().compare([twice])))
    pair = Query().compare(of(*runs(100), *runs(300), record({"seed": 0, "lr": 0.1}, total=energy(1, cpu_rapl=400))))
    (effect,) = pair.effects
    assert effect.energy is not None
    assert effect.quality.n == 1
    assert min(abs(abs(effect.energy.share) - share) for share in (0.5, 1)) < 1e-9, "400 J against a mean of 200 J"


@pytest.mark.parametrize("name", ["to-dice", "co2e", "per-epoch"])
def test_no_mean_of_figures_reckoned_differently(name: str) -> None:
    def run(seed: int, target: float, joules: float, grams_per_kwh: float, warm_up: int) -> Json:
        written = record({"seed": seed, "measure_after": warm_up})
        written["metrics"]["energy_to_dice"] = {"dice": target, "joules": joules}
        written["metrics"]["co2e"] = {"grams": 1.0, "grams_per_kwh": grams_per_kwh, "pue": 1.0}
        return written

    (mixed,) = of(run(0, 0.5, 100, 50, 0), run(1, 0.9, 900, 500, 1))
    (alike,) = of(run(0, 0.5, 100, 50, 1), run(1, 0.5, 900, 50, 1))
    assert mean(mixed, name) is None
    assert mean(mixed, "total") is not None
    assert mean(alike, name) is not None
    said = " ".join(warnings(Query().compare([mixed])))
    assert OBJECTIVES[name].reckoned + " differs between repeats of 1 configuration" in said


def branch(folder: Path, *hosts: str, joules: float, ended: str, status: str = "finished") -> RunDirectory:
    """A copy of one run, with an attempt on each of these hosts."""
    written = record({}, total=energy(10, cpu_rapl=joules)) | {"id": "same", "ended": ended, "status": status}
    written["attempts"] = [
        {"status": "interrupted", "started": f"2026-01-0{i}", "host": host, "pid": i, "energy": {"train": energy(1)}}
        for i, host in enumerate(hosts)
    ]
    return write(folder, written)


def test_copies_that_went_on_by_themselves_are_named(tmp_path: Path) -> None:
    one = branch(tmp_path / "one", "x", "a", joules=1000, ended="2026-01-01")
    other = branch(tmp_path / "other", "x", "b", joules=9000, ended="2026-01-02")
    reader = Reader()
    (run,), _ = reader.read([one, other])
    assert run.directory == other
    (note,) = reader.notes
    assert str(one.path) in note
    assert str(other.path) in note


def test_a_copy_of_the_beginning_of_a_run_is_a_copy(tmp_path: Path) -> None:
    half = branch(tmp_path / "half", "x", joules=1000, ended="2026-01-03", status="interrupted")
    whole = branch(tmp_path / "whole", "x", "b", joules=9000, ended="2026-01-02")
    backup = branch(tmp_path / "backup", "x", "b", joules=9000, ended="2026-01-02")
    reader = Reader()
    (run,), _ = reader.read([half, whole, backup])
    assert run.directory in (whole, backup)
    (note,) = reader.notes
    assert note.startswith("2 of the run directories are copies")


def test_repeats_with_other_names_for_a_class_are_joined_by_its_labels() -> None:
    def named(seed: int, started: str, **classes: float) -> Json:
        labels = ",".join(f"{name}={number}" for number, name in enumerate(classes, 1))
        made = record({"labels": labels, "seed": seed}) | {"started": started}
        made["metrics"]["classes"] = {name: {"dice": dice} for name, dice in classes.items()}
        return made

    first = named(0, "2026-01-01T00:00:00+00:00", csf=0.2, brain=0.8)
    swapped = named(1, "2026-01-02T00:00:00+00:00", brain=0.3, csf=0.9)
    (row,) = compared(first, swapped, quality="dice:csf").rows
    assert len(row.result.runs) == 2
    assert [run.metrics.classes["csf"].dice for run in row.result.runs] == [0.8, 0.9], "label 2, by its newest name"
