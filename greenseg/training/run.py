"""A run from start to end: data, network, Trainer, energy, record."""

import functools
import os
import platform
import resource
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from greenseg import __version__
from greenseg.data import cache
from greenseg.data import content as contents
from greenseg.data.content import Content
from greenseg.data.loader import SliceDataset, TrainingBatches, ValidationBatches, loader
from greenseg.data.splits import split_csv, test_cases_of
from greenseg.energy import EnergyMeter, EnergyMonitor
from greenseg.errors import UserError
from greenseg.failures import Failure, kind_of
from greenseg.files import write_atomically
from greenseg.machine import claims, levers
from greenseg.machine.cores import usable_cores
from greenseg.models import network
from greenseg.runs.attempt import Machine, Recording
from greenseg.runs.directory import RunDirectory
from greenseg.runs.index import Entry
from greenseg.runs.lineage import ancestors_of
from greenseg.runs.record import (
    Context,
    Data,
    Error,
    Memory,
    Network,
    Probes,
    Ran,
    Record,
    Status,
)
from greenseg.runs.summary import training_joules
from greenseg.settings import Settings
from greenseg.strategies import STRATEGIES
from greenseg.training import events, probe
from greenseg.training.checkpoints import Checkpoints, Last, Pause, PlainFiles, Unusable, read_last
from greenseg.training.cluster import OwnSignals, cluster_environment
from greenseg.training.compressed import convert_parent, for_finetuning, pruned, teacher_of
from greenseg.training.figures import predictor_of, validate
from greenseg.training.hardware import hardware, method
from greenseg.training.module import Segmentation
from greenseg.training.recorder import Recorder
from greenseg.training.task import Task
from greenseg.training.test_part import test

_PACKAGES = (
    "torch", "pytorch-lightning", "segmentation-models-pytorch", "timm", "torchmetrics", "kornia", "simpleitk", "zeus",
)  # fmt: skip


class Interrupted(BaseException):
    """The run received a request to stop (Ctrl-C, SIGTERM); it can continue later."""


def train(
    run: RunDirectory,
    settings: Settings,
    meter: EnergyMeter,
    rank: int,
    asked_to_stop: Callable[[], bool] = lambda: False,
    launch: str | None = None,
) -> None:
    """Train a run, or continue it from its last checkpoint, and keep its directory up to date.

    Args:
        run: an existing directory, locked by the caller.
        settings: settings of the run.
        meter: meter that has counted since this process started.
        rank: rank of this process in the run; only rank 0 writes.
        asked_to_stop: returns whether a signal asked this process to stop.
        launch: identity of the launch of all ranks; None if there is none.

    Raises:
        Exception: any error that ended the run; the record already has it.
        Interrupted: the run was asked to stop; the record already has it.
    """
    monitor = EnergyMonitor(meter, resumes=_was_paused(run, rank))
    context = Context.model_validate_json(os.environ.get(events.CONTEXT, "{}"))
    here = Machine(hardware(), versions(), method(meter))
    recording = Recording(run, settings, here, context, writes=rank == 0, launch=launch)
    unrestored: list[str] = []

    def end(status: Status, error: Error | None = None) -> None:
        difference = _difference(monitor)
        memory = _peak_memory(recording.record.memory)
        recording.end(status, monitor.phases, difference, memory, error, unrestored)

    status: Status
    try:
        last = _last(run, recording)
        # The rank that drives a node's first GPU sets the limits of all its GPUs.
        gpus = settings.devices if meter.gpus == (0,) else 0
        with claims.limited(levers.wanted(settings), gpus, unrestored) as limits_set:
            status = _fit(run, settings, monitor, rank, recording, last, limits_set)
    except Interrupted:
        end("interrupted")
        raise
    except BaseException as error:
        if asked_to_stop():  # a worker that was also stopped may have raised an error first
            end("interrupted")
            raise Interrupted from error
        kind = kind_of(error)
        # A full disk is no failure of the run: the same command continues it once there is space.
        status = "interrupted" if kind == Failure.DISK_FULL else "failed"
        end(status, Error(kind=kind, type=type(error).__name__, message=str(error)))
        raise
    end(status)


