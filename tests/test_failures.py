"""Kinds of failure, told from real errors where this machine can have them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from greenseg.failures import Diverged, Failure, kind_of, out_of_memory_kills


def of_torch() -> None:
    torch.empty(10**15)


def of_python() -> None:
    bytearray(1 << 62)


def of_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")


def of_the_disk_in_torch() -> None:
    try:
        of_the_disk()
    finally:  # as torch.save does with a file that cannot be written
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")


def of_a_gpu() -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def of_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def of_the_loss() -> None:
    raise Diverged("the loss is nan at the end of epoch 1")


def of_something_else() -> None:
    torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (of_torch, Failure.OUT_OF_MEMORY),
        (of_python, Failure.OUT_OF_MEMORY),
        (of_the_disk, Failure.DISK_FULL),
        (of_the_disk_in_torch, Failure.DISK_FULL),
        (of_a_gpu, Failure.OUT_OF_GPU_MEMORY),
        (of_cublas, Failure.OUT_OF_GPU_MEMORY),
        (of_the_loss, Failure.DIVERGED),
        (of_something_else, Failure.ERROR),
    ],
)
def test_errors_have_a_kind(fail: object, kind: Failure) -> None:
    assert callable(fail)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the library raises
        fail()
    assert kind_of(caught.value) == kind


def test_kills_for_want_of_memory_are_counted_where_the_kernel_tells() -> None:
    assert out_of_memory_kills() >= 0
    assert Path("/proc/vmstat").exists() or out_of_memory_kills() == 0


@pytest.mark.parametrize(
    ("files", "job", "kills"),
    [
        ({"memory.events": 1}, "", 1),
        ({"memory.oom_control": 2}, "", 2),
        ({}, "", 9),  # of the machine
        ({"memory.events": 1, "../memory.events": 4}, "", 1),
        ({"../memory.events": 4}, "", 4),
        ({"memory.events": 1, "../memory.events": 4}, "17", 4),  # of all steps
        ({"memory.events": 1, "../memory.events": 4}, "18", 1),
    ],
)
def test_kills_are_those_of_the_job_or_the_container(
    files: dict[str, int], job: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    mine = tmp_path / "sys/fs/cgroup/job_17/step_batch"
    mine.mkdir(parents=True)
    for name, count in files.items():
        (mine / name).write_text(f"low 3\noom 7\noom_kill {count}\noom_group_kill 5\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job_17/step_batch\n")
    (tmp_path / "proc/self/mountinfo").write_text("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 9\n")
    assert out_of_memory_kills(tmp_path) == kills


def test_a_real_kill_in_a_cgroup_is_counted(tmp_path: Path) -> None:
    tops = {Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes", Path("/sys/fs/cgroup"): "memory.max"}
    group = next((top for top in tops if (top / "cgroup.procs").exists()), None)
    if group is None:
        pytest.skip("no cgroups of memory")
    mine = group / f"greenseg-test-{os.getpid()}"
    try:
        mine.mkdir()
        (mine / tops[group]).write_text(str(100 << 20))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    code = f"""
import os, subprocess, sys
open({str(mine / "cgroup.procs")!r}, "w").write(str(os.getpid()))
from greenseg.failures import out_of_memory_kills
before = out_of_memory_kills()
run = subprocess.run([sys.executable, "-c", "bytearray(300 << 20).find(b'1')"])
print(run.returncode, out_of_memory_kills() - before)
"""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == ["-9", "1"], done.stderr
    finally:
        mine.rmdir()
