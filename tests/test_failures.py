"""Kinds of failure, told from real errors where this machine can have them."""

import errno
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
