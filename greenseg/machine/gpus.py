"""The GPUs of this machine: their number and names, and the device that Lightning would use. Imports no torch."""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from greenseg.energy.sensors import visible_gpus
from greenseg.errors import UserError


@cache
def count() -> int:
    """Number of GPUs visible to this process."""
    return visible_gpus()


def apple() -> bool:
    """Whether this is Apple silicon, whose GPU Lightning calls mps."""
    return (platform.system(), platform.machine()) == ("Darwin", "arm64")


def device(accelerator: str) -> str:
    """The kind of device that Lightning uses for an accelerator: cpu, gpu or mps."""
    if accelerator in ("auto", "gpu"):
        return "mps" if apple() else "gpu" if accelerator == "gpu" or count() else "cpu"
    return accelerator


def choose(wanted: str = "") -> list[str]:
    """The GPUs of this machine to use, as in CUDA_VISIBLE_DEVICES.

    Args:
        wanted: names of GPUs, separated by commas; empty for all that are visible to this process.

    Raises:
        UserError: a wanted GPU is missing.
    """
    number = visible_gpus()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = (named or [str(index) for index in range(number)])[:number]
    if not wanted:
        return seen
    chosen = list(dict.fromkeys(name.strip() for name in wanted.split(",")))
    here = f"available: {', '.join(seen)}" if seen else "no GPU is available"
    if missing := [name for name in chosen if name not in seen]:
        raise UserError([f"--gpus: no GPU '{name}'; {here}" for name in missing])
    return chosen


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        index: its index in the driver.
        uuid: its UUID.
        device: its Zeus object.
    """

    index: int
    uuid: str
    device: Any


def visible() -> list[Gpu]:
    """The NVIDIA GPUs visible to this process, in the framework's order."""
    if not visible_gpus():
        return []
    from zeus.device import get_gpus

    return _of_nvidia(get_gpus().gpus)


def every() -> list[Gpu]:
    """All NVIDIA GPUs of this machine, regardless of CUDA_VISIBLE_DEVICES; empty without a driver."""
    from zeus.device.gpu.nvidia import NVIDIAGPUs, nvml_is_available

    if not nvml_is_available():
        return []
    chosen = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        return _of_nvidia(NVIDIAGPUs().gpus)
    finally:
        if chosen is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = chosen


def _of_nvidia(devices: Iterable[Any]) -> list[Gpu]:
    import pynvml
    from zeus.device.gpu.nvidia import NVIDIAGPU

    return [
        Gpu(device.gpu_index, pynvml.nvmlDeviceGetUUID(device.handle), device)
        for device in devices
        if isinstance(device, NVIDIAGPU)
    ]
