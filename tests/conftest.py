"""What the tests share: an isolated cache, a small phantom, the command as a user runs it.

They may run side by side (`pytest -n 2`): each worker of pytest-xdist then has a core, a cache and a folder for
temporary files of its own, and its meters do not meet those of another.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from greenseg.data.phantom import write_phantom
from greenseg.energy import neighbours
from tests import warm
from tests.hosts import hosts
from tests.slurm import slurm, slurm_with_accounting

__all__ = ["hosts", "slurm", "slurm_with_accounting"]  # fixtures

PATIENT: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # on a busy machine
settings.register_profile("greenseg", **PATIENT)
settings.register_profile("fast", max_examples=20, **PATIENT)  # pytest --hypothesis-profile fast
settings.load_profile("greenseg")


def times(factor: int) -> int:
    """So many times as many examples as hypothesis tries otherwise."""
    return factor * settings().max_examples


Command = Callable[..., subprocess.CompletedProcess[str]]

SMALL = [
    "--model", "mobilenetv3-tiny-unet", "--image-size", "32", "--spacing", "8", "--batch-size", "32", "--epochs", "2",
    "--accelerator", "cpu",
]  # fmt: skip
"""Options of a run of about a second."""


fixed_folders = neighbours._fixed_folders
"""Where meters find each other, outside of tests."""


def pytest_configure(config: pytest.Config) -> None:
    """Give a worker of pytest-xdist a core: threads of torch that wait for a core that another worker has, spin."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker.isdecimal() and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


LONGEST = (
    "training/test_strategies", "cli/test_train", "training/test_resume", "cli/test_sweep", "launch/test_queue",
    "cli/test_other_schedulers", "slurm/test_slurm", "export/test_e2mip", "training/test_probe",
    "launch/test_executors", "runs/test_hosts", "slurm/test_worker", "cli/test_launch", "launch/test_slurm",
    "launch/test_slurm_torture", "launch/test_launchers",
    "cli/test_sweep_run", "launch/test_torture", "machine/test_claims", "hosts/test_hosts",
    "data/test_slices", "training/test_optimization", "cli/test_streams", "cli/test_content",
    "models/test_gradient_checkpointing", "models/test_network", "training/test_every_network",
)  # fmt: skip
"""The files of tests that take longest, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start the command; two workers get an equal share of long files each, and begin with them."""
    for item in items:
        if {"greenseg", "greenseg_process"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.process)
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = {f"tests/{name}.py": place for place, name in enumerate(LONGEST)}
        shares: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
        rest: list[pytest.Item] = []
        for item in sorted(items, key=lambda item: places.get(item.location[0], len(places))):
            place = places.get(item.location[0])
            (rest if place is None else shares[place % 2]).append(item)
        half = max(0, len(items) // 2 - len(shares[0]))  # a worker begins with half of the list
        items[:] = [*shares[0], *rest[:half], *shares[1], *rest[half:]]


def free_port() -> int:
    """A port that nobody listens on, for now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session", autouse=True)
def _signals_reach_what_is_started() -> None:
    """Commands heed Ctrl-C and a lost terminal also where this process was told to ignore them (`nohup`, `&`)."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # ignored here still; a program that is executed starts with none


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tests neither read nor write the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["GREENSEG_CACHE"] = str(folder)
    yield folder
    del os.environ["GREENSEG_CACHE"]


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither temporary files nor meters of two workers meet."""
    temporary, meters = tmp_path_factory.mktemp("tmp"), tmp_path_factory.mktemp("meters")
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    meters.chmod(0o700)
    os.environ[warm.METERS] = str(meters)
    warm.meet_in(meters)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of five volumes, one of them for validation."""
    out = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(out, 5, seed=1)
    return out


@pytest.fixture(scope="session")
def trained(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run on the phantom, finished after two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    done = _command(folder, warm.run)("train", "--data", phantom, *SMALL)
    assert done.returncode == 0, done.stderr
    return next((folder / "runs" / "train").iterdir())


def _command(folder: Path, start: Command) -> Command:
    def run(*arguments: str | Path, timeout: float = 600, **variables: str) -> subprocess.CompletedProcess[str]:
        return start(
            [sys.executable, "-m", "greenseg", *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"} | variables,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run


@pytest.fixture
def greenseg(tmp_path: Path) -> Command:
    """Runs the command in an empty folder, without a terminal; forked from a warm process, see `tests.warm`."""
    return _command(tmp_path, warm.run)


@pytest.fixture
def greenseg_process(tmp_path: Path) -> Command:
    """The same, as a Python of its own, and so are its runs: as a user starts it."""
    return _command(tmp_path, subprocess.run)


@pytest.fixture(scope="session")
def e2mip() -> Path:
    """Real fetal MRI, if it is on this machine; it must not be distributed."""
    default = Path(__file__).parents[2] / "shared" / "data" / "e2mip"
    folder = Path(os.environ.get("GREENSEG_E2MIP") or default)
    if not folder.is_dir():
        pytest.skip("real fetal MRI (E2MIP) is not here; set GREENSEG_E2MIP to its folder")
    return folder
