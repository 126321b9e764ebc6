"""Claims GPUs for runs, sets limits during a run, and restores them however it ends.

Limits apply to all users of a GPU, and outlive the process that set them. Therefore:

- Every run claims its GPUs by locks that end with its process. The claim is exclusive if the run sets a limit, else
  shared with other runs that set none.
- A file has the previous limits of a GPU before the first change and until they are restored. If the run is killed, its
  launcher restores them, or the next process that claims the GPU, or `greenseg doctor`.

Imports no torch.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from greenseg import locks
from greenseg.errors import UserError
from greenseg.files import cache_folder, write_json
from greenseg.machine import gpus
from greenseg.machine.gpus import Gpu
from greenseg.machine.levers import LEVERS
from greenseg.machine.signals import stop_later

_PATIENCE_SECONDS = 10.0  # for remaining processes of a killed run, which still hold its locks


def locked(gpu: Gpu) -> contextlib.AbstractContextManager[Any]:
    """Hold a GPU exclusively while the context lasts; yields None if another process has it."""
    return _hold(gpu)


def blocked(names: Iterable[str], alone: bool) -> list[str]:
    """Why a run cannot use these GPUs now.

    Args:
        names: names of GPUs, as in CUDA_VISIBLE_DEVICES.
        alone: whether the run sets a limit.
    """
    names = list(names)
    problems: list[str] = []
    if not names:
        return problems
    for gpu in gpus.every():
        if any(name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name)) for name in names):
            try:
                with _claimed(gpu, alone, patience=0):
                    pass
            except UserError as error:
                problems += error.problems
    return problems


@contextlib.contextmanager
def limited(wanted: Mapping[str, int], number: int, unrestored: list[str]) -> Iterator[dict[str, Any]]:
    """Claim the GPUs of a run and set its limits while the context lasts.

    Args:
        wanted: setting → value; may be empty.
        number: number of GPUs for the run, the first ones that are visible to this process.
        unrestored: receives a message with the fix for each limit that was not restored, as does stderr.

    Yields:
        Setting → present value of the GPUs, for the limits that were set; a list if the GPUs differ.

    Raises:
        UserError: another run has one of the GPUs, or one of them does not support a limit.
    """
    held = {gpu: dict[str, Any]() for gpu in (gpus.visible()[:number] if number else [])}
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
    """Set limits and record the previous values before each change; returns the new values of the GPU."""
    from zeus.device.gpu import ZeusGPUNoPermissionError, ZeusGPUNotSupportedError

    values = {}
    for name, value in wanted.items():
        lever = LEVERS[name]
        noted = before | {name: lever.read(gpu.device)}
        write_json(_note(gpu), {"pid": os.getpid(), "boot": _boot(), "before": noted})
        before[name] = noted[name]
        try:
            values[name] = lever.set(gpu.device, value)
        except Exception as error:  # from the driver or the daemon
            if isinstance(error, ZeusGPUNoPermissionError | ZeusGPUNotSupportedError):
                del before[name]  # it has certainly not changed
            raise UserError(f"{name} {value}: GPU {gpu.index} refuses it: {error}") from error
    return values


def restore(pid: int | None = None) -> list[str]:
    """Restore the limits that dead processes left behind; returns a message with the fix for each failure.

    Args:
        pid: restore only the limits of this process, which has ended; default: all.
    """
    try:
        left = any(_folder().glob("*.json"))
    except UserError:  # there is no cache, so no record either
        left = False
    if not left:
        return []
    try:
        left_behind = [gpu for gpu in gpus.every() if _note(gpu).exists()]
    except Exception as error:  # no driver, no daemon: some of these GPUs may be here
        return [f"the GPU limits that a run left behind cannot be restored now: {error} (recorded in {_folder()})"]
    messages = []
    for gpu in left_behind:
        if pid is not None and (_state(gpu) or {}).get("pid") != pid:
            continue
        with _hold(gpu, patience=0 if pid is None else _PATIENCE_SECONDS) as lock:
            if lock and (message := _clean(gpu)):
                messages.append(message)
    return messages


def _folder() -> Path:
    return cache_folder() / "limits"


def _hold(gpu: Gpu, shared: bool = False, patience: float = 0.0) -> contextlib.AbstractContextManager[IO[Any] | None]:
    """The lock that the processes on a GPU hold."""
    _folder().mkdir(parents=True, exist_ok=True)
    return locks.hold(_folder() / f"{gpu.uuid}.lock", shared=shared, patience=patience)


def _note(gpu: Gpu) -> Path:
    """The file with the limits of a GPU before a run changed them; exists only until they are restored."""
    return _folder() / f"{gpu.uuid}.json"


def _boot() -> str:
    """Identifier of the present boot: after a restart, the driver has forgotten every limit."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _state(gpu: Gpu) -> dict[str, Any] | None:
    """The record of a GPU: empty if there is none, None if it is unreadable."""
    try:
        state = json.loads(_note(gpu).read_bytes())
        valid = all(type(value) is LEVERS[name].noted for name, value in state["before"].items())
        return dict(state) if valid and {"pid", "boot"} <= state.keys() else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _clean(gpu: Gpu) -> str:
    """Restore the recorded limits of a GPU that no run holds; returns a message with the fix if this fails."""
    state = _state(gpu)
    if state is None:
        return (
            f"GPU {gpu.index}: {_note(gpu)} is damaged, so its limits before a run of greenseg are unknown. Check the "
            f"GPU (nvidia-smi -i {gpu.uuid} -q -d POWER,CLOCK), set the right limits "
            f"(sudo nvidia-smi -i {gpu.uuid} -pl WATTS; sudo nvidia-smi -i {gpu.uuid} -rgc), then remove this file"
        )
    if not state:
        return ""
    if state["boot"] != _boot():
        _note(gpu).unlink(missing_ok=True)
        return ""
    return _put_back(gpu, state["before"])


