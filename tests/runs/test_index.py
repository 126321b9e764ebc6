"""Which directory holds a run, and what of the data tells runs apart."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from greenseg.data.content import Content, Contents
from greenseg.report.reader import read_runs
from greenseg.report.results import CONTENT, by_configuration
from greenseg.report.select import Query
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.runs.index import RunIndex, make_directory
from greenseg.settings import Settings
from tests.runs import energy, epoch, estimate_with, lines_of, record, write, write_record
from tests.versions.blocks import write_blocks


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def content_of(settings: Settings) -> Content:
    content = Contents().of(settings)
    assert content
    return content


def trained(sweep: str = "s", **values: Any) -> RunDirectory:
    """A run that has finished on the data that its settings name now."""
    settings = Settings.of(values)
    written = record(values) | content_of(settings).names
    written["attempts"][0]["pid"] = hash(str(values)) % 30_000
    run = write(Path("runs", sweep), written)
    run.create(settings, content_of(settings).to_json())
    return run


def change_mask(data: Path) -> None:
    content = bytearray((data / "masks/mask_0001.nrrd").read_bytes())
    content[-700] ^= 1
    (data / "masks/mask_0001.nrrd").write_bytes(content)


def change_image(data: Path) -> None:
    content = bytearray((data / "images/img_0002.nrrd").read_bytes())
    content[-1] ^= 1
    (data / "images/img_0002.nrrd").write_bytes(content)


def add_subject(data: Path) -> None:
    write_blocks(data, subjects=4)


def name_split(data: Path) -> None:
    for folder in ("images", "masks"):
        for part, numbers in (("training_data", (0, 1)), ("validation_data", (2,))):
            (data / part / folder).mkdir(parents=True)
            for number in numbers:
                (file,) = (data / folder).glob(f"*{number}.nrrd")
                file.rename(data / part / folder / file.name)
        (data / folder).rmdir()


CHANGES = {
    "masks changed: img_0001": change_mask,
    "images changed: img_0002": change_image,
    "subjects added: img_0003": add_subject,
    "moved to validation: img_0002; moved to training: img_0001": name_split,
}


@pytest.mark.parametrize("said", CHANGES)
def test_whatever_changes_of_the_data_it_is_another_run(said: str) -> None:
    data = write_blocks(Path("data"))
    settings, run = Settings.of({"data": "data"}), trained(data="data")
    before = content_of(settings)
    assert RunIndex(Path("runs")).find(settings, before).entry is not None
    CHANGES[said](data)
    now = content_of(settings)
    assert now.difference(before) == said
    assert before.difference(Content.from_json(before.to_json())) == ""
    found = RunIndex(Path("runs")).find(settings, now)
    assert found.entry is None
    assert found.other is not None
    assert found.other.directory == run
    new = make_directory(RunDirectory(Path("runs", "s", settings.slug)), settings, now)
    assert new.path.name == f"{settings.slug}.2"
    assert make_directory(RunDirectory(Path("runs", "t", settings.slug)), settings, now) == new, "of another sweep"


def test_data_that_moved_or_were_touched_or_are_listed_otherwise_are_the_same() -> None:
    write_blocks(Path("data"))
    run = trained(data="data")
    shutil.copytree("data", "elsewhere")  # other times, other places on the disk
    for values in ({"data": "elsewhere"}, {"data": "elsewhere", "layout": "e2mip"}):
        settings = Settings.of(values)
        found = RunIndex(Path("runs")).find(settings, content_of(settings))
        assert found.entry is not None
        assert found.entry.directory == run
    shutil.rmtree("data")
    found = RunIndex(Path("runs")).find(Settings.of({"data": "data"}), None)
    assert found.entry is not None
    assert found.by_path, "settings and path decide, and that is said"


def test_a_preprocessing_that_gives_other_pixels_gives_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    write_blocks(Path("data"))
    trained(data="data")
    settings = Settings.of({"data": "data"})
    before = content_of(settings)
    monkeypatch.setattr("greenseg.data.content.PREPROCESSING", 99)
    now = content_of(settings)
    assert now.digest == before.digest
    assert "version 99 now" in now.difference(before)
    found = RunIndex(Path("runs")).find(settings, now)
    assert (found.entry, bool(found.other)) == (None, True)


def test_another_preprocessing_of_data_that_moved_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_blocks(Path("data"))
    run = trained(data="data")
    data.rename("elsewhere")
    monkeypatch.setattr("greenseg.data.content.PREPROCESSING", 99)
    settings = Settings.of({"data": "elsewhere"})
    found = RunIndex(Path("runs")).find(settings, content_of(settings))
    assert found.entry is None
    assert found.other is not None
    assert found.other.directory == run
    change_mask(Path("elsewhere"))
    assert RunIndex(Path("runs")).find(settings, content_of(settings)).other is None, "other files: not that run at all"


def test_identities_that_share_eight_digits_are_two_runs() -> None:
    """As directories of earlier versions were named: the second run was reported as finished, untrained."""
    one, two = (Settings.of({"lr": lr}) for lr in (0.0027458, 0.0060607))
    assert one.identity != two.identity
    run = write(Path("runs", "s"), record({"lr": one.lr}))
    named = run.path.with_name(f"{one.slug.rpartition('-')[0]}-{two.identity[:8]}")
    run.path.rename(named)
    assert RunIndex(Path("runs")).find(two, None).entry is None
    assert make_directory(RunDirectory(Path("runs", "s", two.slug)), two, None).path != named


def test_a_damaged_directory_is_started_over_in_only_by_its_own_run() -> None:
    """config.yaml and content.json still tell whose it is."""
    data = write_blocks(Path("data"))
    one, two = (Settings.of({"lr": lr, "data": "data"}) for lr in (0.0027458, 0.0060607))
    run = trained(data="data", lr=one.lr)
    named = RunDirectory(run.path.rename(run.path.with_name(f"{one.slug.rpartition('-')[0]}-{two.identity[:8]}")))
    (named.path / "run.json").write_text("{")
    index = RunIndex(Path("runs"))
    assert index.find(two, content_of(two)).entry is None
    assert make_directory(RunDirectory(named.path.with_name(two.slug)), two, content_of(two)).path != named.path
    named.path.rename(run.path)
    found = RunIndex(Path("runs")).find(one, content_of(one)).entry
    assert found is not None
    assert (found.directory, bool(found.problem)) == (run, True)
    change_mask(data)
    found = RunIndex(Path("runs")).find(one, content_of(one)).entry
    assert found is None, "it was trained on other content"
    assert make_directory(run, one, content_of(one)).path.name == f"{one.slug}.2"


def test_of_copies_the_one_that_got_furthest_goes_on_else_that_of_the_sweep() -> None:
    write_blocks(Path("data"))
    values = {"data": "data"}
    settings = Settings.of(values)
    written = record(values, "interrupted") | content_of(settings).names
    run = write(Path("runs", "s"), written, [epoch(0), epoch(1), epoch(2)])
    run.create(settings, content_of(settings).to_json())
    for copied, lines in (("a", 1), ("b", 3)):
        copy = Path(shutil.copytree("runs/s", Path("runs", copied))) / run.path.name / "epochs.jsonl"
        copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:lines]))
    index = RunIndex(Path("runs"))
    for folder in ("s", "b"):
        found = index.find(settings, content_of(settings), f"runs/{folder}").entry
        assert found is not None
        assert found.directory.path.parent == Path("runs", folder)
    elsewhere = index.find(settings, content_of(settings), "runs/a").entry
    assert elsewhere is not None
    assert len(lines_of(elsewhere.directory)) == 3


def test_a_directory_with_a_name_of_its_own_is_found() -> None:
    write_blocks(Path("data"))
    run = trained(data="data")
    renamed = run.path.rename(run.path.with_name("best so far"))
    settings = Settings.of({"data": "data"})
    found = RunIndex(Path("runs")).find(settings, content_of(settings)).entry
    assert found is not None
    assert found.directory.path == renamed


def test_where_settings_and_path_do_not_decide_that_is_known() -> None:
    data = write_blocks(Path("data"))
    settings = Settings.of({"data": "data"})
    trained(data="data")
    assert RunIndex(Path("runs")).find(settings, None).contents == 1
    change_mask(data)
    other = make_directory(RunDirectory(Path("runs", "s", settings.slug)), settings, content_of(settings))
    write_record(other, record({"data": "data"}) | content_of(settings).names)
    assert RunIndex(Path("runs")).find(settings, None).contents == 2


def test_rows_join_repeats_on_equal_content_only() -> None:
    data = write_blocks(Path("data"))
    for seed in (0, 1):
        trained(data="data", seed=seed)
    shutil.copytree("data", "elsewhere")
    trained(data="elsewhere", seed=2)
    change_mask(data)
    trained("later", data="data", seed=3)
    trained("later", data="data", seed=0, precision="bf16-mixed")
    runs, damaged = read_runs(find_runs([Path("runs")]))
    assert damaged == []
    results = by_configuration(runs)
    assert sorted(len(result.runs) for result in results) == [1, 1, 3]
    assert len({result.settings[CONTENT] for result in results}) == 2
    assert Query().compare(results).effects == [], "no two runs on the same data differ in precision only"


def test_copies_and_links_of_a_run_are_that_run() -> None:
    write_blocks(Path("data"))
    for seed in (0, 1):
        trained(data="data", seed=seed)
    shutil.copytree("runs/s", "runs/backup")
    for number, run in enumerate(sorted(Path("runs/backup").iterdir())):
        run.rename(run.with_name(f"renamed {number}"))
    Path("runs/link").symlink_to("s", target_is_directory=True)
    Path("runs/loop").symlink_to(".", target_is_directory=True)
    runs, _ = read_runs(find_runs([Path("runs")]))
    assert len(runs) == 2


def estimated(watts: float, values: dict[str, Any]) -> RunDirectory:
    """A run of 10 CPU seconds and 50 GB seconds, estimated at so many watts a core."""
    total = energy(10, cpu_estimate=10 * watts, dram_estimate=20)
    written = record(values, total=total)
    estimate_with(written, [watts] * 3, [0.4, 0.4, 0.4])
    written["ended"] = f"2026-01-0{1 + (watts > 12)}T00:00:00+00:00"
    line = epoch(0, train=total, validation=energy(0), so_far={"train": total})
    return write(Path("runs", "s"), written, [line])


def test_estimates_by_other_constants_are_restated_with_the_latest() -> None:
    estimated(12, {"epochs": 1})
    estimated(60, {"epochs": 1, "seed": 1})
    runs, _ = read_runs(find_runs([Path("runs")]))
    assert [run.metrics.joules for run in runs] == [620, 620]
    assert [run.metrics.joules_per_epoch for run in runs if run.settings["seed"] == 0] == [620]
    assert {tuple(core for core, _ in run.watts) for run in runs} == {((60, 60, 60),)}
