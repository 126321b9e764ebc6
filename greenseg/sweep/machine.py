"""What this machine cannot run, said before anything starts. Imports no torch: GPUs are counted by their driver."""

import multiprocessing
import os
import platform
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from greenseg import strategies
from greenseg.config import PHANTOM, Constraint, Settings, values_of, violations
from greenseg.data.splits import SPLIT_BY, cases_of
from greenseg.errors import UserError
from greenseg.strategies import STRATEGIES
from greenseg.training import limits
from greenseg.training.machine import node_rank


@cache
def gpus() -> int:
    """GPUs that this process sees."""
    from greenseg.energy.sensors import visible_gpus  # not for a run that names its device

    return visible_gpus()


def apple() -> bool:
    """Whether this is Apple silicon, whose GPU Lightning calls mps."""
    return (platform.system(), platform.machine()) == ("Darwin", "arm64")


def device(accelerator: str) -> str:
    """What Lightning trains on where it is asked for this accelerator: cpu, gpu or mps."""
    if accelerator in ("auto", "gpu"):
        return "mps" if apple() else "gpu" if accelerator == "gpu" or gpus() else "cpu"
    return accelerator


def _accelerator(accelerator: str) -> str | None:
    if accelerator == "gpu" and device("gpu") == "gpu" and not gpus():
        return "accelerator gpu: no GPU answers here; `greenseg doctor` says why"
    if accelerator == "mps" and not apple():
        return "accelerator mps: only Apple silicon has it"
    return None


def _devices(devices: int, accelerator: str) -> str | None:
    kind = device(accelerator)
    there = gpus() if kind == "gpu" else 1
    if kind == "cpu" or not there or devices <= there:
        return None
    return f"devices {devices}: there {'is 1 GPU' if there == 1 else f'are {there} GPUs'} here"


_PRECISIONS = {
    ("16-true", "cpu"): "on a CPU it is slow, and ends in NaN; 16-mixed and bf16-true work",
    ("transformer-engine", "cpu"): "needs a GPU",
    ("transformer-engine-float16", "cpu"): "needs a GPU",
    ("transformer-engine", "mps"): "needs a GPU of NVIDIA",
    ("transformer-engine-float16", "mps"): "needs a GPU of NVIDIA",
    ("64-true", "mps"): "Apple's GPU has no 64-bit numbers",
}


def _precision(precision: str, accelerator: str) -> str | None:
    reason = _PRECISIONS.get((precision, device(accelerator)))
    if not reason and precision.startswith("transformer-engine") and not find_spec("transformer_engine"):
        reason = "needs the package transformer_engine"
    return f"precision {precision}: {reason}" if reason else None


_KINDS = {"cpu": "CPUs", "gpu": "CUDA", "mps": "Apple's GPU"}


def strategy_problem(strategy: strategies.Name, accelerator: str) -> str | None:
    """Why a strategy does not work here: the kind of device, then the package that it needs; None where it does."""
    kind, known = device(accelerator), STRATEGIES[strategy]
    reasons = []
    if kind not in known.runs_on:
        reasons.append(f"Lightning has it for {' and '.join(_KINDS[k] for k in known.runs_on)}, not for {_KINDS[kind]}")
    if known.extra and find_spec(known.extra) is None:
        reasons.append(f"needs {known.extra}: pip install 'greenseg[{known.extra}]'")
    return "; and it ".join(reasons) or None


def _strategy(strategy: strategies.Name, accelerator: str) -> str | None:
    problem = strategy_problem(strategy, accelerator)
    return problem and f"strategy {strategy}: {problem}"


def _optimizer(optimizer: str, accelerator: str) -> str | None:
    if optimizer == "adamw-8bit" and device(accelerator) != "gpu":
        return "optimizer adamw-8bit: needs a CUDA GPU, and there is none to train on"
    return None


def _power_limit(power_limit: int, accelerator: str) -> str | None:
    return _limit("power_limit", power_limit, accelerator)


def _gpu_clock(gpu_clock: int, accelerator: str) -> str | None:
    return _limit("gpu_clock", gpu_clock, accelerator)


def _limit(name: str, value: int, accelerator: str) -> str | None:
    if value and device(accelerator) != "gpu":
        return f"{name} {value}: needs a GPU of NVIDIA, and there is none to train on"
    return limits.problem(name, value) if value else None


def _permission(power_limit: int, gpu_clock: int, accelerator: str) -> str | None:
    if not (power_limit or gpu_clock) or device(accelerator) != "gpu":
        return None
    return limits.no_permission()


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
    Constraint(("power_limit", "accelerator"), _power_limit),
    Constraint(("gpu_clock", "accelerator"), _gpu_clock),
    Constraint(("power_limit", "gpu_clock", "accelerator"), _permission),
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


def check_gpus(runs: Sequence[Settings], gpus: Sequence[str], each: int = 1) -> None:
    """Whether runs can have their GPUs: what one sets of a GPU, all others on it would suffer.

    Args:
        runs: those to start.
        gpus: where to, as CUDA_VISIBLE_DEVICES takes them.
        each: how many may share one at a time.

    Raises:
        UserError: another run of greenseg has one of them and limits do not allow for both, or these runs would share
            one while some of them set a limit; all reasons.
    """
    runs = [run for run in runs if device(run.accelerator) == "gpu"]
    if not runs:
        return
    alone = any(limits.wanted(run) for run in runs)
    problems = limits.blocked(gpus, alone)
    if alone and each > 1:
        problems.append(
            f"--jobs: {each} runs would share a GPU, and power_limit and gpu_clock hold for a whole GPU: each would "
            f"suffer what another sets. Leave --jobs out, or give at most {len(gpus)}: one run a GPU"
        )
    if problems:
        raise UserError(problems)
