"""What `greenseg sweep` expects of every launcher: the same cases for each that there is, with a stub as the worker."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from greenseg.errors import UserError
from greenseg.launchers import LAUNCHERS
from greenseg.launchers.launcher import Cause, Launcher, NotStarted, Phase, Submission, Worker
from greenseg.launchers.submissions import Submissions, states
from tests.slurm import Slurm, wait_for

STUBS = {
    "finish": "echo worker $GREENSEG_WORKER",
    "fail": "echo no licence >&2; exit 1",
    "leave": "exit 3",  # runs are left to other workers
    "last": "trap 'exit 130' TERM; touch $GREENSEG_WORKER.began; while :; do sleep 0.05; done",
}
"""What a worker does, as a command of bash."""


class Bench:
    """Has one launcher start stubs, in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.launcher: Launcher = LAUNCHERS[name]()
        self.submissions = Submissions(folder / "sweep")

    def planned(self, stub: str, workers: int = 2, **options: object) -> Submission:
        command = ["bash", "-c", STUBS.get(stub, stub)]
        folder = self.submissions.folder
        return Submission(self.name, folder, "sweep", command, str(self.folder), workers, options=options)

    def submit(self, stub: str, workers: int = 2, **options: object) -> Submission:
        return self.submissions.submit(self.planned(stub, workers, **options), "name: sweep\n")

    def states(self) -> list[Worker]:
        """The states of all workers that are not known to have ended, as a new process finds them."""
        return states(Submissions(self.folder / "sweep").open())

    def wait(self, until: Callable[[list[Worker]], bool]) -> list[Worker]:
        assert wait_for(lambda: until(self.states())), self.states()
        return self.states()

    def end(self) -> list[Worker]:
        return self.wait(lambda found: {worker.phase for worker in found} == {Phase.ENDED})

    def began(self) -> bool:
        return any(self.folder.glob("*.began"))


