"""Run directories written by hand, as `greenseg.training` writes them."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from greenseg.energy.reading import EnergyJson
from greenseg.files import write_json
from greenseg.leases import Holder
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import (
    SCHEMA,
    Attempt,
    Constants,
    EnergyMethod,
    Epoch,
    Error,
    Hardware,
    Metrics,
    Network,
    Ran,
    Record,
    RunEnergy,
    Status,
)
from greenseg.runs.summary import account_for_attempts, summary
from greenseg.settings import Settings

Json = dict[str, Any]

CORE_WATTS, GB_WATTS = [10.0, 10.0, 10.0], [0.4, 0.4, 0.4]


def energy(seconds: float = 1.0, **joules: float) -> Json:
    """`energy(2, gpu_nvml=30, cpu_estimate=4)`: what an energy looks like in a record."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in joules.items():
        component, source = name.split("_")
        parts.setdefault(component, {})[source] = value
    return {"seconds": seconds, "joules": parts}


def _energy(value: Json) -> EnergyJson:
    return cast(EnergyJson, value)


def _energies(values: Mapping[str, Json]) -> dict[str, EnergyJson]:
    return {phase: _energy(value) for phase, value in values.items()}


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
    so_far = so_far or {"startup": energy(2, cpu_estimate=2), "train": train, "validation": validation}
    return Epoch(
        epoch=number,
        attempt=attempt,
        train_loss=1 / (number + 1),
        dice=dice,
        iou=None if dice is None else dice / (2 - dice),
        volume_dice={"a": dice, "b": dice},
        seconds=4.5,
        train=_energy(train),
        validation=_energy(validation),
        attempt_so_far=_energies(so_far),
    ).to_json()


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
    kind: str | None = None,
    parameters: int = 1_234_567,
    hardware: Mapping[str, Any] | None = None,
    on_grid: bool = False,
) -> Json:
    """The run.json of a run with these settings, after its end (or, where it is `running`, before it).

    Where its quality is that on the training grid, an earlier version wrote it.
    """
    settings = Settings.model_validate(values or {})  # a record may hold what does not go together
    total = total or energy(100, cpu_estimate=1000, dram_estimate=50)
    hardware = {"host": "here", "cpu": "some CPU", "cores": 2, "gpus": [], **(hardware or {})}
    attempt = Attempt(
        status=status, started="2026-01-01T00:00:00+00:00", host="here", pid=1, cpu=hardware["cpu"],
        estimate=Constants(core_watts=CORE_WATTS, gb_watts=GB_WATTS),
    )  # fmt: skip
    made = Record(
        schema=SCHEMA,
        status=cast(Status, status),
        identity=settings.identity,
        configuration=settings.configuration,
        settings=settings.resolved(),
        started="2026-01-01T00:00:00+00:00",
        attempts=[attempt],
        hardware=Hardware(**hardware),
        versions={"greenseg": "0.1.0"},
        network=Network(parameters=parameters),
        ran=Ran(precision=ran or settings.precision, accelerator="cpu", devices=1, threads=2),
        energy_method=EnergyMethod(
            sensors_missing={"rapl": "not readable"},
            unmeasured=dict.fromkeys(unmeasured, "no sensor"),
            core_watts=CORE_WATTS,
            gb_watts=GB_WATTS,
        ),
    )
    if status != "running":
        attempt.energy = _energies({"train": total})
        made.energy = RunEnergy(total=_energy(total), phases=_energies({"train": total}))
        made.metrics = Metrics(
            seconds=total["seconds"],
            joules=sum(value for by in total["joules"].values() for value in by.values()),
            epochs=settings.epochs,
            dice=dice,
            iou=dice / (2 - dice),
            volume_dice={"a": dice, "b": dice},
            hd95=50 * (1 - dice),
            best_epoch=0,
            last_dice=dice,
            joules_per_epoch=joules_per_epoch,
        )
        if not on_grid:
            made.metrics.on_grid, made.metrics.epoch_dice = False, dice
    if error:
        made.error = Error(type=error, message="it went wrong", **({"kind": kind} if kind else {}))
    return made.to_json()


def estimate_with(written: Json, core_watts: Sequence[float], gb_watts: Sequence[float]) -> None:
    """Make it a record of estimates by these constants: watts of a core and of a GB, each with its low and high end."""
    constants = {"core_watts": core_watts, "gb_watts": gb_watts}
    written["energy_method"] |= constants
    for attempt in written["attempts"]:
        attempt["estimate"] = constants


def recorded(run: RunDirectory) -> Json:
    """The content of its run.json, which must be one that greenseg can read."""
    assert run.record() is not None
    found: Json = json.loads((run.path / "run.json").read_bytes())
    return found


def lines_of(run: RunDirectory) -> list[Json]:
    """The lines of its epochs.jsonl."""
    return [line.to_json() for line in run.epochs()]


def typed(written: Mapping[str, Any]) -> Record:
    """A record from plain values, of a finished run without settings where these do not tell."""
    return Record.from_json({"status": "finished", "settings": {}, **written})


def summary_of(written: Mapping[str, Any], epochs: Sequence[Json]) -> Json:
    """What `greenseg.runs.summary` says of a record and its epochs: the same keys as in run.json."""
    found = summary(typed(json.loads(json.dumps(written))), [Epoch.model_validate(line) for line in epochs])
    return {"energy": found.energy.to_json(), "metrics": found.metrics.to_json()}


