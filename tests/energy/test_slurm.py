"""Joules in Slurm jobs: on nodes that other jobs use, and those that Slurm counts itself."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greenseg.energy import EnergyMeter
from greenseg.energy import slurm as slurm_energy
from greenseg.energy.neighbours import Neighbours
from greenseg.energy.slurm import SLURM_NODE, NodeCounter, shares_node
from tests.conftest import SMALL, Command
from tests.energy.fakes import FakeRapl
from tests.slurm import Slurm

_BURN = "import time, os\nend = time.process_time() + float(os.environ['BURN'])\nwhile time.process_time() < end: pass"


class Commands:
    """Stands for the commands of Slurm, which read their answers from files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        for name, answer in (("scontrol", "$1-$2$3"), ("sstat", "joules")):
            command = folder / name
            command.write_text(f'#!/bin/sh\necho "$@" >> {folder}/log\ncat "{folder}/{answer}"\n')
            command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.delenv("SLURM_STEP_ID", raising=False)
        monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
        slurm_energy._shares_node.cache_clear()
        slurm_energy._accounts_energy.cache_clear()

    def job(self, sharing: str) -> None:
        """The job of this process has this `OverSubscribe`."""
        text = f"JobId=17 JobName=a OverSubscribe={sharing} Contiguous=0\n"
        (self._folder / "--oneliner-showjob").write_text(text)

    def sensor(self, kind: str) -> None:
        """Slurm has this plugin for energy."""
        text = f"AccountingStorageHost   = x\nAcctGatherEnergyType    = {kind}\nAcctGatherNodeFreq = 0 sec\n"
        (self._folder / "show-config").write_text(text)

    def consumed(self, answer: str) -> None:
        """Slurm answers with these joules."""
        (self._folder / "joules").write_text(f"{answer}\n")

    @property
    def log(self) -> list[str]:
        """The arguments of all commands."""
        path = self._folder / "log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Commands(folder, monkeypatch)


def meter(tmp_path: Path) -> EnergyMeter:
    return EnergyMeter(neighbours=Neighbours(tmp_path / "meters"))


