"""The Slurm of the tests does what tests ask of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm import Slurm, running, wait_for


def _processes(slurm_home: str) -> list[str]:
    """Command lines of the processes of the Slurm with this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        variables = (f"SLURM_CONF={slurm_home}/slurm.conf", f"SLURM_HOME={slurm_home}")
        if {variable.encode() for variable in variables} & set(environment.split(b"\0")):
            found.append(command.replace(b"\0", b" ").decode())
    return found


def test_a_job_runs_on_two_nodes(slurm: Slurm) -> None:
    job = slurm.submit("srun bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID'", "--nodes=2")
    assert slurm.wait(job) == "COMPLETED"
    assert sorted((slurm.home / f"slurm-{job}.out").read_text().splitlines()) == ["n1 0", "n2 1"]


def test_tasks_of_an_array_run_side_by_side_and_one_after_the_other(slurm: Slurm) -> None:
    job = slurm.submit("exit $SLURM_ARRAY_TASK_ID", "--array=0-3%2")
    assert slurm.wait(job) == "COMPLETED FAILED"
    assert slurm.squeue(job)[f"{job}_0"] == "COMPLETED"


def test_a_job_is_requeued(slurm: Slurm) -> None:
    job = slurm.submit('echo "start ${SLURM_RESTART_COUNT:-0}"; [ "$SLURM_RESTART_COUNT" ] || sleep 60',
                       "--requeue", "--open-mode=append")  # fmt: skip
    output = slurm.home / f"slurm-{job}.out"
    assert wait_for(lambda: output.exists() and output.read_text())
    slurm.run("scontrol", "requeue", job)
    assert slurm.wait(job) == "COMPLETED"
    assert [line for line in output.read_text().splitlines() if line[:5] == "start"] == ["start 0", "start 1"]


def test_an_urgent_job_preempts(slurm: Slurm) -> None:
    slurm.idle()
    job = slurm.submit("sleep 60", "--requeue", "--cpus-per-task=4", "--nodelist=n1")
    slurm.wait(job, "RUNNING")
    urgent = slurm.submit("true", "--partition=urgent", "--cpus-per-task=4", "--nodelist=n1")
    assert slurm.wait(urgent) == "COMPLETED"
    assert slurm.wait(job, "PENDING", "RUNNING")
    assert wait_for(lambda: slurm.show(job)["Restarts"] == "1")
    slurm.run("scancel", job)


def test_a_job_has_its_gpus(slurm: Slurm) -> None:
    job = slurm.submit("echo $CUDA_VISIBLE_DEVICES", "--gpus-per-node=2")
    assert slurm.wait(job) == "COMPLETED"
    assert (slurm.home / f"slurm-{job}.out").read_text() == "0,1\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_outlive_their_controller(slurm: Slurm, number: signal.Signals) -> None:
    job = slurm.submit("sleep 8")
    slurm.wait(job, "RUNNING")
    if number == signal.SIGKILL:
        slurm.saved()
    slurm.kill("slurmctld", number)
    slurm.up()
    assert slurm.wait(job) == "COMPLETED"


def test_sacct_knows_how_a_job_ended(slurm_with_accounting: Slurm) -> None:
    job = slurm_with_accounting.submit("exit 3")
    assert slurm_with_accounting.wait(job) == "FAILED"
    ask = ("sacct", "-n", "-P", "-X", "-j", job, "-o", "State,ExitCode")
    assert wait_for(lambda: slurm_with_accounting.run(*ask) == "FAILED|3:0")


def test_nothing_is_left_when_it_stops() -> None:
    with running(1) as slurm:
        slurm.wait(slurm.submit("sleep 1000"), "RUNNING")
        home = slurm.home
        assert any("slurmctld" in command for command in _processes(str(home)))
        slurm.kill("slurmd.n1")
    assert wait_for(lambda: not _processes(str(home)), seconds=5)
    assert not home.exists()


def test_nothing_is_left_when_the_process_of_the_tests_is_killed() -> None:
    code = "from tests.slurm import running\nwith running(1) as slurm: print(slurm.home, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:  # fmt: skip
        assert process.stdout
        home = process.stdout.readline().strip()
        assert _processes(home)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: not _processes(home), seconds=30)
    assert not Path(home).exists()
