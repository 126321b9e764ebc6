"""What this machine cannot run, said before anything starts. Imports no torch: GPUs are counted by their driver."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from greenseg.data.splits import SPLIT_BY, cases_of
from greenseg.errors import UserError
from greenseg.machine import claims, gpus
from greenseg.machine.cores import node_rank
from greenseg.machine.gpus import Gpu
from greenseg.machine.levers import LEVERS, wanted, watts
from greenseg.optimizers import OPTIMIZERS
from greenseg.precisions import PRECISIONS
from greenseg.settings import PHANTOM, Constraint, Settings, values_of, violations
from greenseg.strategies import STRATEGIES


def _accelerator(accelerator: str) -> str | None:
    if accelerator == "gpu" and gpus.device("gpu") == "gpu" and not gpus.count():
        return "accelerator gpu: no GPU answers here; `greenseg doctor` says why"
    if accelerator == "mps" and not gpus.apple():
        return "accelerator mps: only Apple silicon has it"
    return None


def _devices(devices: int, accelerator: str) -> str | None:
    kind = gpus.device(accelerator)
    there = gpus.count() if kind == "gpu" else 1
    if kind == "cpu" or not there or devices <= there:
        return None
    return f"devices {devices}: there {'is 1 GPU' if there == 1 else f'are {there} GPUs'} here"


def _precision(precision: str, accelerator: str) -> str | None:
    known = PRECISIONS[precision]
    reason = known.fails_on.get(gpus.device(accelerator))
    if not reason and known.package and not find_spec(known.package):
        reason = f"needs the package {known.package}"
    return f"precision {precision}: {reason}" if reason else None


_KINDS = {"cpu": "CPUs", "gpu": "CUDA", "mps": "Apple's GPU"}


def strategy_problem(strategy: str, accelerator: str) -> str | None:
    """Why a strategy does not work here: the kind of device, then the package that it needs; None where it does."""
    kind, known = gpus.device(accelerator), STRATEGIES[strategy]
    reasons = []
    if kind not in known.runs_on:
        reasons.append(f"Lightning has it for {' and '.join(_KINDS[k] for k in known.runs_on)}, not for {_KINDS[kind]}")
    if known.extra and find_spec(known.extra) is None:
        reasons.append(f"needs {known.extra}: pip install 'greenseg[{known.extra}]'")
    return "; and it ".join(reasons) or None


def _strategy(strategy: str, accelerator: str) -> str | None:
    problem = strategy_problem(strategy, accelerator)
    return problem and f"strategy {strategy}: {problem}"


def _optimizer(optimizer: str, accelerator: str) -> str | None:
    kind, known = gpus.device(accelerator), OPTIMIZERS[optimizer]
    if kind in known.runs_on:
        return None
    return f"optimizer {optimizer}: works on {' and '.join(_KINDS[k] for k in known.runs_on)}, not on {_KINDS[kind]}"


def _limit(name: str, value: int, accelerator: str) -> str | None:
    """Why the GPUs that this process sees do not take this value of a limit, or None."""
    seen, lever = gpus.visible() if value and gpus.device(accelerator) == "gpu" else [], LEVERS[name]
    if value and not seen:
        return f"{name} {value}: needs a GPU of NVIDIA, and there is none to train on"
    wrong = []
    for gpu in seen:
        try:
            low, high = lever.bounds(gpu.device)
        except Exception as error:  # some GPUs do not know this limit
            wrong.append(f"GPU {gpu.index} has no such limit ({error})")
        else:
            if not low <= value <= high:
                wrong.append(f"GPU {gpu.index} takes {low} to {high} {lever.unit}")
    return f"{name} {value}: {', '.join(wrong)}" if wrong else None


def _permission(accelerator: str, *limits: int) -> str | None:
    if not any(limits) or gpus.device(accelerator) != "gpu":
        return None
    return no_permission()


def no_permission() -> str | None:
    """Why this process must not set limits of the GPUs that it sees, and what to do, or None."""
    refused = [str(gpu.index) for gpu in gpus.visible() if not _may_set(gpu)]
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
        with claims.locked(gpu) as lock:
            if lock:  # else a run has it, and its limit may be changing just now
                pynvml.nvmlDeviceSetPowerManagementLimit(gpu.device.handle, gpu.device.get_power_management_limit())
    except pynvml.NVMLError as error:
        return bool(error.value != pynvml.NVML_ERROR_NO_PERMISSION)
    except Exception:  # it has no power limit, or there is no place for locks: that is said elsewhere
        pass
    return True


def _workers(workers: int | str) -> str | None:
    if workers == 0:
        return None
    try:
        multiprocessing.get_context("fork").Lock()  # as torch's loaders have
    except (OSError, ImportError, ValueError) as error:
        return f"workers {workers}: they need shared memory in /dev/shm ({error}); mount it, or set workers: 0"
    return None


def _joined(nodes: int) -> str | None:
    if nodes == 1 or (node_rank() is not None and ("MASTER_ADDR" in os.environ or "SLURM_JOB_ID" in os.environ)):
        return None
    return (
        f"nodes {nodes}: start the same command on every node, with NODE_RANK (0, 1, …), and MASTER_ADDR and "
        f"MASTER_PORT of node 0, in its environment; or under torchrun"
    )


def _alone(nodes: int) -> str | None:
    return f"nodes {nodes}: a sweep has this machine only; `greenseg train` joins several" if nodes > 1 else None


CONSTRAINTS = (
    Constraint(("accelerator",), _accelerator),
    Constraint(("devices", "accelerator"), _devices),
    Constraint(("precision", "accelerator"), _precision),
    Constraint(("strategy", "accelerator"), _strategy),
    Constraint(("optimizer", "accelerator"), _optimizer),
    *(Constraint((name, "accelerator"), partial(_limit, name)) for name in LEVERS),
    Constraint(("accelerator", *LEVERS), _permission),
    Constraint(("workers",), _workers),
)
ALONE = (*CONSTRAINTS, Constraint(("nodes",), _alone))
JOINED = (*CONSTRAINTS, Constraint(("nodes",), _joined))
"""With what holds for a sweep, which has this machine only, and for a run, which may have others as well."""


def data_problems(runs: Iterable[Settings]) -> list[str]:
    """What is wrong with the data of runs as far as the names of its files tell, each once; none is opened."""
    data_of = values_of(SPLIT_BY)
    distinct = {data_of(run): run for run in runs}
    problems: dict[str, None] = {}
    for run in distinct.values():
        if run.data != PHANTOM:
            try:
                cases_of(run, Path(run.data))
            except UserError as error:
                problems |= dict.fromkeys(error.problems)
            except OSError as error:  # no permission, no such share
                problems[f"{run.data}: {error.strerror}"] = None
    return list(problems)


def check(settings: Settings) -> None:
    """Whether this machine can run it, and has its data.

    Raises:
        UserError: it cannot; all reasons.
    """
    problems = [message for _, _, message in violations(JOINED, [settings])] + data_problems([settings])
    if problems:
        raise UserError(problems)


def check_gpus(runs: Sequence[Settings], names: Sequence[str], each: int = 1) -> None:
    """Whether runs can have their GPUs: what one sets of a GPU, all others on it would suffer.

    Args:
        runs: those to start.
        names: of the GPUs to start them on, as CUDA_VISIBLE_DEVICES takes them.
        each: how many may share one at a time.

    Raises:
        UserError: another run of greenseg has one of them and limits do not allow for both, or these runs would share
            one while some of them set a limit; all reasons.
    """
    runs = [run for run in runs if gpus.device(run.accelerator) == "gpu"]
    if not runs:
        return
    alone = any(wanted(run) for run in runs)
    problems = claims.blocked(names, alone)
    if alone and each > 1:
        problems.append(
            f"--jobs: {each} runs would share a GPU, and power_limit and gpu_clock hold for a whole GPU: each would "
            f"suffer what another sets. Leave --jobs out, or give at most {len(names)}: one run a GPU"
        )
    if problems:
        raise UserError(problems)


def examine() -> list[dict[str, Any]]:
    """Which limits every GPU that this process sees takes, and whether they may be set; for `greenseg doctor`."""
    found: list[dict[str, Any]] = []
    for gpu in gpus.visible():
        bounds: dict[str, list[int] | None] = dict.fromkeys(LEVERS)
        for name, lever in LEVERS.items():
            with contextlib.suppress(Exception):  # it does not know this limit
                bounds[name] = list(lever.bounds(gpu.device))
        now = None
        with contextlib.suppress(Exception):
            now = watts(gpu.device.get_power_management_limit())
        found.append({"gpu": gpu.index, "bounds": bounds, "power_limit": now, "may_be_set": _may_set(gpu)})
    return found
