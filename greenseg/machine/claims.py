"""GPUs claimed by runs, their limits set while a run trains and put back whatever ends it.

Limits hold for all users of a GPU, and outlive the process that set them. Therefore:

- Every run claims its GPUs by locks that die with its process: alone where it sets a limit, else together with other
  runs that set none.
- What a GPU had before stands in a file before anything is changed, and until it has been put back. Where the run
  itself cannot do so, being killed, its launcher does, or the next process that claims the GPU, or `greenseg doctor`.

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

_PATIENCE_SECONDS = 10.0  # for processes of a run that was killed, which hold its locks until they are gone, too


def locked(gpu: Gpu) -> contextlib.AbstractContextManager[Any]:
    """Hold a GPU alone while the context lasts; yields None where a process has it."""
    return _hold(gpu)


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
        number: of GPUs that the run trains on, the first ones that this process sees.
        unrestored: gets a message for each limit that could not be put back, with the repair; stderr gets it, too.

    Yields:
        Setting → what the GPUs have now, one value for each where they differ; of the limits that were set.

    Raises:
        UserError: another run has one of the GPUs, or one of them does not take a limit.
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
    """Set limits; returns what the GPU has then, and notes what it had before each was touched."""
    from zeus.device.gpu import ZeusGPUNoPermissionError, ZeusGPUNotSupportedError

    values = {}
    for name, value in wanted.items():
        lever = LEVERS[name]
        noted = before | {name: lever.read(gpu.device)}
        write_json(_note(gpu), {"pid": os.getpid(), "boot": _boot(), "before": noted})
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
        left_behind = [gpu for gpu in gpus.every() if _note(gpu).exists()]
    except Exception as error:  # no driver, no daemon: some of these GPUs may be here
        return [f"limits of GPUs that a run left behind cannot be put back now: {error} (noted in {_folder()})"]
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
    """The lock that the processes which train on it hold."""
    _folder().mkdir(parents=True, exist_ok=True)
    return locks.hold(_folder() / f"{gpu.uuid}.lock", shared=shared, patience=patience)


def _note(gpu: Gpu) -> Path:
    """What it had before a run changed it; there is none while it is as it was."""
    return _folder() / f"{gpu.uuid}.json"


def _boot() -> str:
    """Names the time since the machine started: a driver that has restarted has forgotten every limit."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _state(gpu: Gpu) -> dict[str, Any] | None:
    """What is noted of a GPU: empty where nothing is, None where it cannot be read."""
    try:
        state = json.loads(_note(gpu).read_bytes())
        valid = all(type(value) is LEVERS[name].noted for name, value in state["before"].items())
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
            f"GPU {gpu.index}: {_note(gpu)} is damaged, so that nobody knows the limits which it had before a run of "
            f"greenseg. Look at it (nvidia-smi -i {gpu.uuid} -q -d POWER,CLOCK), set what is right "
            f"(sudo nvidia-smi -i {gpu.uuid} -pl WATTS; sudo nvidia-smi -i {gpu.uuid} -rgc), then remove that file"
        )
    if not state:
        return ""
    if state["boot"] != _boot():
        _note(gpu).unlink(missing_ok=True)
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
        commands = " && ".join([*failed.values(), f"rm '{_note(gpu)}'"])
        return f"GPU {gpu.index}: could not put back {' and '.join(failed)}. Repair it: {commands}"
    _note(gpu).unlink(missing_ok=True)
    return ""


@contextlib.contextmanager
def _claimed(gpu: Gpu, alone: bool, patience: float) -> Iterator[None]:
    """Hold a GPU, as it was before any run: what a dead one left is put back first.

    Raises:
        UserError: another run has it, or what was left cannot be put back.
    """
    with contextlib.ExitStack() as stack:
        try:
            shared = not alone and not _note(gpu).exists()
            lock = stack.enter_context(_hold(gpu, shared, patience))
        except (OSError, UserError) as error:  # there is no place for locks: what sets no limit trains all the same
            if alone:
                raise UserError(f"limits of GPUs are noted in greenseg's cache: {error}; set GREENSEG_CACHE") from error
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
    does = f"process {holder} has set limits of it" if holder else "it trains there"
    return (
        f"GPU {gpu.index}: another run of greenseg has it ({does}), and power_limit and gpu_clock hold for a whole "
        "GPU; wait for that run, or take another GPU (CUDA_VISIBLE_DEVICES, or --gpus of a sweep)"
    )
