"""Limits of GPUs, set while a run trains and put back whatever ends it: a power limit, and a locked graphics clock.

They hold for all users of a GPU, and outlive the process that set them. Therefore:

- Every run claims its GPUs by locks that die with its process: alone where it sets a limit, else together with other
  runs that set none.
- What a GPU had before stands in a file before anything is changed, and until it has been put back. Where the run
  itself cannot do so, being killed, its launcher does, or the next process that claims the GPU, or `greenseg doctor`.

Zeus talks to the driver, itself or through zeusd. Imports no torch.
"""

import contextlib
import fcntl
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greenseg.config import Settings
from greenseg.energy.sensors import visible_gpus
from greenseg.errors import UserError
from greenseg.files import cache_folder, write_json
from greenseg.training.signals import stop_later

_PATIENCE_SECONDS = 10.0  # for processes of a run that was killed, which hold its locks until they are gone, too


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

    @property
    def lock(self) -> Path:
        """Locked by the processes that train on it."""
        return _folder() / f"{self.uuid}.lock"

    @property
    def state(self) -> Path:
        """What it had before a run changed it; there is none while it is as it was."""
        return _folder() / f"{self.uuid}.json"


@dataclass(frozen=True)
class Lever:
    """A limit that can be set.

    Attributes:
        bounds: the lowest and the highest value that a GPU takes, in `unit`.
        read: what to put back; None where the driver does not tell.
        set: sets a value; returns what the GPU really has then.
        put_back: puts back what was read.
        repair: options of nvidia-smi that do the same.
    """

    unit: str
    bounds: Callable[[Any], tuple[int, int]]
    read: Callable[[Any], int | None]
    set: Callable[[Any, int], float]
    put_back: Callable[[Any, Any], None]
    repair: Callable[[Any], str]


def _watts(milliwatts: int) -> float:
    watts = milliwatts / 1000
    return int(watts) if watts.is_integer() else watts


def _power_bounds(device: Any) -> tuple[int, int]:
    low, high = device.get_power_management_limit_constraints()
    return math.ceil(low / 1000), high // 1000


def _set_power(device: Any, watts: int) -> float:
    device.set_power_management_limit(watts * 1000)
    return _watts(device.get_power_management_limit())


def _put_power_back(device: Any, milliwatts: int) -> None:
    device.set_power_management_limit(milliwatts)
    if (now := device.get_power_management_limit()) != milliwatts:
        raise OSError(f"the driver keeps {_watts(now):g} W")


def _clocks(device: Any) -> list[int]:
    return sorted(device.get_supported_graphics_clocks(max(device.get_supported_memory_clocks())))


def _set_clock(device: Any, megahertz: int) -> float:
    clock = min(_clocks(device), key=lambda clock: abs(clock - megahertz))
    device.set_gpu_locked_clocks(clock, clock)
    return clock


LEVERS = {
    "power_limit": Lever(
        "W",
        _power_bounds,
        lambda device: device.get_power_management_limit(),
        _set_power,
        _put_power_back,
        lambda milliwatts: f"-pl {_watts(milliwatts):g}",
    ),
    "gpu_clock": Lever(
        "MHz",
        lambda device: (_clocks(device)[0], _clocks(device)[-1]),
        lambda device: None,  # NVML tells nobody whether, and where, a clock is locked
        _set_clock,
        lambda device, before: device.reset_gpu_locked_clocks(),
        lambda before: "-rgc",
    ),
}
"""Setting → how it is set."""


def wanted(settings: Settings) -> dict[str, int]:
    """The limits that a run sets: setting → value."""
    return {name: value for name in LEVERS if (value := getattr(settings, name))}


# ── GPUs


def visible() -> list[Gpu]:
    """The GPUs of NVIDIA that this process sees, as the framework counts them."""
    if not visible_gpus():
        return []
    from zeus.device import get_gpus

    return _of_nvidia(get_gpus().gpus)


def _every_gpu() -> list[Gpu]:
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


# ── before anything starts


def problem(name: str, value: int) -> str | None:
    """Why the GPUs that this process sees do not take this value of a limit, or None."""
    gpus, lever = visible(), LEVERS[name]
    if not gpus:
        return f"{name} {value}: needs a GPU of NVIDIA, and there is none to train on"
    wrong = []
    for gpu in gpus:
        try:
            low, high = lever.bounds(gpu.device)
        except Exception as error:  # some GPUs do not know this limit
            wrong.append(f"GPU {gpu.index} has no such limit ({error})")
        else:
            if not low <= value <= high:
                wrong.append(f"GPU {gpu.index} takes {low} to {high} {lever.unit}")
    return f"{name} {value}: {', '.join(wrong)}" if wrong else None