def _put_back(gpu: Gpu, before: Mapping[str, Any]) -> str:
    """Restore the previous limits of a GPU; returns a message with the fix if this fails."""
    failed: dict[str, str] = {}
    for name, value in before.items():
        try:
            LEVERS[name].put_back(gpu.device, value)
        except Exception as error:  # from the driver or the daemon
            failed[f"{name} ({error})"] = f"sudo nvidia-smi -i {gpu.uuid} {LEVERS[name].repair(value)}"
    if failed:
        commands = " && ".join([*failed.values(), f"rm '{_note(gpu)}'"])
        return f"GPU {gpu.index}: could not restore {' and '.join(failed)}. To fix it: {commands}"
    _note(gpu).unlink(missing_ok=True)
    return ""


@contextlib.contextmanager
def _claimed(gpu: Gpu, alone: bool, patience: float) -> Iterator[None]:
    """Hold a GPU with its original limits: limits of dead runs are restored first.

    Raises:
        UserError: another run has it, or its limits cannot be restored.
    """
    with contextlib.ExitStack() as stack:
        try:
            shared = not alone and not _note(gpu).exists()
            lock = stack.enter_context(_hold(gpu, shared, patience))
        except (OSError, UserError) as error:  # locks are not possible; runs that set no limit train without them
            if alone:
                raise UserError(f"GPU limits are recorded in greenseg's cache: {error}; set GREENSEG_CACHE") from error
        else:
            if not lock:
                raise UserError(_taken(gpu))
            if message := _clean(gpu):
                raise UserError(message)
            if not alone:
                locks.share(lock)
        yield


def _taken(gpu: Gpu) -> str:
    holder = (_state(gpu) or {}).get("pid")
    does = f"process {holder} has set its limits" if holder else "it trains there"
    return (
        f"GPU {gpu.index}: another run of greenseg uses it ({does}), and power_limit and gpu_clock apply to a whole "
        "GPU; wait for that run, or use another GPU (CUDA_VISIBLE_DEVICES, or --gpus of a sweep)"
    )
