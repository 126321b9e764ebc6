"""Runs that compress or learn from another run: order, lineage, joules, and what happens if something goes wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from greenseg.energy import EnergyMeter
from greenseg.errors import UserError
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.runs.record import Record
from greenseg.runs.summary import own_energy
from greenseg.settings import Settings, parent_of, parents_first
from greenseg.training import events
from greenseg.training.checkpoints import Checkpoints
from greenseg.training.distillation import divergence
from greenseg.training.run import Interrupted, train
from tests import warm
from tests.conftest import Command

SMALL = {
    "model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "batch_size": 32, "epochs": 1,
    "finetune_epochs": 1, "accelerator": "cpu",
}  # fmt: skip


def write(folder: Path, phantom: Path, name: str = "small", **keys: Any) -> Path:
    base = {**SMALL, "data": str(phantom), **keys.pop("base", {})}
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"name": name, "base": base, **keys}))
    return file


def records(folder: Path) -> dict[str, Record]:
    """Its settings of compression → the record of each finished run."""
    found = {}
    for run in find_runs([folder]):
        record = run.record()
        assert record
        found["-".join(run.path.name.split("-s0-")[1].split("-")[:-1]) or "parent"] = record
    return found


def joules(energy: Any) -> float:
    return sum(sum(sources.values()) for sources in energy["joules"].values())


# ── settings


def test_the_parent_has_the_same_settings_with_compression_neutral() -> None:
    plain = Settings.of({"epochs": 7, "seed": 3})
    pruned = Settings.of({"epochs": 7, "seed": 3, "prune": 0.3, "finetune_epochs": 2})
    assert parent_of(plain) is None
    assert parent_of(pruned) == plain
    assert parent_of(pruned).identity == plain.identity  # type: ignore[union-attr]
    both = Settings.of(pruned.resolved() | {"quantize": "bf16"})
    assert parent_of(both) == pruned, "a converted network comes from the pruned one"
    assert (both.own_epochs, pruned.own_epochs, plain.own_epochs) == (0, 2, 7)


def test_parents_come_first_and_once() -> None:
    plain = Settings.of({})
    children = [Settings.of({"prune": share}) for share in (0.3, 0.5)]
    both = Settings.of({"prune": 0.3, "quantize": "bf16"})
    other = Settings.of({"seed": 1})
    assert parents_first([both, *children, other, plain]) == [plain, children[0], both, children[1], other]
    assert parents_first([other, plain]) == [other, plain]


def test_a_teacher_is_known_by_the_end_of_its_name_wherever_it_is() -> None:
    one = Settings.of({"teacher": "runs/a/net-0123456789abcdef", "distill_weight": 0.7})
    moved = Settings.of({"teacher": "/elsewhere/net-0123456789abcdef", "distill_weight": 0.7})
    other = Settings.of({"teacher": "runs/a/net-0123456789abcde0", "distill_weight": 0.7})
    assert one.identity == moved.identity != other.identity


# ── a sweep


def test_a_pruned_run_follows_its_parent_and_costs_its_joules(phantom: Path, greenseg: Command, tmp_path: Path) -> None:
    file = write(tmp_path, phantom, grid={"prune": [0.3, 0.5]})
    planned = greenseg("sweep", file, "--dry-run")
    assert "Added 1 run" in planned.stdout
    done = greenseg("sweep", file)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "runs")
    assert {*found} == {"parent", "pruned0.3", "pruned0.5"}
    parent = found["parent"]
    assert parent.metrics.joules is not None
    assert not parent.lineage.ancestors
    for name in ("pruned0.3", "pruned0.5"):
        child = found[name]
        (ancestor,) = child.lineage.parents
        assert child.energy
        assert ancestor.energy
        assert ancestor.id == parent.id
        assert ancestor.identity == parent.identity
        assert joules(ancestor.energy) == pytest.approx(parent.metrics.joules)
        own = own_energy(child).joules
        assert child.metrics.own_joules == pytest.approx(own)
        assert child.metrics.joules == pytest.approx(own + parent.metrics.joules)
        assert joules(child.energy.total) == pytest.approx(own + parent.metrics.joules), "components, too"
        assert "compression" in child.energy.phases
        assert child.network.parameters is not None
        assert parent.network.parameters is not None
        assert child.network.parameters < 0.8 * parent.network.parameters
    assert found["pruned0.5"].network.parameters < found["pruned0.3"].network.parameters  # type: ignore[operator]

    spent = sum(each.metrics.own[0] or 0 for each in found.values())
    text = greenseg("report", "runs", "--format", "json").stdout
    said = json.loads(text)
    assert len(said["configurations"]) == 3
    assert greenseg("sweep", file, "--dry-run", "--json").stdout.count('"finished"') >= 3
    assert json.loads(greenseg("sweep", file, "--dry-run", "--json").stdout)["joules"] == pytest.approx(spent)
    started = [run.record().attempts for run in find_runs([tmp_path / "runs"])]  # type: ignore[union-attr]
    assert greenseg("sweep", file).returncode == 0
    assert [run.record().attempts for run in find_runs([tmp_path / "runs"])] == started, "nothing trains twice"  # type: ignore[union-attr]

    # Predictions work without the library for pruning, on the shape in its file.
    run = next(run.path for run in find_runs([tmp_path / "runs"]) if "pruned0.5" in run.path.name)
    done = greenseg("predict", run, "-i", phantom, "-o", "masks", "--layout", "auto")
    assert done.returncode == 0, done.stderr
    (run / "checkpoints" / "shape.json").write_text("{")
    broken = greenseg("predict", run, "-i", phantom, "-o", "others")
    assert broken.returncode == 2
    assert "shape.json" in broken.stderr


def test_a_failed_parent_fails_its_children_which_are_tried_with_it(
    phantom: Path, greenseg: Command, tmp_path: Path
) -> None:
    file = write(tmp_path, phantom, base={"lr": 1.0, "epochs": 2}, grid={"prune": [0.3]}, timeout="0.05 s")
    failed = greenseg("sweep", file)
    assert failed.returncode == 1, failed.stdout
    found = records(tmp_path / "runs")
    child = found["pruned0.3"]
    assert child.status == "failed"
    assert child.error
    assert child.error.kind == "parent"
    assert "its parent failed" in child.error.message
    assert "timed out" in greenseg("report", "runs").stdout
    again = greenseg("sweep", file, "--json")
    assert again.returncode == 1
    last = json.loads(again.stdout.splitlines()[-1])
    assert (last["finished"], last["failed"], last["unfinished"]) == (0, 2, 0), "each failure counts once"
    file.write_text(file.read_text().replace("0.05 s", "600 s"))
    assert greenseg("sweep", file, "--retry-failed").returncode == 0
    assert {each.status for each in records(tmp_path / "runs").values()} == {"finished"}


@pytest.fixture
def _one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run is a process of its own, and sets what holds for all of it."""
    monkeypatch.setenv(events.THREADS, "1")
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_process")
def test_a_child_that_was_stopped_ends_as_if_undisturbed(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Settings.of({**SMALL, "data": str(phantom), "finetune_epochs": 3, "prune": 0.5, "model": "contextnet"})

    def trained(root: str, settings: Settings) -> RunDirectory:
        run = RunDirectory(tmp_path / root / "sweep" / settings.slug)
        run.create(settings)
        train(run, settings, EnergyMeter(), rank=0)
        return run

    with pytest.raises(UserError, match="has not been trained below"):
        trained("one", child)
    for root in ("one", "other"):
        trained(root, parent_of(child))  # type: ignore[arg-type]
    whole = trained("one", child)
    save = Checkpoints.save

    def interrupt(self: Checkpoints, trainer: Any) -> None:
        save(self, trainer)
        if trainer.current_epoch == 1:
            raise Interrupted

    # Killed before the first checkpoint: the shape is decided again, and is the same.
    stopped = RunDirectory(tmp_path / "other" / "sweep" / child.slug)
    stopped.create(child)
    stopped.shape.write_text("{}")
    monkeypatch.setattr(Checkpoints, "save", interrupt)
    with pytest.raises(Interrupted):
        trained("other", child)
    monkeypatch.undo()
    assert stopped.shape.read_text() == whole.shape.read_text()
    trained("other", child)
    first, second = (torch.load(run.best_checkpoint, weights_only=True) for run in (whole, stopped))
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name])
    records = [run.record() for run in (whole, stopped)]
    assert records[0].metrics.dice == records[1].metrics.dice  # type: ignore[union-attr]
    assert [len(record.attempts) for record in records if record] == [2, 2], "without a parent, it failed at first"
    assert [line.epoch for line in stopped.epochs()] == [0, 1, 2]