@pytest.fixture(params=["local", "slurm", "slurm with accounts"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    name, _, accounts = str(request.param).partition(" ")
    if name == "slurm":
        slurm: Slurm = request.getfixturevalue("slurm_with_accounting" if accounts else "slurm")
        for variable, value in slurm.environment.items():
            monkeypatch.setenv(variable, value)
        slurm.idle()
    bench = Bench(name, tmp_path)
    yield bench
    bench.submissions.cancel(bench.submissions.open())


def test_every_launcher_is_tested_here() -> None:
    assert set(LAUNCHERS) == {"local", "slurm"}


def test_it_starts_workers_and_tells_how_they_ended(bench: Bench) -> None:
    assert bench.launcher.problems() == []
    submission = bench.submit("finish", 3)
    found = bench.end()
    assert [worker.number for worker in found] == [0, 1, 2]
    assert {(worker.cause, worker.code) for worker in found} == {(Cause.DONE, 0)}
    for worker in found:
        assert worker.log.read_text().splitlines()[-1] == f"worker {worker.name}"
    assert bench.launcher.find(submission) == submission.job


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_script_is_sound(name: str, tmp_path: Path) -> None:
    bench = Bench(name, tmp_path)
    text = LAUNCHERS[name]().script(bench.planned("echo 'a b'", setup=["module load cuda"]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if not (shellcheck := shutil.which("shellcheck", path=path)):
        pytest.skip("shellcheck is not here; `make install` installs it")
    check = [shellcheck, "--exclude=SC2034", "-"]  # only one launcher reads `stopped`
    done = subprocess.run(check, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_works_in_a_folder_with_any_name(bench: Bench) -> None:
    bench = Bench(bench.name, bench.folder / "it's $HOME 100%")
    bench.submit("finish", 1)
    (worker,) = bench.end()
    assert worker.log.read_text().splitlines()[-1] == f"worker {worker.name}"


def test_a_worker_fails(bench: Bench) -> None:
    bench.submit("fail", 1)
    (worker,) = bench.end()
    assert (worker.cause, worker.code) == (Cause.EXITED, 1)
    assert worker.log.read_text().splitlines()[-1] == "no licence"


def test_a_worker_that_leaves_runs_to_others_has_done_its_work(bench: Bench) -> None:
    bench.submit("leave", 1)
    (worker,) = bench.end()
    assert worker.code == 3


def test_workers_are_cancelled_and_stop_gently(bench: Bench) -> None:
    submission = bench.submit("last", 2)
    bench.wait(lambda found: {worker.phase for worker in found} == {Phase.RUNNING} and bench.began())
    bench.submissions.cancel([submission])
    found = bench.end()
    assert {worker.code for worker in found} <= {130, None}
    assert 130 in {worker.code for worker in found}
    assert bench.submissions.is_cancelled(submission)
    bench.submissions.cancel([submission])  # once more does no harm


def test_a_start_that_was_cut_off_after_it_is_found_again(bench: Bench) -> None:
    submission = bench.submit("last", 2)
    submission.file(".json").write_text(replace(submission, job=None).to_json())  # as before the start
    (found,) = Submissions(bench.folder / "sweep").open()
    assert (found.name, found.job) == (submission.name, submission.job)
    bench.submissions.cancel([found])
    bench.end()


def test_a_start_that_was_cut_off_before_it_is_withdrawn(bench: Bench) -> None:
    submission = bench.planned("finish")
    bench.submissions.folder.mkdir(parents=True)
    submission.file(".json").write_text(submission.to_json())
    assert bench.submissions.open() == []
    assert bench.submissions.all() == []


def test_two_submissions_are_told_apart(bench: Bench) -> None:
    first, second = bench.submit("finish", 1), bench.submit("fail", 1)
    found = {worker.name: worker.cause for worker in bench.end()}
    assert found == {first.worker(0): Cause.DONE, second.worker(0): Cause.EXITED}
    bench.submissions.end(first)
    assert [each.name for each in bench.submissions.open()] == [second.name]


def test_workers_outlive_the_process_that_started_them(bench: Bench) -> None:
    """It is killed right after it has started them, before it can write that down."""
    code = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from greenseg.launchers import LAUNCHERS
        from greenseg.launchers.submissions import Submissions
        from tests.launch.test_launchers import Bench
        launcher = LAUNCHERS[{bench.name!r}]
        start = launcher.start
        def start_and_die(self, submission):
            start(self, submission)
            os.kill(os.getpid(), signal.SIGKILL)
        launcher.start = start_and_die
        Bench({bench.name!r}, Path({str(bench.folder)!r})).submit("last", 2)"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    (submission,) = bench.submissions.open()
    found = bench.wait(lambda found: {worker.phase for worker in found} == {Phase.RUNNING})
    assert len(found) == 2
    bench.submissions.cancel([submission])
    bench.end()


def test_a_worker_that_could_not_be_requeued_is_started_again(bench: Bench) -> None:
    submission = bench.submit("finish", 2)
    found = bench.end()
    submission.file(".left", 1).touch()
    (again,) = bench.submissions.submit_left([submission], found, print)
    assert (again.workers, list(again.replaces)) == (1, [submission.worker(1)])
    assert bench.submissions.submit_left([submission, again], found, print) == []
    found = bench.end()
    assert again.file(".log", 0).read_text().splitlines()[-1] == f"worker {again.worker(0)}"
    bench.submissions.cancel([submission])
    again.file(".json").unlink()
    assert bench.submissions.submit_left([submission], found, print) == [], "the user has cancelled it"


def test_workers_of_another_host_are_left_to_it(tmp_path: Path) -> None:
    bench = Bench("local", tmp_path)
    submission = bench.submit("last", 1)
    away = replace(submission, host="elsewhere")
    assert [worker.phase for worker in states([away])] == [Phase.RUNNING], "as far as this host knows"
    with pytest.raises(UserError, match="elsewhere"):
        bench.submissions.cancel([away])
    for job in (away.job, None):
        away.file(".json").write_text(replace(away, job=job).to_json())
        assert bench.submissions.open() == []
        assert [each.host for each in bench.submissions.away()] == ["elsewhere"]
    submission.file(".json").write_text(submission.to_json())
    bench.submissions.cancel([submission])
    bench.end()
    away.file(".json").write_text(away.to_json())
    assert bench.submissions.away() == [], "it has left its exit code"


def test_a_start_that_is_refused_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"partition": "nowhere"}
    if bench.name == "local":
        monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotStarted):
        bench.submit("finish", 1, **wrong)
    assert [path.suffix for path in bench.submissions.folder.iterdir()] in ([], [".log"])