def _was_paused(run: RunDirectory, rank: int) -> bool:
    """Whether the last attempt of a run ended in a pause; unless this is rank 0, the record already has a new one."""
    record = run.record()
    ended = (record.attempts if record else [])[: None if rank == 0 else -1]
    return bool(ended) and ended[-1].status == "paused"


def _difference(monitor: EnergyMonitor) -> dict[str, float]:
    """Share by which the phases differ from one window over all of them; ends the measurement."""
    try:
        return monitor.close()
    except Exception as error:  # a lost driver must not prevent the record, or hide the first error
        print(f"energy: cannot read the last window: {error}", file=sys.stderr)
        return {"unread": 1.0}


def _last(run: RunDirectory, recording: Recording) -> Last | None:
    """The checkpoint to continue from; None if there is no usable one."""
    try:
        return read_last(run, recording.earlier_id)
    except Unusable as why:
        _start_over(run, recording, why)
        return None


def _start_over(run: RunDirectory, recording: Recording, why: Unusable) -> None:
    recording.attempt.started_over = str(why)
    message = f"{run.last_checkpoint}: {why}. The run starts over; its joules include those of the earlier epochs"
    if recording.writes:
        print(message, file=sys.stderr)
        events.emit({"event": "warning", "message": message})
    recording.save()


def _fit(
    run: RunDirectory,
    settings: Settings,
    monitor: EnergyMonitor,
    rank: int,
    recording: Recording,
    last: Last | None,
    limits_set: dict[str, Any],
) -> Status:
    """Train, from the slices to the figures of the best epoch, or to a pause; returns which. The record first gets the
    values in effect.
    """
    events.emit({"event": "start"})
    monitor.preparation()
    slices = _prepare(run, settings, rank, recording, goes_on=last is not None)
    assert slices.content is not None
    ancestors = ancestors_of(run, settings, slices.content)
    if ancestors.lineage.ancestors:
        recording.record.lineage = ancestors.lineage
        recording.save()
    if settings.converts:
        assert ancestors.parent is not None
        _compute_reproducibly(settings)
        if rank == 0:  # the network is on one device
            convert_parent(run, settings, slices, ancestors.parent, recording.record, monitor)
            _record_method(monitor, recording)
        return "finished"
    training = SliceDataset(slices, "train", settings.drop_empty_slices, settings.seed)
    validation = SliceDataset(slices, "validation")
    monitor.startup()
    # Everything that affects results is set before the probes, so that they measure the actual training.
    _compute_reproducibly(settings)
    task = Task.of(slices)
    known = run.record() if rank > 0 or last else None  # rank 0 may have written it just now
    if ancestors.parent:
        known, settings = ancestors.parent.record(), for_finetuning(settings)
    settings, probes = _chosen(settings, training, task, monitor, known)
    pl.seed_everything(settings.seed, verbose=False)  # again, since probes draw random numbers
    made = None
    if ancestors.parent:
        monitor.compression()
        made = pruned(run, settings, task, ancestors.parent)
        monitor.startup()
    teacher = teacher_of(ancestors.teacher, task) if ancestors.teacher else None
    module = Segmentation(settings, validation.subjects, task, made, teacher)
    if last:
        try:
            last.check_network(module)
        except Unusable as why:
            last = None
            _start_over(run, recording, why)
    assert recording.record.id
    checkpoints = Checkpoints(run, recording.record.id)
    pause = Pause(int(os.environ.get(events.UNTIL) or settings.epochs))
    trainer = _trainer(settings, [*_callbacks(settings, run, recording, monitor, checkpoints), pause])
    on_cpu = trainer.strategy.root_device.type == "cpu"
    batch_size, workers, ranks = int(settings.batch_size), int(settings.workers), trainer.world_size
    batches = TrainingBatches(len(training), batch_size, settings.seed, rank, ranks)
    batches.set_epoch(last.epoch + 1 if last else 0)  # Lightning does this only after workers have begun to load
    record = recording.record
    record.network = Network(parameters=network.parameters(module.network))
    record.ran = _ran(settings, trainer, batches, limits_set)
    record.probes = probes
    record.data = _data(slices, training, validation, batches)
    recording.save()
    trainer.fit(
        module,
        loader(training, batches, workers, pin_memory=not on_cpu),
        loader(
            validation,
            ValidationBatches(len(validation), batch_size, rank, ranks),
            workers,
            pin_memory=not on_cpu,
        ),
        ckpt_path=str(run.last_checkpoint) if last else None,
        weights_only=True,
    )
    if pause.paused:
        _record_method(monitor, recording)
        return "paused"
    if rank == 0 and checkpoints.best_epoch is not None:
        on = trainer.strategy.root_device, str(trainer.precision), module.network
        _add_figures(run, settings, slices, checkpoints.best_epoch, batch_size, on, recording, monitor)
    _record_method(monitor, recording)
    return "finished"


