"""The record of a run, written by its own process or by the launcher, from start to end of an attempt."""

import os
from pathlib import Path

import pytest

from greenseg.energy import Energy
from greenseg.energy.reading import Reading
from greenseg.runs.attempt import Machine, Recording, completed
from greenseg.runs.record import Context, EnergyMethod, Error, Hardware, Memory, Ran
from greenseg.settings import Settings
from tests.runs import append, energy, epoch, record, recorded, write, write_record

MACHINE = Machine(
    Hardware(host="there", cpu="another CPU", cores=4, gpus=[]),
    {"greenseg": "9"},
    EnergyMethod(core_watts=[1, 1, 1], gb_watts=[2, 2, 2]),
)
SPENT = {"train": Energy(2, (Reading("cpu", 7, "rapl"),))}


def test_an_attempt_goes_on_from_what_earlier_ones_left(tmp_path: Path) -> None:
    before = record({}, "failed", error="OSError") | {"id": "mine", "content": "c", "unrestored": ["x"], "of later": 1}
    before["context"] = {"idle_watts": {"cpu": 5.0}, "order": "listed"}
    run = write(tmp_path, before)
    recording = Recording(run, Settings.of({}), MACHINE, Context(order="random"))
    found = recorded(run)
    assert recording.earlier_id == "mine"
    assert (found["status"], found["id"], found["content"], found["of later"]) == ("running", "mine", "c", 1)
    assert found["ran"] == before["ran"]
    assert found["context"] == {"idle_watts": {"cpu": 5.0}, "order": "random"}
    assert not {"error", "energy", "metrics", "unrestored", "network"} & found.keys(), "of the attempt before"
    first, second = found["attempts"]
    assert first == before["attempts"][0]
    assert (second["status"], second["pid"], second["host"], second["cpu"]) == (
        "running", os.getpid(), "there", "another CPU",
    )  # fmt: skip
    assert second["estimate"] == {"core_watts": [1, 1, 1], "gb_watts": [2, 2, 2]}


def test_a_new_run_gets_an_id_and_an_end(tmp_path: Path) -> None:
    run = write(tmp_path, record())
    (run.path / "run.json").unlink()
    recording = Recording(run, Settings.of({}), MACHINE, Context())
    assert recording.earlier_id is None
    assert recording.record.id
    recording.record.ran = Ran(precision="32-true")
    append(run, epoch(0, dice=0.7))
    recording.end("finished", SPENT, {"seconds": 0.5}, Memory(host_gb=1.5), unrestored=["repair"])
    found = recorded(run)
    assert found["status"] == found["attempts"][0]["status"] == "finished"
    assert found["attempts"][0]["check"] == {"difference": {"seconds": 0.5}, "ok": False}
    assert (found["metrics"]["joules"], found["metrics"]["dice"], found["metrics"]["epochs"]) == (7, 0.7, 1)
    assert found["memory"] == {"host_gb": 1.5}
    assert found["unrestored"] == ["repair"]
    assert found["ended"]


def test_other_ranks_do_not_write(tmp_path: Path) -> None:
    run = write(tmp_path, record({}, "running"))
    before = recorded(run)
    Recording(run, Settings.of({}), MACHINE, Context(), writes=False).save()
    assert recorded(run) == before


@pytest.mark.parametrize("begun", [True, False])
def test_a_failure_that_a_run_could_not_record_is_recorded_for_it(begun: bool, tmp_path: Path) -> None:
    run = write(tmp_path, record({}, "running"))
    if not begun:
        (run.path / "run.json").unlink()
    line = epoch(0, so_far={"train": energy(3, cpu_rapl=30)})
    before = run.record()
    if begun:
        append(run, line)
    run.write_record(completed(before, run.epochs(), Settings.of({}), Error(kind="crash", type="Killed", message="m")))
    found = recorded(run)
    assert (found["status"], found["error"]["kind"]) == ("failed", "crash")
    assert [attempt["status"] for attempt in found["attempts"]] == ["killed"] * begun
    assert found["metrics"]["joules"] == 30 * begun
    write_record(run, found)
    again = completed(run.record(), run.epochs(), Settings.of({}), unrestored=["repair"])
    assert (again.status, again.unrestored) == ("failed", ["repair"])
