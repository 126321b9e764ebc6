"""The ways of docs/other-schedulers.md: each of them is run as it is written there, or checked by a linter."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts import Hosts
from tests.slurm import Slurm, wait_for

_PAGE = Path(__file__).parents[2] / "docs" / "other-schedulers.md"
_RUNS = 3


def _block(heading: str) -> str:
    """The first block of code in a section of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", _PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return re.findall(r"^```\w+\n(.*?)^```", section, re.M | re.S)[0]  # type: ignore[no-any-return]


@pytest.fixture
def folder(tmp_path: Path, phantom: Path) -> Path:
    """A folder with a sweep of small runs."""
    base = {"model": "mobilenetv3-tiny-unet", "image_size": 32, "spacing": 8.0, "epochs": 1, "accelerator": "cpu"}
    sweep = {"base": base | {"data": str(phantom)}, "seeds": list(range(_RUNS))}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return tmp_path


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command `greenseg`, for the front of the path."""
    path = tmp_path_factory.mktemp("programs")
    _program(path / "greenseg", f'exec {shlex.quote(sys.executable)} -m greenseg "$@"')
    return path


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _variables(programs: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def _attempts(folder: Path) -> list[list[dict[str, Any]]]:
    """The attempts of each finished run."""
    records = [json.loads(path.read_bytes()) for path in folder.glob("runs/*/*/run.json")]
    return [record["attempts"] for record in records if record["status"] == "finished"]


def _assert_each_run_is_done_once(folder: Path) -> None:
    assert [len(attempts) for attempts in _attempts(folder)] == [1] * _RUNS


def test_tasks_of_srun_share_the_runs(slurm: Slurm, folder: Path, programs: Path) -> None:
    variables = _variables(programs) | slurm.environment
    done = subprocess.run(
        ["bash", "-c", _block("srun")], cwd=folder, env=variables, capture_output=True, text=True, timeout=600
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3 of a task that leaves the last run to the other
    _assert_each_run_is_done_once(folder)
    assert len({attempts[0]["pid"] for attempts in _attempts(folder)}) == _RUNS


def test_the_script_for_pbs_trains(folder: Path, programs: Path) -> None:
    script = folder / "worker.pbs"
    script.write_text(_block("PBS"))
    variables = _variables(programs) | {"PBS_O_WORKDIR": str(folder), "PBS_ARRAY_INDEX": "1"}
    done = subprocess.run(["bash", script], cwd="/", env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    _assert_each_run_is_done_once(folder)


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_kubernetes_accepts_the_manifest(version: str) -> None:
    import kubernetes_validate

    manifest = yaml.safe_load(_block("Kubernetes"))
    kubernetes_validate.validate(manifest, version, strict=True)
    manifest["spec"]["paralelism"] = 4
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_volumes_of_the_manifest_are_there() -> None:
    pod = yaml.safe_load(_block("Kubernetes"))["spec"]["template"]["spec"]
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == volumes


def test_a_pod_that_is_evicted_stops_in_order(folder: Path, programs: Path) -> None:
    (container,) = yaml.safe_load(_block("Kubernetes"))["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace(" /runs", f" {folder}").replace(f"--out {folder}", f"--out {folder}/runs")
    with subprocess.Popen([*container["command"], script], cwd="/", env=_variables(programs)) as process:
        assert wait_for(lambda: _attempts(folder), seconds=300)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert Counter(map(len, _attempts(folder)))[1] < _RUNS  # it did not go on to the end
    again = subprocess.run([*container["command"], script], cwd="/", env=_variables(programs), timeout=600)
    assert again.returncode == 0
    assert len(_attempts(folder)) == _RUNS


def test_hosts_that_ssh_reaches_share_the_runs(hosts: Hosts, folder: Path, programs: Path) -> None:
    for name in ("node1", "node2"):
        _program(programs / name, f'exec {shlex.join(hosts(name).enter())} sh -c "$*"')
    _program(programs / "ssh", f'name=$1; shift; exec {programs}/"$name" "$@"')
    subprocess.run(["bash", "-c", _block("ssh")], cwd=folder, env=_variables(programs), check=True, timeout=60)
    wait_for(lambda: len(_attempts(folder)) == _RUNS, seconds=300)
    logs = {path.name: path.read_text() for path in folder.glob("*.log")}
    assert logs.keys() == {"node1.log", "node2.log"}
    assert [len(attempts) for attempts in _attempts(folder)] == [1] * _RUNS, logs
    assert {attempts[0]["host"] for attempts in _attempts(folder)} == {"node1", "node2"}, logs
