"""Checks before anything starts that this machine can do a run. Imports no torch: the driver counts the GPUs."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from greenseg import batch_job
from greenseg.compression import RUNTIMES, engine
from greenseg.data.splits import SPLIT_BY, cases_of
from greenseg.errors import UserError
from greenseg.machine import claims, cpu, gpus
from greenseg.machine.cores import node_rank
from greenseg.machine.gpus import Gpu
from greenseg.machine.levers import LEVERS, wanted, watts
from greenseg.optimizers import OPTIMIZERS
from greenseg.precisions import PRECISIONS
from greenseg.settings import PHANTOM, Constraint, Settings, values_of, violations
from greenseg.strategies import STRATEGIES


def _accelerator(accelerator: str) -> str | None:
    if accelerator == "gpu" and gpus.device("gpu") == "gpu" and not gpus.count():
        return "accelerator gpu: no GPU is available; `greenseg doctor` shows why"
    if accelerator == "mps" and not gpus.apple():
        return "accelerator mps: needs Apple silicon"
    return None


def _devices(devices: int, accelerator: str) -> str | None:
    kind = gpus.device(accelerator)
    there = gpus.count() if kind == "gpu" else 1
    if kind == "cpu" or not there or devices <= there:
        return None
    return f"devices {devices}: this machine has {'1 GPU' if there == 1 else f'{there} GPUs'}"


def _precision(precision: str, accelerator: str) -> str | None:
    known = PRECISIONS[precision]
    reason = known.fails_on.get(gpus.device(accelerator))
    if not reason and known.package and not find_spec(known.package):
        reason = f"needs the package {known.package}"
    return f"precision {precision}: {reason}" if reason else None


_KINDS = {"cpu": "CPUs", "gpu": "CUDA", "mps": "Apple GPUs"}


def strategy_problem(strategy: str, accelerator: str) -> str | None:
    """Why a strategy does not work here: the kind of device, then a missing package; None if it works."""
    kind, known = gpus.device(accelerator), STRATEGIES[strategy]
    reasons = []
    if kind not in known.runs_on:
        reasons.append(f"works on {' and '.join(_KINDS[k] for k in known.runs_on)}, not on {_KINDS[kind]}")
    if known.extra and find_spec(known.extra) is None:
        reasons.append(f"needs {known.extra}: pip install 'greenseg[{known.extra}]'")
    return "; ".join(reasons) or None


def _strategy(strategy: str, accelerator: str) -> str | None:
    problem = strategy_problem(strategy, accelerator)
    return problem and f"strategy {strategy}: {problem}"


def _optimizer(optimizer: str, accelerator: str) -> str | None:
    kind, known = gpus.device(accelerator), OPTIMIZERS[optimizer]
    if kind in known.runs_on:
        return None
    return f"optimizer {optimizer}: works on {' and '.join(_KINDS[k] for k in known.runs_on)}, not on {_KINDS[kind]}"


def _limit(name: str, value: int, accelerator: str) -> str | None:
    """Why the visible GPUs do not support this value of a limit, or None."""
    seen, lever = gpus.visible() if value and gpus.device(accelerator) == "gpu" else [], LEVERS[name]
    if value and not seen:
        return f"{name} {value}: needs an NVIDIA GPU, and none is available"
    wrong = []
    for gpu in seen:
        try:
            low, high = lever.bounds(gpu.device)
        except Exception as error:  # some GPUs do not support this limit
            wrong.append(f"GPU {gpu.index} does not support it ({error})")
        else:
            if not low <= value <= high:
                wrong.append(f"GPU {gpu.index} supports {low} to {high} {lever.unit}")
    return f"{name} {value}: {', '.join(wrong)}" if wrong else None


def _permission(accelerator: str, *limits: int) -> str | None:
    if not any(limits) or gpus.device(accelerator) != "gpu":
        return None
    return no_permission()


def no_permission() -> str | None:
    """Why this process may not set limits of the visible GPUs, with the remedy; or None."""
    refused = [str(gpu.index) for gpu in gpus.visible() if not _may_set(gpu)]
    if not refused:
        return None
    return (
        f"limits of GPU {', '.join(refused)}: no permission to set them; run greenseg as root (in a container: with "
        "--cap-add SYS_ADMIN), or have root run `zeusd serve --socket-path /run/zeusd/zeusd.sock --socket-permissions "
        "666` and set ZEUSD_SOCK_PATH=/run/zeusd/zeusd.sock"
    )


def _may_set(gpu: Gpu) -> bool:
    """Tests the permission by setting the power limit to its present value, because Zeus skips unchanged limits."""
    import pynvml
    from zeus.device.gpu.nvidia import ZeusdNVIDIAGPU

    if isinstance(gpu.device, ZeusdNVIDIAGPU):
        return True  # Zeus refuses a daemon that may not control GPUs
    try:
        with claims.locked(gpu) as lock:
            if lock:  # else a run has the GPU and may be changing its limit
                pynvml.nvmlDeviceSetPowerManagementLimit(gpu.device.handle, gpu.device.get_power_management_limit())
    except pynvml.NVMLError as error:
        return bool(error.value != pynvml.NVML_ERROR_NO_PERMISSION)
    except Exception:  # no power limit, or no locks possible: reported elsewhere
        pass
    return True


def _workers(workers: int | str) -> str | None:
    if workers == 0:
        return None
    try:
        multiprocessing.get_context("fork").Lock()  # torch's loaders need one
    except (OSError, ImportError, ValueError) as error:
        return f"workers {workers}: need shared memory in /dev/shm ({error}); mount it, or set workers: 0"
    return None


def _joined(nodes: int) -> str | None:
    if nodes in (1, batch_job.nodes()) or (
        node_rank() is not None and ("MASTER_ADDR" in os.environ or "SLURM_JOB_ID" in os.environ)
    ):
        return None
    return (
        f"nodes {nodes}: start the same command on every node, with NODE_RANK (0, 1, …), and MASTER_ADDR and "
        f"MASTER_PORT of node 0 in its environment; or use torchrun"
    )


def _alone(nodes: int) -> str | None:
    if nodes == 1 or batch_job.job_id():  # a worker leaves runs for other numbers of nodes to other jobs
        return None
    return f"nodes {nodes}: a sweep uses one machine only, except in a job of Slurm; `greenseg train` uses several"


_OPENVINO = {"bf16": ("BF16", "avx512_bf16 or amx_bf16"), "fp16": ("FP16", "avx512_fp16")}
"""Quantization → its name in OpenVINO, and the instructions that it needs on a CPU of Intel's or AMD's."""


def _numbers(quantize: str, runtime: str, accelerator: str) -> str | None:
    runtime, device = engine(runtime, quantize), gpus.device(accelerator)
    if reason := RUNTIMES[runtime].refuses_on.get(device, {}).get(quantize):
        return f"quantize {quantize}: {reason}"
    name, instructions = _OPENVINO.get(quantize, ("", ""))
    # The import takes a second, so only runs that need the answer pay for it; the package itself is checked elsewhere.
    if runtime == "openvino" and name and find_spec("openvino") and name not in cpu.openvino_numbers():
        return f"quantize {quantize}: this CPU lacks {instructions}, so OpenVINO would compute in float32; use int8"
    return None


def _compiler(runtime: str, accelerator: str) -> str | None:
    if runtime == "torch-compile" and gpus.device(accelerator) == "cpu" and not cpu.compiler():
        return "runtime torch-compile: needs a C++ compiler on a CPU; install g++"
    return None


CONSTRAINTS = (
    Constraint(("accelerator",), _accelerator),
    Constraint(("devices", "accelerator"), _devices),
    Constraint(("precision", "accelerator"), _precision),
    Constraint(("strategy", "accelerator"), _strategy),
    Constraint(("optimizer", "accelerator"), _optimizer),
    *(Constraint((name, "accelerator"), partial(_limit, name)) for name in LEVERS),
    Constraint(("accelerator", *LEVERS), _permission),
    Constraint(("workers",), _workers),
    Constraint(("quantize", "runtime", "accelerator"), _numbers),
    Constraint(("runtime", "accelerator"), _compiler),
)
ALONE = (*CONSTRAINTS, Constraint(("nodes",), _alone))
JOINED = (*CONSTRAINTS, Constraint(("nodes",), _joined))
"""Constraints of a sweep, which uses this machine only, and of a single run, which may use several machines."""


def data_problems(runs: Iterable[Settings]) -> list[str]:
    """Problems with the data of runs by the names of the files, each once; no file is opened."""
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
    """Check that this machine can do a run and has its data.

    Raises:
        UserError: it cannot; lists all reasons.
    """
    problems = [message for _, _, message in violations(JOINED, [settings])] + data_problems([settings])
    if problems:
        raise UserError(problems)


def check_gpus(runs: Sequence[Settings], names: Sequence[str], each: int = 1) -> None:
    """Check that runs can use their GPUs: the limits of one run would affect all others on the same GPU.

    Args:
        runs: the runs to start.
        names: the GPUs to use, as in CUDA_VISIBLE_DEVICES.
        each: number of runs that may share a GPU.

    Raises:
        UserError: another run of greenseg uses one of the GPUs and one of both sets limits, or these runs would share a
            GPU although some set a limit; lists all reasons.
    """
    runs = [run for run in runs if gpus.device(run.accelerator) == "gpu"]
    if not runs:
        return
    alone = any(wanted(run) for run in runs)
    problems = claims.blocked(names, alone)
    if alone and each > 1:
        problems.append(
            f"--jobs: {each} runs would share a GPU, but power_limit and gpu_clock apply to a whole GPU and would "
            f"affect all of them. Leave --jobs out, or use at most {len(names)}, for one run per GPU"
        )
    if problems:
        raise UserError(problems)


def examine() -> list[dict[str, Any]]:
    """Valid limits of every visible GPU, and the permission to set them; for `greenseg doctor`."""
    found: list[dict[str, Any]] = []
    for gpu in gpus.visible():
        bounds: dict[str, list[int] | None] = dict.fromkeys(LEVERS)
        for name, lever in LEVERS.items():
            with contextlib.suppress(Exception):  # not supported by this GPU
                bounds[name] = list(lever.bounds(gpu.device))
        now = None
        with contextlib.suppress(Exception):
            now = watts(gpu.device.get_power_management_limit())
        found.append({"gpu": gpu.index, "bounds": bounds, "power_limit": now, "may_be_set": _may_set(gpu)})
    return found
