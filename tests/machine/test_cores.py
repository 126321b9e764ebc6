"""How many cores a process may use: affinity, and quotas of cgroups as machines and containers have them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenseg.machine.cores import cpu_quota, usable_cores

V2 = "30 24 0:26 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 32 0:29 {shown} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHER = "34 32 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n22 1 8:1 / / rw - ext4 /dev/sda1 rw"
HYBRID = "38 32 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def machine(root: Path, membership: str, mounts: list[str], files: dict[str, str]) -> Path:
    """A machine's files, below a folder."""
    process = root / "proc/self"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(membership + "\n")
    (process / "mountinfo").write_text("\n".join([OTHER, *mounts]) + "\n")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("membership", "mounts", "files", "cores"),
    [
        pytest.param("0::/", [V2.format(shown="/")], {}, None, id="v2, no controller"),
        pytest.param("0::/", [V2.format(shown="/")], {"cpu.max": "200000 100000"}, 2, id="docker --cpus=2"),
        pytest.param("0::/", [V2.format(shown="/")], {"cpu.max": "max 100000"}, None, id="v2, no quota"),
        pytest.param("0::/", [V2.format(shown="/")], {"cpu.max": "150000 100000"}, 2, id="one and a half"),
        pytest.param("0::/", [V2.format(shown="/")], {"cpu.max": "5000 100000"}, 1, id="a twentieth"),
        pytest.param("0::/", [V2.format(shown="/")], {"cpu.max": "75000 25000"}, 3, id="another period"),
        pytest.param("0::/", [V2.format(shown="/")], {"cpu.max": "nonsense"}, None, id="nonsense"),
        pytest.param(
            "0::/kubepods/pod1/app", [V2.format(shown="/")],
            {"kubepods/cpu.max": "800000 100000", "kubepods/pod1/cpu.max": "300000 100000",
             "kubepods/pod1/app/cpu.max": "max 100000"}, 3, id="v2, the least of all above",
        ),
        pytest.param(
            "0::/a/b", [V2.format(shown="/")], {"a/cpu.max": "400000 100000", "a/b/cpu.max": "100000 100000"}, 1,
            id="v2, its own is the least",
        ),
        pytest.param("0::/a", [V2.format(shown="/")], {"b/cpu.max": "100000 100000"}, None, id="somebody else's quota"),
        pytest.param(
            "0::/system.slice/docker-1.scope", [V2.format(shown="/system.slice/docker-1.scope")],
            {"cpu.max": "200000 100000"}, 2, id="v2, the path is that outside the container",
        ),
        pytest.param("0::/../a", [V2.format(shown="/")], {"cpu.max": "200000 100000"}, 2, id="outside the namespace"),
        pytest.param(
            "5:cpuset:/x\n4:cpu,cpuacct:/docker/1\n0::/", [V1.format(shown="/")],
            {"cpu,cpuacct/docker/1/cpu.cfs_quota_us": "250000", "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
             "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3, id="v1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/1", [V1.format(shown="/docker/1")],
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2,
            id="v1, in a container",
        ),
        pytest.param(
            "4:cpu,cpuacct:/slurm/job1/step0\n0::/", [V1.format(shown="/"), HYBRID],
            {"cpu,cpuacct/slurm/job1/cpu.cfs_quota_us": "400000",
             "cpu,cpuacct/slurm/job1/cpu.cfs_period_us": "100000",
             "cpu,cpuacct/slurm/job1/step0/cpu.cfs_quota_us": "-1",
             "cpu,cpuacct/slurm/job1/step0/cpu.cfs_period_us": "100000"}, 4, id="hybrid, a job's quota",
        ),
        pytest.param(
            "3:cpuset:/\n2:cpu:/\n0::/a", [HYBRID], {"unified/a/cpu.max": "200000 100000"}, 2, id="only v2 is mounted",
        ),
        pytest.param(
            "2:cpuacct:/a", [V1.format(shown="/")], {"cpu,cpuacct/a/cpu.cfs_quota_us": "100000"}, None,
            id="not a member of the controller",
        ),
    ],
)  # fmt: skip
def test_quotas(membership: str, mounts: list[str], files: dict[str, str], cores: int | None, tmp_path: Path) -> None:
    assert cpu_quota(machine(tmp_path, membership, mounts, files)) == cores


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    mount = "30 24 0:26 / /sys/fs/cgroup/my\\040groups rw - cgroup2 cgroup2 rw"
    assert cpu_quota(machine(tmp_path, "0::/", [mount], {"my groups/cpu.max": "100000 100000"})) == 1


def test_a_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize("quota", [None, 1, 10_000])
def test_cores_are_those_of_affinity_or_quota_whichever_is_less(
    quota: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenseg.machine.cores.cpu_quota", lambda: quota)
    allowed = len(os.sched_getaffinity(0))
    assert usable_cores() == min(allowed, quota or allowed)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A real cgroup below that of this process, with a quota of half a core, and another one in it without."""
    name = f"greenseg-test-{os.getpid()}"
    for top, files in (
        ("/sys/fs/cgroup", {"cpu.max": "50000 100000"}),
        ("/sys/fs/cgroup/cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
        ("/sys/fs/cgroup/cpu,cpuacct", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
    ):
        folder = Path(top, name)
        try:
            folder.mkdir()
        except OSError:
            continue
        inner = folder / "inner"
        try:
            if not all((folder / file).exists() for file in files):
                continue
            for file, text in files.items():
                (folder / file).write_text(text)
            inner.mkdir()
            yield inner
            return
        except OSError:
            continue
        finally:
            for made in (inner, folder):
                if made.exists():
                    made.rmdir()
    pytest.skip("no cgroup with a quota can be made here: no root, or no controller 'cpu'")


def test_a_real_quota_is_seen(cgroup: Path) -> None:
    code = f"""
import os
open({str(cgroup / "cgroup.procs")!r}, "w").write(str(os.getpid()))
from greenseg.machine.cores import cpu_quota, usable_cores
print(cpu_quota(), usable_cores())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
