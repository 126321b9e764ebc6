"""Run directories written by hand, as `greenseg.training` writes them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from greenseg.config import Settings
from greenseg.run_directory import RunDirectory

Json = dict[str, Any]


def energy(seconds: float = 1.0, **joules: float) -> Json:
    """`energy(2, gpu_nvml=30, cpu_estimate=4)`: what an energy looks like in a record."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in joules.items():
        component, source = name.split("_")
        parts.setdefault(component, {})[source] = value
    return {"seconds": seconds, "joules": parts}


def epoch(
    number: int,
    attempt: int = 0,
    *,
    dice: float | None = 0.5,
    train: Json | None = None,
    validation: Json | None = None,
    so_far: Mapping[str, Json] | None = None,
) -> Json:
    """A line of epochs.jsonl."""
    train = train or energy(3, cpu_estimate=30)
    validation = validation or energy(1, cpu_estimate=10)
    return {
        "epoch": number,
        "attempt": attempt,
        "train_loss": 1 / (number + 1),
        "dice": dice,
        "iou": None if dice is None else dice / (2 - dice),
        "volume_dice": {"a": dice, "b": dice},
        "seconds": 4.5,
        "train": train,
        "validation": validation,
        "attempt_so_far": so_far or {"startup": energy(2, cpu_estimate=2), "train": train, "validation": validation},
    }


def record(
    values: Mapping[str, Any] | None = None,
    status: str = "finished",
    *,
    dice: float = 0.8,
    total: Json | None = None,
    joules_per_epoch: float = 40.0,
    ran: str | None = None,
    unmeasured: Sequence[str] = (),
    error: str | None = None,
) -> Json:
    """The run.json of a run with these settings, after its end (or, where it is `running`, before it)."""
    settings = Settings.model_validate(values or {})  # a record may hold what does not go together
    total = total or energy(100, cpu_estimate=1000, dram_estimate=50)
    joules = sum(value for by in total["joules"].values() for value in by.values())
    ended: Json = {
        "energy": {"total": total, "phases": {"train": total}},
        "metrics": {
            "seconds": total["seconds"],
            "joules": joules,
            "epochs": settings.epochs,
            "dice": dice,
            "iou": dice / (2 - dice),
            "volume_dice": {"a": dice, "b": dice},
            "best_epoch": 0,
            "last_dice": dice,
            "joules_per_epoch": joules_per_epoch,
        },
    }
    attempt: Json = {"status": status, "started": "2026-01-01T00:00:00+00:00", "host": "here", "pid": 1}
    return {
        "schema": 1,
        "status": status,
        "identity": settings.identity,
        "configuration": settings.configuration,
        "settings": settings.resolved(),
        "started": "2026-01-01T00:00:00+00:00",
        "attempts": [attempt if status == "running" else attempt | {"energy": {"train": total}}],
        "hardware": {"host": "here", "cpu": "some CPU", "cores": 2, "gpus": []},
        "versions": {"greenseg": "0.1.0"},
        "network": {"parameters": 1_234_567},
        "ran": {"precision": ran or settings.precision, "accelerator": "cpu", "devices": 1, "threads": 2},
        "energy_method": {
            "sensors_missing": {"rapl": "not readable"},
            "unmeasured": dict.fromkeys(unmeasured, "no sensor"),
            "watts_per_core": 10.0,
            "watts_per_gb": 0.4,
        },
        **({} if status == "running" else ended),
        **({"error": {"type": error, "message": "it went wrong"}} if error else {}),
    }


def write(root: Path, written: Json, epochs: Sequence[Json] = ()) -> RunDirectory:
    """The directory of a run with this run.json and these epochs."""
    settings = Settings.of(written["settings"])
    run = RunDirectory(root / settings.slug)
    run.create(settings)
    run.write_record(written)
    if epochs:
        (run.path / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs))
    return run
