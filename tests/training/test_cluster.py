"""A run in a job of Slurm: it finds its processes, and heeds signals itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from greenseg.machine.cores import launch_of, ranks
from greenseg.settings import Settings
from greenseg.training.cluster import cluster_environment
from tests import warm
from tests.cli.test_train import only_run, record, wait_for_epochs
from tests.conftest import SMALL, Command

# A job of several tasks, as one of them on its second node sees it.
JOB = {
    "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "greenseg", "SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "1", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "n[3-4]",
}  # fmt: skip
STEP = JOB | {"SLURM_STEP_ID": "5", "SLURM_STEP_NUM_TASKS": "4"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "abc", "GROUP_RANK": "1", "LOCAL_RANK": "0", "RANK": "2", "WORLD_SIZE": "4",
    "MASTER_ADDR": "n1", "MASTER_PORT": "1234",
}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "values", "kind", "expected", "launch"),
    [
        (STEP, {"nodes": 2, "devices": 2}, SLURMEnvironment, (3, 1), "slurm 17.5.0"),
        (STEP | {"SLURM_RESTART_COUNT": "2"}, {"nodes": 2, "devices": 2}, SLURMEnvironment, (3, 1), "slurm 17.5.2"),
        (STEP, {"devices": 2}, LightningEnvironment, (0, 0), "new"),
        (STEP, {}, LightningEnvironment, (0, 0), "new"),
        (JOB, {"nodes": 2, "devices": 2}, LightningEnvironment, (2, 0), None),
        ({"NODE_RANK": "1"}, {"nodes": 2, "devices": 3}, LightningEnvironment, (3, 0), None),
        (STEP | TORCHRUN, {"nodes": 2, "devices": 2}, TorchElasticEnvironment, (2, 0), "torchrun abc.0"),
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"}, {"nodes": 2, "devices": 2}, TorchElasticEnvironment, (2, 0), None),
    ],
)
def test_a_run_finds_its_processes(
    variables: dict[str, str], values: dict[str, int], kind: type, expected: tuple[int, int], launch: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]} | variables)
    settings = Settings.of({"accelerator": "cpu", "strategy": "ddp" if values else "auto"} | values)
    assert ranks(settings) == expected
    found = launch_of(settings)
    assert found == launch or (launch == "new" and found == launch_of(settings) != "slurm 17.5.0")
    environment = cluster_environment(settings)
    assert type(environment) is kind
    if isinstance(environment, SLURMEnvironment):
        assert not environment.auto_requeue
        assert (environment.main_address, environment.world_size(), environment.global_rank()) == ("n3", 4, 3)
    elif settings.processes > 1 and kind is LightningEnvironment:
        assert environment.node_rank() * settings.devices == expected[0]


def test_two_devices_in_a_job_of_one_task_and_its_signals(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", str(phantom), *SMALL, "--epochs", "3", "--batch-size", "16"]
    arguments += ["--devices", "2", "--strategy", "ddp"]
    job = JOB | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1"}
    running = warm.Popen(
        [sys.executable, "-m", "greenseg", *arguments], cwd=tmp_path, text=True, env=os.environ | job,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    run = wait_for_epochs(tmp_path / "runs", 1)
    os.killpg(record(run)["attempts"][0]["pid"], signal.SIGTERM)  # Lightning's handler would wait for both in a step
    output, _ = running.communicate(timeout=300)
    assert record(run)["status"] == "interrupted", output
    assert record(run)["attempts"][0]["job"] == "slurm 17"

    done = greenseg(*arguments, **job)
    assert done.returncode == 0, done.stderr
    after = record(only_run(tmp_path / "runs"))
    assert (after["status"], after["ran"]["devices"]) == ("finished", 2)
    first, second = (attempt["launch"] for attempt in after["attempts"])
    assert first != second