def no_permission() -> str | None:
    """Why this process must not set limits of the GPUs that it sees, and what to do, or None."""
    refused = [str(gpu.index) for gpu in visible() if not _may_set(gpu)]
    if not refused:
        return None
    return (
        f"limits of GPU {', '.join(refused)}: no permission to set them; run greenseg as root (in a container: with "
        "--cap-add SYS_ADMIN), or have root run `zeusd serve --socket-path /run/zeusd/zeusd.sock --socket-permissions "
        "666` and set ZEUSD_SOCK_PATH=/run/zeusd/zeusd.sock"
    )


def _may_set(gpu: Gpu) -> bool:
    """Tried by setting the power limit to what it is: Zeus itself asks the driver for a change only."""
    import pynvml
    from zeus.device.gpu.nvidia import ZeusdNVIDIAGPU

    if isinstance(gpu.device, ZeusdNVIDIAGPU):
        return True  # Zeus refuses a daemon that must not control GPUs
    try:
        with _locked(gpu.lock, fcntl.LOCK_EX, patience=0) as lock:
            if lock:  # else a run has it, and its limit may be changing just now
                pynvml.nvmlDeviceSetPowerManagementLimit(gpu.device.handle, gpu.device.get_power_management_limit())
    except pynvml.NVMLError as error:
        return bool(error.value != pynvml.NVML_ERROR_NO_PERMISSION)
    except Exception:  # it has no power limit, or there is no place for locks: that is said elsewhere
        pass
    return True


def blocked(names: Iterable[str], alone: bool) -> list[str]:
    """Why a run cannot have these GPUs now.

    Args:
        names: of GPUs, as CUDA_VISIBLE_DEVICES takes them.
        alone: it sets a limit.
    """
    names = list(names)
    problems: list[str] = []
    if not names:
        return problems
    for gpu in _every_gpu():
        if any(name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name)) for name in names):
            try:
                with _claimed(gpu, alone, patience=0):
                    pass
            except UserError as error:
                problems += error.problems
    return problems


def examine() -> list[dict[str, Any]]:
    """Which limits every GPU that this process sees takes, and whether they may be set; for `greenseg doctor`."""
    found: list[dict[str, Any]] = []
    for gpu in visible():
        bounds: dict[str, list[int] | None] = dict.fromkeys(LEVERS)
        for name, lever in LEVERS.items():
            with contextlib.suppress(Exception):  # it does not know this limit
                bounds[name] = list(lever.bounds(gpu.device))
        now = None
        with contextlib.suppress(Exception):
            now = _watts(gpu.device.get_power_management_limit())
        found.append({"gpu": gpu.index, "bounds": bounds, "power_limit": now, "may_be_set": _may_set(gpu)})
    return found


# ── while a run trains


@contextlib.contextmanager
def limited(wanted: Mapping[str, int], gpus: int, unrestored: list[str]) -> Iterator[dict[str, Any]]:
    """Claim the GPUs of a run and set its limits while the context lasts.

    Args:
        wanted: setting → value; may be empty.
        gpus: how many GPUs the run trains on, the first ones that this process sees.
        unrestored: gets a message for each limit that could not be put back, with the repair; stderr gets it, too.

    Yields:
        Setting → what the GPUs have now, one value for each where they differ; of the limits that were set.

    Raises:
        UserError: another run has one of the GPUs, or one of them does not take a limit.
    """
    held = {gpu: dict[str, Any]() for gpu in (visible()[:gpus] if gpus else [])}
    with contextlib.ExitStack() as claims:
        for gpu in held:
            claims.enter_context(_claimed(gpu, bool(wanted), _PATIENCE_SECONDS))
        try:
            with stop_later():
                values = [_set(gpu, wanted, before) for gpu, before in held.items()]
            ran = {name: [value[name] for value in values] for name in wanted if values}
            yield {name: each if len(set(each)) > 1 else each[0] for name, each in ran.items()}
        finally:
            with stop_later():
                for gpu, before in held.items():
                    if wanted and (message := _put_back(gpu, before)):
                        print(message, file=sys.stderr, flush=True)
                        unrestored.append(message)


def _set(gpu: Gpu, wanted: Mapping[str, int], before: dict[str, Any]) -> dict[str, float]:
    """Set limits; returns what the GPU has then, and notes what it had before each was touched."""
    from zeus.device.gpu import ZeusGPUNoPermissionError, ZeusGPUNotSupportedError

    values = {}
    for name, value in wanted.items():
        lever = LEVERS[name]
        noted = before | {name: lever.read(gpu.device)}
        write_json(gpu.state, {"pid": os.getpid(), "boot": _boot(), "before": noted})
        before[name] = noted[name]
        try:
            values[name] = lever.set(gpu.device, value)
        except Exception as error:  # the driver's, or the daemon's
            if isinstance(error, ZeusGPUNoPermissionError | ZeusGPUNotSupportedError):
                del before[name]  # it certainly has not changed
            raise UserError(f"{name} {value}: GPU {gpu.index} refuses it: {error}") from error
    return values


