"""The GPUs that this process sees, whatever CUDA_VISIBLE_DEVICES looks like: Zeus reads plain indices only."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence


def visible_gpus() -> int:
    """Number of GPUs that this process sees and that Zeus can reach; 0 where there is no driver."""
    from zeus.device import get_gpus

    try:
        with integer_devices():
            return len(get_gpus())
    except Exception:  # no driver, or no library: no GPU to measure
        return 0


def temperatures(names: Sequence[str] | None = None) -> list[int]:
    """Temperatures of GPUs in °C; those of GPUs that cannot be found, or do not tell, are left out.

    Args:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES takes them; by default all that this process sees.
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
        with contextlib.suppress(Exception):  # every driver has its own
            found.append(gpus.get_gpu_temperature(index))
    return found


def _positions(names: Iterable[str], number: int) -> list[int]:
    """Where GPUs stand among those that this process sees, as Zeus lists them.

    Args:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES takes them.
        number: of GPUs that this process sees.
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
    """CUDA_VISIBLE_DEVICES as CUDA reads it, in plain indices, while the context lasts: Zeus reads nothing else.

    CUDA takes UUIDs, too, and the beginning of one, and stops at the first entry that is no device (such as -1). Yields
    the UUIDs that the driver does not know; MIG slices are left for Zeus to refuse.
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
    """Indices of the GPUs that CUDA takes for one name: an index itself, or a UUID or its beginning."""
    return [str(i) for i, uuid in enumerate(uuids) if uuid.startswith(name)] if "GPU-" in name else [name]


def _uuids() -> list[str]:
    """UUID of every NVIDIA GPU, in NVML's order; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except pynvml.NVMLError:
        return []
