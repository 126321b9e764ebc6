"""The files of a run that can go, and those that must stay."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenseg.errors import UserError
from greenseg.runs.directory import RunDirectory
from greenseg.runs.disk import free, free_networks, lost_network, needed
from greenseg.runs.lineage import with_network
from tests.runs import Json, record, recorded, write
from tests.runs.test_directory import hold

FILES = {"best.ckpt": 100, "last.ckpt": 300, "shape.json": 2, "network.onnx": 40, "network.xml": 5, "network.bin": 35}
"""Name → size in bytes of the files in `checkpoints/`, those of all engines at once."""


def with_files(root: Path, written: Json) -> RunDirectory:
    run = write(root, written)
    for name, size in FILES.items():
        (run.checkpoints / name).write_bytes(b"x" * size)
    return run


def files(run: RunDirectory) -> set[str]:
    return {path.name for path in run.checkpoints.iterdir()}


def test_a_finished_run_loses_its_last_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    run = with_files(tmp_path / "a", record())
    before = recorded(run)
    freed = free(run)
    assert (freed.bytes, freed.network, freed.kept) == (300, False, "")
    assert files(run) == {*FILES} - {"last.ckpt"}
    assert recorded(run) == before
    assert free(run).bytes == 0


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "new", "of a later version"])
def test_a_run_with_any_other_status_keeps_all(status: str, tmp_path: Path) -> None:
    run = with_files(tmp_path / "a", record() | {"status": status})
    assert free(run, "keep: none").bytes == 0
    assert files(run) == {*FILES}
    assert json.loads((run.path / "run.json").read_bytes())["status"] == status


def test_a_run_without_a_record_keeps_all(tmp_path: Path) -> None:
    run = with_files(tmp_path / "a", record())
    (run.path / "run.json").unlink()
    assert free(run, "keep: none").bytes == 0
    assert files(run) == {*FILES}


def test_a_network_goes_once_the_record_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_files(tmp_path / "a", record())

    def fails(self: RunDirectory, record: Any) -> None:
        raise OSError(28, "No space left on device", str(self.path / "run.json"))

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_record", fails)
        freed = free(run, "keep: none")
    assert "No space left" in freed.kept
    assert freed.bytes == 300, "the file that needs no record went first, and made room"
    assert files(run) == {*FILES} - {"last.ckpt"}

    # Killed after the record, before the deletion: the network is still one, and goes the next time.
    whole = run.record()
    assert whole is not None
    whole.deleted = "keep: none"
    run.write_record(whole)
    assert not lost_network(run)
    assert with_network(run, "parent").status == "finished"

    assert free(run, "keep: none").network
    assert files(run) == {"shape.json"}
    assert lost_network(run)
    assert recorded(run) == record() | {"deleted": "keep: none"}
    with pytest.raises(UserError, match=r"keep: none.*greenseg train --config .*config.yaml.* --again"):
        with_network(run, "parent")


def test_a_run_that_another_process_has_keeps_all(tmp_path: Path) -> None:
    run = with_files(tmp_path / "a", record())
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(run.path, begun, end))
    process.start()
    assert begun.wait(60)
    try:
        freed = free(run, "keep: none")
    finally:
        end.set()
        process.join()
    assert str(run.path) in freed.kept
    assert files(run) == {*FILES}
    assert free(run, "keep: none").bytes == sum(FILES.values()) - FILES["shape.json"]


NETWORK = {"encoder": "resnet18", "decoder": "unet"}


@pytest.mark.parametrize(
    ("child", "is_needed"),
    [
        (lambda parent: record(NETWORK | {"prune": 0.5}, "interrupted"), True),
        (lambda parent: record(NETWORK | {"prune": 0.5}, "failed", error="ValueError"), True),
        (lambda parent: record(NETWORK | {"prune": 0.5, "quantize": "int8", "runtime": "openvino"}, "running"), True),
        (lambda parent: record(NETWORK | {"prune": 0.5}), False),
        (lambda parent: record({"encoder": "resnet34", "decoder": "unet", "prune": 0.5}, "interrupted"), False),
        (lambda parent: record({"encoder": "mobilenet_v2", "teacher": str(parent.path)}), True),
    ],
)
def test_networks_that_other_runs_need_stay(
    child: Callable[[RunDirectory], Json], is_needed: bool, tmp_path: Path
) -> None:
    parent = with_files(tmp_path / "a", record(NETWORK))
    other = with_files(tmp_path / "a", record(NETWORK | {"seed": 7}))
    needs = write(tmp_path / "another sweep", child(parent))
    assert needed([parent, other]) == ({parent.path.resolve(): needs.path.resolve()} if is_needed else {})
    found = free_networks([parent, other], "keep: none")
    assert found[parent.path].network is not is_needed
    assert (found[parent.path].needed_by is not None) == is_needed
    assert found[other.path].network
    assert ("best.ckpt" in files(parent)) == is_needed
    assert "last.ckpt" not in files(parent)
