"""The sensors of this machine, and reasons and remedies for missing ones."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from greenseg.energy.estimate import Model, cpu_name, is_virtual_machine
from greenseg.energy.idle import idle_watts
from greenseg.energy.sensors import Sensors, processes_on, rapl_files, read_packages, visible_gpus

_OBSERVE_SECONDS = 1.0


def examine(idle_seconds: float) -> dict[str, Any]:
    """The energy part of `greenseg doctor`, as plain values.

    Args:
        idle_seconds: seconds for measuring idle power; 0 to skip this.
    """
    gpus = tuple(range(visible_gpus()))
    sensors = Sensors(gpus)
    sources = sensors.sources
    components: dict[str, dict[str, str]] = {}
    for component in ("gpu", "cpu", "dram"):
        if component in sources:
            components[component] = {"source": sources[component]}
        elif component in sensors.missing:
            why = sensors.missing[component]
            fallback = "none" if component == "gpu" else "estimate"
            components[component] = {"source": fallback, "why": why, "remedy": _remedy(component, why)}
        else:  # no GPU is visible to this process
            why = _no_gpu()
            components[component] = {"source": "none", "why": why, "remedy": _remedy(component, why)}
    model = Model.of_this_machine()
    return {
        "cpu": cpu_name(),
        "virtual_machine": is_virtual_machine(),
        "container": _container(),
        "components": components,
        "gpus": [_gpu(index) for index in gpus] if sources.get("gpu") in ("nvml", "amdsmi") else [],
        "rapl_counter_period_ms": _period(_rapl_reader()) if sources.get("cpu") == "rapl" else None,
        "idle_watts": idle_watts(idle_seconds, gpus) if idle_seconds else None,
        "estimate": {"core_watts": model.core_watts, "gb_watts": model.gb_watts, "basis": model.basis},
    }


def _gpu(index: int) -> dict[str, Any]:
    from zeus.device import get_gpus

    gpus = get_gpus()
    counter = gpus.supports_get_total_energy_consumption(index)
    found: dict[str, Any] = {
        "index": index,
        "name": gpus.get_name(index),
        "reads": "energy counter" if counter else "polled power",
        "counter_period_ms": _period(lambda: gpus.get_total_energy_consumption(index)) if counter else None,
        "processes": processes_on(gpus, index),
    }
    import pynvml

    handle = getattr(gpus.gpus[index], "handle", None)
    for name, ask in (("uuid", pynvml.nvmlDeviceGetUUID), ("mig", pynvml.nvmlDeviceGetMigMode)):
        try:
            value = ask(handle)
        except pynvml.NVMLError:
            continue  # this GPU has no MIG, or is not from NVIDIA
        found[name] = bool(value[0]) if name == "mig" else value
    return found


def _period(read: Callable[[], float]) -> float | None:
    """Median time between two changes of a counter, in ms; None if it did not change twice within a second."""
    end = time.monotonic() + _OBSERVE_SECONDS
    changes, last = [], read()
    while (now := time.monotonic()) < end:
        value = read()
        if value != last:
            changes.append(now)
            last = value
    gaps = sorted(b - a for a, b in itertools.pairwise(changes))
    return round(gaps[len(gaps) // 2] * 1e3, 2) if gaps else None


def _rapl_reader() -> Callable[[], float]:
    files = rapl_files()
    if not files or not all(os.access(file, os.R_OK) for file in files):
        return read_packages  # through zeusd, which has the permission
    return lambda: float(sum(int(file.read_text()) for file in files))


def _no_gpu() -> str:
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices == "":
        return "CUDA_VISIBLE_DEVICES is empty"
    if devices and "MIG" in devices:
        return "CUDA_VISIBLE_DEVICES names a MIG slice"
    return "no GPU driver (NVML, AMD SMI) is available"


def _remedy(component: str, why: str) -> str:
    if "SoC" in why:
        return "none: joules of this GPU stay unknown" if component == "gpu" else "none: greenseg uses the estimate"
    if component == "gpu":
        if "MIG" in why:
            return "the counter covers the whole GPU: measure with MIG off and no other users on the GPU"
        if "CUDA_VISIBLE_DEVICES" in why:
            return "unset CUDA_VISIBLE_DEVICES, or name the GPU in it"
        return "install the driver of the GPU; without a GPU, there is nothing to do"
    if "ermission" in why or any(not os.access(file, os.R_OK) for file in rapl_files()):
        return "run zeusd as root and set ZEUSD_SOCK_PATH, or run as root: chmod -R a+r /sys/class/powercap/intel-rapl"
    if "DRAM" in why:
        return "none: this CPU has no DRAM counter; greenseg uses the estimate"
    if is_virtual_machine():
        return "a virtual machine has no RAPL; measure on the host, or compare estimates (set cpu_watts if you know it)"
    if _container():
        return "mount the host's /sys/class/powercap read-only to /zeus_sys/class/powercap"
    return "load the kernel driver (modprobe intel_rapl_msr); without it, greenseg uses the estimate"


def _container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or "container" in os.environ