def burn(seconds: float) -> None:
    """Spend CPU seconds in this process."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def burn_outside(seconds: float) -> None:
    """Spend CPU seconds in a process that is no descendant of this one."""
    command = '"$0" -S -c "$PROGRAM"; touch "$DONE"'
    done = Path(os.environ["PYTEST_DONE"])
    done.unlink(missing_ok=True)
    variables = os.environ | {"BURN": str(seconds), "DONE": str(done), "PROGRAM": _BURN}
    subprocess.run(["setsid", "--fork", "sh", "-c", command, sys.executable], env=variables, check=True)
    while not done.exists():
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DONE", str(tmp_path / "done"))


# ── whose joules they are


@pytest.mark.parametrize(
    ("sharing", "cpus", "shared"),
    [
        ("NO", "1", False), ("NO", None, False), ("OK", "1", True), ("OK", "1000", False), ("OK", None, True),
        ("YES", "1000", True), ("USER", "1000", True), (None, "1", True), (None, "1000", False), (None, None, True),
    ],
)  # fmt: skip
def test_a_job_knows_whether_others_may_use_its_node(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, sharing: str | None, cpus: str | None, shared: bool
) -> None:
    if sharing:
        commands.job(sharing)  # without, scontrol fails, as in a container
    if cpus:
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", cpus)
    assert shares_node() == shared


def test_nobody_is_asked_outside_of_a_job(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not shares_node()
    assert NodeCounter().read() is None
    assert commands.log == []


@pytest.mark.usefixtures("rapl_root")
def test_an_estimate_needs_no_question(commands: Commands, tmp_path: Path) -> None:
    commands.job("OK")
    energy = meter(tmp_path).lap()
    assert energy.sources == {"cpu": "estimate", "dram": "estimate"}
    assert not energy.marks
    assert commands.log == []


def test_on_a_shared_node_a_run_has_its_share_by_cpu_time(commands: Commands, rapl_root: Path, tmp_path: Path) -> None:
    commands.job("OK")
    rapl = FakeRapl(rapl_root)
    metered = meter(tmp_path)
    burn(0.5)
    burn_outside(3.0)
    rapl.use(100)
    rapl.use(20, "dram-0")
    energy = metered.lap()
    assert energy.sources == {"cpu": "rapl", "dram": "rapl"}
    assert energy.marks == {"apportioned"}
    # A seventh. Others on this machine can make it less; the kernel may count the machine's seconds by ticks, too few.
    assert 1 < energy.component("cpu") < 32
    assert energy.component("dram") == pytest.approx(energy.component("cpu") / 5)
    assert [reading.low for reading in energy.readings] == [0, 0]
    assert [reading.high for reading in energy.readings] == pytest.approx([100, 20])


def test_an_exclusive_job_has_all_joules_of_its_node(commands: Commands, rapl_root: Path, tmp_path: Path) -> None:
    commands.job("NO")
    rapl = FakeRapl(rapl_root)
    metered = meter(tmp_path)
    burn_outside(0.2)
    rapl.use(100)
    energy = metered.lap()
    assert energy.component("cpu") == pytest.approx(100)
    assert not energy.marks


def test_where_the_share_is_unknown_the_joules_are_marked_shared(
    commands: Commands, rapl_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from greenseg.energy import meter as module

    commands.job("OK")
    monkeypatch.setattr(module, "knows_machine", lambda: False)  # as with lxcfs, whose /proc/stat is the container's
    rapl = FakeRapl(rapl_root)
    metered = meter(tmp_path)
    rapl.use(100)
    (cpu,) = [reading for reading in metered.lap().readings if reading.component == "cpu"]
    assert (cpu.joules, cpu.low, cpu.high) == pytest.approx((100, 0, 100))
    assert cpu.marks == {"shared"}


def test_a_real_job_knows_whether_others_may_use_its_node(slurm: Slurm) -> None:
    root = Path(__file__).parents[2]
    ask = f"cd {root} && {sys.executable} -c 'from greenseg.energy.slurm import shares_node; print(shares_node())'"
    for options, expected in (
        (["--exclusive"], "False"),
        (["--cpus-per-task=1"], "True"),
        (["--exclusive=user"], "True"),
    ):
        assert slurm.run("srun", *options, "sh", "-c", ask) == expected, options


# ── what Slurm counts itself


def test_slurm_counts_joules_of_the_node(commands: Commands) -> None:
    commands.sensor("acct_gather_energy/ipmi")
    commands.consumed("1000")
    counter = NodeCounter()
    commands.consumed("1750")
    counted = counter.read()
    assert counted
    assert (counted.joules, counted.step) == (750, "17.batch")
    assert 0 < counted.seconds < 10
    assert "17.batch" in commands.log[-1]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("acct_gather_energy/none", "0", "0"),  # Slurm answers with 0
        ("(null)", "0", "0"),
        ("acct_gather_energy/rapl", "", ""),  # a plugin without a sensor answers with nothing
        ("acct_gather_energy/ipmi", "500", "500"),  # its sensor has not been read since
        ("acct_gather_energy/ipmi", "500", "400"),
    ],
)
def test_no_sensor_is_no_reading_not_zero(commands: Commands, kind: str, before: str, after: str) -> None:
    commands.sensor(kind)
    commands.consumed(before)
    counter = NodeCounter()
    commands.consumed(after)
    assert counter.read() is None


@pytest.mark.parametrize(("number", "step"), [("3", "17.3"), ("4294967291", "17.batch")])
def test_in_a_step_slurm_is_asked_for_that_step(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, number: str, step: str
) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", number)
    commands.sensor("acct_gather_energy/pm_counters")
    commands.consumed("")  # not read yet
    counter = NodeCounter()
    commands.consumed("80")
    counted = counter.read()
    assert counted
    assert (counted.joules, counted.step) == (80, step)


def test_a_run_has_the_joules_of_slurm_beside_its_own(
    commands: Commands, greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    commands.sensor("acct_gather_energy/ipmi")
    commands.consumed("1000")
    (tmp_path / "bin" / "sstat").write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked; wc -l < {tmp_path}/asked")
    done = greenseg("train", "--data", phantom, *SMALL)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "train").iterdir()
    record = json.loads((run / "run.json").read_bytes())
    (attempt,) = record["attempts"]
    assert attempt["slurm_node"]["joules"] == 1
    assert attempt["slurm_node"]["step"] == "17.batch"
    assert 0 < attempt["slurm_node"]["seconds"] <= record["metrics"]["seconds"]
    sources = {source for by_source in record["energy"]["total"]["joules"].values() for source in by_source}
    assert SLURM_NODE not in sources
    panel = [line for line in done.stdout.splitlines() if SLURM_NODE in line]
    assert len(panel) == 1
    assert "1.00 J" in panel[0]
    assert "not part of the total" in panel[0]


def test_a_real_slurm_without_a_sensor_has_no_reading(slurm: Slurm) -> None:
    root = Path(__file__).parents[2]
    code = "from greenseg.energy.slurm import NodeCounter; print(NodeCounter().read())"
    assert slurm.run("srun", "sh", "-c", f"cd {root} && {sys.executable} -c '{code}'") == "None"