def _record_method(monitor: EnergyMonitor, recording: Recording) -> None:
    recording.record.energy_method = method(monitor.meter)  # with the GPU in use instead of the expected one
    recording.save()


def _add_figures(
    run: RunDirectory,
    settings: Settings,
    slices: cache.Slices,
    best: int,
    batch_size: int,
    on: tuple[torch.device, str, torch.nn.Module],
    recording: Recording,
    monitor: EnergyMonitor,
) -> None:
    """Measure the network of the best epoch on the files of the validation subjects and of the test part.

    `on` has the device and precision of the training, and its network.
    """
    try:
        predictor = predictor_of(run, settings, slices, best, *on)
    except (UserError, OSError) as error:  # the training is done; the figures of its epochs stay
        message = f"no figures in the pixels of the files: {error}"
        print(message, file=sys.stderr)
        events.emit({"event": "warning", "message": message})
        return
    recording.record.validation = validate(predictor, slices, best, batch_size)
    recording.record.test = test(predictor, settings, slices, best, batch_size, monitor)


def _prepare(run: RunDirectory, settings: Settings, rank: int, recording: Recording, goes_on: bool) -> cache.Slices:
    """The slices of the run; also writes the files about their content to its directory."""
    slices = cache.prepare(settings)
    content = slices.content
    assert content is not None
    _check_content(run, settings, content, goes_on)
    if rank == 0:
        test = test_cases_of(settings, cache.data_root(settings))
        write_atomically(run.path / "split.csv", split_csv([*slices.cases, *test]))
        run.create(settings, content.to_json())
    record = recording.record
    record.content, record.files, record.preprocessing = content.digest, content.files, content.preprocessing
    recording.save()
    return slices


def _compute_reproducibly(settings: Settings) -> None:
    """Set threads, precision, seed and deterministic algorithms of this process.

    The same configuration and seed on the same machine give the same metrics.
    """
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        threads = int(os.environ.get(events.THREADS) or usable_cores())
        torch.set_num_threads(max(1, threads // settings.devices))
    else:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))  # torch ignores the quota of a container
    torch.set_float32_matmul_precision(settings.matmul_precision)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # CUDA reads it on its first use
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # In deterministic runs, torch fills all new memory with NaN to reveal code that reads it before writing.
    # No layer does this, and filling took 8 % of a step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    pl.seed_everything(settings.seed, verbose=False)


def _callbacks(
    settings: Settings, run: RunDirectory, recording: Recording, monitor: EnergyMonitor, checkpoints: Checkpoints
) -> list[pl.Callback]:
    """The callbacks. The monitor comes first, so that epochs do not include the others."""
    stopping: list[pl.Callback] = []
    if settings.early_stopping:
        stopping = [EarlyStopping("dice", mode="max", patience=settings.early_stopping, check_finite=False)]
    earlier = recording.earlier
    spent = sum(training_joules(attempt.energy or {}) for attempt in earlier)
    recorder = Recorder(run, len(earlier), monitor, checkpoints, spent)
    return [OwnSignals(), monitor, *stopping, recorder, checkpoints]


