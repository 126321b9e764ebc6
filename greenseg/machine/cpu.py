"""Instructions of the CPU that matter for low precision. Imports nothing heavy."""

import platform
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")

_EXACT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Flags of instructions that add up products of 8-bit numbers in 32 bits."""


def saturates_int8() -> bool:
    """Whether sums of 8-bit products may overflow here, so that weights should have 7 bits.

    An x86 CPU without VNNI adds up pairs of products in 16 bits (`vpmaddubsw`), which saturates. See "reduce_range" in
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Without /proc/cpuinfo, an x86 CPU
    counts as one without VNNI.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    return not flags() & _EXACT


def flags() -> frozenset[str]:
    """Flags of the first CPU in /proc/cpuinfo; empty if there is no such file, or none in it."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() == "flags")
    return frozenset(next(found, "").split())


def openvino() -> Any:
    """The package openvino, without its telemetry, which else sends its use to Google Analytics.

    The package openvino_telemetry has no setting for one process: it asks for a file in the home folder, and writes
    others there. OpenVINO and NNCF send nothing if it cannot be imported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


@cache
def openvino_core() -> Any:
    """The only `openvino.Core` of this process; it is never released.

    On CPUs with AMX, each Core gives the thread that makes it a stack for signals, and restores the earlier one when it
    ends. If that belonged to a Core that has ended, it is no longer mapped, and the next signal kills the process.
    """
    return openvino().Core()


@cache
def openvino_numbers() -> frozenset[str]:
    """The numbers that OpenVINO computes with on this CPU, such as FP32, BF16, FP16, INT8."""
    return frozenset(openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def compiler() -> str | None:
    """The C++ compiler that torch.compile would find for a CPU; None if there is none."""
    return next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
