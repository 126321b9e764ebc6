"""`greenseg doctor`: what this machine can measure and run."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    idle: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long to measure the idle machine.")] = 10.0,
) -> None:
    """Show what this machine can measure and run, why the rest is missing, and how to fix it."""
    from greenseg.cli.view import print_uncut, warn
    from greenseg.energy.doctor import examine
    from greenseg.machine import claims, preflight

    unrestored = claims.restore()
    found = examine(idle) | {"limits": preflight.examine(), "unrestored": unrestored, "run": _what_runs()}
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_uncut(_sheet(found))
    for message in unrestored:
        warn(message)


def _what_runs() -> dict[str, Any]:
    import logging
    import os
    import shutil

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import torch
    from pytorch_lightning.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator

    from greenseg.machine.cores import usable_cores
    from greenseg.machine.preflight import strategy_problem
    from greenseg.strategies import STRATEGIES

    kinds = {"cpu": CPUAccelerator, "gpu": CUDAAccelerator, "mps": MPSAccelerator}
    names = [name for name, kind in kinds.items() if kind.is_available()]
    problems = {name: strategy_problem(name, "auto") for name in STRATEGIES}
    return {
        "torch": torch.__version__,
        "accelerators": names,
        "cores": usable_cores(),
        "strategies": [name for name, problem in problems.items() if not problem],
        "strategies_missing": {name: problem for name, problem in problems.items() if problem},
        "slurm": {"sbatch": shutil.which("sbatch"), "job": os.environ.get("SLURM_JOB_ID")},
    }


def _sheet(found: dict[str, Any]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    sheet = Table.grid(padding=(0, 2))
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        sheet.add_row(name, Text(text))  # the text of a driver may look like markup

    kinds = [
        name for name, there in (("virtual machine", "virtual_machine"), ("container", "container")) if found[there]
    ]
    row("cpu", ", ".join([found["cpu"] or "unknown", *kinds]))
    for component, how in found["components"].items():
        row(f"{component} energy", how["source"])
        if "why" in how:
            row("", f"why: {how['why']}")
            row("", f"remedy: {how['remedy']}")
    for gpu in found["gpus"]:
        mig = " MIG on," if gpu.get("mig") else ""
        text = f"{gpu['name']}, {gpu.get('uuid', 'no UUID')},{mig} {gpu['reads']}"
        if gpu["counter_period_ms"]:
            text += f", updated every {gpu['counter_period_ms']:g} ms"
        row(f"gpu {gpu['index']}", f"{text}, used by {gpu['processes']} processes")
    for gpu in found["limits"]:
        takes = [f"{name} {bounds[0]} to {bounds[1]}" for name, bounds in gpu["bounds"].items() if bounds]
        now = f" (now {gpu['power_limit']:g})" if gpu["power_limit"] else ""
        may = "you may set them" if gpu["may_be_set"] else "no permission to set them: needs root or zeusd"
        row(f"limits of gpu {gpu['gpu']}", f"{', '.join(takes) or 'none'}{now}; {may}")
    if found["rapl_counter_period_ms"]:
        row("rapl", f"updated every {found['rapl_counter_period_ms']:g} ms")
    if found["idle_watts"] is not None:
        watts = ", ".join(f"{name} {value:.1f} W" for name, value in found["idle_watts"].items())
        row("idle", watts or "cannot be measured without a sensor")
    (_, low, high), basis = found["estimate"]["core_watts"], found["estimate"]["basis"]
    row("estimate", f"{basis}; a busy core may draw {low:.3g} to {high:.3g} W")
    run = found["run"]
    row("accelerators", f"{', '.join(run['accelerators'])}; {run['cores']} cores; torch {run['torch']}")
    row("strategies", ", ".join(run["strategies"]))
    for name, why in run["strategies_missing"].items():
        row("", f"not {name}: {why}")
    slurm = run["slurm"]
    row("slurm", f"job {slurm['job']}" if slurm["job"] else slurm["sbatch"] or "not available (no sbatch on the path)")
    return sheet
