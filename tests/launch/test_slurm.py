"""The job script on a real Slurm, with a stub as the worker: requeues, ends, and what is said about them."""

import errno
import fcntl
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greenseg import locks
from greenseg.batch_job import STOP_SECONDS
from greenseg.errors import UserError
from greenseg.launchers.launcher import Cause, NoAnswer, NotStarted, Phase, Submission, Worker, ended
from greenseg.launchers.slurm import Slurm, pending
from greenseg.launchers.submissions import Submissions
from tests.launch.test_launchers import Bench
from tests.slurm import Slurm as SlurmHere
from tests.slurm import running as running_slurm
from tests.slurm import wait_for

AGAIN = """
echo start ${SLURM_RESTART_COUNT:-0}
[ -z "$SLURM_RESTART_COUNT" ] || exit 0
trap 'exit 75' TERM
touch $GREENSEG_WORKER.began
while :; do sleep 0.05; done
"""
"""A worker that asks for another start when it is told to stop, and is done in its second start."""


@pytest.fixture
def bench(slurm: SlurmHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for variable, value in slurm.environment.items():
        monkeypatch.setenv(variable, value)
    slurm.idle()
    bench = Bench("slurm", tmp_path)
    yield bench
    bench.submissions.cancel(bench.submissions.open())


def starts(worker: Worker) -> list[str]:
    """The lines of a worker that tell its starts."""
    return [line for line in worker.log.read_text().splitlines() if line.startswith("start")]


def running(found: list[Worker]) -> bool:
    return {worker.phase for worker in found} == {Phase.RUNNING}


def is_pending(found: list[Worker]) -> bool:
    return {worker.phase for worker in found} == {Phase.PENDING}


def test_a_worker_that_is_warned_stops_in_time_and_goes_on_later(bench: Bench, slurm: SlurmHere) -> None:
    # The last task of an array has the number of the whole array as its own: only this task may start again.
    submission = bench.submit(AGAIN, 2)
    bench.wait(lambda found: running(found) and len(list(bench.folder.rglob("*.began"))) == 2)
    slurm.run("scancel", "--signal=USR1", "--batch", f"{submission.job}_1")  # as Slurm does before the time limit
    assert wait_for(lambda: bench.states()[1].phase == Phase.PENDING)
    assert bench.states()[0].phase == Phase.RUNNING
    assert "requeued" in bench.states()[1].reason
    assert wait_for(lambda: bench.states()[1].phase == Phase.ENDED)
    assert (bench.states()[1].cause, bench.states()[1].code) == (Cause.DONE, 0)
    assert starts(bench.states()[1]) == ["start 0", "start 1"]
    assert starts(bench.states()[0]) == ["start 0"]


def test_the_warning_comes_before_the_time_limit(bench: Bench, slurm: SlurmHere) -> None:
    submission = bench.submit(AGAIN, 1, time="0-00:05:00")
    bench.wait(running)
    assert f"--signal=B:USR1@{STOP_SECONDS:.0f}" in submission.file(".sh").read_text()
    assert slurm.show(f"{submission.job}_0")["TimeLimit"] == "00:05:00"
    slurm.run("scontrol", "update", f"job={submission.job}_0", "TimeLimit=1")  # the warning is due already
    (worker,) = bench.end()
    assert (worker.cause, starts(worker)) == (Cause.DONE, ["start 0", "start 1"])


def test_a_worker_that_asks_for_another_start_by_itself(bench: Bench) -> None:
    """It has no time for a further run."""
    bench.submit('echo start; [ -n "$SLURM_RESTART_COUNT" ] || exit 75', 1)
    (worker,) = bench.end()
    assert (worker.cause, starts(worker)) == (Cause.DONE, ["start", "start"])


def test_a_cancelled_worker_does_not_start_again(bench: Bench, slurm: SlurmHere) -> None:
    submission = bench.submit(AGAIN, 2)
    bench.wait(lambda found: running(found) and len(list(bench.folder.rglob("*.began"))) == 2)
    slurm.run("scancel", f"{submission.job}")
    found = bench.end()
    assert {(worker.cause, worker.code) for worker in found} == {(Cause.CANCELLED, 75)}
    assert not any(submission.file(".left", number).exists() for number in range(2))
    assert slurm.show(f"{submission.job}_0")["Restarts"] == "0"


def test_without_scontrol_it_leaves_a_note_and_is_submitted_again(
    bench: Bench, slurm: SlurmHere, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"  # as in a container
    tools.mkdir()
    for name in ("bash", "cat", "mv", "rm", "sleep", "touch"):
        tools.joinpath(name).symlink_to(slurm.run("bash", "-c", f"command -v {name}"))
    done = tmp_path / "done"
    stub = f"echo start; [ ! -e {done} ] || exit 0; touch {done}; exit 75"
    submission = bench.submit(stub, 1, setup=[f"export PATH={tools}"])
    found = bench.end()
    assert (found[0].code, submission.file(".left", 0).exists()) == (75, True)
    (again,) = bench.submissions.submit_left([submission], found, print)
    assert list(again.replaces) == [submission.worker(0)]
    found = bench.end()
    assert [(worker.cause, worker.code) for worker in found][1:] == [(Cause.DONE, 0)]


def test_a_preempted_worker_goes_on_later(bench: Bench, slurm: SlurmHere) -> None:
    bench.submit(AGAIN, 1, cpus_per_task=4)
    (worker,) = bench.wait(lambda found: running(found) and any(bench.folder.rglob("*.began")))
    urgent = slurm.submit("true", "--partition=urgent", "--cpus-per-task=4", f"--nodelist={worker.host}")
    assert slurm.wait(urgent) == "COMPLETED"
    (worker,) = bench.end()
    assert (worker.cause, starts(worker)) == (Cause.DONE, ["start 0", "start 1"])


def test_a_worker_that_is_preempted_with_a_grace_time_stops_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = "preempt_send_user_signal"
    with running_slurm(1, CPUS=4, PREEMPTION=1, GRACE_SECONDS=60, PREEMPT_PARAMETERS=signals) as slurm:
        for variable, value in slurm.environment.items():
            monkeypatch.setenv(variable, value)
        bench = Bench("slurm", tmp_path)
        bench.submit(AGAIN, 1, cpus_per_task=4)
        bench.wait(lambda found: running(found) and any(bench.folder.rglob("*.began")))
        urgent = slurm.submit("true", "--partition=urgent", "--cpus-per-task=4")
        assert slurm.wait(urgent, seconds=30) == "COMPLETED"
        (worker,) = bench.end()
        assert (worker.cause, starts(worker)) == (Cause.DONE, ["start 0", "start 1"])


def test_a_worker_whose_node_fails_goes_on_elsewhere(bench: Bench, slurm: SlurmHere) -> None:
    bench.submit(AGAIN, 1)
    (worker,) = bench.wait(running)
    slurm.run("scontrol", "update", f"nodename={worker.host}", "state=down", "reason=test")
    try:
        bench.wait(is_pending)
        (worker,) = bench.end()
    finally:
        slurm.run("scontrol", "update", f"nodename={','.join(slurm.nodes)}", "state=resume", check=False)
    assert (worker.cause, starts(worker)[-1]) == (Cause.DONE, "start 1")


def test_pending_reasons_in_words(bench: Bench, slurm: SlurmHere) -> None:
    wide = bench.submit("last", 3, cpus_per_task=4)
    bench.wait(lambda found: [worker.phase for worker in found].count(Phase.RUNNING) == 2)
    found = bench.wait(lambda found: found[2].reason.endswith("(Resources)"))
    assert "free nodes" in found[2].reason
    bench.submissions.cancel([wide])
    bench.end()
    bench.submit("last", 2, max_parallel=1)
    found = bench.wait(lambda found: found[-1].reason.endswith("(JobArrayTaskLimit)"))
    assert "max_parallel" in found[-1].reason
    assert pending("QOSMaxCpuPerUserLimit").startswith("waits for a limit")
    assert pending("(null)").endswith("((null))")
    assert pending("None") == "waits to be scheduled"


@pytest.mark.parametrize("accounts", [False, True], ids=["squeue", "sacct"])
def test_a_worker_that_its_node_took_along(
    accounts: bool, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm: SlurmHere = request.getfixturevalue("slurm_with_accounting" if accounts else "slurm")
    for variable, value in slurm.environment.items():
        monkeypatch.setenv(variable, value)
    slurm.idle()
    bench = Bench("slurm", tmp_path)
    submission = bench.submit("last", 1)
    (worker,) = bench.wait(running)
    slurm.run("scontrol", "update", f"job={submission.job}_0", "Requeue=0")
    slurm.run("scontrol", "update", f"nodename={worker.host}", "state=down", "reason=test")
    try:
        (worker,) = bench.end()
    finally:
        slurm.run("scontrol", "update", f"nodename={worker.host}", "state=resume", check=False)
    assert worker.cause == Cause.NODE_FAILURE


def test_a_worker_that_is_killed_because_memory_ran_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_slurm(1, OVER_MEMORY_KILL=1) as slurm:
        for variable, value in slurm.environment.items():
            monkeypatch.setenv(variable, value)
        bench = Bench("slurm", tmp_path)
        code = "import time; hog = bytearray(200 << 20); time.sleep(60)"
        bench.submit(f"{sys.executable} -c '{code}'; sleep 60", 1, mem="60M")
        (worker,) = bench.end()
        assert worker.cause == Cause.OUT_OF_MEMORY


SAID = [
    ("OUT_OF_MEMORY", Cause.OUT_OF_MEMORY), ("TIMEOUT", Cause.TIME_LIMIT), ("PREEMPTED", Cause.PREEMPTED),
    ("CANCELLED by 1000", Cause.CANCELLED), ("BOOT_FAIL", Cause.NODE_FAILURE), ("COMPLETED", Cause.DONE),
]  # fmt: skip
"""What sacct says of a job, and what that means. Some of it needs limits of the kernel that a Slurm for tests lacks."""


@pytest.mark.parametrize("by", ["squeue", "sacct"])
def test_how_a_worker_ended_is_told_from_either(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As squeue and sacct of Slurm 22.05 print it; a job that has ended long ago is known to sacct alone."""
    lines = {
        "squeue": "".join(f"7|{n}|{state.split()[0]}|n1|None\n" for n, (state, _) in enumerate(SAID)),
        "sacct": "".join(f"7_{n}|{state}|n1\n" for n, (state, _) in enumerate(SAID)),
    }
    failing = {"squeue": "slurm_load_jobs error: Invalid job id specified", "sacct": "storage is disabled"}
    for name, text in lines.items():
        works = f"cat <<'END'\n{text}END\n" if name == by else f"echo {failing[name]} >&2; exit 1\n"
        (tmp_path / name).write_text(f"#!/bin/bash\n{works}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    submission = replace(Bench("slurm", tmp_path).planned("finish", len(SAID)), job="7")
    assert [worker.cause for worker in Slurm().states([submission])] == [cause for _, cause in SAID]
    submission.folder.mkdir(parents=True, exist_ok=True)
    submission.file(".end", 0).write_text("0\n")  # a run was killed, and its worker went on
    assert Slurm().states([submission])[0].cause == Cause.DONE


def test_a_worker_that_slurm_has_forgotten_is_known_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text("#!/bin/bash\necho Invalid job id specified >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    submission = replace(Bench("slurm", tmp_path).planned("finish", 2), job="7")
    submission.folder.mkdir(parents=True)
    submission.file(".end", 0).write_text("0\n")
    found = Slurm().states([submission])
    assert [(worker.cause, worker.code) for worker in found] == [(Cause.DONE, 0), (Cause.UNKNOWN, None)]


def test_a_controller_that_is_down_is_no_end_of_a_worker(bench: Bench, slurm: SlurmHere) -> None:
    submission = bench.submit("last", 1)
    bench.wait(running)
    slurm.kill("slurmctld", signal.SIGTERM)
    try:
        intent = replace(submission, job=None)
        submission.file(".json").write_text(intent.to_json())
        with pytest.raises(NoAnswer):
            bench.submissions.open()
    finally:
        slurm.up()
    assert running(bench.wait(running))
    assert [each.job for each in bench.submissions.open()] == [submission.job]


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    submissions = Submissions(tmp_path)
    path = submissions.folder / "slurm-1.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"launcher": "slurm"}))
    with pytest.raises(UserError, match=r"slurm-1\.json: damaged"):
        submissions.all()


def test_a_record_of_an_unknown_launcher_is_named(tmp_path: Path) -> None:
    submissions = Submissions(tmp_path)
    submission = Submission("pbs", submissions.folder, "sweep", ["true"], "/", 1)
    submissions.folder.mkdir()
    submission.file(".json").write_text(submission.to_json())
    with pytest.raises(UserError, match=r"launcher 'pbs' is unknown .*valid: local, slurm"):
        submissions.open()


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """With a scheduler that accepts jobs, and knows none."""
    for name, script in (("sbatch", "echo 8"), ("squeue", ":"), ("sacct", ":")):
        _command(tmp_path / name, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bench = Bench("slurm", tmp_path)
    bench.submissions.folder.mkdir(parents=True)
    return bench


def _command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def _started(submission: Submission, minutes: float) -> Submission:
    """Begin the start of a submission so many minutes ago, and do not end it."""
    started = datetime.now(UTC) - timedelta(minutes=minutes)
    begun = replace(submission, started=started.isoformat(timespec="milliseconds"))
    begun.file(".json").write_text(begun.to_json())
    return begun


def test_a_start_on_another_host_is_left_to_it_for_some_minutes(quiet: Bench) -> None:
    _started(replace(quiet.planned("finish"), host="elsewhere"), 0)
    assert quiet.submissions.open() == []
    (begun,) = quiet.submissions.all()
    _started(begun, 11)
    assert quiet.submissions.open() == []
    assert quiet.submissions.all() == []


def test_without_locks_a_start_on_this_host_is_left_alone_as_well(
    quiet: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    _started(quiet.planned("finish"), 0)
    with quiet.submissions.alone():
        assert quiet.submissions.open() == []
    assert len(quiet.submissions.all()) == 1
    with quiet.submissions.alone():
        assert quiet.submit("finish").job == "8"


def test_a_process_that_submits_for_long_is_not_waited_for_without_end(quiet: Bench) -> None:
    with (
        locks.hold(quiet.submissions.folder / ".lock"),
        pytest.raises(NoAnswer, match="another process"),
        quiet.submissions.alone(patience=0.1),
    ):
        pass


def test_of_two_processes_one_submits_again_what_is_left(quiet: Bench, tmp_path: Path) -> None:
    submission = quiet.submit("finish", 2)
    found = [ended(submission, number, "slurm 8") for number in range(2)]
    for number in range(2):
        submission.file(".left", number).touch()
    submission.file(".again", 0).write_text("0123abcd")  # another host is about to
    _command(tmp_path / "sbatch", "exit 1")
    with pytest.raises(NotStarted):
        quiet.submissions.submit_left([submission], found, print)
    _command(tmp_path / "sbatch", "echo 9")
    (again,) = quiet.submissions.submit_left([submission], found, print)
    assert (again.workers, list(again.replaces), again.job) == (1, [submission.worker(1)], "9")


def test_workers_whose_sweep_file_is_missing_are_not_submitted_again(quiet: Bench) -> None:
    submission, said = quiet.submit("finish", 1), list[str]()
    submission.file(".left", 0).touch()
    submission.file(".yaml").unlink()
    found = [ended(submission, 0, "slurm 8")]
    assert quiet.submissions.submit_left([submission], found, said.append) == []
    assert ".yaml" in said[0]


def test_memory_that_ran_out_at_an_earlier_start_is_not_the_reason_of_this_end(quiet: Bench, tmp_path: Path) -> None:
    _command(tmp_path / "squeue", "echo '8|0|FAILED|n1|None'")
    submission = quiet.submit("finish", 1)
    start = "greenseg: a worker starts on n1\n"
    killed = "slurmstepd: error: Detected 1 oom-kill event(s) in step 8.batch cgroup.\n"
    assert start[:-4] in submission.file(".sh").read_text()
    for text, cause in ((start + killed, Cause.OUT_OF_MEMORY), (start + killed + start, Cause.EXITED)):
        submission.file(".log", 0).write_text(text)
        assert [worker.cause for worker in Slurm().states([submission])] == [cause]


def test_a_start_is_looked_for_from_the_day_before(quiet: Bench, tmp_path: Path) -> None:
    """West of Greenwich, today's date in UTC may lie in the future."""
    _command(tmp_path / "sacct", f'echo "$@" > {tmp_path}/asked')
    Slurm().find(replace(quiet.planned("finish"), started="2026-03-01T02:00:00.000+00:00"))
    assert "--starttime=2026-02-28" in (tmp_path / "asked").read_text()


def test_a_worker_that_was_submitted_inside_of_a_step_is_not_its_task(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEPID", "0")
    submission = bench.submit("echo step: $SLURM_STEP_ID$SLURM_STEPID", 1)
    bench.end()
    assert submission.file(".log", 0).read_text().splitlines()[-1] == "step:"