def _trainer(settings: Settings, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=settings.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=STRATEGIES[settings.strategy].make(settings.processes),
        num_nodes=settings.nodes,
        precision=settings.precision,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=callbacks,
        plugins=[PlainFiles(), cluster_environment(settings)],
        use_distributed_sampler=False,  # our samplers keep the seed and do not pad validation
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,  # the process that started the run shows progress
        enable_model_summary=False,
    )


def _ran(settings: Settings, trainer: pl.Trainer, batches: TrainingBatches, limits_set: dict[str, Any]) -> Ran:
    batch_size = int(settings.batch_size)
    return Ran(
        precision=str(trainer.precision),
        accelerator=trainer.strategy.root_device.type,
        strategy=type(trainer.strategy).__name__,
        devices=trainer.num_devices,
        nodes=trainer.num_nodes,
        threads=torch.get_num_threads(),
        workers=int(settings.workers),
        batch_size=batch_size,
        lr=float(settings.lr),
        # At the end of an epoch, Lightning takes a step with the remaining batches.
        effective_batch_size=min(batch_size * trainer.world_size * settings.accumulate, batches.slices),
        **limits_set,
    )


def _data(slices: cache.Slices, training: SliceDataset, validation: SliceDataset, batches: TrainingBatches) -> Data:
    more: dict[str, Any] = {"windows": slices.windows} if slices.windows else {}
    if len(slices.classes) > 1 or slices.channels > 1:
        named = zip(slices.classes.names, slices.classes.labels, strict=True)
        more |= {"classes": {name: "+".join(map(str, labels)) for name, labels in named}, "channels": slices.channels}
    return Data(
        cache=slices.folder.name,
        slices={"train": len(training), "validation": len(validation)},
        slices_per_epoch={"train": batches.slices, "validation": len(validation)},
        bytes=slices.bytes,
        subjects={"train": training.subjects, "validation": validation.subjects},
        preparation=slices.index["preparation"],
        **more,
    )


def _chosen(
    settings: Settings, training: SliceDataset, task: Task, monitor: EnergyMonitor, record: Record | None
) -> tuple[Settings, Probes]:
    """The settings with measured values in place of `auto`, and the measurements.

    Runs that continue, and ranks above 0, keep the values that rank 0 chose at the start, from the `record`. A pruned
    run has the values of its parent.
    """
    known, probes = (record.ran, record.probes.given()) if record else (Ran(), {})
    # The learning rate depends on the batch size, and so does the time to load a batch.
    for name, choose in (
        ("batch_size", functools.partial(probe.batch_size, measure=monitor.probe)),
        ("lr", probe.learning_rate),
        ("workers", probe.workers),
    ):
        if getattr(settings, name) != "auto":
            continue
        value = getattr(known, name)
        if value is None:
            monitor.probe()
            value, probes[name] = choose(settings, training, task=task)
        settings = settings.model_copy(update={name: value})
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()  # the run may need less memory than the probes
    monitor.startup()
    return settings, Probes(**probes)


def _check_content(run: RunDirectory, settings: Settings, content: Content, goes_on: bool) -> None:
    """Check that a run begins or continues with the content that it was made for.

    Raises:
        UserError: the data changed.
    """
    planned = contents.read(run.content)
    if planned is None:
        entry = Entry(run, run.record())
        if not goes_on or entry.same_content(settings, content) is not False:
            return
        planned = entry.content_then(settings, content)
    elif planned == content:
        return
    difference = content.difference(planned) if planned else "its files or their split changed"
    raise UserError(
        f"{settings.data}: not the data that this run was made for ({difference}). To continue it, restore the earlier "
        f"data or the greenseg version that prepared them. To start over, use --again"
    )


def _peak_memory(before: Memory) -> Memory:
    """Peak memory of this process and of earlier attempts."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    host = round(max(most / 1e9, before.host_gb or 0.0), 3)
    if not torch.cuda.is_available():
        return Memory(host_gb=host)
    return Memory(host_gb=host, gpu_gb=round(max(torch.cuda.max_memory_allocated() / 1e9, before.gpu_gb or 0.0), 3))


@functools.cache
def versions() -> dict[str, str]:
    """Package → version, for the packages that affect a run."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    return {"greenseg": __version__, "python": platform.python_version()} | packages