def accounted(attempts: Sequence[Json], epochs: Sequence[Json]) -> list[Json]:
    """`account_for_attempts`, of plain values."""
    lines = [Epoch.model_validate(line) for line in epochs]
    return [each.to_json() for each in account_for_attempts([Attempt.model_validate(one) for one in attempts], lines)]


def append(run: RunDirectory, line: Json) -> None:
    """Append a line to its epochs.jsonl."""
    run.append_epoch(Epoch.model_validate(line))


def write_record(run: RunDirectory, written: Json) -> None:
    """Write its run.json, whatever that is."""
    write_json(run.path / "run.json", written)


def write(root: Path, written: Json, epochs: Sequence[Json] = ()) -> RunDirectory:
    """The directory of a run with this run.json and these epochs."""
    settings = Settings.of(written["settings"])
    run = RunDirectory(root / settings.slug)
    run.create(settings)
    write_record(run, written)
    if epochs:
        (run.path / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs))
    return run


def write_many(root: Path, number: int, epochs: int = 50, repeats: int = 3) -> None:
    """So many run directories of a grid, as large as real ones: quality and joules follow a rule, with some noise.

    One configuration in 25 runs out of GPU memory. Deterministic.
    """
    random = Random(0)
    grid = product(
        (0.003, 0.001, 0.01, 0.0003, 0.02, 0.005, 0.0001, 0.03, 0.002, 0.0005),
        (0.01, 0.0, 0.1),
        ("resnet18", "mobilenet_v2", "resnet34", "efficientnet-b0", "resnet50", "tu-mobilenetv3_small_050"),
        ("unet", "fpn", "linknet"),
        ("32-true", "16-mixed", "bf16-mixed"),
        (8, 16, 32, 64),
    )
    sizes = {"resnet18": 14e6, "mobilenet_v2": 6.6e6, "resnet34": 24e6, "efficientnet-b0": 6e6, "resnet50": 32e6}
    seeds = cycle(range(repeats))
    for _ in range(number):
        if (seed := next(seeds)) == 0:
            lr, decay, encoder, decoder, precision, batch = next(grid)
            cost = (
                (sizes.get(encoder, 2.2e6) / 2e6) ** 0.6
                * (1 if precision == "32-true" else 0.62)
                * 40_000
                * random.uniform(0.8, 1.25)
            )
            cost *= {"unet": 1.0, "fpn": 0.8, "linknet": 0.7}[decoder] * (1 + 2 / batch)
            level = (
                0.93 - 0.25 / math.log10(cost) ** 2 - 0.02 * abs(math.log10(lr / 0.003)) - abs(random.gauss(0, 0.02))
            )
            fails = random.random() < 0.04
        values = {
            "encoder": encoder, "decoder": decoder, "precision": precision, "batch_size": batch, "epochs": epochs,
            "lr": lr, "weight_decay": decay, "seed": seed,
        }  # fmt: skip
        joules = cost * random.uniform(0.97, 1.03)
        total = energy(joules / 180, gpu_nvml=0.8 * joules, cpu_rapl=0.17 * joules, dram_rapl=0.03 * joules)
        dice = min(max(random.gauss(level, 0.006), 0.0), 1.0)
        written = record(
            values, "failed" if fails else "finished", dice=dice, total=total, joules_per_epoch=joules / epochs,
            parameters=int(sizes.get(encoder, 2.2e6)), error="OutOfMemoryError" if fails else None,
            kind="out_of_gpu_memory" if fails else None, hardware={"gpus": ["NVIDIA A100-SXM4-40GB"]},
        )  # fmt: skip
        phases = ("startup", "preparation", "train", "validation", "other")
        written["energy"]["phases"] = dict.fromkeys(phases, total)
        written["attempts"][0]["energy"] = dict.fromkeys(phases, total)
        subjects = [f"case{i:04d}" for i in range(60)]
        written["data"] = {"slices": {"train": 2000, "validation": 500}, "subjects": {"train": subjects}}
        if fails:
            for name in ("dice", "iou", "volume_dice", "best_epoch", "last_dice"):
                del written["metrics"][name]
        # Straight to the files: the fsyncs of `write` take longer than all else.
        settings = Settings.of(values)
        folder = root / settings.slug
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(
            "".join(f"{name}: {value}\n" for name, value in settings.resolved().items())
        )
        (folder / "run.json").write_text(json.dumps(written, indent=2))
        part = energy(joules / 180 / epochs, gpu_nvml=0.8 * joules / epochs, cpu_rapl=0.2 * joules / epochs)
        lines = (
            epoch(i, dice=dice * (1 - math.exp(-5 * (i + 1) / epochs)), train=part, validation=energy(1, cpu_rapl=1.0))
            for i in range(epochs)
        )
        (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def held_by(run: RunDirectory, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have another process claim a run and disappear."""
    with monkeypatch.context() as patch:
        patch.setattr(Holder, "here", classmethod(lambda cls: holder))
        patch.setattr("greenseg.leases.Lease.release", lambda lease: None)
        with run.claim() as mine:
            assert mine
