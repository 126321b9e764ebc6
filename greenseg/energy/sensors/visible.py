"""The GPUs visible to this process, for any form of CUDA_VISIBLE_DEVICES; Zeus reads only plain indices."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence


def visible_gpus() -> int:
    """Number of GPUs that are visible to this process and that Zeus can access; 0 without a driver."""
    from zeus.device import get_gpus

    try:
        with integer_devices():
            return len(get_gpus())
    except Exception:  # no driver, or no library: no GPU to measure
        return 0


def temperatures(names: Sequence[str] | None = None) -> list[int]:
    """Temperatures of GPUs in °C, without GPUs that are missing or do not report theirs.

    Args:
        names: names of the GPUs, as in CUDA_VISIBLE_DEVICES; by default, all that are visible to this process.
    """
    from zeus.device import get_gpus

    if names is not None and not names:
        return []
    found: list[int] = []
    try:
        with integer_devices():
            gpus = get_gpus()
            every = range(len(gpus))
    except Exception:  # no driver, or no library
        return []
    for index in every if names is None else _positions(names, len(every)):
        with contextlib.suppress(Exception):  # each driver has its own exceptions
            found.append(gpus.get_gpu_temperature(index))
    return found


def _positions(names: Iterable[str], number: int) -> list[int]:
    """Indices of GPUs in Zeus's list of the GPUs visible to this process.

    Args:
        names: names of the GPUs, as in CUDA_VISIBLE_DEVICES.
        number: number of GPUs visible to this process.
    """
    uuids = _uuids()

    def plain(name: str) -> str:
        matching = _matching(name, uuids)
        return matching[0] if len(matching) == 1 else name

    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    seen = [plain(name) for name in visible or map(str, range(number))][:number]
    return [seen.index(name) for name in map(plain, names) if name in seen]


@contextlib.contextmanager
def integer_devices() -> Iterator[list[str]]:
    """Set CUDA_VISIBLE_DEVICES to plain indices while the context lasts, since Zeus reads nothing else.

    CUDA also accepts a UUID or its beginning, and stops at the first entry that is not a device (such as -1). Yields
    the UUIDs that the driver does not know. MIG slices stay unchanged, and Zeus rejects them.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not before or before.startswith("MIG"):
        yield []
        return
    uuids = _uuids()
    indices: list[str] = []
    unknown: list[str] = []
    for device in (entry.strip() for entry in before.split(",")):
        matching = _matching(device, uuids)
        if len(matching) != 1 or not matching[0].isdecimal() or int(matching[0]) >= len(uuids):
            unknown += [device] if "GPU-" in device else []
            break
        indices.append(matching[0])
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(indices)
    try:
        yield unknown
    finally:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


def _matching(name: str, uuids: list[str]) -> list[str]:
    """Indices of the GPUs that match a name for CUDA: an index, a UUID or the beginning of a UUID."""
    return [str(i) for i, uuid in enumerate(uuids) if uuid.startswith(name)] if "GPU-" in name else [name]


def _uuids() -> list[str]:
    """UUIDs of all NVIDIA GPUs, in NVML's order; empty without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except pynvml.NVMLError:
        return []
