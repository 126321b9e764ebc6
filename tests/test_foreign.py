"""Nothing that somebody else put into data, a run directory, a cache or a sweep file is executed or leads elsewhere.

Checkpoints are tried in tests/training/test_resume.py, cells of a CSV in tests/report/test_export.py.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from greenseg import yamlfile
from greenseg.data import cache, fingerprint
from greenseg.data import content as contents
from greenseg.errors import UserError
from greenseg.report.reader import read_runs
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import make_directory
from greenseg.runs.record import BadRecord
from greenseg.settings import Settings
from greenseg.sweep.file import read_sweep
from tests.runs import record, write
from tests.versions.blocks import write_blocks

DEEP = b"[" * 100_000


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def exploded(tmp_path: Path) -> Path:
    return tmp_path / "exploded"


def test_the_index_of_a_cache_is_data(exploded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    settings = Settings.of({"data": str(write_blocks(tmp_path / "data")), "image_size": 32, "spacing": 2.0})
    made = cache.prepare(settings)
    for content in (pickle.dumps(Bomb(exploded)), DEEP):
        (made.folder / "index.json").write_bytes(content)
        (memo,) = (tmp_path / "cache" / "fingerprints").iterdir()
        memo.write_bytes(content)
        assert cache.prepare(settings).built
    assert not exploded.exists()


def test_the_files_of_a_run_are_data(exploded: Path, tmp_path: Path) -> None:
    run = write(tmp_path, record())
    for content in (pickle.dumps(Bomb(exploded)), DEEP):
        for name in ("config.yaml", "content.json", "run.json", "epochs.jsonl", "split.csv", "checkpoints/best.ckpt"):
            (run.path / name).parent.mkdir(exist_ok=True)
            (run.path / name).write_bytes(content + b"\n")
        with pytest.raises(BadRecord):
            run.record()
        with pytest.raises(BadRecord):
            run.epochs()
        with pytest.raises(UserError):
            yamlfile.load(run.path / "config.yaml")
        assert contents.read(run.content) is None
        runs, damaged = read_runs([run])
        assert (len(runs), len(damaged)) == (0, 1)
    assert not exploded.exists()


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.mkdir [{exploded}]", "!!python/object/new:os.mkdir {{args: [{exploded}]}}",
     "!!python/name:os.system", "!!python/module:os", "!mine 3", "!!binary aGVsbG8="],
)  # fmt: skip
def test_tags_of_a_sweep_file_are_refused(tag: str, exploded: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"base:\n  model: {tag.format(exploded=exploded)}\n")
    with pytest.raises(UserError, match=rf"{file}:2:"):
        read_sweep(file)
    assert not exploded.exists()


@pytest.mark.parametrize("name", ["../climbs", "/tmp/climbs", "a/../../b", "..", ".hidden", "a\nb"])
def test_the_name_of_a_sweep_names_no_folder_elsewhere(name: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yamlfile.dump({"name": name, "base": {"epochs": 1}}))
    with pytest.raises(UserError, match="name"):
        read_sweep(file)


def test_settings_of_a_foreign_run_lead_to_no_folder_elsewhere(tmp_path: Path) -> None:
    """`greenseg train --config` of it makes a directory whose name is made of its settings."""
    settings = Settings.of({"data": "../../../elsewhere", "model": "enet"})
    settings = settings.model_copy(update={"encoder": "../../x", "decoder": "/y", "precision": "..\0"})
    assert Path(settings.slug).name == settings.slug
    made = make_directory(RunDirectory(tmp_path / "runs" / "train" / settings.slug), settings, None)
    assert made.path.resolve().parent == (tmp_path / "runs" / "train").resolve()


def test_a_list_of_files_that_never_end_is_not_read(tmp_path: Path) -> None:
    """The split.csv of a run of an earlier version names files whose content a report looks up."""
    (tmp_path / "split.csv").write_text("subject,split,image,mask\na,train,/dev/zero,/dev/zero\n")
    assert contents.recomputed(tmp_path / "split.csv", "0" * 16, Settings.of({"model": "enet"})) is None
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        fingerprint.digests([tmp_path / "pipe"])
