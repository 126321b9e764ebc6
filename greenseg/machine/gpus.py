"""The GPUs of this machine: how many, which, and what Lightning would train on. Imports no torch."""

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
    """GPUs that this process sees."""
    return visible_gpus()


def apple() -> bool:
    """Whether this is Apple silicon, whose GPU Lightning calls mps."""
    return (platform.system(), platform.machine()) == ("Darwin", "arm64")


def device(accelerator: str) -> str:
    """What Lightning trains on where it is asked for this accelerator: cpu, gpu or mps."""
    if accelerator in ("auto", "gpu"):
        return "mps" if apple() else "gpu" if accelerator == "gpu" or count() else "cpu"
    return accelerator


def choose(wanted: str = "") -> list[str]:
    """The GPUs of this machine to use, as CUDA_VISIBLE_DEVICES takes them.

    Args:
        wanted: names of some, separated by commas; empty for all that this process sees.

    Raises:
        UserError: one that is wanted is not there.
    """
    number = visible_gpus()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = (named or [str(index) for index in range(number)])[:number]
    if not wanted:
        return seen
    chosen = list(dict.fromkeys(name.strip() for name in wanted.split(",")))
    here = f"here are {', '.join(seen)}" if seen else "greenseg sees none here"
    if missing := [name for name in chosen if name not in seen]:
        raise UserError([f"--gpus: no GPU '{name}'; {here}" for name in missing])
    return chosen


@dataclass(frozen=True)
class Gpu:
    """A GPU of NVIDIA.

    Attributes:
        index: as the driver counts.
        device: Zeus' object for it.
    """

    index: int
    uuid: str
    device: Any


def visible() -> list[Gpu]:
    """The GPUs of NVIDIA that this process sees, as the framework counts them."""
    if not visible_gpus():
        return []
    from zeus.device import get_gpus

    return _of_nvidia(get_gpus().gpus)


def every() -> list[Gpu]:
    """All GPUs of NVIDIA here, whatever CUDA_VISIBLE_DEVICES says; none where there is no driver."""
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