# ── a teacher


def test_a_training_that_is_stopped_in_its_parent_says_so(phantom: Path, tmp_path: Path) -> None:
    options = ["--model", "contextnet", "--image-size", "32", "--spacing", "8", "--batch-size", "16", "--epochs", "500"]
    with warm.Popen(
        [sys.executable, "-m", "greenseg", "train", "--data", str(phantom), *options, "--prune", "0.5"],
        cwd=tmp_path, env=os.environ | {"NO_COLOR": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as running:  # fmt: skip
        assert running.stdout
        said = ""
        for line in running.stdout:
            said += line
            if "epoch 1" in line:
                running.send_signal(signal.SIGINT)
                break
        said += running.communicate(timeout=120)[0]
    assert running.returncode == 130, said
    assert "the same command continues" in said
    assert "Traceback" not in said
    (parent,) = find_runs([tmp_path / "runs"])
    assert parent.status() == "interrupted"


def test_a_student_learns_from_the_best_of_a_sweep(phantom: Path, greenseg: Command, tmp_path: Path) -> None:
    teachers = write(tmp_path, phantom, "teachers", grid={"lr": [0.003, 0.01]})
    assert greenseg("sweep", teachers).returncode == 0
    runs = find_runs([tmp_path / "runs" / "teachers"])
    best = max(runs, key=lambda run: run.record().metrics.dice or 0)  # type: ignore[union-attr]
    students = write(
        tmp_path, phantom, "students", base={"model": "enet", "teacher": "best of teachers"},
        grid={"distill_weight": [0.5, 1.0]},
    )  # fmt: skip
    done = greenseg("sweep", students)
    assert done.returncode == 0, done.stderr
    found = [run.record() for run in find_runs([tmp_path / "runs" / "students"])]
    assert len(found) == 2
    for record in found:
        assert record
        (teacher,) = record.lineage.ancestors
        of_teacher = best.record()
        assert of_teacher
        assert (teacher.role, teacher.id) == ("teacher", of_teacher.id)
        assert record.metrics.joules == pytest.approx(
            (record.metrics.own_joules or 0) + (of_teacher.metrics.joules or 0)
        )
        assert not any("teacher" in name for name in torch.load(
            next(iter(find_runs([tmp_path / "runs" / "students"]))).best_checkpoint, weights_only=True
        )["state_dict"])  # fmt: skip

    shared = greenseg("sweep", students, "--set", "teacher_shared=true")
    assert shared.returncode == 0
    for run in find_runs([tmp_path / "runs" / "students"]):
        record = run.record()
        assert record
        assert record.metrics.joules == pytest.approx(record.metrics.own_joules)
    assert "teacher" in greenseg("report", "runs/students").stdout, "it says that joules of the teacher are left out"


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("best of teecher", "no sweep 'teecher' in runs (did you mean 'teacher'?)"),
        ("runs/none", "not the directory of a run"),
        ("trained", "image_size 32, not 64"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_starts(
    teacher: str, message: str, phantom: Path, greenseg: Command, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "teacher").mkdir(parents=True)
    teacher = str(trained) if teacher == "trained" else teacher
    file = write(tmp_path, phantom, base={"teacher": teacher, "image_size": 64})
    refused = greenseg("sweep", file)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert f"{file.name}:1:" in refused.stderr
    alone = greenseg("train", "--data", phantom, "--teacher", teacher, "--image-size", "64", "--spacing", "8")
    assert alone.returncode == 2
    assert message in alone.stderr


def test_soft_masks_of_an_equal_network_cost_nothing_and_others_pull() -> None:
    torch.manual_seed(0)
    for outputs in (1, 4):
        teacher = torch.randn(2, outputs, 5, 5)
        assert float(divergence(teacher.clone(), teacher, 2.0)) == pytest.approx(0, abs=1e-6)
        student = torch.randn(2, outputs, 5, 5, requires_grad=True)
        loss = divergence(student, teacher, 2.0)
        loss.backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        assert float(divergence(student.detach() - student.grad * 10, teacher, 2.0)) < float(loss)
    # By hand: one pixel, temperature 1, probabilities 0.5 of the student and 0.9 of the teacher.
    by_hand = 0.9 * torch.log(torch.tensor(0.9 / 0.5)) + 0.1 * torch.log(torch.tensor(0.1 / 0.5))
    teacher = torch.logit(torch.tensor(0.9)).reshape(1, 1, 1, 1)
    assert float(divergence(torch.zeros(1, 1, 1, 1), teacher, 1.0)) == pytest.approx(float(by_hand), rel=1e-5)