def restore(pid: int | None = None) -> list[str]:
    """Put back what processes that are dead have left behind; returns what could not be put back, and how to repair it.

    Args:
        pid: only what this process left, which is known to have ended; by default all.
    """
    try:
        left = any(_folder().glob("*.json"))
    except UserError:  # there is no cache, and nothing noted
        left = False
    if not left:
        return []
    try:
        gpus = [gpu for gpu in _every_gpu() if gpu.state.exists()]
    except Exception as error:  # no driver, no daemon: some of these GPUs may be here
        return [f"limits of GPUs that a run left behind cannot be put back now: {error} (noted in {_folder()})"]
    messages = []
    for gpu in gpus:
        if pid is not None and (_state(gpu) or {}).get("pid") != pid:
            continue
        with _locked(gpu.lock, fcntl.LOCK_EX, 0 if pid is None else _PATIENCE_SECONDS) as lock:
            if lock and (message := _clean(gpu)):
                messages.append(message)
    return messages


# ── inside


def _folder() -> Path:
    return cache_folder() / "limits"


def _boot() -> str:
    """Names the time since the machine started: a driver that has restarted has forgotten every limit."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _state(gpu: Gpu) -> dict[str, Any] | None:
    """What is noted of a GPU: empty where nothing is, None where it cannot be read."""
    try:
        state = json.loads(gpu.state.read_bytes())
        before, types = state["before"], {"power_limit": int, "gpu_clock": type(None)}
        valid = all(type(value) is types[name] for name, value in before.items())
        return dict(state) if valid and {"pid", "boot"} <= state.keys() else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _clean(gpu: Gpu) -> str:
    """Put back what is noted of a GPU that nobody holds; returns what could not be, and how to repair it."""
    state = _state(gpu)
    if state is None:
        return (
            f"GPU {gpu.index}: {gpu.state} is damaged, so that nobody knows the limits which it had before a run of "
            f"greenseg. Look at it (nvidia-smi -i {gpu.uuid} -q -d POWER,CLOCK), set what is right "
            f"(sudo nvidia-smi -i {gpu.uuid} -pl WATTS; sudo nvidia-smi -i {gpu.uuid} -rgc), then remove that file"
        )
    if not state:
        return ""
    if state["boot"] != _boot():
        gpu.state.unlink(missing_ok=True)
        return ""
    return _put_back(gpu, state["before"])


def _put_back(gpu: Gpu, before: Mapping[str, Any]) -> str:
    """Put back what a GPU had; returns what could not be, and how to repair it."""
    failed: dict[str, str] = {}
    for name, value in before.items():
        try:
            LEVERS[name].put_back(gpu.device, value)
        except Exception as error:  # the driver's, or the daemon's
            failed[f"{name} ({error})"] = f"sudo nvidia-smi -i {gpu.uuid} {LEVERS[name].repair(value)}"
    if failed:
        commands = " && ".join([*failed.values(), f"rm '{gpu.state}'"])
        return f"GPU {gpu.index}: could not put back {' and '.join(failed)}. Repair it: {commands}"
    gpu.state.unlink(missing_ok=True)
    return ""


@contextlib.contextmanager
def _claimed(gpu: Gpu, alone: bool, patience: float) -> Iterator[None]:
    """Hold a GPU, as it was before any run: what a dead one left is put back first.

    Raises:
        UserError: another run has it, or what was left cannot be put back.
    """
    with contextlib.ExitStack() as stack:
        try:
            kind = fcntl.LOCK_EX if alone or gpu.state.exists() else fcntl.LOCK_SH
            lock = stack.enter_context(_locked(gpu.lock, kind, patience))
        except (OSError, UserError) as error:  # there is no place for locks: what sets no limit trains all the same
            if alone:
                raise UserError(f"limits of GPUs are noted in greenseg's cache: {error}; set GREENSEG_CACHE") from error
        else:
            if not lock:
                raise UserError(_taken(gpu))
            if message := _clean(gpu):
                raise UserError(message)
            if not alone:
                fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _taken(gpu: Gpu) -> str:
    holder = (_state(gpu) or {}).get("pid")
    does = f"process {holder} has set limits of it" if holder else "it trains there"
    return (
        f"GPU {gpu.index}: another run of greenseg has it ({does}), and power_limit and gpu_clock hold for a whole "
        "GPU; wait for that run, or take another GPU (CUDA_VISIBLE_DEVICES, or --gpus of a sweep)"
    )


@contextlib.contextmanager
def _locked(path: Path, kind: int, patience: float) -> Iterator[Any]:
    """Hold a lock file while the context lasts; yields None where somebody else has it for longer than `patience`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    yield None
                    return
                time.sleep(0.05)
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a forked process has the file, too
